"""Scales of layers over several units: 1/tr(H) of *all* rows counts, which no unit can know.

tr(H) is a sum of stored norms. It is added up here in the order in which the program would add it up.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lorif.ray.cache import Unit
from lorif.ray.errors import IncompleteError
from lorif.ray.scheduler import Job
from lorif.ray.worker import squared_norms


def layer_scales(session: Any, jobs: Sequence[Job]) -> dict[str, float]:
    """tr(H) of every layer, by its name, over the live rows of all units."""
    blocks: dict[int, NDArray[np.float64]] = {}
    fresh = [Job(job.argument, job.bytes, job.wanted, job.able) for job in jobs]
    failed = session.run(norms_of, fresh, on_result=lambda _, found: blocks.update(found))
    if failed:
        raise IncompleteError(f"tr(H) needs the norms of all rows: {failed[0].reason}")
    ordered = np.concatenate([blocks[row] for row in sorted(blocks)])
    sums = np.cumsum(ordered, axis=0)[-1].tolist()
    return {layer.name: scale for layer, scale in zip(session.manifest.layers, sums, strict=True)}


def norms_of(unit: Unit) -> dict[int, NDArray[np.float64]]:
    """As `squared_norms`, for tasks."""
    return squared_norms(unit)
