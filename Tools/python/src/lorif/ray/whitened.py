"""`whitened-dot` over several units: a layer's inner products count 1/tr(H) of *all* rows, which no unit can know.

tr(H) is a sum of stored norms. It is added up here in the order in which the program would add it up, and the weights
are multiplied into the queries as the program does; what is left is `dot`.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lorif.batch import FactorBatch, Factors, write_batch
from lorif.ray import files
from lorif.ray.cache import Unit
from lorif.ray.errors import IncompleteError
from lorif.ray.scheduler import Job
from lorif.ray.worker import squared_norms
from lorif.segment import Segment
from lorif.tool import Tool


def layer_scales(session: Any, jobs: Sequence[Job]) -> NDArray[np.float64]:
    """tr(H) of every layer, over the live rows of all units."""
    blocks: dict[int, NDArray[np.float64]] = {}
    fresh = [Job(job.argument, job.bytes, job.wanted, job.able) for job in jobs]
    failed = session.run(norms_of, fresh, on_result=lambda _, found: blocks.update(found))
    if failed:
        raise IncompleteError(f"tr(H) needs the norms of all rows: {failed[0].reason}")
    ordered = np.concatenate([blocks[row] for row in sorted(blocks)])
    return np.cumsum(ordered, axis=0)[-1]


def norms_of(unit: Unit) -> dict[int, NDArray[np.float64]]:
    """As `squared_norms`, for tasks."""
    return squared_norms(unit)


def weighted_queries(session: Any, jobs: Sequence[Job], queries: bytes) -> bytes:
    """The queries with each layer times 1/tr(H), whitened if the collection is."""
    scales = layer_scales(session, jobs)
    weights = {
        layer.name: 1 / scale if scale > 0 else 0.0
        for layer, scale in zip(session.manifest.layers, scales, strict=True)
    }
    with tempfile.TemporaryDirectory(prefix="lorif-queries-") as folder:
        path = Path(folder) / "queries.safetensors"
        path.write_bytes(queries)
        batch = FactorBatch(path)
        ids = batch.ids or [str(row) for row in range(batch.row_count)]
        arrays: dict[str, Any] = {
            layer.name: batch.gradients(layer.name) if layer.rank is None else batch.factors(layer.name)
            for layer in batch.layers
        }
        basis = batch.basis
        if session.manifest.basis is not None and basis is None:
            arrays, basis = _whitened(session, Path(folder), arrays, ids)
        weighted = {
            name: Factors(_times(value.left, weights[name]), value.right)
            if isinstance(value, Factors)
            else _times(value, weights[name])
            for name, value in arrays.items()
        }
        out = Path(folder) / "weighted.safetensors"
        write_batch(out, weighted, ids=ids, basis=basis)
        return out.read_bytes()


def _times(values: NDArray[np.float32], weight: float) -> NDArray[np.float32]:
    return (values.astype(np.float64) * weight).astype(np.float32)


def _whitened(session: Any, folder: Path, arrays: dict[str, Any], ids: Sequence[str]) -> tuple[dict[str, Any], str]:
    """The arrays in the collection's basis, by the program itself: packed in f32, in which nothing is lost."""
    basis = session.manifest.basis
    place = folder / f"{basis.digest}.basis"
    place.write_bytes(files.read(session.manifest.url(basis.url)))
    raw, packed = folder / "raw.safetensors", folder / "queries.segment"
    write_batch(raw, arrays, ids=ids)
    Tool(session.settings.tool).call("pack", str(packed), str(raw), "--encoding=f32", f"--basis-from={place}")
    segment = Segment(packed)
    return {layer.name: segment.values(number) for number, layer in enumerate(segment.layers)}, basis.digest
