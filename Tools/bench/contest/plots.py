"""Plots of peers.json: plots.py peers.json FOLDER. Run by the peers' environment, which has matplotlib."""

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt

OURS, THEIRS = "#c1440e", "#5b7083"
STYLES = ("o-", "s--", "^-.", "D:", "v-", "P--", "X-.", "*:", "<-", ">--", "h-.", "d:")


def colour(name: str) -> str:
    """lorif stands out."""
    return OURS if name.startswith("lorif") else THEIRS


def save(figure: plt.Figure, path: Path) -> None:
    """Without the date, which would differ in every run."""
    figure.savefig(path, metadata={"Date": None}, bbox_inches="tight")
    plt.close(figure)


def plot_sizes(results: dict, folder: Path) -> None:
    """Bytes per example of every format."""
    sizes = [(f"{each['owner']}: {each['name']}", each["bytes"]) for each in results["sizes"] if each["bytes"]]
    if not sizes:
        return
    sizes.sort(key=lambda pair: pair[1])
    figure, axes = plt.subplots(figsize=(8, 0.24 * len(sizes) + 1))
    names = [name for name, _ in sizes]
    axes.barh(names, [size for _, size in sizes], color=[colour(name) for name in names])
    axes.set_xscale("log")
    axes.set_xlabel("bytes per example, all files counted")
    axes.tick_params(axis="y", labelsize=7)
    axes.margins(y=0.01)
    save(figure, folder / "peers-bytes.svg")


def plot_lines(series: dict[str, list[tuple[float, float]]], x: str, title: str, path: Path) -> None:
    """Scan seconds on logarithmic axes."""
    if not series:
        return
    figure, axes = plt.subplots(figsize=(7, 4.5))
    for style, (name, points) in zip(STYLES * (1 + len(series) // len(STYLES)), series.items(), strict=False):
        points.sort()
        axes.plot(*zip(*points, strict=True), style, color=colour(name), label=name, markersize=5)
    axes.set_xscale("log")
    axes.set_yscale("log")
    ticks = sorted({point for points in series.values() for point, _ in points})
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel(x)
    axes.set_ylabel("seconds of the scan, warm")
    axes.set_title(title, fontsize=10)
    axes.grid(which="major", alpha=0.3)
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    save(figure, path)


def main() -> None:
    """All plots that the results have figures for."""
    plt.switch_backend("svg")
    plt.rcParams["svg.fonttype"] = "none"
    plt.rcParams["svg.hashsalt"] = "lorif"  # the same file for the same figures
    results = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    folder = Path(sys.argv[2])
    plot_sizes(results, folder)
    warm = [
        each
        for each in results["measurements"]
        if each["state"] == "warm" and each["answer"] == "top 10" and each["scan"]
    ]
    for kind in ("full", "rank-1"):
        by_queries: dict[str, dict[int, float]] = {}
        by_rows: dict[str, dict[int, float]] = {}
        for each in warm:
            if each["kind"] != kind:
                continue
            if not each["group"].startswith("N = "):
                by_queries.setdefault(each["name"], {}).setdefault(each["queries"], each["scan median"])
            if each["queries"] == 1 and each["group"].startswith(("N = ", "memory maps")):
                by_rows.setdefault(each["name"], {}).setdefault(each["rows"], each["scan median"])
        series = {name: list(points.items()) for name, points in by_queries.items()}
        rows = max((each["rows"] for each in warm if not each["group"].startswith("N = ")), default=0)
        plot_lines(
            series, f"{kind} queries Q", f"{kind} queries, top 10, N = {rows:,}", folder / f"peers-queries-{kind}.svg"
        )
        series = {name: list(points.items()) for name, points in by_rows.items() if len(points) > 1}
        plot_lines(series, "examples N", f"one {kind} query, top 10", folder / f"peers-rows-{kind}.svg")


if __name__ == "__main__":
    main()
