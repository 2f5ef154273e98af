"""Short tables of the README, each made from result files that are committed."""

import json
import re
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

__all__ = ["RENDERERS"]

Row = dict[str, Any]
#: Entrants of peers.json in the README's order, whose bytes those are, and how they are called there.
PEERS = {
    "bergson, f32 index": "bergson: f32",
    "bergson, f16 index": "bergson: f16",
    "LogIX": "LogIX: f32 matrices and JSON",
    "dattri, LoGra cache": "dattri: f32 gradients and their copies after the Hessian",
    "TRAK, p = 4,096": "TRAK: f16 features",
    "FAISS flat": "FAISS: flat, f32",
    "FAISS IVF-SQ8, 1/8 of the lists": "FAISS: IVF, 8-bit",
    "torch, LoGRA f16": "LoGRA: f16 matrices, memory map",
    "torch, factors, uᵀGv": "NumPy: f16 factors, c = 1, memory map",
    "lorif int8 c=1": "lorif: int8, c = 1",
    "lorif q2 c=4": "lorif: q2, c = 4",
    "lorif q1 full": "lorif: q1, full",
}
#: Kind of the queries, whose scans are compared, with whose.
SCANS = (
    (
        "full",
        tuple(name for name in PEERS if name.startswith("lorif")),
        (*(name for name in PEERS if not name.startswith("lorif")), "torch, factors reconstructed"),
    ),
    ("rank-1", ("lorif int8 c=1", "lorif f16 c=1"), ("torch, factors",)),
)
COUNTS = (1, 8, 64, 256)
TARGETS = ((30, 1.05), (60, 1.0))
MINUS = "–"


def digits(value: float) -> str:
    """Two significant digits; whole numbers from 10 on."""
    return f"{value:,.0f}" if value >= 10 else f"{value:#.2g}".rstrip(".")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, numbers to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def read_table(text: str, heading: str) -> list[dict[str, str]]:
    """The first table after a line that begins with `heading` (or that of the page, for an empty one)."""
    after = re.split(rf"^{re.escape(heading)}.*$", text, maxsplit=1, flags=re.M)[1] if heading else text
    lines = re.search(r"(?:^\|.*\|$\n?)+", after, re.M)
    if lines is None:
        raise ValueError(f"no table after '{heading}'")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[0].splitlines()]
    return [dict(zip(rows[0], row, strict=True)) for row in rows[2:]]


def peers(text: str) -> str:
    """One warm full-rank query and many, ten best of each, on the same rows; and where a peer is faster."""
    content = json.loads(text)
    sizes = {f"{size['owner']}: {size['name']}": size["bytes"] for size in content["sizes"]}
    found: dict[tuple[str, str, int], Row] = {}
    for each in content["measurements"]:
        # lorif is measured again in turns with every peer; first with torch.
        if (each["answer"], each["state"]) == ("top 10", "warm") and not each["group"].startswith("N = "):
            found.setdefault((each["kind"], each["name"], each["queries"]), each)
    found = {point: each for point, each in found.items() if each["process"]}
    rows = []
    for name, size in PEERS.items():
        one, *others = (found.get(("full", name, count)) for count in (1, 64, 256))
        peak = max(
            (each["peak"] for (kind, other, _), each in found.items() if (kind, other) == ("full", name)), default=0
        )
        weight = sizes[size]
        rows.append(
            [
                name,
                MINUS if weight is None else f"{weight:,.0f}",
                MINUS if one is None else digits(median(one["process"])),
                *(MINUS if each is None else digits(1000 * median(each["scan"])) for each in (one, *others)),
                f"{peak / 1e6:,.0f}" if peak else MINUS,
            ]
        )
    header = ["", "bytes per example", "one query: process, s", "scan, ms", "64: scan, ms", "256: scan, ms", "peak, MB"]
    facts, count = content["facts"], next(iter(found.values()))["rows"]
    absent = [name for name in PEERS if not any(other == name for _, other, _ in found)]
    lines = [
        f"{count:,} rows, {facts['gradients'].split(', ')[1].split(';')[0]}; full-rank queries, ten best of each, files"
        f" in memory; {facts['cores']} cores ({facts['processor']}, {facts['date'][:10]}). A process is measured with"
        " starting Python and importing.",
        *([f"Not measured in that run: {'; '.join(absent)}."] if absent else []),
    ]
    return "\n".join([*lines, "", table(header, rows), faster(found)])


def faster(found: dict[tuple[str, str, int], Row]) -> str:
    """The sentence about where a peer wins."""
    parts = []
    for kind, ours, theirs in SCANS:
        for own_name in ours:
            lost = []
            for count in COUNTS:
                own = found.get((kind, own_name, count))
                scans = {
                    name: median(found[kind, name, count]["scan"]) for name in theirs if (kind, name, count) in found
                }
                best = min(scans, key=lambda name: scans[name], default=None)
                if own is not None and best is not None and scans[best] < median(own["scan"]):
                    lost.append(f"{count} ({best}, {digits(1000 * scans[best])} ms)")
            if lost:
                parts.append(f"{own_name}, {kind}: {', '.join(lost)}")
    if not parts:
        return "No peer scans faster than lorif, with full-rank queries or those of rank 1, 1 to 256 of them.\n"
    return f"Where a peer scans faster, whatever it keeps, by the number of queries: {'; '.join(parts)}.\n"


