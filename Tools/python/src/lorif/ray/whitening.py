"""A whitening basis of batches that lie anywhere: moments of both sides by tasks, added up in a tree, one basis."""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from lorif.basis import Basis
from lorif.batch import FactorBatch, Layer, SecondMoments, write_batch
from lorif.ray import files
from lorif.ray.errors import CollectionRefusedError, IncompleteError
from lorif.ray.ingest import local_batch, size_of
from lorif.ray.moments import reduced
from lorif.ray.scheduler import Job, Scheduler
from lorif.ray.settings import Settings
from lorif.tool import Tool

_ROWS = 1024


@dataclass(frozen=True)
class Whitened:
    """What finding a basis did."""

    digest: str
    url: str
    rows: int
    seconds: float


def find_whitening(
    batches: Sequence[str | Path],
    output: str | Path,
    *,
    epsilon: float | None = None,
    settings: Settings | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Whitened:
    """Writes the basis that `lorif create --whiten-from` finds on all rows of the batches, to a path or URL.

    The batches have the same layers. The moments are means over every row, or there is no file and IncompleteError;
    where batches give second moments, these are averaged, weighted by rows.
    """
    settings, started = settings or Settings(), time.monotonic()
    settings = replace(settings, cpus=settings.cpus or 1)
    url = files.absolute(str(output))
    if not batches or not url.endswith(".basis"):
        raise CollectionRefusedError("give batches, and a file that ends in .basis")
    jobs = [Job(name, size_of(name)) for name in map(files.absolute, map(str, batches))]
    parts: dict[str, Any] = {}
    found: dict[str, tuple[int, tuple[Layer, ...]]] = {}

    def collect(job: Job, result: tuple[tuple[int, tuple[Layer, ...]], Any]) -> None:
        found[job.argument], parts[job.argument] = result
        if progress is not None:
            progress(len(found), len(jobs))

    failed = Scheduler(both_sides, (), settings, keeps_values=True).run(jobs, collect)
    if failed:
        raise IncompleteError("; ".join(f"{each.job.argument}: {each.reason}" for each in failed))
    names = [job.argument for job in jobs]
    layers = found[names[0]][1]
    for name in names[1:]:
        if _shapes(found[name][1]) != _shapes(layers):
            raise CollectionRefusedError(f"{name}: expected the layers of {names[0]}, found others")
    rows = sum(found[name][0] for name in names)
    if rows == 0:
        raise CollectionRefusedError("the batches have no rows")
    sums: list[NDArray[np.float64]] = ray.get(reduced([parts[name] for name in names]))
    with tempfile.TemporaryDirectory(prefix="lorif-whitening-") as folder:
        options = [] if epsilon is None else [f"--epsilon={epsilon!r}"]
        path = _basis(Path(folder), layers, [each / rows for each in sums], options, Tool(settings.tool))
        files.put(path, url)
        return Whitened(Basis(path).digest, url, rows, time.monotonic() - started)


def both_sides(url: str) -> tuple[tuple[int, tuple[Layer, ...]], list[NDArray[np.float64]]]:
    """Rows and layers of a batch, and Σ G Gᵀ and Σ Gᵀ G of each layer, or its second moments times its rows."""
    with tempfile.TemporaryDirectory(prefix="lorif-whitening-") as folder:
        batch = FactorBatch(local_batch(url, Path(folder) / "batch"))
        if batch.basis is not None:
            raise CollectionRefusedError(f"{url}: it is in a whitening basis already")
        sums = []
        for layer in batch.layers:
            left = np.zeros((layer.input_dimension,) * 2)
            right = np.zeros((layer.output_dimension,) * 2)
            given = batch.second_moments(layer.name)
            if given is not None:
                left, right = (batch.row_count * each for each in given)
            elif layer.rank is not None:
                raise CollectionRefusedError(
                    f"{url}: layer '{layer.name}' cannot be whitened: expected full gradients, or second moments "
                    "beside the factors"
                )
            else:
                for start in range(0, batch.row_count, _ROWS):
                    full = batch.gradients(layer.name, slice(start, start + _ROWS)).astype(np.float64)
                    left += np.einsum("nab,ncb->ac", full, full, optimize=True)
                    right += np.einsum("nab,nac->bc", full, full, optimize=True)
            sums += [left, right]
        return (batch.row_count, tuple(batch.layers)), sums


def _shapes(layers: Sequence[Layer]) -> list[tuple[str, int, int]]:
    return [(layer.name, layer.input_dimension, layer.output_dimension) for layer in layers]


def _basis(
    folder: Path, layers: Sequence[Layer], means: Sequence[NDArray[np.float64]], options: Sequence[str], tool: Tool
) -> Path:
    """The basis that the program makes of the moments, which it takes from a batch of one row."""
    moments, nothing = {}, {}
    for place, layer in enumerate(layers):
        left, right = means[2 * place : 2 * place + 2]
        # Symmetric to the last bit, as the format has it.
        moments[layer.name] = SecondMoments((left + left.T) / 2, (right + right.T) / 2)
        nothing[layer.name] = np.zeros((1, layer.input_dimension, layer.output_dimension), np.float32)
    write_batch(folder / "moments.safetensors", nothing, second_moments=moments)
    tool.call("create", str(folder / "store"), f"--whiten-from={folder / 'moments.safetensors'}", "--rank=1", *options)
    (path,) = (folder / "store" / "basis").glob("*.basis")
    return path
