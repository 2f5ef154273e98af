"""Asks the program by every method, and weighs the answers by the retrained models."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import rmtree

import numpy as np
from codes import bytes_per_example
from experiment import Doubles, Experiment, write_full_gradients
from lorif.average import average
from lorif.batch import FactorBatch
from measurement import choosing_half
from numpy.typing import NDArray
from sweeps import Program, directory_bytes
from torch import nn

from retraining.models import checkpoint, squared_gradients
from retraining.recording import Recorded, observed, recorded, recorded_for_adam
from retraining.tasks import Task
from retraining.ways import Way, halfway
from retraining.workshop import Workshop

__all__ = ["Outcome", "Scorer"]

TRAK_NUMBERS = 2048
#: The least 1 - p by which TRAK divides: gradients of the loss vanish with it.
LEAST_DOUBT = 1e-3


@dataclass
class Outcome:
    """What was measured of one way.

    Attributes:
        way: The method.
        payload: Bytes per example in a large store: codes, scales, norms, id and its index.
        directory: Bytes per example of all files of this (small) store.
        curvature: Bytes of the fit, which do not grow with the store.
        rhos: Dampings tried; [nan] without.
        quality: [rhos, queries], linear datamodeling scores.
        chosen: The damping that is best on the choosing half.
        sums: [queries, subsets] at that damping: what the ranking over subsets is by.
        scores: [queries, examples] at that damping.
    """

    way: Way
    payload: float
    directory: float
    curvature: float
    rhos: Doubles
    quality: Doubles
    chosen: int
    sums: Doubles
    scores: NDArray[np.float32]

    @property
    def rho(self) -> float | None:
        """The damping, where there is one."""
        rho = float(self.rhos[self.chosen])
        return None if np.isnan(rho) else rho

    @property
    def lds(self) -> Doubles:
        """[queries] at the chosen damping."""
        return self.quality[self.chosen]


class Scorer:
    """Builds stores in a workshop and asks them."""

    def __init__(
        self, workshop: Workshop, task: Task, model: nn.Module, program: Program, experiment: Experiment
    ) -> None:
        self.workshop, self.task, self.model, self.program = workshop, task, model, program
        self.experiment = experiment

    def batches(self, way: Way) -> Recorded:
        """The recording that a way needs; made where there is none."""
        if way.recording == "trak":
            return self._trak(way)
        options: dict[str, object] = {"d": way.d}
        if way.recording == "mean":
            return self._mean(way)
        if way.recording == "adam":
            squares = squared_gradients(self.workshop, self.task)
            plain = self.batches(replace(way, recording="plain"))
            return recorded_for_adam(self.workshop, self.task, self.model, squares, (way.d, plain))
        if way.recording.startswith("epochs-"):
            model = checkpoint(self.workshop, self.task, int(way.recording.removeprefix("epochs-")))
            return recorded(self.workshop, self.task, model, f"{way.recording}-{way.d}", full=True, **options)
        if way.recording == "whitened":
            options |= {"projection": "whitened", "rank": way.rank, "dtype": "f16"}
            return recorded(self.workshop, self.task, self.model, f"whitened-{way.d}-{way.rank}", **options)
        return recorded(self.workshop, self.task, self.model, f"plain-{way.d}", full=True, **options)

    def _doubts(self) -> Doubles:
        """[train]: 1 - p of the label, by which TRAK weighs; 1 where an example has many predictions."""
        if self.workshop.plan.task == "text":
            return np.ones(self.workshop.plan.train)
        return np.maximum(1 - np.exp(-observed(self.workshop, self.task, self.model)["losses"]), LEAST_DOUBT)

    def _trak(self, way: Way) -> Recorded:
        """Gradients of the log odds (those of the loss over p - 1), all layers projected together to one vector."""
        folder = self.workshop.path(f"records/trak-{way.d}")
        paths = {part: folder / f"{part}.safetensors" for part in ("train", "query", "copy")}
        if not folder.exists():
            plain = recorded(self.workshop, self.task, self.model, f"plain-{way.d}", full=True, d=way.d)
            self.workshop.begin()
            building = self.workshop.path(f"records/.trak-{way.d}")
            rmtree(building, ignore_errors=True)
            building.mkdir()
            draw = np.random.default_rng(2303)
            projection: NDArray[np.float32] | None = None
            ids = {"train": self.task.train_ids} | {
                part: self.task.query_ids(getattr(self.task, part)) for part in ("query", "copy")
            }
            for part, path in plain.items():
                batch = FactorBatch(path)
                rows = np.concatenate(
                    [batch.gradients(layer.name).reshape(len(ids[part]), -1) for layer in batch.layers], axis=1
                )
                if projection is None:
                    length = rows.shape[1]
                    projection = draw.standard_normal((length, min(TRAK_NUMBERS, length)), np.float32)
                if part == "train":
                    rows = rows / self._doubts()[:, None].astype(np.float32)
                vectors = {"all": (rows @ projection)[:, :, None]}
                write_full_gradients(building / f"{part}.safetensors", ["all"], vectors, ids[part])
            building.rename(folder)
            self.workshop.done("recording")
        return paths

    def _mean(self, way: Way) -> Recorded:
        """Every example's gradient averaged over the checkpoints, before anything is truncated."""
        folder = self.workshop.path(f"records/mean-{way.d}")
        parts = ("train", "query", "copy")
        if not folder.exists():
            names = ["plain", *(f"epochs-{each}" for each in halfway(self.workshop.plan))]
            recordings = [self.batches(replace(way, recording=name)) for name in names]
            self.workshop.begin()
            building = self.workshop.path(f"records/.mean-{way.d}")
            rmtree(building, ignore_errors=True)
            for part in parts:
                average(building / part, [recording[part] for recording in recordings])
            building.rename(folder)
            self.workshop.done("recording")
        return {part: next((folder / part).glob("*.safetensors")) for part in parts}

    def _sample(self, train: Path, count: int | None) -> Path:
        """The first examples of a recording, in a file of their own; the recording itself without a count."""
        if count is None:
            return train
        batch = FactorBatch(train)
        path = self.workshop.path("sample.safetensors")
        rows = {layer.name: batch.gradients(layer.name)[:count] for layer in batch.layers}
        write_full_gradients(path, list(rows), rows, self.task.train_ids[:count])
        return path

    def store(self, way: Way) -> Path:
        """The store that a way asks; built where there is none, with its bytes beside it."""
        name = "-".join("full" if part is None else str(part) for part in way.store)
        path = self.workshop.path(f"stores/{name}.lorif")
        if not path.exists():
            train = self.batches(way)["train"]
            self.workshop.begin()
            building = self.workshop.path(f"stores/.{name}.lorif")
            rmtree(building, ignore_errors=True)
            options: list[object] = ["--encoding", way.encoding]
            if way.rank is not None and way.recording != "whitened":
                options += ["--rank", way.rank]
            if way.energy is not None:
                options += ["--energy", way.energy]
            if way.epsilon is not None:
                options += ["--whiten-from", self._sample(train, way.sample), "--epsilon", way.epsilon]
            self.program.run("ingest", building, train, *options)
            size = self.workshop.path(f"stores/{name}.bytes")
            size.write_text(str(directory_bytes(building)), encoding="ascii")
            building.rename(path)
            self.workshop.done("ingest")
        return path

    def measure(self, way: Way) -> Outcome:
        """What a way is worth; kept in the workshop."""
        name = f"ways/{way.key}"
        if not self.workshop.has(name):
            asked = self._of_observations if not way.recording else self._by_program
            self.workshop.save(name, asked(way))
        found = self.workshop.load(name)
        sizes = (float(value) for value in found["sizes"])
        rest = {key: found[key] for key in ("rhos", "quality", "sums", "scores")}
        return Outcome(way, *sizes, chosen=int(found["chosen"]), **rest)

    def _weighed(self, each: list[Doubles], rhos: list[float], sizes: list[float]) -> dict[str, NDArray]:
        """Keeps the scores of the damping that is best on the choosing half."""
        subsets = self.experiment.subsets
        quality = np.stack([self.experiment.linear_datamodeling_scores(scores @ subsets.T) for scores in each])
        chosen = int(quality[:, choosing_half(quality.shape[1])].mean(axis=1).argmax())
        best = each[chosen]
        return {
            "sizes": np.array(sizes),
            "rhos": np.array(rhos),
            "quality": quality,
            "chosen": np.array(chosen),
            "sums": best @ subsets.T,
            "scores": best.astype(np.float32),
        }

    def _fitted(self, way: Way, path: Path) -> tuple[str | None, float]:
        """The curvature's id and its bytes, fitted where there is none; None for methods without."""
        if way.fit is None:
            return None, 0.0
        done = json.loads(self.program.run("fit", path, *way.fit, "--json"))
        return done["curvature"], float(done["bytes"])

    def asked(self, outcome: Outcome, method: str, part: str | None) -> Doubles:
        """[queries, examples] of another method, with the curvature and the damping of this way if it has any.

        Args:
            outcome: Of the way.
            method: Of `lorif query`.
            part: `query` or `copy`; None for methods without queries, which give one row.
        """
        way = outcome.way
        path = self.store(way)
        curvature, _ = self._fitted(replace(way, fit=None) if method == "cosine" else way, path)
        options: list[object] = ["--method", method]
        if curvature is not None:
            options += ["--curvature", curvature, "--relative-damping", repr(outcome.rho)]
        if part is not None:
            ids = self.task.query_ids(getattr(self.task, part))
            batch = self.batches(way)[part]
            return self.program.scores(replace(self.experiment, query_ids=ids), path, batch, *options)
        return self.program.asked(self.experiment, path, *options)[0]

    def _by_program(self, way: Way) -> dict[str, NDArray]:
        """Of the way's own recording, or the mean over it and more."""
        members = [self._scored(replace(way, recording=each)) for each in (way.recording, *way.more)]
        rhos = members[0][0]
        found = np.mean([scores for _, scores, _ in members], axis=0)
        sizes = np.sum([each for *_, each in members], axis=0)
        return self._weighed(list(found), rhos, sizes.tolist())

    def _scored(self, way: Way) -> tuple[list[float], Doubles, list[float]]:
        """Dampings, [dampings, queries, examples], and the three sizes of an outcome."""
        batches = self.batches(way)
        path = self.store(way)
        self.workshop.begin()
        count = self.workshop.plan.train
        directory = float(path.with_suffix(".bytes").read_text(encoding="ascii"))
        curvature, bytes_of_fit = self._fitted(way, path)
        rhos = [float("nan")] if curvature is None else list(self.workshop.plan.rhos)
        weights = self._doubts() if way.recording == "trak" else np.ones(count)
        options: list[object] = ["--method", way.method]
        if curvature is not None:
            options += ["--curvature", curvature, "--relative-damping", ",".join(map(repr, rhos))]
        found = self.program.scores(self.experiment, path, batches["query"], *options)
        if curvature is not None:
            # Exact curvature of a small store is much larger than the store; what needs it again fits it again.
            self.program.run("fit", path, "--drop", curvature)
        each = weights * found.reshape(len(rhos), *found.shape[-2:])
        self.workshop.done("asking")
        return rhos, each, [self._payload(way, path), directory / count, bytes_of_fit]

    def _payload(self, way: Way, path: Path) -> float:
        """Bytes per example in a large store, by the ranks that the store has."""
        layers = json.loads(self.program.run("inspect", path, "--layers", "--json"))
        without_layers = bytes_per_example([], None, way.encoding, len(self.experiment.train_ids[0]))
        apart = bytes_per_example([], None, way.encoding, 0)
        each = [bytes_per_example([(layer["d1"], layer["d2"])], layer.get("rank"), way.encoding, 0) for layer in layers]
        return without_layers + sum(each) - len(each) * apart

    def _of_observations(self, way: Way) -> dict[str, NDArray]:
        """Random scores, and the cosine of embeddings."""
        seen = observed(self.workshop, self.task, self.model)
        self.workshop.begin()
        if way.method == "random":
            scores = np.random.default_rng(1).standard_normal((len(seen["query"]), len(seen["train"])))
            size = 0.0
        else:
            query, train = (
                seen[part] / np.linalg.norm(seen[part], axis=1, keepdims=True) for part in ("query", "train")
            )
            scores, size = query @ train.T, 2.0 * train.shape[1]
        result = self._weighed([scores], [float("nan")], [size, size, 0.0])
        self.workshop.done("asking")
        return result
