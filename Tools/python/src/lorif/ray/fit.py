"""One curvature for all shards: sums over rows by tasks, added up in a tree, one small eigenproblem for each layer.

Layers whose d1·d2 is small enough have their second moments formed; the others are iterated over: H Ω is a sum over
rows, too, and with orthonormal Ω its Rayleigh quotient Ωᵀ H Ω gives the eigenpairs as far as the subspace holds them.
"""

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from ray.exceptions import RayError

from lorif.ray import files
from lorif.ray.collection import Collection, read_curvature
from lorif.ray.coordinates import ENCODINGS, WrittenCoordinates, write_coordinates
from lorif.ray.curvature_file import CurvatureWriter, FittedGroup, basis_pages
from lorif.ray.errors import ClusterError, CollectionRefusedError, IncompleteError
from lorif.ray.manifest import Manifest, commit
from lorif.ray.moments import applied, arithmetic, gram, reduced
from lorif.ray.placement import plan_units
from lorif.ray.query import open_session
from lorif.ray.scheduler import Job, Scheduler
from lorif.ray.settings import Settings

#: Bytes of sums that a task may give at once; more layers are done one group after another.
_SUM_BYTES = 1 << 30
#: The captured energy has settled when a pass changes it by less.
_SETTLED = 1e-3


@dataclass(frozen=True)
class Fitted:
    """What a fit did."""

    digest: str
    url: str
    generation: int
    rows: int
    captured_energy: float
    seconds: float
    groups: tuple[tuple[str, int, float, float], ...]
    coordinates: WrittenCoordinates | None = None


