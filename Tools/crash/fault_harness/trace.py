"""Reads the record of a program's changes to files, as shim/record.c writes it."""

import os
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fault_harness.shim import Kind

HEADER = struct.Struct("<7q")


class TraceError(Exception):
    """The record has something that the model of a disk does not have."""


@dataclass(frozen=True)
class Event:
    """One call that changed something or made it durable."""

    kind: Kind
    descriptor: int
    offset: int
    flags: int
    path: str
    second_path: str
    data: bytes

    @property
    def is_synchronous(self) -> bool:
        """Whether an open asks for writes that are durable when they return."""
        return self.kind == Kind.OPEN and bool(self.flags & (os.O_DSYNC | os.O_SYNC))

    def __str__(self) -> str:
        place = f" [{self.offset}, +{len(self.data)}]" if self.kind == Kind.WRITE else ""
        return f"{self.kind.name.lower()} {self.path} {self.second_path}".rstrip() + place


def read_trace(path: Path, root: Path) -> list[Event]:
    """The events, with paths relative to `root`; refuses what the model could not replay."""
    data = path.read_bytes()
    events = list(_parsed(data, str(root.resolve())))
    for event in events:
        if event.kind == Kind.UNKNOWN:
            raise TraceError(f"a call that is not modelled: {event}")
        # liblmdb's table of readers and mutexes is shared memory, and built anew by the first process that opens it.
        if event.kind == Kind.MAP and not event.path.endswith("/lock.mdb"):
            raise TraceError(f"a writable shared mapping, whose writes cannot be recorded: {event}")
    return events


def _parsed(data: bytes, root: str) -> Iterator[Event]:
    at = 0

    def relative(path: str) -> str:
        return path[len(root) + 1 :] if path.startswith(root + "/") else "" if path == root else path

    while at < len(data):
        kind, descriptor, offset, flags, first, second, count = HEADER.unpack_from(data, at)
        at += HEADER.size
        paths = data[at : at + first].decode(), data[at + first : at + first + second].decode()
        at += first + second
        yield Event(Kind(kind), descriptor, offset, flags, *map(relative, paths), data[at : at + count])
        at += count


SYSTEM_CALLS = {
    Kind.WRITE: {"write", "pwrite64", "writev", "pwritev", "pwritev2"},
    Kind.TRUNCATE: {"ftruncate", "truncate"},
    Kind.ALLOCATE: {"fallocate"},
    Kind.RENAME: {"rename", "renameat", "renameat2"},
    Kind.LINK: {"link", "linkat", "symlink", "symlinkat"},
    Kind.UNLINK: {"unlink", "unlinkat"},
    Kind.MKDIR: {"mkdir", "mkdirat"},
    Kind.RMDIR: {"rmdir"},
    Kind.FSYNC: {"fsync"},
    Kind.FDATASYNC: {"fdatasync"},
    Kind.WRITEBACK: {"sync_file_range"},
    Kind.UNKNOWN: {"copy_file_range", "sendfile", "splice", "sync", "syncfs", "io_uring_enter"},
}


def count_by_kind(events: list[Event]) -> Counter[Kind]:
    """How many calls of each kind that changes something there are."""
    return Counter(event.kind for event in events if event.kind in SYSTEM_CALLS)


def count_by_strace(text: str, root: Path) -> Counter[Kind]:
    """The same, from what `strace -f -y -z` has seen of successful calls on paths below `root`."""
    counts: Counter[Kind] = Counter()
    kinds = {name: kind for kind, names in SYSTEM_CALLS.items() for name in names}
    for line in text.splitlines():
        call = line.split(maxsplit=1)[-1]
        name = call.split("(")[0]
        if name in kinds and (f"{root}/" in call or f"<{root}>" in call):
            counts[kinds[name]] += 1
    return counts
