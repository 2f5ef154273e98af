"""A finished retraining experiment: gradients, the subsets trained on, and what each query lost under every subset."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Experiment:
    """Unfactored gradients of training examples and queries, and the outcome of retraining on subsets.

    Attributes:
        layers: Names, in vectorisation order.
        train: Layer -> [examples, d1, d2], float32.
        query: Layer -> [queries, d1, d2], float32.
        train_ids: One per training example.
        query_ids: One per query.
        subsets: [subsets, examples], 1 where the example was trained on.
        losses: [subsets, queries], the query's loss after training on that subset.
    """

    layers: list[str]
    train: dict[str, Floats]
    query: dict[str, Floats]
    train_ids: list[str]
    query_ids: list[str]
    subsets: Doubles
    losses: Doubles

    def linear_datamodeling_scores(self, subset_sums: Doubles) -> Doubles:
        """The linear datamodeling score of every query.

        Args:
            subset_sums: [queries, subsets], the sum of the scores of each subset's examples.

        Returns:
            [queries], each query's rank correlation over the subsets of `subset_sums` with its negative loss.
        """
        return rank_correlations(subset_sums, -self.losses.T)


def average_ranks(values: Doubles) -> Doubles:
    """Ranks along the last axis, from 0; equal values share the mean of their ranks."""
    ranks = np.empty(values.shape, np.float64)
    for row, result in zip(np.atleast_2d(values), ranks.reshape(-1, values.shape[-1]), strict=True):
        _, inverse, counts = np.unique(row, return_inverse=True, return_counts=True)
        last = np.cumsum(counts)
        result[:] = (last - (counts + 1) / 2)[inverse]
    return ranks


def rank_correlations(first: Doubles, second: Doubles) -> Doubles:
    """Spearman's correlation of each row of `first` with the same row of `second`; 0 where a row is constant."""
    a, b = average_ranks(first), average_ranks(second)
    a -= a.mean(axis=1, keepdims=True)
    b -= b.mean(axis=1, keepdims=True)
    spread = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    return np.divide((a * b).sum(axis=1), spread, out=np.zeros(len(a)), where=spread > 0)


def mean_and_error(values: Doubles) -> tuple[float, float]:
    """The mean and its standard error, the values being independent draws."""
    if len(values) < 2:
        return float(values.mean()), float("nan")
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))


def read_full_gradients(path: Path) -> tuple[list[str], dict[str, Floats], list[str]]:
    """Layer names in order, layer -> [n, d1, d2] as float32, and the ids of an unfactored batch."""
    with safe_open(path, "np") as file:
        metadata = file.metadata() or {}
        missing = {"ids", "layers"} - metadata.keys()
        if missing:
            raise ValueError(f"{path}: the metadata lack {', '.join(sorted(missing))}")
        layers = json.loads(metadata["layers"])
        tensors = {layer: file.get_tensor(f"{layer}/full").astype(np.float32) for layer in layers}
    return layers, tensors, json.loads(metadata["ids"])


def load(folder: Path) -> Experiment:
    """Reads train_full, query_full and retraining (.safetensors) of a folder and checks that they belong together."""
    layers, train, train_ids = read_full_gradients(folder / "train_full.safetensors")
    query_layers, query, query_ids = read_full_gradients(folder / "query_full.safetensors")
    with safe_open(folder / "retraining.safetensors", "np") as file:
        subsets = file.get_tensor("subsets").astype(np.float64)
        losses = file.get_tensor("query_losses").astype(np.float64)
    if set(layers) != set(query_layers):
        raise ValueError(f"{folder}: training examples and queries have different layers")
    if subsets.shape[1] != len(train_ids) or losses.shape != (len(subsets), len(query_ids)):
        raise ValueError(
            f"{folder}: subsets {subsets.shape} and query_losses {losses.shape} do not fit"
            f" {len(train_ids)} training examples and {len(query_ids)} queries"
        )
    return Experiment(layers, train, query, train_ids, query_ids, subsets, losses)


def save(folder: Path, experiment: Experiment) -> None:
    """Writes the three files that `load` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    ids = {"train_full": experiment.train_ids, "query_full": experiment.query_ids}
    for name, rows in (("train_full", experiment.train), ("query_full", experiment.query)):
        write_full_gradients(folder / f"{name}.safetensors", experiment.layers, rows, ids[name])
    outcome = {"subsets": experiment.subsets.astype(np.uint8), "query_losses": experiment.losses.astype(np.float32)}
    names = {"train_ids": json.dumps(experiment.train_ids), "query_ids": json.dumps(experiment.query_ids)}
    save_file(outcome, folder / "retraining.safetensors", names)


def inverse_square_root(moment: Doubles, epsilon: float) -> Doubles:
    """(C + ε · mean eigenvalue · I)^(-1/2) of a symmetric positive semidefinite matrix."""
    values, vectors = np.linalg.eigh(moment)
    return (vectors * (np.maximum(values, 0) + epsilon * values.mean()) ** -0.5) @ vectors.T


def whitened(experiment: Experiment, epsilon: float) -> Experiment:
    """The same experiment in the basis in which both sides' second moments over the training examples are nearly one.

    A layer's gradient G becomes W1 G W2, W1 and W2 the damped inverse square roots of mean G Gᵀ and mean Gᵀ G.
    """
    train, query = {}, {}
    for layer, rows in experiment.train.items():
        count, d1, d2 = rows.shape
        exact = rows.astype(np.float64)
        beside = exact.transpose(1, 0, 2).reshape(d1, count * d2)
        below = exact.reshape(count * d1, d2)
        left = inverse_square_root(beside @ beside.T / count, epsilon)
        right = inverse_square_root(below.T @ below / count, epsilon)
        train[layer] = (left @ exact @ right).astype(np.float32)
        query[layer] = (left @ experiment.query[layer].astype(np.float64) @ right).astype(np.float32)
    return replace(experiment, train=train, query=query)


def write_full_gradients(path: Path, layers: list[str], gradients: dict[str, Floats], ids: list[str]) -> None:
    """Writes an unfactored batch in float32."""
    metadata = {"lorif.batch": "1", "layers": json.dumps(layers), "ids": json.dumps(ids, ensure_ascii=False)}
    save_file({f"{layer}/full": np.ascontiguousarray(gradients[layer]) for layer in layers}, path, metadata)
