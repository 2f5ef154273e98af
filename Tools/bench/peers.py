"""lorif beside what people use today, on the same gradients, in one run.

Installs the peers into an environment of their own (exact versions in peers-requirements.txt), makes gradients
(16 layers of 64×64 unless said) or takes recorded ones, writes everybody's store of them, and asks in turns, each
contender in a process of its own: bytes per example, seconds and peak memory of queries, curvature, and this machine's
limits. What cannot be installed, does not fit or runs out of memory or time is a line of the report, too.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from batches import Shape, read_sources
from contest.agreement import Agreement
from contest.data import COMPONENTS, QUERY_COMPONENTS, RANKS, query_file, write, write_queries
from contest.entrants import Results
from contest.environment import PEERS, pins, prepare
from contest.recorded import Recorded, write_recorded, write_recorded_queries
from contest.report import markdown
from contest.runner import Limits, Runner
from contest.stages import Extent, Stages
from contest.stores import Disk, Stores, format_bytes
from lorif.batch import BatchError
from processes import ROOT, files_below, flush, machine, run

HERE = Path(__file__).resolve().parent
REQUIREMENTS = HERE / "peers-requirements.txt"
TILE = ROOT / "Tests/Data/reference/train_c1.safetensors"
SHORT = {"rows": 2_000, "queries": [1, 64], "cold": [1], "scales": [10_000], "minutes": 8.0, "repeats": 1}
LONG = {
    "rows": 20_000, "queries": [1, 8, 64, 256], "cold": [1, 64], "scales": [10_000, 100_000, 1_000_000],
    "minutes": 25.0, "repeats": 3,
}  # fmt: skip


def sized(text: str) -> int:
    """Bytes, as in 12GB or 512MiB."""
    units = {"GiB": 1 << 30, "MiB": 1 << 20, "GB": 10**9, "MB": 10**6}
    for unit, size in units.items():
        if text.endswith(unit):
            try:
                return int(float(text.removesuffix(unit)) * size)
            except ValueError:
                break
    raise argparse.ArgumentTypeError(f"expected a size as in 12GB or 512MiB, found {text!r}")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; what is not said follows from --short."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    add("--lorif", type=Path, default=ROOT / ".build/release/lorif")
    add("--environment", type=Path, default=HERE / ".peers", help="the peers' Python environment; made if need be")
    add("--short", action="store_true", help="2,000 rows and few points: a few minutes")
    add("--rows", type=int, help="examples (20,000)")
    add("--layers", type=int, default=16)
    add("--d", type=int, default=64)
    add("--queries", type=int, nargs="+", help="numbers of queries (1 8 64 256)")
    add("--cold", type=int, nargs="*", help="those also asked with the files evicted from the page cache (1 64)")
    add("--scales", type=int, nargs="*", help="numbers of rows for time against N (10000 100000 1000000)")
    add("--fit-layers", type=int, default=2, help="layers that curvature is built of")
    add("--fit-ranks", type=int, nargs="+", default=[64, 256])
    add("--repeats", type=int, help="most runs of a point (3)")
    add("--minutes", type=float, help="nothing new is started after so long (25)")
    add("--process-seconds", type=float, default=90, help="then a process is stopped")
    add("--disk", type=sized, default=sized("12GB"), help="most that the stores may take together")
    add("--memory", type=sized, default=int(memory * 0.85), help="most private memory of a process")
    add("--seed", type=int, default=1)
    add("--recorded", type=Path, metavar="DIR", help="batches of full matrices from the recorder, instead of made rows")
    add("--recorded-queries", type=Path, metavar="DIR", help="their queries (DIR/queries)")
    add("--folder", type=Path, help="where stores are made; a temporary one unless said")
    add("--output", type=Path, default=HERE / "results", help="folder of peers.json, peers.md and peers-*.svg")
    options = parser.parse_args(arguments)
    for name, value in (SHORT if options.short else LONG).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    if not options.lorif.exists():
        parser.error(f"{options.lorif} is not there: build lorif, or say --lorif")
    if options.recorded is not None:
        options.recorded_queries = options.recorded_queries or options.recorded / "queries"
    if options.rows < 100 or min(options.queries) < 1 or not set(options.cold) <= set(options.queries):
        parser.error("expected at least 100 rows, and --cold among --queries")
    return options


def facts(options: argparse.Namespace, folder: Path, kept: dict[int, float]) -> dict[str, str]:
    """Everything that the figures depend on."""
    found = machine(folder)
    words = set(Path("/proc/cpuinfo").read_text().split())
    tier = "avx2" if {"avx2", "fma", "f16c"} <= words else "portable"
    found["kernel tier"] = f"{tier} (from the processor's flags)"
    found["lorif"] = f"{options.lorif.name}, version {run(options.lorif, '--version').stdout.strip()}"
    model = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lorif/machine.json"
    found["lorif calibrate"] = "done before" if model.exists() else "not done: the planner's built-in rates"
    versions = pins(REQUIREMENTS.read_text(encoding="utf-8"))
    found["peers run by"] = (
        f"Python {platform.python_version()}, PyTorch {versions['torch']}, NumPy {versions['numpy']},"
        " with as many threads as they take"
    )
    rows = f"{options.rows:,} rows, {options.layers} layers of {options.d}×{options.d}"
    shares = ", ".join(f"{share:.1%} of the energy at c = {rank}" for rank, share in kept.items())
    scored = "scored by inner product: curvature would be applied to the query beforehand, at the same price for all"
    if options.recorded is None:
        found["gradients"] = (
            f"{rows}; a row's matrix is a sum of {COMPONENTS} outer products in f16, each 0.49 times the one before, of"
            f" real factors ({TILE.name}) in fresh directions and norms; rank c is its first c, which keep {shares}"
        )
        found["queries"] = (
            f"sums of {QUERY_COMPONENTS} fresh outer products and one training row's first component (`full`), or one"
            f" fresh pair plus a training row's (`rank-1`); {scored}"
        )
    else:
        found["gradients"] = (
            f"{rows}; recorded from a model in training, in f16; rank c is the truncation by singular values, which"
            f" keeps {shares}; other numbers of rows: recorded factors in fresh directions and norms"
        )
        found["queries"] = f"recorded (`full`), or truncated to their first singular pair (`rank-1`); {scored}"
    found["seeds"] = f"{options.seed} for rows, {options.seed + 1} for queries, {options.seed + 2} for tiled rows"
    found["bounds"] = (
        f"{format_bytes(options.disk)} of disk, {format_bytes(options.memory)} of private memory and"
        f" {options.process_seconds:.0f} s a process, {options.minutes:.0f} minutes in all"
    )
    return found


def measure(options: argparse.Namespace, folder: Path) -> Results:
    """The whole run."""
    start = time.monotonic()
    python, packages = prepare(options.environment, REQUIREMENTS)
    begun = time.monotonic()
    recorded, queries = (None, None)
    if options.recorded is not None:
        try:
            recorded, queries = Recorded(options.recorded), Recorded(options.recorded_queries)
        except (BatchError, ValueError) as error:
            sys.exit(str(error))
        if recorded.d1 != recorded.d2 or (queries.d1, queries.layers) != (recorded.d1, recorded.layers):
            sys.exit(f"{options.recorded}: expected square matrices, and queries of the same layers")
        options.rows, options.layers, options.d = (
            min(options.rows, recorded.row_count),
            len(recorded.layers),
            recorded.d1,
        )
    shape = Shape(options.rows, options.layers, options.d, options.d, 1, "f16", 1, options.seed)
    results = Results(packages=[asdict(package) for package in packages])
    deadline = begun + 60 * options.minutes
    limits = Limits(options.process_seconds, 4, options.repeats, options.memory, deadline)
    runner = Runner(options.lorif.resolve(), python, folder, shape=shape, limits=limits, results=results)
    runner.unusable = {package.name: package.failure for package in packages if package.failure}
    stores = Stores(runner, Disk(folder, options.disk), read_sources(TILE), TILE)
    per_row = 2 * options.layers * (options.d * options.d + sum(RANKS) * 2 * options.d)
    if problem := stores.disk.refusal(options.rows * per_row):
        sys.exit(f"the gradients do not fit: {problem}")
    counts = sorted({*options.queries, 1})
    if recorded is None or queries is None:
        kept = write(folder, shape, stores.sources)
        write_queries(folder / "queries", shape, stores.sources, counts)
    else:
        kept = write_recorded(folder, shape, recorded)
        write_recorded_queries(folder / "queries", shape, queries, counts)
        stores.tile = folder / "factors-c1/000.safetensors"
        stores.sources = read_sources(stores.tile)
    flush(files_below(folder))
    results.facts = facts(options, folder, kept)
    extent = Extent(
        tuple(options.queries), tuple(options.cold), tuple(options.scales), 4096, tuple(options.fit_ranks),
        options.fit_layers,
    )  # fmt: skip
    stages = Stages(runner, stores, extent)
    agreement = Agreement(
        runner, {kind: query_file(folder / "queries", kind, extent.compared) for kind in ("full", "rank-1")}
    )
    for stage in (
        stages.limits, stages.base, stages.packages, stages.builds, lambda: agreement.compare(stages.asked),
        stages.sizes, stages.scaling,
    ):  # fmt: skip
        stage()
        print(f"{time.monotonic() - begun:.0f} s so far", file=sys.stderr, flush=True)
    results.facts["duration"] = (
        f"{(time.monotonic() - begun) / 60:.1f} minutes, and {begun - start:.0f} s of installing the peers"
    )
    return results


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, then writes JSON, Markdown and plots."""
    options = parse(arguments)
    if options.folder:
        options.folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=options.folder) as name:
        results = measure(options, Path(name))
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / "peers.json"
    path.write_text(json.dumps(results.json(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (options.output / "peers.md").write_text(markdown(results), encoding="utf-8")
    python = options.environment / "bin/python"
    subprocess.run([python, HERE / "contest/plots.py", path, options.output], check=True)
    failed = [name for name in PEERS if any(each["name"] == name and each["failure"] for each in results.packages)]
    print(f"{path}; not installed: {', '.join(failed) or 'none'}", file=sys.stderr)


if __name__ == "__main__":
    main()
