"""An experiment's results as Markdown for people and JSON for scripts."""

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from experiment import mean_and_error
from report import damping, number, table, with_error

from retraining.changes import Change
from retraining.detection import Detection
from retraining.judging import Judgement, best_within
from retraining.plans import Plan
from retraining.removal import Removal

__all__ = ["Results", "as_json", "markdown"]

#: Targets: how many times fewer bytes, and the LDS wanted, as a multiple of exact LoGRA's at the same d.
TARGETS = ((30, 1.05), (60, 1.0))
TASKS = {
    "digits": "scikit-learn's digits, {tokens} patches each, as seen by a transformer of {depth} blocks of width"
    " {width}; {share:.0%} of the training labels are wrong",
    "text": "sequences of {tokens} pieces from three public-domain texts, as seen by a GPT of {depth} blocks of width"
    " {width}; {share:.0%} of the training sequences are shuffled",
}


@dataclass
class Results:
    """Everything that is told."""

    plan: Plan
    facts: dict[str, str]
    judgements: Sequence[Judgement]
    changes: Sequence[Change]
    ceiling: float | None
    removals: Sequence[Removal]
    spoiled: Sequence[Detection]
    copies: Sequence[Detection]
    seconds: dict[str, float]

    def description(self) -> str:
        """The experiment in a sentence."""
        plan = self.plan
        task = TASKS[plan.task].format(tokens=plan.tokens, depth=plan.depth, width=plan.width, share=plan.spoiled)
        return (
            f"{task}. A start is trained on {plan.before:,} other examples; the explained model is it after"
            f" {plan.tuning.epochs} epochs on {plan.train:,} training examples, and so are {plan.subsets} ×"
            f" {plan.seeds} models (random halves × orders) on {plan.train // 2:,} each. {plan.queries} held-out"
            " queries."
        )


def _methods(results: Results) -> str:
    rows = []
    for each in sorted(results.judgements, key=lambda item: item.lds[0]):
        outcome = each.outcome
        gain = "–" if each.gain == (0, 0) else f"{with_error(*each.gain)} (± {each.subset_error:.3f})"
        rows.append(
            [
                outcome.way.title,
                number(outcome.payload),
                "–" if outcome.payload == 0 else f"{each.fewer:.1f}",
                damping(outcome.rho),
                f"{each.chosen:.3f}",
                with_error(*each.lds),
                gain,
                f"{each.correlation:.3f}",
                f"{each.top:.1f}",
            ]
        )
    header = [
        "method",
        "B/example",
        "times fewer",
        "ρ",
        "LDS, choosing",
        "LDS",
        "minus LoGRA's",
        "rank corr.",
        "top 10",
    ]
    return table(header, rows)


def _targets(results: Results) -> str:
    rows = []
    for d in results.plan.dimensions:
        for times, wanted in TARGETS:
            best = best_within(results.judgements, d, times)
            if best is None:
                rows.append([str(d), f"{times}", "none so small", "–", "–", "–", f"{wanted:.2f}"])
                continue
            rows.append(
                [
                    str(d),
                    f"{times}",
                    best.outcome.way.title,
                    f"{best.fewer:.1f}",
                    with_error(*best.lds),
                    f"{best.ratio:.3f}",
                    f"{wanted:.2f}",
                ]
            )
    return table(["d", "at least", "best on the choosing half", "times fewer", "LDS", "of LoGRA's", "wanted"], rows)


def _changes(changes: Sequence[Change]) -> str:
    rows = []
    for each in sorted(changes, key=lambda item: -item.gain[0]):
        sizes = " → ".join(number(size) for size in each.sizes)
        rows.append(
            [each.title, sizes, f"{with_error(*each.gain)} (± {each.subset_error:.3f})", each.verdict, each.after]
        )
    return table(["change", "B/example", "LDS gained", "verdict", "what then is asked"], rows)


def _removals(removals: Sequence[Removal]) -> str:
    control = {each.count: each.increases for each in removals if each.title.startswith("random")}
    rows = [
        [
            each.title,
            str(each.count),
            with_error(*mean_and_error(each.increases)),
            with_error(*mean_and_error(each.increases - control[each.count])),
        ]
        for each in removals
    ]
    return table(["removed by", "examples", "loss gained", "more than by chance"], rows)


def _detections(found: Sequence[Detection], second: str) -> str:
    rows = [[each.title, with_error(each.share, each.error), f"{each.second:.3f}"] for each in found]
    return table(["by", "found", second], rows)


