"""The results as Markdown: goals first, then every table, then what failed."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from contest.entrants import ALL, COLD, KINDS, TOP, WARM, Figure, Measurement, Results
from contest.stages import REFERENCE

STATES = {WARM: "warm", COLD: "cold, files evicted from the page cache"}


def digits(value: float) -> str:
    """Three significant digits; whole numbers from 100 on."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def times(value: float) -> str:
    """A ratio."""
    return f"×{value:,.0f}" if value >= 10 else f"×{value:.2g}"


def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table, numbers to the right."""
    marks = ["---"] + ["---:"] * (len(header) - 1)
    return ["| " + " | ".join(row) + " |" for row in (header, marks, *lines)] + [""]


@dataclass(frozen=True)
class Goal:
    """A ratio that is wanted: what a peer takes over what lorif takes.

    Attributes:
        text: In words.
        peer: Entrant.
        ours: Entrant.
        kind: Of the queries.
        queries: Their number.
        least: The ratio wanted.
        whole: Whether processes are compared, not scans.
        imports: Whether starting Python and importing counts for the peer's process; without, it is opening and scan.
    """

    text: str
    peer: str
    ours: str
    kind: str
    queries: int
    least: float
    whole: bool = False
    imports: bool = True


BERGSON = ("bergson, f32 index", "lorif q2 c=4", "full", 1, 100.0)
GOALS = (
    *(
        Goal(f"one full-rank query, scan, {ours}", "torch, LoGRA f16", ours, "full", 1, least)
        for ours, least in (("lorif int8 c=1", 20.0), ("lorif q2 c=4", 50.0), ("lorif q1 full", 50.0))
    ),
    *(
        Goal(f"{count} full-rank queries, scan, {ours}", "torch, LoGRA f16", ours, "full", count, least)
        for count, least in ((64, 5.0), (256, 2.0))
        for ours in ("lorif int8 c=1", "lorif q2 c=4", "lorif q2 c=4, no guarantee", "lorif q1 full")
    ),
    *(
        Goal(f"{count} of rank 1, scan, {ours}", "torch, factors", ours, "rank-1", count, 3.0)
        for count in (1, 256)
        for ours in ("lorif int8 c=1", "lorif f16 c=1")
    ),
    Goal("one full-rank query, open to answer, lorif q2 c=4", *BERGSON, whole=True),
    Goal("the same, without starting Python and importing", *BERGSON, whole=True, imports=False),
)


def reached(goal: Goal, results: Results) -> float | None:
    """The ratio, both measured in turns; None if one of them is missing."""
    for peer in results.measurements:
        found = (peer.name, peer.kind, peer.queries, peer.answer, peer.state)
        if found != (goal.peer, goal.kind, goal.queries, TOP, WARM) or not peer.process:
            continue
        ours = results.find(goal.ours, goal.kind, goal.queries, group=peer.group, rows=peer.rows)
        if ours is not None:
            if goal.whole and not goal.imports:
                return (median(peer.opening) + peer.scan_median) / ours.process_median
            if goal.whole:
                return peer.process_median / ours.process_median
            return peer.scan_median / ours.scan_median
    return None


def goals(results: Results) -> list[str]:
    """Wanted beside measured."""
    lines = []
    for goal in GOALS:
        ratio = reached(goal, results)
        verdict = "not measured" if ratio is None else "yes" if ratio >= goal.least else "no"
        measured = "" if ratio is None else times(ratio)
        lines.append([goal.text, goal.peer, f"≥ ×{goal.least:.0f}", measured, verdict])
    return ["## Wanted and measured", "", *table(["what", "peer / lorif", "wanted", "measured", "reached"], lines)]


def cell(found: Measurement | None, results: Results) -> str:
    """Process and scan, and how many times those of lorif measured in turns with it."""
    if found is None:
        return ""
    if not found.process:
        return "failed"
    text = f"{digits(found.process_median)} / {digits(found.scan_median)}"
    ours = results.find(
        REFERENCE[found.kind],
        found.kind,
        found.queries,
        answer=found.answer,
        state=found.state,
        group=found.group,
        rows=found.rows,
    )
    if ours is None or ours is found:
        return text
    whole, scan = found.process_median / ours.process_median, found.scan_median / ours.scan_median
    return f"{text} ({times(whole)} / {times(scan)})"


def queries(results: Results) -> list[str]:
    """A table for every kind of query, answer and state."""
    lines = ["## Queries", ""]
    lines.append(
        "Seconds of the whole process / of the scan once the store is open (medians), and in brackets how many times"
        " those of the reference in the title, measured in turns with it. Warm scans of the others are the better of"
        " two in one process and include the choice of the ten best; where all scores are wanted, processes include"
        " writing them. Peak is resident memory, with the pages of mapped files that were touched."
    )
    lines.append("")
    scaled = [each for each in results.measurements if not each.group.startswith("N = ")]
    for kind in KINDS:
        for answer in (TOP, ALL):
            for state, words in STATES.items():
                here = [each for each in scaled if (each.kind, each.answer, each.state) == (kind, answer, state)]
                counts = sorted({each.queries for each in here if each.process})
                if not counts:
                    continue
                rows = []
                seen: dict[tuple[str, str], list[Measurement]] = {}
                for each in here:
                    seen.setdefault((each.name, each.group), []).append(each)
                shown = set()
                for (name, _), found in seen.items():
                    if name in shown:  # lorif again, beside another peer: the JSON has it
                        continue
                    shown.add(name)
                    by_count = {each.queries: each for each in found}
                    peak = max(each.peak for each in found)
                    rows.append(
                        [name, *(cell(by_count.get(count), results) for count in counts), f"{peak / 1e6:,.0f} MB"]
                    )
                title = f"{kind} queries, {answer}, {words}; reference: {REFERENCE[kind]}"
                lines += [f"### {title}", "", *table(["", *(f"Q = {count}" for count in counts), "peak"], rows)]
    return lines


def rates(results: Results) -> list[str]:
    """Rows times queries a second of warm scans."""
    here = [each for each in results.measurements if (each.answer, each.state) == (TOP, WARM) and each.scan]
    here = [each for each in here if not each.group.startswith("N = ")]
    counts = sorted({each.queries for each in here})
    lines: dict[str, dict[int, str]] = {}
    for each in here:
        rate = each.rows * each.queries / each.scan_median / 1e6
        lines.setdefault(f"{each.name}, {each.kind}", {}).setdefault(each.queries, digits(rate))
    rows = [[name, *(cells.get(count, "") for count in counts)] for name, cells in lines.items()]
    header = ["", *(f"Q = {count}" for count in counts)]
    return ["### Million rows × queries a second, warm scans, top 10", "", *table(header, rows)]


def sizes(results: Results) -> list[str]:
    """Bytes per example."""
    lines = []
    dense = next((size.bytes for size in results.sizes if size.owner == "LoGRA"), None)
    for size in results.sizes:
        weight = f"{size.bytes:,.0f}" if size.bytes is not None else "not made"
        ratio = times(dense / size.bytes) if dense and size.bytes else ""
        lines.append([f"{size.owner}: {size.name}", weight, ratio, f"{size.rows:,}", size.note])
    return ["## Bytes per example", "", *table(["", "bytes", "LoGRA f16 is", "examples weighed", ""], lines)]


def shown(name: str, value: str | float) -> str:
    """A figure's cell."""
    if isinstance(value, str):
        return value
    if name == "peak":
        return f"{value / 1e6:,.0f} MB"
    if name == "energy":
        return f"{value:.1%}"
    return digits(value)


