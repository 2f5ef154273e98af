"""Makes the stores, within the disk that is allowed, and weighs every representation."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import disk_usage, rmtree

from batches import Shape, Source, generate
from processes import files_below, flush, total_bytes

from contest.data import DENSE, blocks, write_full_batch
from contest.entrants import Size
from contest.runner import Runner, failure

ENCODINGS = ("f32", "f16", "bf16", "int8", "q4", "q3", "q2", "q1")
FULL_ROWS_PER_FILE = 2048
SPARE = 1 << 30


def format_bytes(count: float) -> str:
    """With a decimal unit."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:.0f} B"


@dataclass(frozen=True)
class Disk:
    """A folder and the bytes that it may take."""

    folder: Path
    limit: int

    def refusal(self, byte_count: float) -> str:
        """Why that many more bytes do not fit; empty if they do."""
        inodes = {path.stat().st_ino: path.stat().st_size for path in files_below(self.folder)}
        used = sum(inodes.values())
        if used + byte_count > self.limit:
            taken = f"{format_bytes(byte_count)} of disk beside {format_bytes(used)}"
            return f"takes {taken}; {format_bytes(self.limit)} are allowed (--disk)"
        if byte_count + SPARE > disk_usage(self.folder).free:
            return f"takes {format_bytes(byte_count)} of disk; {format_bytes(disk_usage(self.folder).free)} are free"
        return ""


class Stores:
    """Makes stores for a runner."""

    def __init__(self, runner: Runner, disk: Disk, sources: list[Source], tile: Path) -> None:
        self.runner = runner
        self.disk = disk
        self.sources = sources
        self.tile = tile
        self.folder = runner.folder

    def ingest(self, store: Path, batches: Sequence[Path], encoding: str) -> str:
        """Adds batches to a lorif store, new or not; the reason if it failed."""
        outcome = self.runner.bounded(self.runner.lorif, "ingest", store, *batches, "--encoding", encoding, seconds=600)
        return failure(outcome, 600)

    def lorif(self, name: str, batches: Sequence[Path], encoding: str) -> Path:
        """A store of factor batches."""
        store = self.folder / name
        self.runner.unusable.pop(str(store), None)  # of an earlier store in the same place
        if problem := self.ingest(store, batches, encoding):
            self.runner.unusable[str(store)] = problem
            rmtree(store, ignore_errors=True)
        else:
            flush(files_below(store))
        return store

    def lorif_full(self, name: str, dense: Path, shape: Shape, encoding: str) -> Path:
        """A store of full matrices, a file of which is on disk at a time."""
        store, batch = self.folder / name, self.folder / "full.safetensors"
        for rows in blocks(shape.rows, FULL_ROWS_PER_FILE):
            write_full_batch(batch, dense, shape, rows)
            problem = self.ingest(store, [batch], encoding)
            batch.unlink()
            if problem:
                self.runner.unusable[str(store)] = problem
                rmtree(store, ignore_errors=True)
                return store
        flush(files_below(store))
        return store

    def tiled(self, name: str, rows: int, rank: int) -> list[Path]:
        """Factor batches of another number of rows."""
        base = self.runner.shape
        files = max(1, rows // 125_000)
        return generate(
            self.folder / name, replace(base, rows=rows, rank=rank, dtype="f16", files=files, seed=base.seed + 2),
            self.tile,
        )  # fmt: skip

    def peer(self, contender: str, name: str, bytes_needed: float, **more: object) -> Path:
        """A peer's store, written in its own environment from the dense file."""
        store = self.folder / name
        problem = self.disk.refusal(bytes_needed)
        if not problem:
            print(f"writing {name}", file=sys.stderr, flush=True)
            outcome, _ = self.runner.contend(
                contender, "write", seconds=900, store=store, source=self.folder / DENSE,
                rows=self.runner.shape.rows, **more,
            )  # fmt: skip
            problem = failure(outcome, 900)
        if problem:
            self.runner.unusable[str(store)] = problem
            self.remove(store)
        else:
            flush(files_below(store) if store.is_dir() else [store])
        return store

    def remove(self, *paths: Path) -> None:
        """Frees disk."""
        for path in paths:
            if path.is_dir():
                rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def weigh(self, name: str, owner: str, numbers: float, *, store: Path, rows: int, note: str = "") -> None:
        """Adds a line of sizes."""
        problem = self.runner.unusable.get(str(store), "")
        found = None
        if not problem and store.exists():
            found = total_bytes(files_below(store) if store.is_dir() else [store]) / rows
        self.runner.results.sizes.append(Size(name, owner, numbers, found, rows, problem or note))

    def weigh_encodings(self, rows: int) -> None:
        """Every encoding of lorif, on some of the rows: factors of rank 1, 4 and 8, and full matrices."""
        base = replace(self.runner.shape, rows=rows)
        for rank in (1, 4, 8):
            batches = generate(self.folder / "weighed", replace(base, rank=rank, dtype="f16", files=1), self.tile)
            self._weigh_each(f"c = {rank}", lambda encoding, made=batches: self._stored(made, encoding), rows)
            self.remove(self.folder / "weighed")
        batch = self.folder / "weighed.safetensors"
        few = min(rows, FULL_ROWS_PER_FILE)
        write_full_batch(batch, self.folder / DENSE, base, range(few))
        self._weigh_each("full", lambda encoding: self._stored([batch], encoding), few)
        batch.unlink()

    def _stored(self, batches: list[Path], encoding: str) -> Path:
        return self.lorif("weighed.lorif", batches, encoding)

    def _weigh_each(self, what: str, make: Callable[[str], Path], rows: int) -> None:
        for encoding in ENCODINGS:
            store = make(encoding)
            self.weigh(f"{encoding}, {what}", "lorif", float("nan"), store=store, rows=rows)
            self.remove(store)
