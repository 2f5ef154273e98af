"""What a disk may hold after a crash: durable contents, and effects that may or may not have reached it.

The rules are weaker than those of any file system in use. Data are durable after fsync or fdatasync of the file,
names after fsync of the directory; whatever is not durable yet may be lost or kept, each effect for itself. A rename
within one directory is atomic; between two, the new name may be there beside the old one, but never neither. A sector
of 512 bytes is written whole or not at all: liblmdb's commit, 120 bytes of a page, rests on that.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

from fault_harness.shim import Kind
from fault_harness.trace import Event


@dataclass(eq=False)
class File:
    """A file's durable bytes."""

    content: bytes = b""


@dataclass(eq=False)
class Directory:
    """A directory's durable entries."""

    entries: dict[str, "Node"] = field(default_factory=dict)


Node = File | Directory


@dataclass(eq=False, frozen=True)
class DataEffect:
    """Bytes written, or a new length if `data` is None."""

    file: File
    offset: int
    data: bytes | None

    def applied(self, content: bytes) -> bytes:
        """The file's content after it."""
        if self.data == b"":
            return content
        if self.data is None:
            return content[: self.offset].ljust(self.offset, b"\0")
        return content[: self.offset].ljust(self.offset, b"\0") + self.data + content[self.offset + len(self.data) :]

    def without_new_bytes(self, durable_length: int) -> "DataEffect":
        """What is left when the file's new length arrived and the bytes did not: zeros in what was new."""
        if self.data is None or self.offset + len(self.data) <= durable_length:
            return DataEffect(self.file, self.offset, b"")
        begin = max(self.offset, durable_length)
        return DataEffect(self.file, begin, bytes(self.offset + len(self.data) - begin))

    def overlaps(self, other: "DataEffect") -> bool:
        """Whether both change some of the same bytes."""
        if self.data is None or other.data is None:
            return True
        return self.offset < other.offset + len(other.data) and other.offset < self.offset + len(self.data)


@dataclass(eq=False, frozen=True)
class NameEffect:
    """An entry of a directory gets a node, or (None) goes."""

    directory: Directory
    changes: tuple[tuple[str, Node | None], ...]


Effect = DataEffect | NameEffect
# Paths of files with their contents, and of directories with None.
Image = dict[str, bytes | None]


def load(path: Path) -> Directory:
    """What is on disk now, all of it durable; hard links stay links."""
    known: dict[tuple[int, int], File] = {}

    def node(entry: Path) -> Node:
        if entry.is_dir():
            return Directory({child.name: node(child) for child in sorted(entry.iterdir())})
        status = entry.stat()
        key = (status.st_dev, status.st_ino)
        if key not in known:
            known[key] = File(entry.read_bytes())
        return known[key]

    loaded = node(path)
    assert isinstance(loaded, Directory)  # noqa: S101
    return loaded


