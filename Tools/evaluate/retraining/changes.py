"""What helps and what does not: pairs of ways that differ in one thing, on the queries that chose nothing."""

from collections.abc import Sequence
from dataclasses import dataclass

from experiment import Doubles, mean_and_error
from measurement import choosing_half

from retraining.judging import jackknife
from retraining.plans import Plan
from retraining.scoring import Outcome
from retraining.ways import halfway

__all__ = ["Change", "changes", "pairs"]


@dataclass(frozen=True)
class Change:
    """One thing done otherwise.

    Attributes:
        title: The thing.
        before, after: Titles of the ways.
        sizes: Bytes per example of both.
        gain: LDS after minus before and its standard error over queries.
        subset_error: The standard error over the retrained subsets.
    """

    title: str
    before: str
    after: str
    sizes: tuple[float, float]
    gain: tuple[float, float]
    subset_error: float

    @property
    def verdict(self) -> str:
        """In a word; two of the larger standard error are taken for more than chance."""
        error = max(self.gain[1], self.subset_error)
        if abs(self.gain[0]) <= 2 * error:
            return "no difference seen"
        return "helps" if self.gain[0] > 0 else "harms"


def pairs(plan: Plan) -> list[tuple[str, str, str]]:
    """What is done otherwise, and the titles of the ways without and with it, at the largest d."""
    d, middle = max(plan.dimensions), plan.ranks[len(plan.ranks) // 2]
    whitened, plain = (f"{family}: d = {d}, c = {middle}" for family in ("LoRIF whitened", "LoRIF"))
    base = f"{whitened}, q2, exact"
    logra = f"LoGRA: d = {d}, full, f16, exact"
    result = [
        ("curvature instead of the plain inner product", f"dot: d = {d}, full, f16", logra),
        ("norms divided out of the inner product", f"dot: d = {d}, full, f16", f"cosine: d = {d}, full, f16"),
        ("global curvature instead of one per layer", logra, f"LoGRA: d = {d}, full, f16, global"),
        ("whitening before truncation", f"{plain}, q2, exact", base),
        ("whitening, 2-bit matrices", logra, f"LoRIF whitened: d = {d}, full, q2, exact"),
        ("whitening, matrices of signs", logra, f"LoRIF whitened: d = {d}, full, q1, exact"),
        ("4 bits → 2 bits", f"{whitened}, q4, exact", base),
        ("2 bits → 1 bit", base, f"{whitened}, q1, exact"),
        ("no curvature in the whitened basis", base, f"{whitened}, q2, no curvature"),
        ("factors by the recorder", base, f"{base}, factors by the recorder"),
    ]
    checkpoints = f"{len(halfway(plan)) + 1} checkpoints"
    for other in (
        f"mean of {checkpoints}",
        f"gradients averaged over {checkpoints}",
        "gradients as AdamW scales them",
    ):
        result += [(f"{other}, matrices", logra, f"{logra}, {other}"), (other, base, f"{base}, {other}")]
    result += [(f"curvature of rank {r}", base, f"{whitened}, q2, r = {r}") for r in plan.fits]
    result += [(f"ε = {each:g}", base, f"{base}, ε = {each:g}") for each in plan.epsilons[1:]]
    for small, large in zip(plan.ranks, plan.ranks[1:], strict=False):
        one, other = (f"LoRIF whitened: d = {d}, c = {rank}, q2, exact" for rank in (small, large))
        result.append((f"c = {small} → {large}", one, other))
    for small, large in zip(plan.dimensions, plan.dimensions[1:], strict=False):
        one, other = (f"LoRIF whitened: d = {each}, c = {middle}, q2, exact" for each in (small, large))
        result.append((f"d = {small} → {large}", one, other))
    return result


def changes(outcomes: Sequence[Outcome], losses: Doubles, plan: Plan) -> list[Change]:
    """Every pair of which both were measured, and factors of other ranks or whitenings beside those of the middle rank.

    Args:
        outcomes: Of all ways.
        losses: [subsets, queries].
        plan: What was measured.
    """
    by_title = {outcome.way.title: outcome for outcome in outcomes}
    d, middle = max(plan.dimensions), plan.ranks[len(plan.ranks) // 2]
    base = f"LoRIF whitened: d = {d}, c = {middle}, q2, exact"
    wanted = pairs(plan)
    for outcome in outcomes:
        if outcome.way.d == d and outcome.way.energy is not None and outcome.way.recording == "plain":
            wanted.append((f"ranks by layer that keep {outcome.way.form}", base, outcome.way.title))
        if outcome.way.sample is not None:
            wanted.append((f"whitening of {outcome.way.sample} examples", base, outcome.way.title))
    half = ~choosing_half(losses.shape[1])
    result = []
    for title, *titles in wanted:
        if any(each not in by_title for each in titles):
            continue
        before, after = (by_title[each] for each in titles)
        result.append(
            Change(
                title,
                *titles,
                (before.payload, after.payload),
                mean_and_error(after.lds[half] - before.lds[half]),
                jackknife(after.sums[half], before.sums[half], losses[:, half]),
            )
        )
    return result
