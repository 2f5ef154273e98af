"""Whether everybody's answers are right for what they store, and how near that is to the gradients themselves.

A float64 reference in NumPy scores some rows as each contender stores them: the dense f16 file, the f16 factors, or
what `lorif export` gives back. What is kept of an answer is the matrix of scores and the ten best of each query.
"""

import json
from pathlib import Path

import numpy as np
from batches import Shape, identifier
from safetensors.numpy import load_file

from contest.data import DENSE, dense_rows
from contest.entrants import Entrant, Figure
from contest.runner import Runner

SUBSET = 384
TOP = 10


def best(scores: np.ndarray, count: int) -> np.ndarray:
    """Columns of the highest scores of each row, best first."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :count]


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """The mean number of entries that two lists per query share."""
    return float(np.mean([len(set(one) & set(two)) for one, two in zip(first.tolist(), second.tolist(), strict=True)]))


def dense_queries(path: Path, shape: Shape) -> np.ndarray:
    """A query file in f64, [Q, layers, d1, d2]."""
    tensors = load_file(path)
    layers = []
    for name in shape.layer_names:
        if f"{name}/full" in tensors:
            layers.append(tensors[f"{name}/full"].astype(np.float64))
        else:
            left, right = (tensors[f"{name}/{side}"].astype(np.float64) for side in ("left", "right"))
            layers.append(left @ right.transpose(0, 2, 1))
    return np.stack(layers, axis=1)


def batch_rows(path: Path, shape: Shape) -> np.ndarray:
    """A factor batch in f64 matrices, [n, layers, d1, d2]: the same as queries are read."""
    return dense_queries(path, shape)


def reference(queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Inner products in f64, [Q, n]."""
    return queries.reshape(len(queries), -1) @ rows.reshape(len(rows), -1).T


def relative_error(found: np.ndarray, wanted: np.ndarray) -> float:
    """The largest difference, over the standard deviation of the scores."""
    return float(np.abs(found - wanted).max() / wanted.std())


class Agreement:
    """Compares the kept answers of a run."""

    def __init__(self, runner: Runner, queries: dict[str, Path]) -> None:
        self.runner = runner
        self.shape = runner.shape
        self.rows = range(min(SUBSET, self.shape.rows))
        self.queries = {kind: dense_queries(path, self.shape) for kind, path in queries.items()}
        self.exported: dict[Path, np.ndarray] = {}

    def stored(self, entrant: Entrant) -> np.ndarray | None:
        """Some rows as the entrant has them, in f64; None where that is not a matrix."""
        if entrant.program == "lorif":
            if entrant.store not in self.exported:
                self.exported[entrant.store] = self._export(entrant.store)
            return self.exported[entrant.store]
        if entrant.program in {"factored", "reconstructed", "bilinear"}:
            first = sorted(entrant.store.glob("*.safetensors"))[0]
            return batch_rows(first, self.shape)[: len(self.rows)]
        if entrant.program in {"trak", "faiss-ivf"}:
            return None
        path = self.runner.folder / DENSE
        return dense_rows(path, self.shape, self.rows).astype(np.float64)

    def _export(self, store: Path) -> np.ndarray:
        folder = self.runner.folder
        ids, out = folder / "ids.txt", folder / "exported.safetensors"
        ids.write_text("\n".join(identifier(row) for row in self.rows) + "\n", encoding="utf-8")
        outcome = self.runner.bounded(self.runner.lorif, "export", store, out, "--ids", ids)
        if outcome.code != 0:
            raise RuntimeError(f"{outcome.command}: {outcome.stderr}")
        rows = batch_rows(out, self.shape)
        for path in (ids, out, out.with_suffix(".jsonl")):
            path.unlink(missing_ok=True)
        return rows

    def listed(self, label: str) -> np.ndarray | None:
        """The ten best rows of each query that an entrant named."""
        if path := self.runner.kept.get((label, ".npz")):
            return np.load(path)["indices"] if path.exists() else None
        path = self.runner.kept.get((label, ".jsonl"))
        if path is None or not path.exists():
            return None
        lists: dict[str, list[int]] = {}
        for line in path.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            lists.setdefault(entry["query"], []).append(int(entry["id"].rsplit("-", 1)[1]))
        return np.array([lists[query] for query in sorted(lists)])

    def compare(self, entrants: list[Entrant]) -> None:
        """A line for each entrant that answered."""
        dense = self.runner.kept.get(("torch, LoGRA f16, full", ".npy"))
        gradients = best(np.load(dense), TOP) if dense and dense.exists() else None
        for entrant in entrants:
            label = entrant.label
            listed = self.listed(label)
            if listed is None:
                continue
            values: dict[str, str | float] = {}
            path = self.runner.kept.get((label, ".npy"))
            rows = self.stored(entrant)
            if path and path.exists():
                scores = np.load(path)
                values["list against own scores"] = overlap(listed, best(scores, TOP))
                if rows is not None:
                    some = scores[:, : len(self.rows)].astype(np.float64)
                    wanted = reference(self.queries[entrant.kind], rows)
                    values["top 10 of the subset"] = overlap(best(some, TOP), best(wanted, TOP))
                    values["largest error"] = relative_error(some, wanted)
            if gradients is not None and entrant.kind == "full":
                values["top 10 against the gradients"] = overlap(listed, gradients)
            self.runner.results.figures.append(Figure("agreement", label, values))