class Disk:
    """Replays events; `pending` are the effects that a crash may lose, in order."""

    def __init__(self, root: Directory) -> None:
        self.root = root
        self.pending: list[Effect] = []
        # As the program sees it: everything has happened.
        self._entries: dict[Directory, dict[str, Node]] = {}
        self._lengths: dict[File, int] = {}
        self._descriptors: dict[int, tuple[Node, bool]] = {}

    def _current(self, directory: Directory) -> dict[str, Node]:
        return self._entries.setdefault(directory, dict(directory.entries))

    def _find(self, path: str) -> Node | None:
        node: Node | None = self.root
        for name in path.split("/") if path else []:
            node = self._current(node).get(name) if isinstance(node, Directory) else None
        return node

    def _place(self, path: str) -> tuple[Directory, str]:
        parent, _, name = path.rpartition("/")
        directory = self._find(parent)
        if not isinstance(directory, Directory):
            raise TypeError(f"no directory for {path}")
        return directory, name

    def _name(self, directory: Directory, *changes: tuple[str, Node | None]) -> None:
        self.pending.append(NameEffect(directory, changes))
        for name, node in changes:
            if node is None:
                self._current(directory).pop(name, None)
            else:
                self._current(directory)[name] = node

    def _length(self, file: File) -> int:
        return self._lengths.get(file, len(file.content))

    def replay(self, event: Event) -> list[Effect]:
        """Takes one event in; gives the effects that its return makes durable: commit them with `flush`."""
        match event.kind:
            case Kind.OPEN:
                self._open(event)
            case Kind.CLOSE:
                self._descriptors.pop(event.descriptor, None)
            case Kind.WRITE:
                return self._write(event)
            case Kind.TRUNCATE | Kind.ALLOCATE:
                file = self._descriptors[event.descriptor][0]
                length = event.offset if event.kind == Kind.TRUNCATE else max(event.offset, self._length(file))
                self.pending.append(DataEffect(file, length, None))
                self._lengths[file] = length
            case Kind.FSYNC | Kind.FDATASYNC:
                node = self._descriptors.get(event.descriptor, (None,))[0]
                return [e for e in self.pending if (e.file if isinstance(e, DataEffect) else e.directory) is node]
            case Kind.MKDIR:
                directory, name = self._place(event.path)
                self._name(directory, (name, Directory()))
            case Kind.UNLINK | Kind.RMDIR:
                directory, name = self._place(event.path)
                self._name(directory, (name, None))
            case Kind.LINK | Kind.RENAME:
                self._move(event)
        return []

    def _open(self, event: Event) -> None:
        node = self._find(event.path)
        self._descriptors.pop(event.descriptor, None)
        if node is None:
            if not event.flags & os.O_CREAT:
                # Only in a record with a planted bug; what is opened for reading changes nothing.
                return
            directory, name = self._place(event.path)
            node = File()
            self._name(directory, (name, node))
        elif event.flags & os.O_TRUNC and isinstance(node, File):
            self.pending.append(DataEffect(node, 0, None))
            self._lengths[node] = 0
        self._descriptors[event.descriptor] = (node, event.is_synchronous)

    def _write(self, event: Event) -> list[Effect]:
        file, is_synchronous = self._descriptors[event.descriptor]
        effect = DataEffect(file, event.offset, event.data)
        self.pending.append(effect)
        self._lengths[file] = max(self._length(file), event.offset + len(event.data))
        if not is_synchronous:
            return []
        # Whole pages are written: what is older and in the same place goes with it.
        mine = [e for e in self.pending if isinstance(e, DataEffect) and e.file is file]
        return [e for e in mine if e is effect or e.overlaps(effect)]

    def _move(self, event: Event) -> None:
        node = self._find(event.path)
        source, old = self._place(event.path)
        target, new = self._place(event.second_path)
        if node is None:
            raise KeyError(f"moved without being there: {event.path}")
        if event.kind == Kind.LINK:
            self._name(target, (new, node))
        elif source is target:
            self._name(target, (new, node), (old, None))
        else:
            self._name(target, (new, node))
            self._name(source, (old, None))

    def flush(self, effects: list[Effect]) -> None:
        """Makes these effects durable."""
        durable = set(map(id, effects))
        for effect in list(self.pending):
            if id(effect) in durable:
                self._settle(effect)
        self.pending = [effect for effect in self.pending if id(effect) not in durable]

    def _settle(self, effect: Effect) -> None:
        if isinstance(effect, DataEffect):
            effect.file.content = effect.applied(effect.file.content)
            return
        for name, node in effect.changes:
            if node is None:
                effect.directory.entries.pop(name, None)
            else:
                effect.directory.entries[name] = node

    def image(self, kept: list[Effect]) -> Image:
        """What a disk holds that got these of the pending effects, in order, and no others."""
        contents: dict[int, bytes] = {}
        entries: dict[int, dict[str, Node]] = {}
        for effect in kept:
            if isinstance(effect, DataEffect):
                key = id(effect.file)
                contents[key] = effect.applied(contents.get(key, effect.file.content))
            else:
                names = entries.setdefault(id(effect.directory), dict(effect.directory.entries))
                for name, node in effect.changes:
                    if node is None:
                        names.pop(name, None)
                    else:
                        names[name] = node
        image: Image = {}

        def add(prefix: str, directory: Directory) -> None:
            for name, node in entries.get(id(directory), directory.entries).items():
                path = prefix + name
                if isinstance(node, Directory):
                    image[path] = None
                    add(path + "/", node)
                else:
                    image[path] = contents.get(id(node), node.content)

        add("", self.root)
        return image