def markdown(results: Results) -> str:
    """The report."""
    ceiling = "" if results.ceiling is None else (
        f" Two orders of the same halves rank them alike with a correlation of {results.ceiling:.3f}."
    )  # fmt: skip
    facts = results.facts | {
        "processor time": ", ".join(f"{kind} {spent:,.0f} s" for kind, spent in results.seconds.items())
    }
    parts = [
        f"# Retraining: {results.plan.task}",
        "\n".join(f"- {name}: {value}" for name, value in facts.items()),
        results.description(),
        "LDS: Spearman's correlation, over the retrained halves, of the summed scores of a half's examples with the"
        " query's negative loss; mean over the queries that no setting was chosen on ± its standard error over queries."
        f"{ceiling} B/example: codes, scales, norms, id and index in a large store, without the curvature, whose size"
        " does not grow with the store. Times fewer: than LoGRA's matrices in f16 at the same d, without ids. Minus"
        " LoGRA's: on the same queries, at the same d, and in brackets its standard error over the retrained halves."
        " Rank correlation and the share of the ten best: with exact LoGRA of the same d, all queries.",
        "## Methods",
        _methods(results),
        "## Fewer bytes than LoGRA's matrices",
        _targets(results),
        "## What helps and what does not",
        "Pairs that differ in one thing, on the queries that no setting was chosen on; errors as above. A difference of"
        " less than two of the larger standard error is none.",
        _changes(results.changes),
    ]
    if results.removals:
        parts += [
            "## Brittleness: the best examples of a query removed, and a model retrained",
            _removals(results.removals),
        ]
    wrong = "wrong labels" if results.plan.task == "digits" else "shuffled texts"
    parts += [
        f"## Finding the {wrong} (share of {wrong} among as many of the most suspicious examples as there are)",
        _detections(results.spoiled, "area under ROC"),
        "## Finding the original of a near copy (share that comes first of all training examples)",
        _detections(results.copies, "mean reciprocal rank"),
    ]
    return "\n\n".join(parts) + "\n"


def as_json(results: Results) -> str:
    """Every number of the report, the LDS at every damping, and the LDS of every query."""
    rows = []
    for each in results.judgements:
        outcome, way = each.outcome, each.outcome.way
        tried = [None if math.isnan(rho) else rho for rho in outcome.rhos.tolist()]
        rows.append(
            {
                "title": way.title,
                "family": way.family,
                "d": way.d,
                "rank": way.rank,
                "encoding": way.encoding,
                "asked": way.asked,
                "epsilon": way.epsilon,
                "bytes_per_example": outcome.payload,
                "bytes_per_example_measured": outcome.directory,
                "curvature_bytes": outcome.curvature,
                "times_fewer": each.fewer if outcome.payload else None,
                "rho": outcome.rho,
                "lds_choosing": each.chosen,
                "lds": each.lds[0],
                "standard_error": each.lds[1],
                "minus_logra": each.gain[0],
                "minus_logra_standard_error": each.gain[1],
                "minus_logra_standard_error_over_subsets": each.subset_error,
                "of_logra": each.ratio,
                "rank_correlation_with_logra": each.correlation,
                "top_10_shared_with_logra": each.top,
                "lds_by_rho": dict(zip(map(damping, tried), outcome.quality.mean(axis=1).tolist(), strict=True)),
                "per_query": [round(float(value), 4) for value in outcome.lds],
            }
        )  # fmt: skip
    removals = [
        {"title": each.title, "count": each.count, "increases": [round(float(value), 6) for value in each.increases]}
        for each in results.removals
    ]
    content = {
        "plan": dataclasses.asdict(results.plan),
        "facts": results.facts,
        "seconds": results.seconds,
        "between_seeds": results.ceiling,
        "methods": rows,
        "changes": [dataclasses.asdict(each) | {"verdict": each.verdict} for each in results.changes],
        "removals": removals,
        "spoiled": [dataclasses.asdict(each) for each in results.spoiled],
        "copies": [dataclasses.asdict(each) for each in results.copies],
    }
    # A line for every entry of a list: short enough to be committed, long enough to be compared.
    parts = []
    for name, part in content.items():
        entries = [json.dumps(entry, ensure_ascii=False) for entry in part] if isinstance(part, list) else None
        text = json.dumps(part, ensure_ascii=False) if entries is None else "[\n" + ",\n".join(entries) + "\n]"
        parts.append(f"{json.dumps(name)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"
