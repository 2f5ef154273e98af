"""Bytes, attribution quality and fidelity to LoGRA of every method that the program has, side by side.

DATA is a finished retraining experiment, as for encodings.py. For every method: bytes per example, the linear
datamodeling score (LDS), and how far its ranking agrees with LoGRA's (full matrices in f16, exact curvature per layer)
by `lorif compare`. The damping is chosen on every other query; the LDS is that of the rest.

Methods: dot and cosine of full matrices; LoRIF, with rank-c factors and truncated or exact curvature per layer, or
global; whitened LoRIF; LoGRA; TRAK, one vector per example with exact global curvature (all layers' projected
gradients one after the other, and a random Gaussian projection of that to fewer numbers; the data have no output
probabilities, so TRAK's 1 - p weights are left out, and there is one checkpoint); random scores.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import experiment as experiments
import numpy as np
from command import ROOT
from experiment import Doubles, Experiment, mean_and_error, rank_correlations, write_full_gradients
from measurement import RHOS, Choice, Measurement, Store, choose
from report import damping, number, table, with_error
from sweeps import Program, directory_bytes

sys.path.insert(0, str(ROOT / "Tools/bench"))
from processes import machine

LOGRA = "LoGRA"
TRAK_NUMBERS = 2048
EXACT = ("--exact",)
EXAMPLE = """\
examples:
  python Tools/evaluate/methods.py DATA --output Tools/evaluate/results/methods.md
"""


@dataclass(frozen=True)
class Shelf:
    """A store to build.

    Attributes:
        gradients: `layers`, or `concatenated` or `projected` vectors (TRAK).
        options: Of `ingest`, or of `create` where it whitens.
        whitens: Whether the store has a basis of its own.
    """

    gradients: str
    options: tuple[object, ...]
    whitens: bool = False


@dataclass(frozen=True)
class Way:
    """A method to measure.

    Attributes:
        title: What it is called in the table.
        shelf: The store it asks.
        method: Of `query`.
        fit: Options of the fit; None where the method needs none.
    """

    title: str
    shelf: Shelf
    method: str = "influence"
    fit: tuple[object, ...] | None = None


def factors(rank: int, encoding: str) -> Shelf:
    """A store of rank-c factors."""
    return Shelf("layers", ("--rank", rank, "--encoding", encoding))


def whitened(rank: int, encoding: str) -> Shelf:
    """The same in the whitened basis."""
    return Shelf("layers", ("--rank", rank, "--encoding", encoding), whitens=True)


def ways() -> list[Way]:
    """Every method of the table; LoGRA first, since the others are compared with it."""
    full = Shelf("layers", ("--encoding", "f16"))
    result = [
        Way(f"{LOGRA}: full, f16, exact", full, fit=EXACT),
        Way("dot: full, f16", full, "dot"),
        Way("cosine: full, f16", full, "cosine"),
    ]
    for rank, encoding in ((1, "f16"), (1, "q4"), (4, "f16"), (4, "q4")):
        shelf, name = factors(rank, encoding), f"LoRIF: c = {rank}, {encoding}"
        result += [
            Way(f"{name}, r = 64", shelf, fit=("--rank", 64)),
            Way(f"{name}, exact", shelf, fit=EXACT),
            Way(f"{name}, global r = 256", shelf, fit=("--rank", 256, "--scope", "global")),
        ]
    shelf, name = whitened(4, "q2"), "LoRIF whitened: c = 4, q2"
    result += [
        Way(f"{name}, r = 16", shelf, fit=("--rank", 16)),
        Way(f"{name}, exact", shelf, fit=EXACT),
        Way(f"{name}, `whitened-dot`", shelf, "whitened-dot"),
    ]
    for gradients in ("concatenated", "projected"):
        shelf = Shelf(gradients, ("--encoding", "f16"))
        result.append(Way(f"TRAK: {gradients}, f16, exact global", shelf, fit=(*EXACT, "--scope", "global")))
    return result


@dataclass
class Found:
    """What was measured of a way.

    Attributes:
        store: Bytes per example, every file of the store counted, without curvature.
        fitted: The same with the curvature that the method needs.
        choice: The damping and the LDS.
        top: How many of LoGRA's ten best it has among its own ten.
        correlation: Mean rank correlation with LoGRA.
    """

    store: float
    fitted: float
    choice: Choice
    top: float = float("nan")
    correlation: float = float("nan")


def joined(gradients: dict[str, np.ndarray], layers: Sequence[str]) -> np.ndarray:
    """[n, D]: all layers' matrices one after the other."""
    return np.concatenate([gradients[layer].reshape(len(gradients[layer]), -1) for layer in layers], axis=1)


