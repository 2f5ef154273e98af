"""Ways to damage a store: each case names what it changes, and puts it back."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SECTOR = 512
LOCK_FILE = "catalog/lock.mdb"
CATALOG_FILE = "catalog/data.mdb"
# Everything that liblmdb keeps in its lock file before the slots of readers, and the first of these.
LOCK_HEADER_BYTES = 1024


@dataclass(frozen=True)
class Case:
    """One damage: new contents of files (None: the file is gone), or one byte of one file."""

    kind: str
    name: str
    contents: tuple[tuple[str, bytes | None], ...] = ()
    byte: tuple[str, int, int] | None = None

    @property
    def paths(self) -> list[str]:
        """The files that are changed."""
        return [self.byte[0]] if self.byte else [path for path, _ in self.contents]

    def apply(self, store: Path) -> None:
        """Does the damage."""
        if self.byte:
            path, offset, value = self.byte
            _write_byte(store / path, offset, value)
        for path, content in self.contents:
            if content is None:
                (store / path).unlink()
            else:
                (store / path).write_bytes(content)

    def undo(self, store: Path, pristine: dict[str, bytes]) -> None:
        """Puts back what was there."""
        if self.byte and self.byte[0] != LOCK_FILE:
            path, offset, _ = self.byte
            _write_byte(store / path, offset, pristine[path][offset])
        else:
            for path in self.paths:
                (store / path).write_bytes(pristine[path])


def _write_byte(path: Path, offset: int, value: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(bytes([value]))


def flips(pristine: dict[str, bytes]) -> Iterator[Case]:
    """Every bit of every file; of the lock file's unused slots for readers, one bit of every byte."""
    for path, content in pristine.items():
        for offset in range(len(content)):
            is_slot = path == LOCK_FILE and offset >= LOCK_HEADER_BYTES
            for bit in range(8) if not is_slot else (offset % 8,):
                name = f"{path} byte {offset} bit {bit}"
                yield Case("flip", name, byte=(path, offset, content[offset] ^ (1 << bit)))


def lengths(pristine: dict[str, bytes]) -> Iterator[Case]:
    """Every shorter length of every file (of the lock file each 64th), several longer ones, and the file gone."""
    others = list(pristine.values())
    for path, content in pristine.items():
        for length in range(0, len(content), 64 if path == LOCK_FILE else 1):
            yield Case("cut", f"{path} cut to {length} bytes", ((path, content[:length]),))
        tails = {"1 zero": b"\0", "1 byte": b"\x5a", "64 zeros": bytes(64), "4096 zeros": bytes(4096)}
        tails |= {f"the tail of another file ({n})": other[-4096:] for n, other in enumerate(others)}
        for name, tail in tails.items():
            yield Case("extended", f"{path} extended by {name}", ((path, content + tail),))
        for length in range(0, len(content), SECTOR):
            end = min(length + SECTOR, len(content))
            zeroed = content[:length] + bytes(end - length) + content[end:]
            if zeroed != content:
                yield Case("zeroed", f"{path} bytes {length}..<{end} zero", ((path, zeroed),))
        yield Case("missing", f"{path} missing", ((path, None),))


def exchanges(pristine: dict[str, bytes], pages: dict[str, list[tuple[int, int]]]) -> Iterator[Case]:
    """Pages, sectors, database pages and whole files in each other's place."""
    paths = [path for path in pristine if path != LOCK_FILE]
    for path in paths:
        blocks = [(at, SECTOR) for at in range(0, len(pristine[path]) - SECTOR + 1, SECTOR)]
        blocks += pages.get(path, [])
        if path == CATALOG_FILE:
            blocks += [(at, 4096) for at in range(0, len(pristine[path]), 4096)]
        yield from _exchanged_blocks(path, pristine[path], path, pristine[path], blocks, blocks)
    for number, first in enumerate(paths):
        for second in paths[number + 1 :]:
            a, b = pristine[first], pristine[second]
            if a != b:
                yield Case("exchanged files", f"{first} and {second}", ((first, b), (second, a)))
            yield from _exchanged_blocks(first, a, second, b, pages.get(first, []), pages.get(second, []))
            if Path(first).parent == Path(second).parent:
                # The last 64 bytes are the tail, with the footer's place and digest.
                yield Case("exchanged tails", f"{first} and {second}", ((first, a[:-64] + b[-64:]),))


def _exchanged_blocks(
    first: str, a: bytes, second: str, b: bytes, blocks: list[tuple[int, int]], others: list[tuple[int, int]]
) -> Iterator[Case]:
    for start, length in blocks:
        for other, other_length in others:
            if length != other_length or (first == second and start >= other):
                continue
            one, two = a[start : start + length], b[other : other + length]
            if one == two:
                continue
            name = f"{first} bytes {start}..<{start + length} and {second} bytes {other}..<{other + length}"
            if first == second:
                swapped = bytearray(a)
                swapped[start : start + length], swapped[other : other + length] = two, one
                yield Case("exchanged blocks", name, ((first, bytes(swapped)),))
            else:
                new_a = a[:start] + two + a[start + length :]
                new_b = b[:other] + one + b[other + length :]
                yield Case("exchanged blocks", name, ((first, new_a), (second, new_b)))


def replays(pristine: dict[str, bytes], history: list[dict[str, bytes]]) -> Iterator[Case]:
    """Old versions of files: one file of an earlier store, or all but one."""
    for number, old in enumerate(history):
        for path, content in old.items():
            if path in pristine and content != pristine[path]:
                yield Case("replayed file", f"{path} as after command {number}", ((path, content),))
        for path, newest in pristine.items():
            # Every file but this one is the old one: this one is too new.
            replaced = tuple(
                (p, old.get(p)) for p in pristine if p not in (path, LOCK_FILE) and old.get(p) != pristine[p]
            )
            if old.get(path) != newest and path != LOCK_FILE and replaced:
                yield Case("all replayed but one", f"all but {path} as after command {number}", replaced)


def sampled(cases: Iterator[Case], share: float, seed: int) -> Iterator[Case]:
    """A random part of the cases, the same in every run."""
    chosen = random.Random(seed)  # noqa: S311
    return (case for case in cases if chosen.random() < share)
