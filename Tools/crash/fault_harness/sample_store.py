"""A small store with everything that a store can hold, and the batches that it was made from."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from fault_harness.shim import ForkServer, Outcome

SHAPES = {"h.0": (4, 3), "h.1": (3, 5)}
RANK = 1


class SetupError(Exception):
    """A command that prepares a test failed."""


def batch(path: Path, seed: int, identifiers: list[str], full: bool = False, rows: int | None = None) -> Path:
    """Writes a factor batch, and user metadata if it has ids."""
    random = np.random.default_rng(seed)
    count = len(identifiers) if rows is None else rows
    tensors = {}
    for layer, (inputs, outputs) in SHAPES.items():
        if full:
            tensors[f"{layer}/full"] = random.integers(-8, 9, (count, inputs, outputs)).astype(np.float32)
        else:
            tensors[f"{layer}/left"] = random.integers(-8, 9, (count, inputs, RANK)).astype(np.float32)
            tensors[f"{layer}/right"] = random.integers(-8, 9, (count, outputs, RANK)).astype(np.float32)
    metadata = {"lorif.batch": "1", "layers": json.dumps(list(SHAPES)), "note": path.name}
    if identifiers:
        metadata["ids"] = json.dumps(identifiers)
        records = (
            {"id": name, "number": number, "source": "ab"[number % 2]} for number, name in enumerate(identifiers)
        )
        path.with_suffix(".jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    save_file(tensors, path, metadata)
    return path


def identifiers(start: int, stop: int) -> list[str]:
    """Ids of rows."""
    return [f"row-{number}" for number in range(start, stop)]


@dataclass(frozen=True)
class Inputs:
    """Files that operations take, all in one folder."""

    folder: Path

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for number, start in enumerate((0, 6, 11, 20)):
            batch(self.folder / f"batch-{number}.safetensors", number, identifiers(start, start + 6 - number))
        batch(self.folder / "replacing.safetensors", 8, identifiers(3, 9))
        batch(self.folder / "sample.safetensors", 10, [], full=True, rows=40)
        batch(self.folder / "queries.safetensors", 11, ["query-0", "query-1"], full=True)
        (self.folder / "doomed.txt").write_text("row-2\nrow-7\n")
        (self.folder / "more-doomed.txt").write_text("row-0\nrow-12\n")

    def path(self, name: str) -> Path:
        """A file by its name without suffix."""
        return next(path for path in self.folder.glob(f"{name}.*") if path.suffix != ".jsonl")


def must(server: ForkServer, *arguments: object) -> Outcome:
    """Runs a command that has to succeed."""
    outcome = server.run(*arguments)
    if outcome.code != 0:
        raise SetupError(str(outcome))
    return outcome


def make_store(
    server: ForkServer, store: Path, inputs: Inputs, whitened: bool = True, history: Path | None = None
) -> None:
    """Three segments, tombstones, two curvatures (one with coordinates), a named snapshot, and a basis if whitened.

    With `history` a copy of the store after each command is left there, numbered.
    """
    whitening = ("--whiten-from", inputs.path("sample")) if whitened else ()
    commands = [
        ("ingest", store, inputs.path("batch-0"), "--encoding", "f32", *whitening),
        ("fit", store, "--rank", "2"),
        ("ingest", store, inputs.path("batch-1")),
        ("delete", store, "--ids", inputs.path("doomed")),
        ("snapshot", store, "named"),
        ("ingest", store, inputs.path("batch-2")),
        ("fit", store, "--rank", "2", "--scope", "global", "--coordinates", "f32"),
        ("delete", store, "--ids", inputs.path("more-doomed")),
    ]
    for number, command in enumerate(commands):
        must(server, *command)
        if history is not None:
            copy_store(store, history / f"{number}.lorif")


def copy_store(source: Path, target: Path) -> None:
    """Copies a store byte by byte; what was at the target is removed."""
    if target.exists():
        shutil.rmtree(target)
    shutil.copytree(source, target)


def files_of(store: Path) -> dict[str, bytes]:
    """Every file of a store by its path in it, but for the two that readers may write."""
    return {
        str(path.relative_to(store)): path.read_bytes()
        for path in sorted(store.rglob("*"))
        if path.is_file() and path.name not in ("lock.mdb", "writer.lock")
    }
