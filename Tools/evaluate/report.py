"""Measurements as Markdown for people and JSON for scripts."""

import json
from collections.abc import Sequence

from experiment import mean_and_error
from measurement import (
    BUDGETS,
    DOT,
    EXACT,
    Choice,
    Measurement,
    Size,
    Store,
    at_budget,
    choose,
    choosing_half,
    flat_range,
    frontier,
    paired_loss,
)


def with_error(value: float, error: float) -> str:
    """`0.375 ± 0.012`."""
    # Adding zero turns a rounded -0.0 into 0.0.
    return f"{round(value, 3) + 0.0:.3f} ± {error:.3f}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def number(value: float | None) -> str:
    """A byte count, or a dash if there is none."""
    return "–" if value is None else f"{value:,.0f}"


def damping(rho: float | None) -> str:
    """ρ as short as possible, or a dash."""
    return "–" if rho is None else f"{rho:g}"


def curvature_title(curvature: str) -> str:
    """`exact`, `r = 64` or `dot`."""
    return f"r = {curvature}" if curvature.isdigit() else curvature


def curvatures_of(choices: Sequence[Choice]) -> list[str]:
    """The curvatures, in order of appearance."""
    return list(dict.fromkeys(choice.curvature for choice in choices))


def quality_table(choices: Sequence[Choice], sizes: dict[Store, Size]) -> str:
    """Every store: bytes and the LDS on all queries under every curvature, at the damping of the choosing half."""
    curvatures = curvatures_of(choices)
    found = {(choice.store, choice.curvature): choice for choice in choices}
    rows = []
    for store, size in sizes.items():
        cells = []
        for curvature in curvatures:
            choice = found[store, curvature]
            at = "" if choice.rho is None else f" (ρ {choice.rho:g})"
            cells.append(with_error(*mean_and_error(choice.overall)) + at)
        sizes_text = [number(size.directory), number(size.fitted), number(size.modelled)]
        rows.append([f"{store.form}, {store.encoding}", *sizes_text, *cells])
    header = ["store", "B/example", "after fits", "modelled", *map(curvature_title, curvatures)]
    return table(header, rows)


def damping_table(measurements: Sequence[Measurement]) -> str:
    """Per-layer exact and truncated curvature of the least lossy encoding of every form, over the damping."""
    groups: dict[tuple[Store, str], list[Measurement]] = {}
    encodings = dict.fromkeys(item.store.encoding for item in measurements)
    for item in measurements:
        if item.curvature != DOT and item.store.encoding == next(iter(encodings)):
            groups.setdefault((item.store, item.curvature), []).append(item)
    rows = []
    rhos: list[float | None] = []
    for (store, curvature), items in groups.items():
        rhos = [item.rho for item in items]
        low, high = flat_range(items)
        means = [f"{item.scores.mean():.3f}" for item in items]
        rows.append([f"{store.form}, {store.encoding}, {curvature_title(curvature)}", *means, f"{low:g}–{high:g}"])
    return table(["store and curvature", *(f"ρ = {damping(rho)}" for rho in rhos), "within 0.01"], rows)


def encoding_table(choices: Sequence[Choice], sizes: dict[Store, Size]) -> str:
    """What each encoding loses against the first one of the same form: confirming half, paired by query."""
    exact = {choice.store: choice for choice in choices if choice.curvature == EXACT}
    references: dict[int | None, Choice] = {}
    rows = []
    for store, choice in exact.items():
        reference = references.setdefault(store.rank, choice)
        loss = with_error(*paired_loss(choice, reference)) if choice is not reference else "–"
        rows.append(
            [
                f"{store.form}, {store.encoding}",
                number(sizes[store].best_known),
                damping(choice.rho),
                f"{choice.chosen:.3f}",
                with_error(*mean_and_error(choice.confirming)),
                loss,
            ]
        )
    return table(["store", "B/example", "ρ", "LDS, choosing half", "LDS, confirming half", "loss"], rows)


