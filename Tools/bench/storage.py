"""What storage costs: time, memory and bytes of ingest, open, look-up, delete, verify and compact on a large store.

Input is made from real factors (Tests/Data/reference) and streamed to FOLDER, which needs room for the batches and
three times the store. Rates that depend on the disk are measured beside `cat` and `cp` on the same files, in turns.
Commands that the program does not have yet are reported as such.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from shutil import rmtree
from statistics import median
from tempfile import TemporaryDirectory

from batches import DTYPES, Shape, generate, identifier
from processes import ROOT, Run, back_memory, evict, files_below, flush, machine, run, total_bytes
from summary import Figure, Summary

TILE = ROOT / "Tests/Data/reference/train_c1.safetensors"
ENCODINGS = ("f32", "f16", "bf16", "int8", "q4", "q3", "q2", "q1")
USAGE_ERROR = 2
LOOKUPS = 20
SMALL_ROW = 256
MEGABYTE = 1e6
EXAMPLE = """\
examples:
  python Tools/bench/storage.py --rows 5000
  python Tools/bench/storage.py --rows 1000000 --output storage.md --output storage.json
"""


class Bench:
    """The program, a folder to work in, and the report so far."""

    def __init__(self, folder: Path, summary: Summary, options: argparse.Namespace) -> None:
        self.binary: Path = options.lorif
        self.folder = folder
        self.summary = summary
        self.repeats: int = options.repeats
        self.encoding: str = options.encoding
        self.lookup: Path = options.lookup

    def lorif(self, *arguments: object) -> Run:
        """Runs the program; a failure ends the benchmark, but an unknown command or option is handed back."""
        outcome = run(self.binary, *arguments)
        if outcome.code not in (0, USAGE_ERROR):
            sys.exit(f"exit code {outcome.code} of: {outcome.command}\n{outcome.stderr}")
        return outcome

    def figure(self, name: str, values: Sequence[float], unit: str, **more: str) -> None:
        """Adds a line to the report and shows it."""
        figure = Figure(name, list(values), unit, **more)
        self.summary.add(figure)
        shown = "not measured" if figure.median is None else f"{figure.median:,.4g} {unit}"
        print(f"{name}: {shown}", file=sys.stderr, flush=True)

    def absent(self, name: str, outcome: Run) -> None:
        """Notes that the program cannot do something."""
        first = (outcome.stderr.strip().splitlines() or ["no message"])[0].replace("|", "\\|")
        self.figure(name, [], "", note=f"the program refused: {first}", command=outcome.command)


def ingest(bench: Bench, name: str, store: Path, shape: Shape, batches: Sequence[Path]) -> None:
    """Ingests once per repeat into a new store; the last one stays."""
    size = total_bytes(batches)
    small = shape.numbers_per_row < SMALL_ROW
    reading = [run("cat", *batches, discard=True).seconds for _ in range(2)][-1]
    outcomes = []
    for _ in range(bench.repeats):
        rmtree(store, ignore_errors=True)
        outcome = bench.lorif("ingest", store, *batches, "--encoding", bench.encoding)
        if outcome.code != 0:
            sys.exit(f"{outcome.command}\n{outcome.stderr}")
        outcomes.append(outcome)
    seconds = [outcome.seconds for outcome in outcomes]
    command = outcomes[0].command
    bench.figure(f"{name}: wall time", seconds, "s", command=command)
    bench.figure(
        f"{name}: input rate",
        [size / MEGABYTE / s for s in seconds],
        "MB/s",
        wanted="≥ 300 MB/s of f32" if shape.dtype == "f32" and not small else "",
        note=f"{size / MEGABYTE:,.0f} MB of {shape.dtype}; cat reads them at {size / MEGABYTE / reading:,.0f} MB/s",
    )
    bench.figure(f"{name}: rows", [shape.rows / s for s in seconds], "rows/s", wanted="≥ 100,000" if small else "")
    bench.figure(
        f"{name}: processor time", [o.processor_seconds for o in outcomes], "s", note="user and system, all threads"
    )
    peaks = [outcome.peak_bytes / 2**20 for outcome in outcomes]
    bench.figure(f"{name}: peak memory", peaks, "MiB", wanted="≤ 1,024", note="resident, page cache mappings included")


def sizes(bench: Bench, store: Path, rows: int) -> None:
    """Bytes on disk, everything counted."""
    files = files_below(store)
    catalog = [path for path in files if path.suffix != ".segment"]
    bench.figure("store: size", [total_bytes(files) / MEGABYTE], "MB", note=f"{len(files)} files")
    bench.figure("store: bytes per example", [total_bytes(files) / rows], "B", note="everything in the directory")
    bench.figure("store: without segments", [total_bytes(catalog) / MEGABYTE], "MB", note="catalog, identity, locks")


def look_ups(bench: Bench, store: Path, rows: int) -> None:
    """Start of the program alone, opening a store, finding one example; each with the store in memory and not."""
    chosen = random.Random(1).sample(range(rows), min(LOOKUPS, rows))  # noqa: S311

    def timed(prepare: Callable[[], None], arguments: Sequence[Sequence[object]]) -> list[float]:
        values = []
        for argument in arguments:
            prepare()
            values.append(bench.lorif(*argument).seconds * 1000)
        return values

    def cold() -> None:
        evict(files_below(store))

    def warm() -> None:
        pass

    start = timed(warm, [("--version",)] * LOOKUPS)
    bench.figure("start: lorif --version", start, "ms", note="a process that does nothing")
    probes: dict[str, tuple[list[Sequence[object]], str]] = {
        "open: inspect STORE --json": ([("inspect", store, "--json")] * LOOKUPS, "≤ 50 ms"),
        "look-up: inspect --example ID": (
            [("inspect", store, "--example", identifier(row), "--json") for row in chosen],
            "",
        ),
    }
    for name, (arguments, wanted) in probes.items():
        outcome = bench.lorif(*arguments[0])
        if outcome.code != 0:
            bench.absent(name, outcome)
            continue
        first = timed(cold, arguments[: bench.repeats])
        bench.figure(f"{name}, not in memory", first, "ms", note="store evicted before each run; process included")
        values = timed(warm, arguments)
        bench.figure(f"{name}, warm", values, "ms", wanted=wanted, note="process included")
        bench.figure(f"{name}, warm, beyond start", [value - median(start) for value in values], "ms")
    if not bench.lookup.is_file():
        bench.figure("look-up within a process", [], "", note=f"{bench.lookup} is not built")
        return
    ids = bench.folder / "looked-up.txt"
    many = random.Random(3).sample(range(rows), min(1000, rows))  # noqa: S311
    ids.write_text("".join(identifier(row) + "\n" for row in many))
    found = [run(bench.lookup, store, ids) for _ in range(bench.repeats)]
    results = [json.loads(outcome.stdout) for outcome in found]
    if any(result["found"] != len(many) for result in results):
        sys.exit(f"not all ids are found: {found[0].command}")
    for key, words in (("median", "median"), ("p99", "99th percentile")):
        bench.figure(
            f"look-up within a process, warm, {words}",
            [result[key] / 1000 for result in results],
            "ms",
            wanted="≤ 1 ms",
            note=f"{len(many):,} random ids, one by one",
            command=found[0].command,
        )


def verify(bench: Bench, store: Path) -> None:
    """Reads everything, in turns with cat."""
    files = files_below(store)
    size = total_bytes(files) / MEGABYTE
    outcome = bench.lorif("verify", store)
    if outcome.code != 0:
        bench.absent("verify", outcome)
        return
    for state, prepare in (("warm", lambda: None), ("not in memory", lambda: evict(files))):
        cat, checked = [], []
        for _ in range(bench.repeats):
            prepare()
            cat.append(run("cat", *files, discard=True).seconds)
            prepare()
            checked.append(bench.lorif("verify", store).seconds)
        bench.figure(f"cat, {state}", [size / s for s in cat], "MB/s")
        bench.figure(f"verify, {state}", [size / s for s in checked], "MB/s", command=outcome.command)
        ratios = [100 * a / b for a, b in zip(cat, checked, strict=True)]
        bench.figure(f"verify against cat, {state}", ratios, "%", wanted="≥ 50 %")


def delete_and_compact(bench: Bench, store: Path, rows: int) -> None:
    """Deletes 10,000 examples from a copy and compacts it, in turns with cp; both into memory that the host backs."""
    size = total_bytes(files_below(store)) / MEGABYTE
    count = min(10_000, rows // 2)
    doomed = sorted(random.Random(2).sample(range(rows), count))  # noqa: S311
    ids = bench.folder / "doomed.txt"
    ids.write_text("".join(identifier(row) + "\n" for row in doomed))
    copy = bench.folder / "copy.lorif"
    copied: list[float] = []
    durable: list[float] = []
    deleted: list[float] = []
    compacted: list[Run] = []
    for _ in range(bench.repeats):
        rmtree(copy, ignore_errors=True)
        back_memory(total_bytes(files_below(store)) * 3 // 2)
        outcome = run("cp", "-r", "--reflink=never", store, copy)
        copied.append(outcome.seconds)
        durable.append(outcome.seconds + flush(files_below(copy)))
        outcome = bench.lorif("delete", copy, "--ids", ids)
        if outcome.code != 0:
            bench.absent("delete", outcome)
            break
        deleted.append(outcome.seconds)
        gone = run(bench.binary, "inspect", copy, "--example", identifier(doomed[0]))
        if gone.code == 0:
            sys.exit(f"a deleted example is still there: {gone.command}")
        back_memory(total_bytes(files_below(store)) * 3 // 2)
        outcome = bench.lorif("compact", copy)
        if outcome.code != 0:
            bench.absent("compact", outcome)
            break
        compacted.append(outcome)
        bench.lorif("verify", copy)
    after = total_bytes(files_below(copy)) / MEGABYTE
    rmtree(copy, ignore_errors=True)
    bench.figure("cp", [size / s for s in copied], "MB/s")
    bench.figure("cp and fsync", [size / s for s in durable], "MB/s")
    if deleted:
        bench.figure(f"delete of {count:,} ids", deleted, "s", wanted="≤ 2 s for 10,000", note="process included")
    if compacted:
        rates = [size / outcome.seconds for outcome in compacted]
        note = f"{size:,.0f} MB become {after:,.0f} MB; durable at the end"
        bench.figure("compact", rates, "MB/s", note=note, command=compacted[0].command)
        peaks = [outcome.peak_bytes / 2**20 for outcome in compacted]
        bench.figure("compact: peak memory", peaks, "MiB")
        pairs = list(zip(copied, durable, compacted, strict=True))
        bench.figure("compact against cp", [100 * c / o.seconds for c, _, o in pairs], "%", wanted="≥ 50 %")
        bench.figure("compact against cp and fsync", [100 * d / o.seconds for _, d, o in pairs], "%")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--lorif", type=Path, default=ROOT / ".build/release/lorif", help="the program (default: the release build)")
    add(
        "--lookup",
        type=Path,
        default=ROOT / ".build/release/lookup-bench",
        help="times look-ups within a process (default: the release build)",
    )
    add("--rows", type=int, default=1_000_000, help="examples of the large store (default: 1000000)")
    add("--layers", type=int, default=16, help="default: 16")
    add("--d", type=int, default=64, help="d1 = d2 (default: 64)")
    add("--rank", type=int, default=1, help="c (default: 1)")
    add("--encoding", choices=ENCODINGS, default="int8", help="default: int8")
    add("--dtype", choices=sorted(DTYPES), default="f32", help="of the batches (default: f32)")
    add("--files", type=int, default=8, help="number of batches (default: 8)")
    add("--small-rows", type=int, default=1_000_000, help="examples of 4 layers of 8×8; 0: skip (default: 1000000)")
    add("--seed", type=int, default=1, help="default: 1")
    add("--repeats", type=int, default=3, help="runs of every measurement (default: 3)")
    add("--tile", type=Path, default=TILE, help="real factors to start from (default: the reference batch)")
    add("--folder", type=Path, help="where to work; batches there are used again (default: a temporary folder)")
    add("--output", type=Path, action="append", default=[], metavar="FILE", help=".md or .json; may be given twice")
    options = parser.parse_args(arguments)
    for name, least in (("rows", 100), ("layers", 1), ("d", 1), ("rank", 1), ("files", 1), ("repeats", 1)):
        if getattr(options, name) < least:
            parser.error(f"--{name} must be at least {least}")
    for path in options.output:
        if path.suffix not in (".md", ".json"):
            parser.error(f"--output {path}: expected .md or .json")
    if not options.lorif.is_file():
        parser.error(f"{options.lorif} does not exist: build the program, or name it with --lorif")
    if not options.tile.is_file():
        parser.error(f"{options.tile} does not exist")
    return options


def measure(options: argparse.Namespace, folder: Path) -> Summary:
    """Runs everything in a folder."""
    shape = Shape(
        options.rows, options.layers, options.d, options.d, options.rank, options.dtype, options.files, options.seed
    )
    facts = machine(folder)
    facts["program"] = f"{options.lorif}, version {run(options.lorif, '--version').stdout.strip()}"
    facts["store"] = (
        f"{shape.rows:,} examples, {shape.layers} layers of {shape.d1}×{shape.d2}, c = {shape.rank},"
        f" {options.encoding}, ingested from {shape.files} files of {shape.dtype}, seed {shape.seed}"
    )
    summary = Summary("Storage: time, memory and bytes", facts)
    bench = Bench(folder, summary, options)
    start = time.monotonic()
    batches = generate(folder / "batches", shape, options.tile)
    print(f"batches are there after {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    store = folder / "large.lorif"
    ingest(bench, "ingest", store, shape, batches)
    sizes(bench, store, shape.rows)
    look_ups(bench, store, shape.rows)
    verify(bench, store)
    delete_and_compact(bench, store, shape.rows)
    rmtree(store)
    if options.small_rows > 0:
        small = Shape(options.small_rows, 4, 8, 8, 1, options.dtype, 1, options.seed)
        batches = generate(folder / "small-batches", small, options.tile)
        store = folder / "small.lorif"
        ingest(bench, "ingest of small rows", store, small, batches)
        size = total_bytes(files_below(store)) / small.rows
        bench.figure("store of small rows: bytes per example", [size], "B", note="4 layers of 8×8, c = 1")
        rmtree(store)
    return summary


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and writes the report."""
    options = parse(arguments)
    if options.folder is None:
        with TemporaryDirectory() as name:
            summary = measure(options, Path(name))
    else:
        options.folder.mkdir(parents=True, exist_ok=True)
        summary = measure(options, options.folder)
    for path in options.output:
        path.write_text(summary.markdown() if path.suffix == ".md" else summary.json(), encoding="utf-8")
    if not options.output:
        print(summary.markdown(), end="")


if __name__ == "__main__":
    main()
