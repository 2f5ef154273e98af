"""The command line of encodings.py, which cannot be imported: a module of Python's own has that name."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench"))
import experiment as experiments
import report
from codes import ENCODINGS
from measurement import RHOS, Measurement, Size, Store
from processes import machine
from sweeps import Program, Sweep, by_program, in_numpy, inputs

ROOT = Path(__file__).resolve().parents[2]
DESCRIPTION = """Attribution quality and bytes per example of every encoding, on a finished retraining experiment.

For every rank (and dense rows), encoding, curvature and relative damping: the linear datamodeling score (LDS) with its
standard error over queries, and what the store takes on disk. DATA holds train_full.safetensors and
query_full.safetensors (`<layer>/full`, ids and layers in the metadata) and retraining.safetensors (`subsets`
[subsets, examples], `query_losses` [subsets, queries]).

By default the program does the work; with --numpy the same table is computed here, as a check that shares no code.
"""
EXAMPLE = """\
examples:
  python Tools/evaluate/encodings.py DATA --numpy --output encodings.md --output encodings.json
  python Tools/evaluate/encodings.py DATA --lorif .build/release/lorif --ranks 4 full --encodings q4 q2 --rhos 0.1 1
"""


def rank(text: str) -> int | None:
    """A rank, or None for `full`."""
    if text == "full":
        return None
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"'{text}' is neither a positive number nor 'full'")
    return int(text)


def curvature(text: str) -> str:
    """A rank in digits, or `exact`."""
    if text != "exact" and (not text.isdigit() or int(text) == 0):
        raise argparse.ArgumentTypeError(f"'{text}' is neither a positive number nor 'exact'")
    return text


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="encodings.py",
        description=DESCRIPTION,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("data", type=Path, metavar="DATA", help="folder of the experiment")
    add("--lorif", type=Path, default=ROOT / ".build/release/lorif", help="the program (default: the release build)")
    add("--numpy", action="store_true", help="compute everything here instead of starting the program")
    add("--whiten", type=float, metavar="EPSILON", help="transform all gradients into the whitened basis first (0.03)")
    add("--ranks", type=rank, nargs="+", default=[1, 2, 4, 8, None], help="ranks c, and 'full' (default: 1 2 4 8 full)")
    add("--encodings", nargs="+", choices=ENCODINGS, default=list(ENCODINGS), metavar="E", help="default: all")
    add("--curvatures", type=curvature, nargs="+", default=["exact", "64", "256"], help="default: exact 64 256")
    add("--rhos", type=float, nargs="+", default=list(RHOS), help="relative dampings (default: 0.01 … 100)")
    add("--output", type=Path, action="append", default=[], metavar="FILE", help=".md or .json; may be given twice")
    add("--folder", type=Path, help="where to put stores (default: a temporary folder)")
    options = parser.parse_args(arguments)
    for path in options.output:
        if path.suffix not in (".md", ".json"):
            parser.error(f"--output {path}: expected .md or .json")
    if not options.numpy and not options.lorif.is_file():
        parser.error(f"{options.lorif} does not exist: build the program, name it with --lorif, or give --numpy")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and writes the report."""
    options = parse(arguments)
    host = machine(options.data.parent)
    try:
        experiment = experiments.load(options.data)
    except (OSError, ValueError) as error:
        sys.exit(f"{options.data}: {error}")
    if options.whiten is not None:
        experiment = experiments.whitened(experiment, options.whiten)
    sweep = Sweep(options.ranks, options.encodings, options.curvatures, options.rhos)
    measurements: list[Measurement] = []
    sizes: dict[Store, Size] = {}
    start = time.monotonic()
    with TemporaryDirectory(dir=options.folder) as name:
        if options.numpy:
            results = in_numpy(experiment, sweep)
        else:
            folder = Path(name)
            batches = inputs(experiment, options.data, folder, transformed=options.whiten is not None)
            results = by_program(experiment, sweep, Program(options.lorif, folder), *batches)
        for store, size, found in results:
            sizes[store] = size
            measurements += found
            best = max(found, key=lambda item: item.scores.mean())
            print(
                f"{time.monotonic() - start:6.0f} s  {store.form}, {store.encoding}: {size.best_known:,.0f} B/example,"
                f" best LDS {best.scores.mean():.3f} ({best.curvature}, ρ = {report.damping(best.rho)})",
                file=sys.stderr,
                flush=True,
            )
    count, queries = len(experiment.train_ids), len(experiment.query_ids)
    facts = {
        "measured by": "NumPy, without the program" if options.numpy else "the program",
        "experiment": f"{count} training examples, {queries} queries, {len(experiment.subsets)} subsets, layers "
        + ", ".join(f"{layer} {'×'.join(map(str, experiment.train[layer].shape[1:]))}" for layer in experiment.layers),
        "basis": "as given" if options.whiten is None else f"whitened, ε = {options.whiten:g}",
        **host,
    }
    text = report.markdown("Encodings: attribution quality and bytes per example", facts, measurements, sizes)
    for path in options.output:
        content = text if path.suffix == ".md" else report.as_json(facts, measurements, sizes)
        path.write_text(content, encoding="utf-8")
    if not options.output:
        print(text, end="")
