"""What was measured, what follows from it, and nothing about how."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from experiment import Doubles, mean_and_error

BUDGETS = (250, 350, 500, 700, 1000, 1400, 2000, 4000)
RHOS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
DOT = "dot"
EXACT = "exact"


@dataclass(frozen=True)
class Store:
    """One way to keep the training gradients.

    Attributes:
        rank: c, or None for dense rows.
        encoding: Of factors or dense rows.
    """

    rank: int | None
    encoding: str

    @property
    def form(self) -> str:
        """`c = 4` or `full`."""
        return "full" if self.rank is None else f"c = {self.rank}"


@dataclass(frozen=True)
class Size:
    """Bytes per example of a store.

    Attributes:
        modelled: Codes, scales, norms and ids without compression, as in a large store.
        directory: Every file of the store after ingest, fixed costs included; None without the program.
        fitted: The same after every fit of the sweep; None without the program.
    """

    modelled: float
    directory: float | None = None
    fitted: float | None = None

    @property
    def best_known(self) -> float:
        """The directory's bytes if measured, else the modelled ones."""
        return self.modelled if self.directory is None else self.directory


@dataclass(frozen=True)
class Measurement:
    """The linear datamodeling scores of one store under one curvature and damping.

    Attributes:
        curvature: `exact`, a rank in digits, or `dot` for none.
        rho: Relative damping; None for `dot`.
        scores: [queries].
    """

    store: Store
    curvature: str
    rho: float | None
    scores: Doubles


@dataclass(frozen=True)
class Choice:
    """A damping picked on one half of the queries and judged on the other.

    Attributes:
        rho: The damping with the highest mean on the choosing half; None for `dot`.
        chosen: That mean.
        confirming: The scores of the other half.
        overall: The scores of all queries, at the same damping.
    """

    store: Store
    curvature: str
    rho: float | None
    chosen: float
    confirming: Doubles
    overall: Doubles


def choosing_half(count: int) -> np.ndarray:
    """Mask of the queries used for choosing: every other one, so that both halves hold all sources."""
    return np.arange(count) % 2 == 0


def choose(measurements: Iterable[Measurement]) -> list[Choice]:
    """The best damping of every store and curvature, in the order of first appearance."""
    groups: dict[tuple[Store, str], list[Measurement]] = {}
    for item in measurements:
        groups.setdefault((item.store, item.curvature), []).append(item)
    choices = []
    for (store, curvature), items in groups.items():
        half = choosing_half(len(items[0].scores))
        best = max(items, key=lambda item: item.scores[half].mean())
        choices.append(
            Choice(store, curvature, best.rho, float(best.scores[half].mean()), best.scores[~half], best.scores)
        )
    return choices


def flat_range(items: Sequence[Measurement]) -> tuple[float, float]:
    """The dampings that lose less than 0.01 against the best one on all queries: smallest and largest."""
    means = [item.scores.mean() for item in items]
    good = [item.rho for item, mean in zip(items, means, strict=True) if mean > max(means) - 0.01]
    return min(r for r in good if r is not None), max(r for r in good if r is not None)


def paired_loss(choice: Choice, reference: Choice) -> tuple[float, float]:
    """Mean and standard error of what `choice` lacks against `reference` on the confirming half, query by query."""
    return mean_and_error(reference.confirming - choice.confirming)


def frontier(choices: Iterable[Choice], sizes: dict[Store, Size]) -> list[Choice]:
    """The choices, by rising size, that beat everything smaller on the choosing half."""
    result: list[Choice] = []
    for choice in sorted(choices, key=lambda c: (sizes[c.store].best_known, -c.chosen)):
        if not result or choice.chosen > result[-1].chosen:
            result.append(choice)
    return result


def at_budget(choices: Iterable[Choice], sizes: dict[Store, Size], budget: float) -> dict[str, Doubles]:
    """The scores [queries] that each encoding's factors would have at `budget` bytes per example.

    Interpolated over the rank, linearly in the logarithm of the bytes; encodings whose ranks do not reach from below to
    above the budget are left out.
    """
    curves: dict[str, list[tuple[float, Doubles]]] = {}
    for choice in choices:
        if choice.store.rank is not None:
            point = (float(np.log(sizes[choice.store].best_known)), choice.overall)
            curves.setdefault(choice.store.encoding, []).append(point)
    result = {}
    place = float(np.log(budget))
    for encoding, points in curves.items():
        points.sort(key=lambda point: point[0])
        for (low, below), (high, above) in pairwise(points):
            if low <= place <= high and low < high:
                share = (place - low) / (high - low)
                result[encoding] = (1 - share) * below + share * above
                break
    return result