@dataclass
class Bench:
    """Builds stores and asks them.

    Attributes:
        rhos: Relative dampings to choose from.
        batches: Training and query batches by the kind of gradients.
        stores: The folders of stores built so far, and their bytes per example.
        runs: What `compare` has to be told of each way.
    """

    experiment: Experiment
    program: Program
    rhos: Sequence[float]
    batches: dict[str, tuple[Path, Path]] = field(default_factory=dict)
    stores: dict[Shelf, tuple[Path, float]] = field(default_factory=dict)
    runs: dict[str, str] = field(default_factory=dict)

    def write_batches(self) -> None:
        """The experiment's gradients, and TRAK's vectors of them, as batches."""
        experiment = self.experiment
        random = np.random.default_rng(2303)
        vectors = [joined(side, experiment.layers) for side in (experiment.train, experiment.query)]
        length = vectors[0].shape[1]
        projection = random.standard_normal((length, min(TRAK_NUMBERS, length)), np.float32)
        kinds = {
            "layers": (experiment.layers, experiment.train, experiment.query),
            "concatenated": (["all"], *({"all": rows[:, :, None]} for rows in vectors)),
            "projected": (["all"], *({"all": (rows @ projection)[:, :, None]} for rows in vectors)),
        }
        for kind, (layers, train, query) in kinds.items():
            paths = tuple(self.program.folder / f"{kind}-{side}.safetensors" for side in ("train", "query"))
            write_full_gradients(paths[0], layers, train, experiment.train_ids)
            write_full_gradients(paths[1], layers, query, experiment.query_ids)
            self.batches[kind] = (paths[0], paths[1])

    def store(self, shelf: Shelf) -> tuple[Path, float]:
        """The folder of a store, built where it was not asked for before, and its bytes per example."""
        if shelf not in self.stores:
            path = self.program.folder / f"store-{len(self.stores)}.lorif"
            train = self.batches[shelf.gradients][0]
            if shelf.whitens:
                self.program.run("create", path, "--whiten-from", train, *shelf.options)
                self.program.run("ingest", path, train)
            else:
                self.program.run("ingest", path, train, *shelf.options)
            self.stores[shelf] = (path, directory_bytes(path) / len(self.experiment.train_ids))
        return self.stores[shelf]

    def measure(self, way: Way) -> Found:
        """Fits if need be, and scores with every damping."""
        experiment = self.experiment
        path, size = self.store(way.shelf)
        queries = self.batches[way.shelf.gradients][1]
        options: list[object] = ["--method", way.method]
        bytes_of_fit, curvature = 0.0, ""
        if way.fit is not None:
            done = json.loads(self.program.run("fit", path, *way.fit, "--json"))
            bytes_of_fit, curvature = done["bytes"] / len(experiment.train_ids), done["curvature"]
            options += ["--curvature", curvature]
        store = Store(None, way.title)
        measurements = []
        for rho in self.rhos if way.fit is not None else [None]:
            extra = [] if rho is None else ["--relative-damping", repr(rho)]
            scores = self.program.scores(experiment, path, queries, *options, *extra)
            lds = experiment.linear_datamodeling_scores(scores @ experiment.subsets.T)
            measurements.append(Measurement(store, way.method, rho, lds))
        choice = choose(measurements)[0]
        parts = [str(path), str(queries), way.method]
        if choice.rho is not None:
            parts += [f"rho={choice.rho!r}", f"curvature={curvature}"]
        self.runs[way.title] = ",".join(parts)
        return Found(size, size + bytes_of_fit, choice)

    def compare(self, found: dict[str, Found]) -> None:
        """Fills in the agreement with the first way, by one `lorif compare`."""
        runs = [f"{self.runs[title]},name=run{place}" for place, title in enumerate(found)]
        answer = json.loads(self.program.run("compare", *runs, "--top", 10, "--json"))
        for entry, run in zip(found.values(), answer["runs"], strict=True):
            entry.top, entry.correlation = run["sharedTop"], run["rankCorrelation"]

    def random(self, reference: Doubles) -> Found:
        """Scores that know nothing, weighed in the same way."""
        experiment = self.experiment
        scores = np.random.default_rng(1).standard_normal(reference.shape)
        lds = experiment.linear_datamodeling_scores(scores @ experiment.subsets.T)
        choice = choose([Measurement(Store(None, "random"), "random", None, lds)])[0]
        best = [[{*np.argsort(-row)[:10]} for row in matrix] for matrix in (scores, reference)]
        top = float(np.mean([len(own & wanted) for own, wanted in zip(*best, strict=True)]))
        return Found(0, 0, choice, top, float(rank_correlations(scores, reference).mean()))


