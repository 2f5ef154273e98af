"""Rows on their way from a source into a batch: read, scaled and checked."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lorif.batch import write_batch
from lorif.importers.source import ImporterError, Source, identifier

__all__ = ["COPIES", "Rows", "Settings", "batch_of_queries", "check_given_ids", "read_rows", "write_rows"]

#: Of the rows in memory there are the source's, those of the batch, and a layer on its way to the file.
COPIES = 4


@dataclass(frozen=True)
class Settings:
    """How to import."""

    #: Layers are factored to it; None keeps them full, or takes an existing store's ranks.
    rank: int | None = None
    encoding: str | None = None
    #: JSON Lines of user metadata, as `lorif ingest --metadata` takes them.
    metadata: str | None = None
    #: Ids of the rows in place of the source's.
    ids: list[str] | None = None
    id_prefix: str = ""
    scale: float = 1.0
    #: What to do with rows of nothing but zeros: `refuse`, `keep` or `skip`.
    zero_rows: str = "refuse"
    #: Bytes of rows in memory; `lorif pack` takes its own.
    memory_bytes: int = 1 << 30
    #: Drop the parts of an earlier attempt.
    restart: bool = False


@dataclass
class Rows:
    """Some rows, checked and ready to be written."""

    ids: list[str]
    layers: dict[str, NDArray[np.float32]]
    records: list[dict[str, Any]] | None
    energy: float
    skipped: int
    with_zero_layers: int
    clamped: int


def read_rows(source: Source, start: int, stop: int, settings: Settings) -> Rows:
    """Rows start..<stop in single precision, scaled; what is not finite or all zero is refused by id."""
    ids = source.ids(start, stop) if settings.ids is None else settings.ids[start:stop]
    ids = [identifier(f"{source.path}, row {start + row}", settings.id_prefix + name) for row, name in enumerate(ids)]
    layers: dict[str, NDArray[np.float32]] = {}
    zero = np.ones(len(ids), bool)
    partly_zero = np.zeros(len(ids), bool)
    energy, clamped = np.zeros(len(ids)), 0
    for name, values in source.read(start, stop).items():
        if values.dtype == np.float16:
            clamped += int(np.count_nonzero(np.abs(values) == np.finfo(np.float16).max))
        with np.errstate(over="ignore", invalid="ignore"):
            single = np.ascontiguousarray(values, np.float32)
            if settings.scale != 1.0:
                single = single * np.float32(settings.scale)
            squares = np.einsum("nab,nab->n", single, single, dtype=np.float64)
        if not np.isfinite(squares).all():
            row = int(np.argmin(np.isfinite(squares)))
            raise ImporterError(
                f"{source.path}, row {start + row} (id {ids[row]!r}), layer {name!r}: expected finite numbers in "
                "single precision, found others"
            )
        zero &= squares == 0
        partly_zero |= squares == 0
        energy += squares
        layers[name] = single
    records = source.records(start, stop)
    skipped = int(zero.sum())
    if skipped and settings.zero_rows == "refuse":
        row = int(np.argmax(zero))
        raise ImporterError(
            f"{source.path}: {skipped} of rows {start} to {stop - 1} are nothing but zeros, the first is row "
            f"{start + row} (id {ids[row]!r}): a hole that the writer left, or an example without a gradient; "
            "--zero-rows keep or skip if it is the latter"
        )
    if skipped and settings.zero_rows == "skip":
        kept = np.flatnonzero(~zero)
        ids = [ids[row] for row in kept]
        layers = {name: values[kept] for name, values in layers.items()}
        records = [records[row] for row in kept] if records is not None else None
    else:
        skipped = 0
    return Rows(ids, layers, records, float(energy.sum()), skipped, int((partly_zero & ~zero).sum()), clamped)


def write_rows(rows: Rows, source: Source, path: Path) -> None:
    """Writes rows as a batch of full matrices."""
    layers = {layer.name: rows.layers[layer.name] for layer in source.layers}
    provenance = source.provenance | {"imported": str(source.path)}
    write_batch(path, layers, ids=rows.ids, records=rows.records, provenance=provenance)


def batch_of_queries(source: Source, path: Path, settings: Settings) -> None:
    """Writes a source's rows as full matrices to a factor batch for `lorif query`; queries are few."""
    size = 4 * source.row_count * sum(layer.length for layer in source.layers)
    if COPIES * size > settings.memory_bytes:
        raise ImporterError(
            f"{source.path}: {source.row_count} queries take {math.ceil(COPIES * size / 2**20)} MiB of memory; raise "
            "--memory or import fewer at a time"
        )
    write_rows(read_rows(source, 0, source.row_count, settings), source, path)


def check_given_ids(ids: list[str], count: int) -> None:
    """Refuses ids that are too few, too many or not distinct."""
    if len(ids) != count:
        raise ImporterError(f"--ids: expected {count} ids, one per row, found {len(ids)}")
    if len(set(ids)) != len(ids):
        seen: set[str] = set()
        twice = next(name for name in ids if name in seen or seen.add(name))
        raise ImporterError(f"--ids: expected distinct ids, found {twice!r} twice")
