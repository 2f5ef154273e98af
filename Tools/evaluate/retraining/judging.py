"""What follows from the outcomes: against exact LoGRA, against bytes, with errors over queries and over subsets."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from experiment import Doubles, mean_and_error, rank_correlations
from measurement import choosing_half

from retraining.scoring import Outcome
from retraining.ways import logra

__all__ = ["Judgement", "agreement", "best_within", "between_seeds", "judged"]

BLOCKS = 10
BEST = 10


@dataclass(frozen=True)
class Judgement:
    """A way on the queries that chose nothing, beside exact LoGRA of the same d.

    Attributes:
        outcome: What was measured.
        chosen: Mean LDS of the choosing half.
        lds: Mean and standard error over the queries of the other half.
        gain: LDS minus LoGRA's, the mean over the same queries, and its standard error over queries.
        subset_error: The standard error of the gain over the retrained subsets (jackknife in ten blocks).
        ratio: LDS over LoGRA's.
        fewer: Bytes of LoGRA's matrices in f16, without ids, over this way's with ids.
        correlation, top: Rank correlation of the scores with LoGRA's, and how many of its ten best are shared.
    """

    outcome: Outcome
    chosen: float
    lds: tuple[float, float]
    gain: tuple[float, float]
    subset_error: float
    ratio: float
    fewer: float
    correlation: float
    top: float


def agreement(scores: Doubles, reference: Doubles) -> tuple[float, float]:
    """Mean rank correlation with the reference, and the mean number of its ten best that are among the own ten."""
    best = [[{*np.argsort(-row, kind="stable")[:BEST]} for row in matrix] for matrix in (scores, reference)]
    top = float(np.mean([len(own & wanted) for own, wanted in zip(*best, strict=True)]))
    return float(rank_correlations(scores, reference).mean()), top


def jackknife(one: Doubles, other: Doubles, losses: Doubles) -> float:
    """The standard error, over subsets, of the mean difference of two LDS.

    Args:
        one: [queries, subsets], sums of scores.
        other: The same of the other method.
        losses: [subsets, queries].
    """
    place = np.arange(len(losses)) % BLOCKS
    found = []
    for block in range(BLOCKS):
        kept = place != block
        target = -losses[kept].T
        found.append((rank_correlations(one[:, kept], target) - rank_correlations(other[:, kept], target)).mean())
    return float(np.sqrt((BLOCKS - 1) / BLOCKS * ((np.array(found) - np.mean(found)) ** 2).sum()))


def between_seeds(losses: Doubles) -> float | None:
    """How far one seed's losses [seeds, subsets, queries] rank the subsets as another's: the noise of a target."""
    if len(losses) < 2:
        return None
    return float(rank_correlations(losses[0].T, losses[1].T).mean())


def judged(outcomes: Sequence[Outcome], losses: Doubles, matrix_bytes: dict[int, int]) -> list[Judgement]:
    """Every outcome beside LoGRA; ways without gradients are compared with LoGRA of the largest d.

    Args:
        outcomes: Of all ways.
        losses: [subsets, queries], the mean over seeds.
        matrix_bytes: Of every d: what an example's matrices take in f16.
    """
    by_key = {outcome.way.key: outcome for outcome in outcomes}
    half = choosing_half(losses.shape[1])
    result = []
    for outcome in outcomes:
        d = outcome.way.d or max(matrix_bytes)
        reference = by_key[logra(d).key]
        own, other = outcome.lds[~half], reference.lds[~half]
        result.append(
            Judgement(
                outcome,
                float(outcome.lds[half].mean()),
                mean_and_error(own),
                mean_and_error(own - other),
                jackknife(outcome.sums[~half], reference.sums[~half], losses[:, ~half]),
                float(own.mean() / other.mean()),
                matrix_bytes[d] / outcome.payload if outcome.payload else float("inf"),
                *agreement(outcome.scores, reference.scores),
            )
        )
    return result


def _ours(each: Judgement) -> bool:
    return each.outcome.way.family.startswith("LoRIF")


def best_within(found: Sequence[Judgement], d: int, times: float) -> Judgement | None:
    """What is best on the choosing half among all that take at least `times` fewer bytes than LoGRA of the same d."""
    among = [each for each in found if each.outcome.way.d == d and _ours(each) and each.fewer >= times]
    return max(among, key=lambda each: each.chosen, default=None)
