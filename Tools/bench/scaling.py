"""How queries scale, and how well their plans foretell it.

Measures the machine with `lorif calibrate`, whose rates plans then go by, so that nothing else should run. Changes one
thing at a time (rows N, queries Q, layers L, rank c, sides d, rank r of the curvature) and prints the foretold and the
measured seconds of preparing and scanning side by side, from `lorif query --explain analyze`, and the bytes per second
beside what the machine can. Then the time of whole processes on small stores, and on one of many segments.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from batches import Shape, generate, identifier, read_sources, write_batch
from processes import ROOT, machine, run
from sizes import full_batches
from summary import Figure, Summary

TILE = ROOT / "Tests/Data/reference/train_c1.safetensors"


@dataclass(frozen=True)
class Case:
    """A store and what is asked of it.

    Attributes:
        shape: Rows, layers, sides and rank of the store.
        encoding: Of its numbers.
        queries: How many are asked.
        full: Whether they are full matrices; stored examples, of the store's rank, otherwise.
        curvature_rank: 0 for the inner product.
        options: Further arguments.
    """

    shape: Shape
    encoding: str
    queries: int = 1
    full: bool = False
    curvature_rank: int = 0
    options: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """In words."""
        shape = self.shape
        return (
            f"{self.encoding} N={shape.rows:,} L={shape.layers} d={shape.d1} c={shape.rank} Q={self.queries}"
            f"{' full' if self.full else ''}{f' r={self.curvature_rank}' if self.curvature_rank else ''}"
            f"{' ' + ' '.join(self.options) if self.options else ''}"
        )


def cases(largest: int) -> Iterator[Case]:
    """One thing changed at a time, from a store of rank 1 in int8 and one of rank 4 in q2."""
    int8 = Case(Shape(100_000, 16, 64, 64, 1, "f32", 1, 1), "int8")
    q2 = Case(Shape(100_000, 16, 64, 64, 4, "f32", 1, 1), "q2", full=True)
    for rows in (10_000, 100_000, 1_000_000, 4_000_000, 10_000_000):
        if rows <= largest:
            yield replace(int8, shape=replace(int8.shape, rows=rows, files=max(1, rows // 125_000)))
    for queries in (8, 64, 256):
        yield replace(int8, queries=queries)
    for layers in (4, 48):
        yield replace(int8, shape=replace(int8.shape, layers=layers))
    for side in (32, 128):
        yield replace(int8, shape=replace(int8.shape, d1=side, d2=side))
    for rank in (2, 4):
        yield replace(int8, shape=replace(int8.shape, rank=rank))
    for rank in (16, 64):
        yield replace(int8, shape=replace(int8.shape, rows=20_000), full=True, curvature_rank=rank)
    yield replace(int8, full=True)
    for queries in (1, 8, 64):
        yield replace(q2, queries=queries)
        yield replace(q2, queries=queries, options=("--guarantee", "none"))
    yield replace(q2, full=False)
    for side in (32, 128):
        yield replace(q2, shape=replace(q2.shape, rows=20_000, d1=side, d2=side))
    yield replace(q2, shape=replace(q2.shape, rank=8, rows=20_000))
    yield replace(q2, encoding="q4")
    yield replace(q2, encoding="f16", shape=replace(q2.shape, rows=20_000))


class Bench:
    """Stores are made when they are first asked and removed when another one comes."""

    def __init__(self, lorif: Path, folder: Path, repeats: int) -> None:
        self.lorif = lorif
        self.folder = folder
        self.repeats = repeats
        self._store: tuple[Shape, str, Path] | None = None

    def checked(self, *arguments: object) -> str:
        """What the program prints."""
        outcome = run(self.lorif, *arguments)
        if outcome.code != 0:
            sys.exit(f"{outcome.command}\n{outcome.stderr}")
        return outcome.stdout

    def store(self, shape: Shape, encoding: str) -> Path:
        """A store, the one before removed."""
        if self._store is not None and self._store[:2] == (shape, encoding):
            return self._store[2]
        if self._store is not None:
            run("rm", "-r", self._store[2])
        path, batch = self.folder / "store.lorif", self.folder / "batch.safetensors"
        sources = read_sources(TILE)
        for rows in shape.row_ranges():
            # One file at a time: the disk need hold no more than one beside the store.
            write_batch(batch, shape, sources, rows)
            self.checked("ingest", path, batch, "--encoding", encoding)
            batch.unlink()
        self._store = (shape, encoding, path)
        return path

    def ask(self, case: Case) -> list[dict]:
        """The plan and what was done, some times."""
        store = self.store(case.shape, case.encoding)
        words: list[object] = ["--method", "dot"]
        if case.curvature_rank:
            self.checked("fit", store, "--rank", case.curvature_rank)
            words = []
        if case.full:
            shape = replace(case.shape, rows=case.queries, rank=min(32, case.shape.d1), files=1, seed=9)
            words += full_batches(self.folder / "queries", shape)
        else:
            for row in range(100, 100 + case.queries):
                words += ["--by-id", identifier(row)]
        question = ("query", store, *words, *case.options, "--explain", "analyze", "--json")
        return [json.loads(self.checked(*question)) for _ in range(self.repeats)]


def small_stores(bench: Bench, summary: Summary) -> None:
    """Whole processes on 20,000 rows, and planning with many segments."""
    store = bench.store(Shape(20_000, 16, 64, 64, 1, "f32", 1, 1), "int8")
    question = ("query", store, "--by-id", identifier(7), "--method", "dot")
    times = [run(bench.lorif, *question).seconds for _ in range(11)]
    summary.add(Figure("20,000 rows, one query of rank 1: whole process", times, "s", note="wanted: 0.1 s"))
    times = [run(bench.lorif, "--version").seconds for _ in range(11)]
    summary.add(Figure("lorif --version", times, "s"))
    folder = bench.folder / "many"
    shape = Shape(20_000, 4, 16, 16, 1, "f32", 1000, 1)
    store = bench.folder / "many.lorif"
    for path in generate(folder, shape, TILE):
        bench.checked("ingest", store, path)
    question = ("query", store, "--by-id", identifier(7), "--method", "dot")
    times = [run(bench.lorif, *question, "--explain").seconds for _ in range(11)]
    summary.add(Figure("1,000 segments, from start to plan", times, "s", note="query by id; wanted: 0.02 s"))
    times = [run(bench.lorif, *question).seconds for _ in range(11)]
    summary.add(Figure("1,000 segments, whole query", times, "s"))


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lorif", type=Path, default=ROOT / ".build/release/lorif")
    parser.add_argument("--largest", type=int, default=1_000_000, help="leave out stores of more rows")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the stores are made; a temporary one unless said")
    parser.add_argument("--output", type=Path, help="Markdown file; standard output unless said")
    options = parser.parse_args()
    with TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        bench = Bench(options.lorif, folder, options.repeats)
        summary = Summary("Whole processes", machine(folder))
        rates = json.loads(bench.checked("calibrate", folder, "--json"))
        lines = [
            f"Limits, measured in the same run: memory {rates['memoryBytesPerSecond'] / 1e9:.1f} GB/s, disk"
            f" {rates['directDiskBytesPerSecond'] / 1e9:.2f} GB/s past the page cache and"
            f" {rates['cachedDiskBytesPerSecond'] / 1e9:.2f} through it, matrix products in f32"
            f" {rates['productFlopsPerSecond'] / 1e9:.0f} GFLOP/s.",
            "",
            "| query | kernel | foretold | measured | foretold / measured | scan reads |",
            "| --- | --- | ---: | ---: | ---: | ---: |",
        ]
        within, ratios = 0, []
        for case in cases(options.largest):
            plans = bench.ask(case)
            foretold = plans[-1]["preparationSeconds"] + plans[-1]["scanSeconds"]
            analyses = [plan["analysis"] for plan in plans]
            measured = median(done["preparationSeconds"] + done["elapsedSeconds"] for done in analyses)
            ratio = foretold / measured
            ratios.append(ratio)
            within += abs(ratio - 1) <= 0.3
            rate = plans[-1]["bytes"] / median(done["elapsedSeconds"] for done in analyses) / 1e9
            lines.append(
                f"| {case.name} | {plans[-1]['kernel']} | {foretold:.3g} s | {measured:.3g} s | {ratio:.2f} |"
                f" {rate:.2g} GB/s |"
            )
            print(lines[-1], file=sys.stderr)
        lines.append(f"\n{within} of {len(ratios)} within 30 %; median ratio {median(ratios):.2f}.")
        small_stores(bench, summary)
    text = "# Scaling\n\n" + (__doc__ or "").strip() + "\n\n" + "\n".join(lines) + "\n\n" + summary.markdown()
    if options.output:
        options.output.write_text(text)
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