def _lds(row: Row) -> str:
    return f"{row['lds']:.3f} ± {row['standard_error']:.3f}"


#: What the title of a way says whose gradients are means over checkpoints.
AVERAGED = re.compile(r", gradients averaged over \d+ checkpoints$")
#: … and of those of one checkpoint.
ONE = re.compile(r"^(?!.*checkpoints)")


def _best(methods: Sequence[Row], d: int, times: float) -> Row | None:
    """As retraining/judging.py has it: the best on the choosing half that is so many times smaller than LoGRA's f16."""
    among = [
        row for row in methods
        if row["d"] == d and row["family"].startswith("LoRIF") and (row["times_fewer"] or 0) >= times
    ]  # fmt: skip
    return max(among, key=lambda row: row["lds_choosing"], default=None)


def _logra(methods: Sequence[Row], d: int) -> Row:
    """The first exact one in f16, of one checkpoint unless there is none."""
    title = f"LoGRA: d = {d}, full, f16, exact"
    return min((row for row in methods if AVERAGED.sub("", row["title"]) == title), key=lambda row: row["title"])


def _best_cell(best: Row | None) -> str:
    """Its bytes, what it is, its score, and how that compares with LoGRA's of one checkpoint."""
    if best is None:
        return "none so small"
    how = AVERAGED.sub("", best["title"].split(": ")[1]).split(", ", 1)[1].removesuffix(", exact")
    return (
        f"{best['bytes_per_example']:,.0f} ({'whitened, ' * (best['family'] == 'LoRIF whitened')}{how}):"
        f" {_lds(best)}, ×{best['of_logra']:.2f}"
        f" ({best['minus_logra']:+.3f} ± {best['minus_logra_standard_error_over_subsets']:.3f})"
    )


def targets(*texts: str) -> str:
    """Exact LoGRA and the best that is 30 and 60 times smaller, at every d; of one checkpoint and of several."""
    rows = []
    reached = {(averaged, times): [0, 0] for averaged in (False, True) for times, _ in TARGETS}
    for text in texts:
        content = json.loads(text)
        for d in content["plan"]["dimensions"]:
            for averaged in (False, True):
                kind = AVERAGED if averaged else ONE
                methods = [row for row in content["methods"] if kind.search(row["title"])]
                if not methods:
                    continue
                logra = _logra(methods, d)
                cells = ["… averaged" if averaged else f"{content['plan']['task']}, d = {d}"]
                cells.append(f"{logra['bytes_per_example']:,.0f}: {_lds(logra)}")
                for times, wanted in TARGETS:
                    best = _best(methods, d, times)
                    cells.append(_best_cell(best))
                    if best is not None:
                        reached[averaged, times][0] += best["of_logra"] >= wanted
                        reached[averaged, times][1] += 1
                rows.append(cells)
    header = ["bytes per example: LDS", "LoGRA, f16", *(f"≥ {times} times fewer bytes" for times, _ in TARGETS)]
    wanted = "; ".join(
        f"at least {factor:.2f} times the LDS of one checkpoint's LoGRA with {times} times fewer bytes in"
        f" {reached[False, times][0]} of {reached[False, times][1]}, and with averaged gradients in"
        f" {reached[True, times][0]} of {reached[True, times][1]}"
        for times, factor in TARGETS
    )
    return table(header, rows) + f"\nReached: {wanted}.\n"


def whitening(*texts: str) -> str:
    """q2 factors with and without whitening, by rank, at the largest d of every experiment."""
    parts = []
    for text in texts:
        content = json.loads(text)
        plan, by_title = content["plan"], {row["title"]: row for row in content["methods"]}
        d, ranks = max(plan["dimensions"]), plan["ranks"]
        forms = [f"c = {rank}" for rank in ranks]
        own = [f"d = {d}, {form}, q2" for form in forms]
        whole = by_title[f"LoRIF whitened: d = {d}, full, q2, exact"]
        logra = _logra(content["methods"], d)

        def cells(family: str, end: str, own: list[str] = own, by_title: dict[str, Row] = by_title) -> list[str]:
            return [f"{by_title[f'{family}: {each}, {end}']['lds']:.3f}" for each in own]

        sizes = [by_title[f"LoRIF: {each}, exact"]["bytes_per_example"] for each in own]
        rows = [
            ["bytes per example", *(f"{size:,.0f}" for size in (*sizes, whole["bytes_per_example"]))],
            ["as given", *cells("LoRIF", "exact"), MINUS],
            ["whitened", *cells("LoRIF whitened", "exact"), f"{whole['lds']:.3f}"],
            ["… `whitened-dot`, no curvature", *cells("LoRIF whitened", "no curvature"), MINUS],
        ]
        title = (
            f"{plan['task']}, d = {d}, q2; LoGRA in f16: {logra['bytes_per_example']:,.0f} bytes,"
            f" {_lds(logra)}"
        )  # fmt: skip
        parts.append(table([title, *forms, "full matrices"], rows))
    return "\n".join(parts)


