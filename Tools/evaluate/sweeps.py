"""The two ways to measure: by the program, and in NumPy as an independent cross-check of it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import copyfile, rmtree

import numpy as np
from codes import bytes_per_example, factored, kept
from experiment import Doubles, Experiment, write_full_gradients
from influence import LayerInfluence, total_dot, total_influence
from measurement import DOT, EXACT, Measurement, Size, Store
from safetensors import safe_open


@dataclass(frozen=True)
class Sweep:
    """What to measure: every encoding of every rank, under every curvature and damping.

    Attributes:
        ranks: c, None for dense rows.
        encodings: Names.
        curvatures: `exact` or ranks in digits, per layer; the plain inner product is always measured.
        rhos: Relative dampings.
    """

    ranks: Sequence[int | None]
    encodings: Sequence[str]
    curvatures: Sequence[str]
    rhos: Sequence[float]


Result = tuple[Store, Size, list[Measurement]]


def modelled_size(experiment: Experiment, store: Store) -> float:
    """Bytes per example without compression and without fixed costs."""
    shapes = [experiment.train[layer].shape[1:] for layer in experiment.layers]
    length = float(np.mean([len(identifier.encode()) for identifier in experiment.train_ids]))
    return bytes_per_example(shapes, store.rank, store.encoding, length)


def measure(
    experiment: Experiment, sweep: Sweep, store: Store, sums: Callable[[str, float | None], Doubles]
) -> list[Measurement]:
    """One store under every curvature and damping; `sums` gives [queries, subsets] for a curvature and ρ."""
    settings: list[tuple[str, float | None]] = [(DOT, None)]
    settings += [(curvature, rho) for curvature in sweep.curvatures for rho in sweep.rhos]
    return [
        Measurement(store, curvature, rho, experiment.linear_datamodeling_scores(sums(curvature, rho)))
        for curvature, rho in settings
    ]


def in_numpy(experiment: Experiment, sweep: Sweep) -> Iterator[Result]:
    """Measures without the program."""
    for rank in sweep.ranks:
        factors = {
            layer: None if rank is None else factored(rows, min(rank, *rows.shape[1:]))
            for layer, rows in experiment.train.items()
        }
        for encoding in sweep.encodings:
            store = Store(rank, encoding)
            layers = [
                LayerInfluence(
                    kept(experiment.train[layer], factors[layer], encoding), experiment.query[layer], experiment.subsets
                )
                for layer in experiment.layers
            ]

            def sums(curvature: str, rho: float | None, layers: list[LayerInfluence] = layers) -> Doubles:
                if rho is None:
                    return total_dot(layers)
                return total_influence(layers, rho, None if curvature == EXACT else int(curvature))

            yield store, Size(modelled_size(experiment, store)), measure(experiment, sweep, store, sums)


def directory_bytes(folder: Path) -> int:
    """The lengths of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


class Program:
    """The program at work in a folder of its own."""

    def __init__(self, binary: Path, folder: Path) -> None:
        self.binary = binary
        self.folder = folder

    def run(self, *arguments: object) -> str:
        """Runs a command, which must succeed; returns what it printed."""
        command = [str(self.binary), *map(str, arguments)]
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, check=False, env=environment)
        if done.returncode != 0:
            sys.exit(f"exit code {done.returncode} of: {' '.join(command)}\n{done.stderr.decode(errors='replace')}")
        return done.stdout.decode()

    def asked(self, experiment: Experiment, store: Path, *options: object) -> tuple[Doubles, dict[str, str]]:
        """All scores, examples last and in the experiment's order, and the metadata of their file."""
        path = self.folder / "scores.safetensors"
        path.unlink(missing_ok=True)
        self.run("query", store, *options, "--output", path, "--format", "jsonl", "--top", 1, "--bottom", 0)
        with safe_open(path, "np") as file:
            metadata = file.metadata()
            matrix = file.get_tensor("scores").astype(np.float64)
        columns = {identifier: column for column, identifier in enumerate(json.loads(metadata["example_ids"]))}
        if columns.keys() != set(experiment.train_ids):
            sys.exit(f"{path}: the ids of examples are not those of the experiment")
        return matrix[..., [columns[i] for i in experiment.train_ids]], metadata

    def scores(self, experiment: Experiment, store: Path, queries: Path, *options: object) -> Doubles:
        """[queries, examples], or [dampings, queries, examples] of several, in the experiment's order."""
        matrix, metadata = self.asked(experiment, store, queries, *options)
        rows = {identifier: row for row, identifier in enumerate(json.loads(metadata["query_ids"]))}
        if rows.keys() != set(experiment.query_ids):
            sys.exit(f"{queries}: the ids of queries are not those of the experiment")
        return matrix[..., [rows[i] for i in experiment.query_ids], :]


def inputs(experiment: Experiment, data: Path, folder: Path, *, transformed: bool) -> tuple[Path, Path]:
    """Training and query batches in `folder`, without the texts beside them, which would count as bytes per example."""
    train, query = folder / "train.safetensors", folder / "query.safetensors"
    if transformed:
        write_full_gradients(train, experiment.layers, experiment.train, experiment.train_ids)
        write_full_gradients(query, experiment.layers, experiment.query, experiment.query_ids)
    else:
        copyfile(data / "train_full.safetensors", train)
        copyfile(data / "query_full.safetensors", query)
    return train, query


def by_program(experiment: Experiment, sweep: Sweep, program: Program, train: Path, query: Path) -> Iterator[Result]:
    """Measures with the program: ingest, fit and query of every store."""
    for rank in sweep.ranks:
        for encoding in sweep.encodings:
            store = Store(rank, encoding)
            path = program.folder / "store.lorif"
            if path.exists():
                rmtree(path)
            program.run("ingest", path, train, "--encoding", encoding, *([] if rank is None else ["--rank", rank]))
            size = directory_bytes(path)
            fitted = ""

            def sums(curvature: str, rho: float | None, path: Path = path) -> Doubles:
                nonlocal fitted
                if rho is None:
                    options: list[object] = ["--method", "dot"]
                else:
                    if curvature != fitted:
                        extent = ["--exact"] if curvature == EXACT else ["--rank", curvature]
                        program.run("fit", path, "--scope", "per-layer", *extent)
                        fitted = curvature
                    options = ["--method", "influence", "--relative-damping", repr(rho)]
                return program.scores(experiment, path, query, *options) @ experiment.subsets.T

            measurements = measure(experiment, sweep, store, sums)
            count = len(experiment.train_ids)
            sizes = Size(modelled_size(experiment, store), size / count, directory_bytes(path) / count)
            yield store, sizes, measurements
