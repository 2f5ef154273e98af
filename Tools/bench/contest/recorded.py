"""Gradients that a recorder took from a model, in the files that everybody stores: see data.py for their form.

The matrices are rounded to f16 first; factors are the truncations of what is stored, by singular values.
"""

from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from batches import Floats, Shape, identifier
from lorif.batch import FactorBatch, natural_key
from safetensors.numpy import save_file

from contest.data import BLOCK, DENSE, RANKS, ROWS_PER_FILE, blocks, metadata, query_file


class Recorded:
    """The batches of full matrices in a folder, all layers of one shape, as one list of rows."""

    def __init__(self, folder: Path) -> None:
        paths = sorted(folder.glob("*.safetensors"), key=lambda path: natural_key(path.name))
        if not paths:
            raise ValueError(f"{folder}: expected batches *.safetensors of full matrices, found none")
        self.folder = folder
        self._batches = [FactorBatch(path) for path in paths]
        self._starts = [0]
        self.layers = [layer.name for layer in self._batches[0].layers]
        shapes = set()
        for batch in self._batches:
            if [layer.name for layer in batch.layers] != self.layers:
                raise ValueError(f"{batch.path}: expected the layers of {paths[0]}, found others")
            shapes |= {(layer.input_dimension, layer.output_dimension, layer.rank) for layer in batch.layers}
            self._starts.append(self._starts[-1] + batch.row_count)
        if len(shapes) != 1 or next(iter(shapes))[2] is not None:
            raise ValueError(f"{folder}: expected full matrices of one shape in all layers, found (d1, d2, c) {shapes}")
        self.d1, self.d2, _ = next(iter(shapes))

    @property
    def row_count(self) -> int:
        """Examples in all files."""
        return self._starts[-1]

    def rows(self, layer: int, rows: range) -> Floats:
        """[rows, d1, d2] of a layer."""
        found = []
        at = rows.start
        while at < rows.stop:
            number = bisect_right(self._starts, at) - 1
            end = min(rows.stop, self._starts[number + 1])
            start = self._starts[number]
            found.append(self._batches[number].gradients(self.layers[layer], slice(at - start, end - start)))
            at = end
        return np.concatenate(found)


def truncated(matrices: Floats, rank: int) -> tuple[Floats, Floats, Floats]:
    """Left [n, d1, c] and right [n, d2, c] with √σ on both sides, and all σ² [n, min(d1, d2)]."""
    u, sigma, v = np.linalg.svd(matrices, full_matrices=False)
    root = np.sqrt(sigma[:, None, :rank])
    return u[:, :, :rank] * root, v.transpose(0, 2, 1)[:, :, :rank] * root, sigma**2


def write_recorded(folder: Path, shape: Shape, recorded: Recorded) -> dict[int, float]:
    """As data.write: the first rows of a recording; the share of energy that each c keeps."""
    area, most = shape.d1 * shape.d2, max(RANKS)
    (folder / DENSE).parent.mkdir(parents=True)
    for rank in RANKS:
        (folder / f"factors-c{rank}").mkdir()
    kept, total = dict.fromkeys(RANKS, 0.0), 0.0
    with (folder / DENSE).open("wb") as dense:
        for number, rows in enumerate(blocks(shape.rows, ROWS_PER_FILE)):
            tensors: dict[int, dict[str, np.ndarray]] = {rank: {} for rank in RANKS}
            matrices = np.empty((len(rows), shape.layers, area), np.float16)
            for layer, name in enumerate(shape.layer_names):
                sides: list[tuple[Floats, Floats]] = []
                for block in blocks(len(rows), BLOCK):
                    part = range(rows.start + block.start, rows.start + block.stop)
                    with np.errstate(over="ignore"):
                        stored = recorded.rows(layer, part).astype(np.float16)
                    if not np.isfinite(stored).all():
                        raise ValueError(f"{recorded.folder}: expected numbers within f16, found larger ones")
                    matrices[block.start : block.stop, layer] = stored.reshape(len(block), area)
                    left, right, squares = truncated(stored.astype(np.float32), most)
                    sides.append((left, right))
                    total += squares.sum(dtype=np.float64)
                    for rank in RANKS:
                        kept[rank] += squares[:, :rank].sum(dtype=np.float64)
                for rank in RANKS:
                    for side, parts in zip(("left", "right"), zip(*sides, strict=True), strict=True):
                        joined = np.concatenate(parts)[:, :, :rank]
                        tensors[rank][f"{name}/{side}"] = np.ascontiguousarray(joined, np.float16)
            dense.write(memoryview(matrices).cast("B"))
            ids = [identifier(row) for row in rows]
            for rank in RANKS:
                path = folder / f"factors-c{rank}" / f"{number:03d}.safetensors"
                save_file(tensors[rank], path, metadata(shape, ids))
    return {rank: share / total for rank, share in kept.items()}


def write_recorded_queries(folder: Path, shape: Shape, recorded: Recorded, counts: Sequence[int]) -> None:
    """As data.write_queries: recorded queries in full, and their truncations to rank 1."""
    most = max(counts)
    if recorded.row_count < most:
        raise ValueError(f"{recorded.folder}: expected {most} queries, found {recorded.row_count}")
    folder.mkdir(parents=True)
    full: dict[str, np.ndarray] = {}
    factors: dict[str, np.ndarray] = {}
    for layer, name in enumerate(shape.layer_names):
        full[f"{name}/full"] = recorded.rows(layer, range(most))
        left, right, _ = truncated(full[f"{name}/full"], 1)
        factors |= {f"{name}/left": left, f"{name}/right": right}
    for count in counts:
        ids = [f"query-{query:03d}" for query in range(count)]
        for kind, tensors in (("full", full), ("rank-1", factors)):
            some = {name: np.ascontiguousarray(tensor[:count]) for name, tensor in tensors.items()}
            save_file(some, query_file(folder, kind, count), metadata(shape, ids))