#: What the README says of what helps: rows of both experiments, by the beginning of their titles there.
CHANGES = (
    "whitening before truncation", "whitening of 100 examples", "whitening of 20 examples", "ε = 0.01", "ε = 0.03",
    "ε = 0.3", "d = 32 → ", "c = 2 → 4", "c = 4 → 8", "ranks by layer that keep 70%", "4 bits → 2 bits",
    "2 bits → 1 bit", "curvature of rank 64", "curvature of rank 16", "global curvature instead of one per layer",
    "no curvature in the whitened basis", "gradients averaged over 3 checkpoints", "mean of 3 checkpoints",
)  # fmt: skip


def changes(*texts: str) -> str:
    """What one change of the store or the question gains, in every experiment."""
    contents = [json.loads(text) for text in texts]
    header = ["LDS gained (bytes per example)"]
    for content in contents:
        plan = content["plan"]
        header.append(f"{plan['task']}, d = {max(plan['dimensions'])}")
    rows = []
    for start in CHANGES:
        found = [
            next(row for row in content["changes"] if row["title"].startswith(start) and "matrices" not in row["title"])
            for content in contents
        ]
        cells = [found[0]["title"] if len({row["title"] for row in found}) == 1 else start.rstrip() + " …"]
        for row in found:
            (gain, error), subset_error = row["gain"], row["subset_error"]
            before, after = (f"{size:,.0f}" for size in row["sizes"])
            bytes_text = before if before == after else f"{before} → {after}"
            cells.append(f"{gain:+.3f} ± {max(error, subset_error):.3f} ({bytes_text})")
        rows.append(cells)
    return table(header, rows)


def dampings(*texts: str) -> str:
    """How far the default damping is from the best of each way, at the largest d."""
    rows = []
    kinds = (("LoGRA", "1"), ("LoRIF", "1"), ("LoRIF whitened", "30"))
    contents = [json.loads(text) for text in texts]
    for family, default in kinds:
        cells = [f"{family}, ρ = {default}"]
        for content in contents:
            plan = content["plan"]
            lost = [
                max(row["lds_by_rho"].values()) - row["lds_by_rho"][default]
                for row in content["methods"]
                if row["family"] == family and row["d"] == max(plan["dimensions"]) and default in row["lds_by_rho"]
            ]
            cells.append(f"{sum(lost) / len(lost):.3f} (at most {max(lost):.3f})")
        rows.append(cells)
    tasks = [content["plan"]["task"] for content in contents]
    return table(["LDS lost to the best ρ, mean over the ways", *tasks], rows)


#: Rows of methods.md that the README has.
METHODS = (
    "random", "dot: full, f16", "TRAK: concatenated, f16, exact global", "LoRIF: c = 1, q4, r = 64",
    "LoRIF: c = 4, q4, r = 64", "LoRIF: c = 4, q4, global r = 256", "LoRIF whitened: c = 4, q2, r = 16",
    "LoRIF whitened: c = 4, q2, `whitened-dot`", "LoGRA: full, f16, exact",
)  # fmt: skip


def methods(text: str) -> str:
    """Bytes, LDS and agreement of some methods."""
    by_title = {row["method"]: row for row in read_table(text, "")}
    columns = ["B/example", "LDS", "rank corr. with LoGRA"]
    return table(
        ["", "bytes per example", "LDS", "rank correlation with LoGRA"],
        [[title, *(by_title[title][column] for column in columns)] for title in METHODS],
    )


def sizes(text: str) -> str:
    """Bytes per example by encoding and rank."""
    rows = {row["encoding"]: row for row in read_table(text, "")}
    forms = ["c = 1", "c = 4", "c = 8", "full"]
    shown = ["`f16`", "`int8`", "`q4`", "`q2`", "`q1`"]
    return table(["", *forms[:-1], "full matrices"], [[name, *(rows[name][form] for form in forms)] for name in shown])


def encodings(text: str) -> str:
    """What encodings lose against f32, and the default damping against the best."""
    losses = {row["store"]: row["loss"] for row in read_table(text, "## What an encoding costs")}
    forms = ["c = 1", "c = 4", "c = 8", "full"]
    shown = ["f16", "int8", "q4", "q3", "q2", "q1"]
    dampings = [row for row in read_table(text, "## Damping") if row["store and curvature"].endswith("exact")]
    behind = [max(float(row[each]) for each in row if "ρ =" in each) - float(row["ρ = 1"]) for row in dampings]
    rows = [[f"`{name}`", *(losses[f"{form}, {name}"] for form in forms)] for name in shown]
    return table(["", *forms[:-1], "full matrices"], rows) + (
        f"\nThe default damping, ρ = 1, is {sum(behind) / len(behind):.3f} below the best ρ on average over the ranks"
        " (exact curvature, f32).\n"
    )


RENDERERS: dict[str, Callable[..., str]] = {
    "encodings": encodings, "methods": methods, "peers": peers, "sizes": sizes, "targets": targets,
    "whitening": whitening,
    "changes": changes,
    "dampings": dampings,
}  # fmt: skip
