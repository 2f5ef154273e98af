"""Rates of queries beside what the machine can read.

Makes stores of real factors with fresh directions (16 layers of 64×64), asks them by inner product with `--explain
analyze`, and runs a plain sum over the same files in turns (Tools/Benchmarks/reading/read.c). Queries are stored
examples, of the store's rank, or full matrices with 32 singular values, each 0.7 times the one before.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from batches import Shape, generate, identifier
from processes import ROOT, evict, files_below, flush, machine, run, total_bytes
from sizes import full_batches
from summary import Figure, Summary

FULL = (1, 16, 64)
TILE = ROOT / "Tests/Data/reference/train_c1.safetensors"


class Bench:
    """One store after another; figures go into the summary."""

    def __init__(self, lorif: Path, folder: Path, summary: Summary, repeats: int) -> None:
        self.lorif = lorif
        self.folder = folder
        self.summary = summary
        self.repeats = repeats
        self.reader = folder / "read"
        source = ROOT / "Tools/Benchmarks/reading/read.c"
        subprocess.run(["/usr/bin/cc", "-O3", "-march=native", source, "-o", self.reader, "-pthread"], check=True)

    def _checked(self, *arguments: object) -> str:
        outcome = run(self.lorif, *arguments)
        if outcome.code != 0:
            sys.exit(f"{outcome.command}\n{outcome.stderr}")
        return outcome.stdout

    def limit(self, store: Path, how: str, threads: int, state: str) -> float:
        """Bytes per second of the plain sum over the store's segments."""
        segments = files_below(store / "segments")
        words = [self.reader, how, str(threads), state, *segments]
        return float(subprocess.run(words, capture_output=True, check=True, text=True).stdout)

    def ask(self, store: Path, name: str, queries: int | Path, *options: object, cold: bool = False) -> None:
        """Some stored examples, or a file of queries, with the rate of reading beside that of the plain sum."""
        words: list[object] = ["--method", "dot"]
        if isinstance(queries, Path):
            words.append(queries)
        else:
            for row in range(100, 100 + queries):
                words += ["--by-id", identifier(row)]
        seconds, rates, rows, limits, whole, again = [], [], [], [], [], []
        for _ in range(self.repeats):
            if cold:
                limits.append(max(self.limit(store, how, 8, "cold") for how in ("read", "direct")))
                evict(files_below(store / "segments"))
            else:
                limits.append(self.limit(store, "map", 2, "warm"))
            outcome = run(self.lorif, "query", store, *words, *options, "--explain", "analyze", "--json")
            if outcome.code != 0:
                sys.exit(f"{outcome.command}\n{outcome.stderr}")
            plan = json.loads(outcome.stdout)
            analysis = plan["analysis"]
            elapsed = analysis["elapsedSeconds"]
            seconds.append(elapsed)
            whole.append(outcome.seconds)
            rates.append(analysis["factorBytes"] / elapsed / 1e9)
            rows.append(plan["rows"] * plan["queries"] / elapsed / 1e6)
            again.append(analysis["refinedRows"] / plan["queries"])
        note = f"{plan['kernel']}; {again[-1]:,.0f} examples scored again a query"
        add = self.summary.add
        add(Figure(f"{name}: scan", seconds, "s", note=note))
        add(Figure(f"{name}: whole process", whole, "s"))
        add(Figure(f"{name}: rows × queries", rows, "M/s"))
        share = [100 * rate * 1e9 / limit for rate, limit in zip(rates, limits, strict=True)]
        kind = "best of buffered and direct reads, 8 threads" if cold else "mapped, 2 threads"
        add(Figure(f"{name}: bytes read", rates, "GB/s"))
        add(Figure(f"{name}: against a plain sum", share, "%", note=kind))

    def store(self, name: str, shape: Shape, encoding: str) -> Path:
        """A new store."""
        batches = generate(self.folder / f"{name}-batches", shape, TILE)
        store = self.folder / f"{name}.lorif"
        self._checked("ingest", store, *batches, "--encoding", encoding)
        for path in batches:
            path.unlink()
        flush(files_below(store))
        size = total_bytes(files_below(store)) / shape.rows
        self.summary.add(Figure(f"{name}: bytes per example", [size], "B"))
        return store


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lorif", type=Path, default=ROOT / ".build/release/lorif")
    parser.add_argument("--rows", type=int, default=1_000_000, help="examples of the store of rank 1")
    parser.add_argument("--rows4", type=int, default=100_000, help="examples of the store of rank 4")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the stores are made; a temporary one unless said")
    parser.add_argument("--output", type=Path, help="Markdown file; standard output unless said")
    options = parser.parse_args()
    with TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        summary = Summary("Queries", machine(folder))
        bench = Bench(options.lorif, folder, summary, options.repeats)
        store = bench.store("int8 c=1", Shape(options.rows, 16, 64, 64, 1, "f32", 8, 1), "int8")
        for queries in (1, 16):
            bench.ask(store, f"int8 c=1, {queries} of rank 1, warm", queries)
        bench.ask(store, "int8 c=1, 1 of rank 1, cold", 1, cold=True)
        full = {
            count: full_batches(folder / str(count), Shape(count, 16, 64, 64, 32, "f32", 1, 9))[0] for count in FULL
        }
        for guarantee in ("exact", "none"):
            bench.ask(store, f"int8 c=1, 1 full, {guarantee}, warm", full[1], "--guarantee", guarantee)
        store = bench.store("q2 c=4", Shape(options.rows4, 16, 64, 64, 4, "f32", 4, 1), "q2")
        bench.ask(store, "q2 c=4, 1 of rank 4, warm", 1)
        for queries in FULL:
            for guarantee in ("exact", "none"):
                label = f"q2 c=4, {queries} full, {guarantee}, warm"
                bench.ask(store, label, full[queries], "--guarantee", guarantee)
    text = summary.markdown()
    if options.output:
        options.output.write_text(text)
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
