"""The gradients that everybody stores: dense matrices, the factors of their truncations, and queries.

A row's matrix of a layer is a sum of `COMPONENTS` outer products, each drawn from real factors (batches.chunk) and 0.49
times the one before; its truncation to rank c is taken to be the first c of them, which are orthogonal but for chance.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from batches import Floats, Shape, Source, chunk, identifier
from safetensors import safe_open
from safetensors.numpy import save_file

COMPONENTS = 8
QUERY_COMPONENTS = 32
RANKS = (1, 4)
SIDES = ("left", "right")
BLOCK = 512
ROWS_PER_FILE = 4096
DENSE = "dense/matrices.f16"


def blocks(rows: int, step: int = BLOCK) -> Iterator[range]:
    """Consecutive ranges that cover `rows`."""
    for start in range(0, rows, step):
        yield range(start, min(start + step, rows))


def sides(shape: Shape, sources: list[Source], layer: int, rows: range) -> tuple[Floats, Floats]:
    """Left [n, d1, COMPONENTS] and right [n, d2, COMPONENTS] of a block of rows."""
    return chunk(replace(shape, rank=COMPONENTS), sources, layer, rows)


def metadata(shape: Shape, ids: list[str]) -> dict[str, str]:
    """What a factor batch says of itself."""
    return {"lorif.batch": "1", "layers": json.dumps(shape.layer_names), "ids": json.dumps(ids)}


def energies(left: Floats, right: Floats) -> np.ndarray:
    """‖G − first c components‖² summed over rows, for c = 0 … COMPONENTS."""
    grams = np.einsum("nia,nib->nab", left, left) * np.einsum("nia,nib->nab", right, right)
    rank = left.shape[2]
    return np.array([grams[:, kept:, kept:].sum(dtype=np.float64) for kept in range(rank + 1)])


def write(folder: Path, shape: Shape, sources: list[Source]) -> dict[int, float]:
    """Writes `dense/matrices.f16` and `factors-cC/*.safetensors`, all f16; the share of energy that each c keeps.

    The dense file is [rows, layers · d1 · d2] without a header, as bergson and LogIX lay rows out.
    """
    area = shape.d1 * shape.d2
    (folder / DENSE).parent.mkdir(parents=True)
    for rank in RANKS:
        (folder / f"factors-c{rank}").mkdir()
    lost = np.zeros(COMPONENTS + 1)
    with (folder / DENSE).open("wb") as dense:
        for number, rows in enumerate(blocks(shape.rows, ROWS_PER_FILE)):
            count = len(rows)
            tensors: dict[int, dict[str, np.ndarray]] = {rank: {} for rank in RANKS}
            for rank in RANKS:
                for name in shape.layer_names:
                    tensors[rank][f"{name}/left"] = np.empty((count, shape.d1, rank), np.float16)
                    tensors[rank][f"{name}/right"] = np.empty((count, shape.d2, rank), np.float16)
            for block in blocks(count):
                part = range(rows.start + block.start, rows.start + block.stop)
                matrices = np.empty((len(block), shape.layers, area), np.float16)
                for layer, name in enumerate(shape.layer_names):
                    left, right = sides(shape, sources, layer, part)
                    matrices[:, layer] = np.matmul(left, right.transpose(0, 2, 1)).reshape(len(block), area)
                    lost += energies(left, right)
                    for rank in RANKS:
                        tensors[rank][f"{name}/left"][block.start : block.stop] = left[:, :, :rank]
                        tensors[rank][f"{name}/right"][block.start : block.stop] = right[:, :, :rank]
                dense.write(memoryview(matrices).cast("B"))
            ids = [identifier(row) for row in rows]
            for rank in RANKS:
                save_file(
                    tensors[rank], folder / f"factors-c{rank}" / f"{number:03d}.safetensors", metadata(shape, ids)
                )
    return {rank: float(1 - lost[rank] / lost[0]) for rank in RANKS}


def dense_rows(path: Path, shape: Shape, rows: range) -> np.ndarray:
    """Rows of the dense file in f16, [n, layers, d1, d2]."""
    length = shape.layers * shape.d1 * shape.d2
    found = np.fromfile(path, np.float16, len(rows) * length, offset=rows.start * length * 2)
    return found.reshape(len(rows), shape.layers, shape.d1, shape.d2)


def write_full_batch(path: Path, dense: Path, shape: Shape, rows: range) -> None:
    """A batch of full matrices of some rows of the dense file."""
    matrices = dense_rows(dense, shape, rows)
    tensors = {f"{name}/full": np.ascontiguousarray(matrices[:, layer]) for layer, name in enumerate(shape.layer_names)}
    save_file(tensors, path, metadata(shape, [identifier(row) for row in rows]))


def write_queries(folder: Path, shape: Shape, sources: list[Source], counts: Sequence[int]) -> None:
    """`full-Q.safetensors` and `rank-1-Q.safetensors` for each number Q of queries; smaller ones begin larger ones.

    A query is a fresh direction of its own plus a training row's first component, so that its best example is known
    to be far above the rest, as a memorised text is.
    """
    folder.mkdir(parents=True)
    most = max(counts)
    fresh_shape = replace(shape, rows=most, rank=QUERY_COMPONENTS, seed=shape.seed + 1)
    full: dict[str, np.ndarray] = {}
    factors: dict[str, np.ndarray] = {}
    for layer, name in enumerate(shape.layer_names):
        left, right = chunk(fresh_shape, sources, layer, range(most))
        seen_left, seen_right = (stored_first(folder.parent, shape, f"{name}/{side}", most) for side in SIDES)
        seen = seen_left[:, :, None] * seen_right[:, None, :]
        full[f"{name}/full"] = np.matmul(left, right.transpose(0, 2, 1)) + seen
        factors[f"{name}/left"] = left[:, :, :1] + seen_left[:, :, None]
        factors[f"{name}/right"] = right[:, :, :1] + seen_right[:, :, None]
    for count in counts:
        ids = [f"query-{query:03d}" for query in range(count)]
        for kind, tensors in (("full", full), ("rank-1", factors)):
            some = {name: np.ascontiguousarray(tensor[:count]) for name, tensor in tensors.items()}
            save_file(some, query_file(folder, kind, count), metadata(shape, ids))


def stored_first(folder: Path, shape: Shape, tensor: str, count: int) -> Floats:
    """The first component of `count` rows spread over all, from the files of rank 1."""
    picked = []
    rows = [query * shape.rows // count for query in range(count)]
    for number, part in enumerate(blocks(shape.rows, ROWS_PER_FILE)):
        with safe_open(folder / "factors-c1" / f"{number:03d}.safetensors", "np") as file:
            picked.append(file.get_tensor(tensor)[[row - part.start for row in rows if row in part], :, 0])
    return np.concatenate(picked).astype(np.float32)


def query_file(folder: Path, kind: str, count: int) -> Path:
    """Where the queries of a kind are."""
    return folder / f"{kind}-{count}.safetensors"