def frontier_table(choices: Sequence[Choice], sizes: dict[Store, Size]) -> str:
    """The stores that beat everything smaller, by size."""
    best = frontier((choice for choice in choices if choice.curvature == EXACT), sizes)
    rows = [
        [
            f"{choice.store.form}, {choice.store.encoding}",
            number(sizes[choice.store].best_known),
            damping(choice.rho),
            f"{choice.chosen:.3f}",
            with_error(*mean_and_error(choice.confirming)),
        ]
        for choice in best
    ]
    return table(["store", "B/example", "ρ", "LDS, choosing half", "LDS, confirming half"], rows)


def budget_table(choices: Sequence[Choice], sizes: dict[Store, Size]) -> str:
    """Which encoding of factors is worth most at equal size: the best on the choosing half, judged on the other."""
    exact = [choice for choice in choices if choice.curvature == EXACT]
    encodings = list(dict.fromkeys(choice.store.encoding for choice in exact))
    rows = []
    for budget in BUDGETS:
        found = at_budget(exact, sizes, budget)
        if len(found) < 2:
            continue
        half = choosing_half(len(next(iter(found.values()))))
        best, second = sorted(found, key=lambda encoding: -found[encoding][half].mean())[:2]
        lead = with_error(*mean_and_error(found[best][~half] - found[second][~half]))
        cells = [f"{found[e][~half].mean():.3f}" if e in found else "–" for e in encodings]
        rows.append([number(budget), *cells, best, f"{lead} over {second}"])
    return table(["B/example", *encodings, "best on choosing half", "its lead on the other"], rows)


def markdown(title: str, facts: dict[str, str], measurements: Sequence[Measurement], sizes: dict[Store, Size]) -> str:
    """The whole report."""
    choices = choose(measurements)
    parts = [
        f"# {title}",
        "\n".join(f"- {name}: {value}" for name, value in facts.items()),
        "LDS: Spearman's correlation, over the retrained subsets, of the summed scores of a subset's examples with the"
        " query's negative loss; mean over queries ± its standard error over queries. The damping ρ is chosen on every"
        " other query; the confirming half is the rest.",
        "## Quality and size of every store (all queries)",
        quality_table(choices, sizes),
        "## Damping (all queries)",
        damping_table(measurements),
        "## What an encoding costs (exact curvature; loss against the first encoding, paired by query)",
        encoding_table(choices, sizes),
        "## Encodings of factors at equal size (exact curvature; interpolated over the rank; confirming half)",
        budget_table(choices, sizes),
        "## Stores that beat everything smaller (exact curvature)",
        frontier_table(choices, sizes),
    ]
    return "\n\n".join(parts) + "\n"


def as_json(facts: dict[str, str], measurements: Sequence[Measurement], sizes: dict[Store, Size]) -> str:
    """Every number of the report and the scores of every query."""
    rows = []
    for item in measurements:
        mean, error = mean_and_error(item.scores)
        size = sizes[item.store]
        rows.append(
            {
                "rank": item.store.rank,
                "encoding": item.store.encoding,
                "curvature": item.curvature,
                "rho": item.rho,
                "lds": mean,
                "standard_error": error,
                "bytes_per_example": size.directory,
                "bytes_per_example_fitted": size.fitted,
                "bytes_per_example_modelled": size.modelled,
                "per_query": [round(float(score), 6) for score in item.scores],
            }
        )
    chosen = [
        {
            "rank": choice.store.rank,
            "encoding": choice.store.encoding,
            "curvature": choice.curvature,
            "rho": choice.rho,
            "lds_choosing": choice.chosen,
            "lds_confirming": mean_and_error(choice.confirming)[0],
            "standard_error_confirming": mean_and_error(choice.confirming)[1],
        }
        for choice in choose(measurements)
    ]
    return json.dumps({"facts": facts, "chosen": chosen, "measurements": rows}, indent=1, ensure_ascii=False) + "\n"
