"""LDS against bytes per example, drawn from the JSON of an experiment; needs matplotlib."""

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

__all__ = ["draw"]

COLOURS = {"LoRIF whitened": "#c1440e", "LoRIF": "#e0a458", "LoGRA": "#1f3b57", "dot": "#5b7083", "cosine": "#8fa3b3",
           "TRAK": "#4a7c59", "random": "#bbbbbb", "embedding": "#8a6fa8"}  # fmt: skip
MARKERS = "osD^vP"


def _shown(row: dict[str, Any]) -> bool:
    """Influence with exact curvature, of one ε, and the methods that need no curvature of their own."""
    return row["asked"] in ("exact", "", "cosine", "exact global") and row["bytes_per_example"] > 0


def draw(results: Path, target: Path) -> None:
    """Writes an SVG that is the same for the same results.

    Lines join what differs in the rank only: family, d and encoding are equal along them.
    """
    import matplotlib.pyplot as plt  # noqa: PLC0415 - only this needs it

    plt.switch_backend("svg")
    plt.rcParams["svg.fonttype"] = "none"
    plt.rcParams["svg.hashsalt"] = "lorif"
    content = json.loads(results.read_text(encoding="utf-8"))
    dimensions = content["plan"]["dimensions"]
    lines: defaultdict[tuple[str, int, str], list[dict[str, Any]]] = defaultdict(list)
    for row in filter(_shown, content["methods"]):
        # Matrices and what other methods keep are points of their own.
        joined = row["encoding"] if row["rank"] else f"{row['encoding']} matrices"
        lines[row["family"], row["d"], joined].append(row)
    figure, axes = plt.subplots(figsize=(8, 5))
    named = set()
    for (family, d, _), rows in sorted(lines.items(), key=lambda item: item[0][0] == "LoRIF whitened"):
        rows.sort(key=lambda row: row["bytes_per_example"])
        label = f"{family}, d = {d}" if d else family
        axes.errorbar(
            [row["bytes_per_example"] for row in rows],
            [row["lds"] for row in rows],
            [row["standard_error"] for row in rows],
            color=COLOURS[family],
            marker=MARKERS[dimensions.index(d) % len(MARKERS)] if d else "x",
            markersize=5,
            linewidth=0.8,
            elinewidth=0.4,
            label=None if label in named else label,
        )
        named.add(label)
    axes.set_xscale("log")
    axes.set_xlabel("bytes per example (large store, ids included)")
    axes.set_ylabel("LDS (± standard error over queries)")
    axes.set_title(f"{content['plan']['task']}: attribution quality against bytes", fontsize=10)
    axes.grid(which="major", alpha=0.3)
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(target, metadata={"Date": None}, bbox_inches="tight")
    plt.close(figure)


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