def figures(results: Results, part: str, title: str) -> list[str]:
    """A table of figures of a part."""
    here: list[Figure] = [figure for figure in results.figures if figure.part == part]
    if not here:
        return []
    columns = list(dict.fromkeys(name for figure in here for name in figure.values))
    rows = [
        [figure.name, *(shown(name, figure.values[name]) if name in figure.values else "" for name in columns)]
        for figure in here
    ]
    return [f"## {title}", "", *table(["", *columns], rows)]


def scaling(results: Results) -> list[str]:
    """One query against N, with the rows that all other tables are about."""
    names = ("torch, LoGRA f16", "lorif q2 c=4", "torch, factors", "lorif int8 c=1")
    here = [
        each
        for each in results.measurements
        if each.queries == 1 and each.answer == TOP and each.name in names
        and (each.group.startswith(("N = ", "memory maps")))
        and (each.name != "lorif int8 c=1" or each.kind == "rank-1")
    ]  # fmt: skip
    counts = sorted({each.rows for each in here})
    if len(counts) < 2:
        return []
    lines = []
    for name in names:
        for state in STATES:
            by_rows = {each.rows: each for each in here if (each.name, each.state) == (name, state)}
            if by_rows:
                lines.append([f"{name}, {state}", *(cell(by_rows.get(count), results) for count in counts)])
    return [
        "## One query against N", "",
        "As above: process / scan seconds. The first two are asked a full-rank query, the others one of rank 1.", "",
        *table(["", *(f"N = {count:,}" for count in counts)], lines),
    ]  # fmt: skip


def failures(results: Results) -> list[str]:
    """Everything that was not measured, and why; a line for each name and reason."""
    asked: dict[tuple[str, str], list[str]] = {}
    for each in results.measurements:
        if each.failure:
            point = f"{each.queries} {each.kind}, {each.state}"
            if each.group.startswith("N = "):
                point += f", N = {each.rows:,}"
            asked.setdefault((each.name, each.failure), []).append(point)
    lines = [[name, "; ".join(dict.fromkeys(points)), why] for (name, why), points in asked.items()]
    return ["## Not measured", "", *table(["", "queries", "why"], lines)] if lines else []


def markdown(results: Results) -> str:
    """The whole report."""
    packages = [[each["name"], each["version"], each["failure"] or "yes"] for each in results.packages]
    lines = [
        "# lorif beside its peers", "",
        "Written by `Tools/bench/peers.py`; every run is in peers.json, the plots are peers-*.svg.", "",
        *(f"- {name}: {value}" for name, value in results.facts.items()), "",
        *goals(results),
        "## Installed", "", *table(["package", "version", "usable"], packages),
        *figures(results, "limits", "Limits of this machine, in the same run"),
        *sizes(results),
        *queries(results),
        *rates(results),
        *scaling(results),
        *figures(results, "builds", "Building curvature"),
        *figures(results, "agreement", "Agreement"),
    ]  # fmt: skip
    if any(figure.part == "agreement" for figure in results.figures):
        lines += [
            "Out of ten, on average over the queries: the list against the highest of the entrant's own scores; its ten"
            " best of a subset of the rows against a float64 reference on the rows as it stores them, with the largest"
            " difference of a score in standard deviations; the list against LoGRA's.", "",
        ]  # fmt: skip
    lines += failures(results)
    return "\n".join(lines).rstrip() + "\n"