def fit(
    collection: Collection | str | Path,
    *,
    rank: int = 256,
    exact: bool = False,
    passes: int = 6,
    seed: int = 0,
    gram_limit: int = 4096,
    coordinates: str | None = None,
    settings: Settings | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Fitted:
    """Fits the `rank` leading eigenpairs of every layer's H = Σ g gᵀ over all live rows, or all of them (`exact`).

    The file goes to `curvature/` beside the manifest, and one commit of the manifest makes it that of all shards. If
    rows cannot be read, or were added meanwhile, IncompleteError or CollectionRefusedError, and nothing has changed.

    With `coordinates` (int8, f16 or f32) a second commit then names the rows' coordinates; what that raises leaves the
    curvature in use, and `write_coordinates` goes on from there.
    """
    collection = collection if isinstance(collection, Collection) else Collection(collection)
    settings, started = settings or Settings(), time.monotonic()
    if coordinates is not None and coordinates not in ENCODINGS:
        raise CollectionRefusedError(f"coordinates are kept in {', '.join(ENCODINGS)}, not in {coordinates}")
    if rank < 1 or passes < 2:
        raise CollectionRefusedError("--rank must be at least 1 and --passes at least 2")
    manifest = collection.manifest()
    session = open_session(manifest, settings, started, None)
    layers = manifest.layers
    lengths = [layer.input_dimension * layer.output_dimension for layer in layers]
    if exact and max(lengths) > gram_limit:
        raise CollectionRefusedError(
            f"--exact needs the moments of every layer; one has {max(lengths)} numbers, --gram-limit is {gram_limit}"
        )
    jobs = plan_units(manifest, session.nodes, session.reports, settings)
    work = _Work(manifest, jobs, settings, rank=rank, exact=exact, passes=passes, seed=seed)
    groups: list[FittedGroup] = []
    for chosen in _layer_groups(lengths, gram_limit, rank):
        solve = work.solve_gram if lengths[chosen[0]] <= gram_limit else work.iterate
        groups += work.again_if_lost(
            lambda chosen=chosen, solve=solve: solve(chosen, [lengths[each] for each in chosen])
        )
        if progress is not None:
            progress(len(groups), len(layers))
    trace = sum(group.trace for group in groups)
    energy = sum(float(group.eigenvalues.sum()) for group in groups) / trace if trace > 0 else 0.0
    words = sorted({f"{group.algorithm}/{group.arithmetic}" for group in groups})
    provenance = {
        "algorithms": words, "exact": exact, "rank": None if exact else rank, "seed": seed, "tool": "lorif.ray",
        **({"passes": passes} if any(group.algorithm == "krylov" for group in groups) else {}),
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="lorif-fit-") as folder:
        path = Path(folder) / "new.curvature"
        with CurvatureWriter(path, manifest.schema or b"") as writer:
            writer.describe(
                rank=max(lengths) if exact else rank, captured_energy=min(1.0, energy), generation=manifest.generation,
                rows=manifest.live_rows, row_digest=manifest.row_digest, algorithm=groups[0].algorithm,
                provenance=json.dumps(provenance, sort_keys=True),
            )  # fmt: skip
            for group in groups:
                writer.append(group)
            writer.finish(basis_pages([(len(group.eigenvalues), group.gradient_length) for group in groups]))
        entry, _ = read_curvature(str(path))
        url = files.joined(files.joined(manifest.folder, "curvature"), f"{entry.digest}.curvature")
        files.put(path, url)
    entry, _ = read_curvature(url)
    done = commit(collection.url, manifest.with_curvature(entry), replacing=manifest)
    seconds = time.monotonic() - started
    written = write_coordinates(collection, coordinates, settings=settings) if coordinates is not None else None
    return Fitted(
        entry.digest, url, written.generation if written is not None else done.generation, manifest.live_rows, energy,
        seconds,
        tuple(
            (layers[group.layer].name, len(group.eigenvalues), group.trace, group.residual) for group in groups
        ),
        written,
    )  # fmt: skip


def _layer_groups(lengths: Sequence[int], gram_limit: int, rank: int) -> list[list[int]]:
    """Consecutive layers of one kind whose sums fit together."""
    groups: list[list[int]] = []
    kind, room = None, 0
    for layer, length in enumerate(lengths):
        small = length <= gram_limit
        count = 8 * length * (length if small else _directions(rank, length) + 1)
        if groups and small == kind and count <= room:
            groups[-1].append(layer)
        else:
            groups.append([layer])
            room = _SUM_BYTES
        kind = small
        room -= count
    return groups


def _directions(rank: int, length: int) -> int:
    return min(length, rank + max(16, rank // 2))


class _Work:
    """The passes over the rows of one fit."""

    def __init__(
        self, manifest: Manifest, jobs: Sequence[Job], settings: Settings, *, rank: int, exact: bool, passes: int,
        seed: int,
    ) -> None:  # fmt: skip
        self.manifest, self.jobs, self.settings = manifest, jobs, settings
        self.rank, self.exact, self.passes, self.seed = rank, exact, passes, seed

    def again_if_lost(self, work: Callable[[], list[FittedGroup]]) -> list[FittedGroup]:
        """Sums are kept where they were made: when a node takes some along, the layers are begun again."""
        for attempt in range(self.settings.attempts):
            try:
                return work()
            except RayError as error:
                lost = f"{type(error).__name__}: sums were lost with their node"
                time.sleep(min(2.0, 0.5 * (attempt + 1)))
        raise ClusterError(f"given up after {self.settings.attempts} attempts: {lost}")

    def solve_gram(self, layers: Sequence[int], _: Sequence[int]) -> list[FittedGroup]:
        """The eigenpairs of layers whose moments are formed, one task a layer."""
        total = self._sum(gram, layers)
        remote = ray.remote(max_retries=0)(eigenpairs)
        spread = remote.options(scheduling_strategy="SPREAD")
        found = [spread.remote(total, place, layer, self.rank, self.exact) for place, layer in enumerate(layers)]
        return list(ray.get(found))

    def iterate(self, layers: Sequence[int], lengths: Sequence[int]) -> list[FittedGroup]:
        """The eigenpairs of layers that are iterated over, all of the group in the same passes."""
        random = np.random.default_rng(self.seed)
        directions: dict[int, NDArray[np.float32]] = {}
        for layer, length in zip(layers, lengths, strict=True):
            start = random.standard_normal((length, _directions(self.rank, length)))
            directions[layer] = np.linalg.qr(start)[0].astype(np.float32)
        remote = ray.remote(max_retries=0)(ritz)
        energies: dict[int, float] = {}
        for number in range(1, self.passes + 1):
            shared = ray.put(directions)
            total = self._sum(applied, layers, directions)
            steps = [
                remote.remote(total, place, layer, shared, rank=self.rank, passes=number)
                for place, layer in enumerate(layers)
            ]
            found: list[tuple[FittedGroup, NDArray[np.float32]]] = ray.get(steps)
            moved = 0.0
            for group, following in found:
                energy = float(group.eigenvalues.sum())
                moved = max(moved, abs(energy - energies.get(group.layer, 0.0)) / energy if energy > 0 else 0.0)
                energies[group.layer] = energy
                directions[group.layer] = following
            if moved < _SETTLED:
                return [group for group, _ in found]
        return [FittedGroup(**{**group.__dict__, "solver": "krylov-stopped"}) for group, _ in found]

    def _sum(self, function: Callable[..., Any], layers: Sequence[int], *shared: Any) -> "ray.ObjectRef":
        """A reference to the sums over all rows; raises IncompleteError if some could not be read."""
        parts: dict[int, Any] = {}
        rows = 0

        def collect(job: Job, result: tuple[int, Any]) -> None:
            nonlocal rows
            rows += result[0]
            parts[job.argument[0].first_row] = result[1]

        jobs = [Job((job.argument, tuple(layers)), job.bytes, job.wanted, job.able) for job in self.jobs]
        scheduler = Scheduler(function, (*shared, self.settings), self.settings, keeps_values=True)
        failed = scheduler.run(jobs, collect)
        if failed:
            texts = [
                f"rows {each.job.argument[0].first_row} and on, {each.job.argument[0].live_rows} of them: {each.reason}"
                for each in failed
            ]
            raise IncompleteError("a fit needs every row; " + "; ".join(texts))
        if rows != self.manifest.live_rows:
            raise IncompleteError(f"a fit needs every row: {rows} of {self.manifest.live_rows} were added up")
        return reduced([parts[row] for row in sorted(parts)])


def eigenpairs(sums: Sequence[NDArray[np.float64]], place: int, layer: int, rank: int, exact: bool) -> FittedGroup:
    """The leading eigenpairs of one of some matrices H."""
    matrix = (sums[place] + sums[place].T) / 2
    length = len(matrix)
    values, vectors = np.linalg.eigh(matrix)
    values, vectors = values[::-1], vectors[:, ::-1]
    # What is below this is rounding of what is above.
    kept = int((values > max(0.0, float(values[0])) * length * np.finfo(np.float64).eps).sum())
    count = kept if exact else min(rank, kept)
    return _group(
        layer, matrix, values[:count].copy(), vectors[:, :count], float(np.trace(matrix)), passes=1,
        spans=exact or count == length, algorithm="gram", solver="lapack-all", product=None,
    )  # fmt: skip


def ritz(
    sums: Sequence[NDArray[np.float64]], place: int, layer: int, directions: dict[int, NDArray[np.float32]], *,
    rank: int, passes: int,
) -> tuple[FittedGroup, NDArray[np.float32]]:  # fmt: skip
    """The Ritz pairs of one layer in the span of its directions, and the directions of the next pass."""
    omega = directions[layer].astype(np.float64)
    image, trace = sums[place][:, :-1], float(sums[place][0, -1])
    # The directions are those that were sent, in single precision: orthonormal but for its rounding.
    correction = np.linalg.inv(np.linalg.cholesky(omega.T @ omega)).T
    basis, image = omega @ correction, image @ correction
    quotient = basis.T @ image
    values, rotation = np.linalg.eigh((quotient + quotient.T) / 2)
    values, rotation = values[::-1], rotation[:, ::-1]
    kept = int((values > max(0.0, float(values[0])) * len(basis) * np.finfo(np.float32).eps).sum())
    count = min(rank, kept)
    group = _group(
        layer, None, values[:count].copy(), basis @ rotation[:, :count], trace, passes=passes, spans=False,
        algorithm="krylov", solver="krylov", product=image @ rotation[:, :count],
    )  # fmt: skip
    return group, np.linalg.qr(image)[0].astype(np.float32)


def _group(
    layer: int, matrix: NDArray[np.float64] | None, values: NDArray[np.float64], vectors: NDArray[np.float64],
    trace: float, *, passes: int, spans: bool, algorithm: str, solver: str, product: NDArray[np.float64] | None,
) -> FittedGroup:  # fmt: skip
    length, count = vectors.shape
    residual = orthogonality = 0.0
    if count:
        image = product if product is not None or matrix is None else matrix @ vectors
        assert image is not None  # noqa: S101 - one of the two is given
        residual = float(np.linalg.norm(image - vectors * values, axis=0).max() / values[0])
        orthogonality = float(np.abs(vectors.T @ vectors - np.eye(count)).max())
    return FittedGroup(
        layer, length, trace, values, np.ascontiguousarray(vectors.T, np.float32), passes, orthogonality, residual,
        spans, algorithm, arithmetic(length) if algorithm == "gram" else "single", solver,
    )  # fmt: skip