def measured(
    experiment: Experiment, program: Program, rhos: Sequence[float], say: Callable[[str], None]
) -> dict[str, Found]:
    """Every way of the table, in its order."""
    bench = Bench(experiment, program, rhos)
    bench.write_batches()
    found: dict[str, Found] = {}
    for way in ways():
        found[way.title] = bench.measure(way)
        say(f"{way.title}: {found[way.title].choice.confirming.mean():.3f}")
    bench.compare(found)
    path, queries, *settings = bench.runs[next(iter(found))].split(",")
    values = dict(item.split("=", 1) for item in settings[1:])
    reference = program.scores(
        experiment, Path(path), Path(queries), "--relative-damping", values["rho"], "--curvature", values["curvature"]
    )
    found["random"] = bench.random(reference)
    return found


def markdown(found: dict[str, Found], facts: dict[str, str]) -> str:
    """The report."""
    rows = [
        [
            title,
            number(item.store),
            number(item.fitted),
            damping(item.choice.rho),
            with_error(*mean_and_error(item.choice.confirming)),
            f"{item.correlation:.3f}",
            f"{item.top:.1f}",
        ]
        for title, item in sorted(found.items(), key=lambda entry: entry[1].choice.confirming.mean())
    ]
    header = ["method", "B/example", "with curvature", "ρ", "LDS", "rank corr. with LoGRA", "of its 10 best"]
    parts = [
        "# Methods: bytes, attribution quality, fidelity to LoGRA",
        "\n".join(f"- {name}: {value}" for name, value in facts.items()),
        "LDS: Spearman's correlation, over the retrained subsets, of the summed scores of a subset's examples with the"
        " query's negative loss: mean over the queries that ρ was not chosen on ± its standard error. Agreement with"
        f" LoGRA, over all queries, by `lorif compare`. TRAK: all layers' projected gradients one after the other"
        f" (`concatenated`), and a Gaussian projection of that to {TRAK_NUMBERS:,} numbers (`projected`); one"
        " checkpoint, without weights by output probabilities, which the data do not have. B/example: every file of"
        " the store; `with curvature`: and the fitted curvature, whose size does not grow with the store.",
        table(header, rows),
    ]
    return "\n\n".join(parts) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and writes the report."""
    parser = argparse.ArgumentParser(
        prog="methods.py", description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("data", type=Path, metavar="DATA", help="folder of the experiment")
    add("--lorif", type=Path, default=ROOT / ".build/release/lorif", help="the program (default: the release build)")
    add("--rhos", type=float, nargs="+", default=list(RHOS), help="relative dampings (default: 0.01 … 100)")
    add("--output", type=Path, metavar="FILE.md", help="where to write the report as well")
    add("--folder", type=Path, help="where to put stores (default: a temporary folder)")
    options = parser.parse_args(arguments)
    if not options.lorif.is_file():
        parser.error(f"{options.lorif} does not exist: build the program or name it with --lorif")
    try:
        experiment = experiments.load(options.data)
    except (OSError, ValueError) as error:
        sys.exit(f"{options.data}: {error}")
    start = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - start:6.0f} s  {text}", file=sys.stderr, flush=True)

    with TemporaryDirectory(dir=options.folder) as name:
        found = measured(experiment, Program(options.lorif, Path(name)), options.rhos, say)
        shapes = [f"{layer} {'×'.join(map(str, rows.shape[1:]))}" for layer, rows in experiment.train.items()]
        facts = {
            "command": "`python Tools/evaluate/methods.py DATA`",
            "experiment": f"{len(experiment.train_ids):,} training examples, {len(experiment.query_ids)} queries,"
            f" {len(experiment.subsets)} retrained subsets; layers " + ", ".join(shapes),
            **machine(Path(name)),
        }
    text = markdown(found, facts)
    if options.output is not None:
        options.output.write_text(text, encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
    main()
