"""Kernels and a small store by themselves, within a process: `Tools/Benchmarks`, as one table.

Builds that package (minutes, the first time), runs its benchmarks and prints the median and the 90th percentile of
each. Kernels: one thread, pages of 1,024 rows by 64 numbers of one layer, more of them than the caches hold; a page of
decoding is one side, one of scoring both. Store: the demo set, 510 examples of 8 layers in q4.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

from processes import ROOT, machine

PACKAGE = ROOT / "Tools/Benchmarks"
#: The package writes nothing, but its sandbox would keep it from memory that threads share.
COMMAND = ["swift", "package", "--disable-sandbox", "benchmark", "--no-progress", "--format", "markdown"]
SECTION = re.compile(r"^### (.+?)\n(.*?)(?=^##|\Z)", re.MULTILINE | re.DOTALL)
TIME = re.compile(r"^\| Time \(wall clock\) \((\S+?)\)[^|]*\|(.*)\|$", re.MULTILINE)
#: Places of p50, p90 and the number of samples in a line.
MEDIAN, LATE, SAMPLES = 2, 4, 7


def table(text: str) -> list[str]:
    """One line for each benchmark of what the package prints; exits if it printed none."""
    lines = []
    for name, body in SECTION.findall(text):
        found = TIME.search(body)
        if found is None:
            continue
        unit, cells = found[1], [cell.strip() for cell in found[2].split("|")]
        lines.append(f"| {name} | {cells[MEDIAN]} {unit} | {cells[LATE]} {unit} | {cells[SAMPLES]} |")
    if not lines:
        sys.exit(f"expected tables of {' '.join(COMMAND)}, found:\n{text[-2000:]}")
    return ["| benchmark | median | 90 % within | samples |", "| --- | ---: | ---: | ---: |", *lines]


def main() -> None:
    """Runs and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--filter", help="regular expression of benchmarks; all unless said")
    parser.add_argument("--output", type=Path, help="Markdown file; standard output unless said")
    options = parser.parse_args()
    facts = machine(ROOT)
    command = [*COMMAND, *(["--filter", options.filter] if options.filter else [])]
    done = subprocess.run(command, cwd=PACKAGE, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    described = [f"- {name}: {value}" for name, value in facts.items()]
    text = "\n".join(
        ["# Kernels and a small store", "", (__doc__ or "").strip(), "", *described, "", *table(done.stdout)]
    )
    if options.output:
        options.output.write_text(text + "\n")
    else:
        print(text)


if __name__ == "__main__":
    main()
