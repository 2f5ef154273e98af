"""Enumerates the disks that a crash at each moment of a recorded command may leave."""

import hashlib
import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass

from fault_harness.disk_model import DataEffect, Directory, Disk, Effect, Image, NameEffect
from fault_harness.shim import Kind
from fault_harness.trace import Event

LARGEST_EXHAUSTIVE = 8
RANDOM_SUBSETS = 64
SECTOR = 512
TORN_SECTORS = 8


@dataclass(frozen=True)
class CrashImage:
    """A disk after a crash."""

    # How many events had begun, and which was the last.
    cut: int
    event: str
    variant: str
    image: Image
    # Whether the program had said that it was done.
    is_acknowledged: bool

    @property
    def key(self) -> bytes:
        """Equal for equal disks."""
        digest = hashlib.blake2b(digest_size=16)
        for path in sorted(self.image):
            content = self.image[path]
            digest.update(path.encode() + b"\0" + (b"d" if content is None else b"f%d\0" % len(content)))
            digest.update(content or b"")
        return digest.digest()

    def __str__(self) -> str:
        return f"cut {self.cut} at {self.event}: {self.variant}"


def crash_images(before: Directory, events: list[Event], seed: int = 0) -> Iterator[CrashImage]:
    """Every image of every cut; the last cuts are those after the command's end.

    A call that is synchronous is cut twice: when it has begun, and when it has returned.
    """
    disk = Disk(before)
    chosen = random.Random(seed)  # noqa: S311
    is_acknowledged = False
    yield from _images(disk, 0, "begin", False, chosen)
    for number, event in enumerate(events, 1):
        if event.kind == Kind.OUTPUT:
            is_acknowledged = True
            continue
        before_count = len(disk.pending)
        durable = disk.replay(event)
        if event.kind == Kind.WRITE or len(disk.pending) != before_count:
            yield from _images(disk, number, str(event), is_acknowledged, chosen)
        if durable:
            disk.flush(durable)
            yield from _images(disk, number, f"return of {event}", is_acknowledged, chosen)
    yield from _images(disk, len(events), "end", True, chosen)


def _images(disk: Disk, cut: int, event: str, done: bool, chosen: random.Random) -> Iterator[CrashImage]:
    for variant, kept in _variants(disk.pending, chosen):
        yield CrashImage(cut, event, variant, disk.image(kept), done)


def _variants(pending: list[Effect], chosen: random.Random) -> Iterator[tuple[str, list[Effect]]]:
    yield "everything kept", pending
    yield "everything unsynchronised lost", []
    data = [effect for effect in pending if isinstance(effect, DataEffect)]
    names = [effect for effect in pending if isinstance(effect, NameEffect)]
    yield "names kept, data lost", names
    yield "data kept, names lost", list(data)
    if 1 < len(pending) <= LARGEST_EXHAUSTIVE:
        for size in range(1, len(pending)):
            for subset in itertools.combinations(pending, size):
                kept = ",".join(str(pending.index(effect)) for effect in subset)
                yield f"kept {kept} of {len(pending)}", list(subset)
    elif len(pending) > LARGEST_EXHAUSTIVE:
        for length in range(1, len(pending)):
            yield f"the first {length} of {len(pending)} kept", pending[:length]
        for _ in range(RANDOM_SUBSETS):
            kept = [effect for effect in pending if chosen.random() < 0.5]
            yield f"{len(kept)} of {len(pending)} kept at random", kept
    if data:
        yield from _torn(pending, data, chosen)


def _torn(pending: list[Effect], data: list[DataEffect], chosen: random.Random) -> Iterator[tuple[str, list[Effect]]]:
    """The last write cut short, alone and with everything else; and lengths that arrived without their bytes."""
    last = data[-1]
    length = len(last.data or b"")
    # Where sectors of the file begin; and, in a write of several sectors, anywhere.
    sectors = range(SECTOR - last.offset % SECTOR, length, SECTOR)
    cuts = {*sectors[:TORN_SECTORS], *sectors[-2:]}
    if sectors:
        cuts |= {1, length // 2, length - 1, chosen.randrange(1, length)}
    for cut in sorted(cut for cut in cuts if 0 < cut < length):
        torn = DataEffect(last.file, last.offset, (last.data or b"")[:cut])
        yield (
            f"last write torn after {cut} of {length} bytes",
            [torn if effect is last else effect for effect in pending],
        )
        yield f"last write torn after {cut} of {length} bytes, nothing else kept", [torn]
    zeroed: list[Effect] = []
    for effect in pending:
        is_write = isinstance(effect, DataEffect) and effect.data is not None
        zeroed.append(effect.without_new_bytes(len(effect.file.content)) if is_write else effect)
    yield "lengths kept, new bytes zero", zeroed
