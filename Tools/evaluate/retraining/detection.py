"""Finding spoiled examples and near copies: by the program's methods, by the loss, by embeddings, by chance."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from experiment import Doubles, average_ranks
from numpy.typing import NDArray

from retraining.recording import observed
from retraining.scoring import Outcome, Scorer

__all__ = ["Detection", "area", "copies", "precision", "spoiled"]

NEIGHBOURS = 10


@dataclass(frozen=True)
class Detection:
    """How well something was found.

    Attributes:
        title: By what.
        share: Spoiled examples among as many of the most suspicious; or copies whose original comes first.
        error: Its standard error, the examples being independent draws.
        second: The area under the ROC curve; or the mean reciprocal rank of the original.
    """

    title: str
    share: float
    error: float
    second: float


def _share(hits: NDArray[np.bool_]) -> tuple[float, float]:
    mean = float(hits.mean())
    return mean, float(np.sqrt(mean * (1 - mean) / len(hits)))


def precision(suspicion: Doubles, wrong: NDArray[np.bool_]) -> tuple[float, float]:
    """The share of wrong ones among as many of the most suspicious as there are wrong ones."""
    chosen = np.argsort(-suspicion, kind="stable")[: int(wrong.sum())]
    return _share(wrong[chosen])


def area(suspicion: Doubles, wrong: NDArray[np.bool_]) -> float:
    """The probability that a wrong one is more suspicious than a right one; ties count half."""
    ranks = average_ranks(suspicion[None])[0]
    count = int(wrong.sum())
    return float((ranks[wrong].sum() - count * (count - 1) / 2) / (count * (len(wrong) - count)))


def spoiled(scorer: Scorer, outcomes: Iterable[Outcome]) -> list[Detection]:
    """Who knows which training examples are spoiled."""
    task = scorer.task
    wrong = task.spoiled
    seen = observed(scorer.workshop, task, scorer.model)
    chance = np.random.default_rng(2).standard_normal(len(wrong))
    suspicions = {"chance": chance, "training loss": seen["losses"]}
    if scorer.workshop.plan.task == "digits":
        rows = seen["train"] / np.linalg.norm(seen["train"], axis=1, keepdims=True)
        near = np.argsort(-(rows @ rows.T) + 4 * np.eye(len(rows)), axis=1)[:, :NEIGHBOURS]
        labels = task.train[1].numpy()
        suspicions["embedding, labels of the ten nearest"] = (labels[near] != labels[:, None]).mean(axis=1)
    for outcome in outcomes:
        suspicions[f"self-influence, {outcome.way.title}"] = scorer.asked(outcome, "self-influence", None)[0]
    return [Detection(title, *precision(each, wrong), area(each, wrong)) for title, each in suspicions.items()]


def copies(scorer: Scorer, outcomes: Iterable[Outcome]) -> list[Detection]:
    """Who finds the original of a near copy."""
    copied = scorer.task.copied
    seen = observed(scorer.workshop, scorer.task, scorer.model)
    query, train = (seen[part] / np.linalg.norm(seen[part], axis=1, keepdims=True) for part in ("copy", "train"))
    scores = {
        "chance": np.random.default_rng(3).standard_normal((len(copied), len(train))),
        "embedding, cosine": query @ train.T,
    }
    for outcome in outcomes:
        for method in ("influence", "relatif", "cosine"):
            scores[f"{method}, {outcome.way.title}"] = scorer.asked(outcome, method, "copy")
    found = []
    for title, matrix in scores.items():
        rank = (matrix > matrix[np.arange(len(copied)), copied][:, None]).sum(axis=1)
        found.append(Detection(title, *_share(rank == 0), float((1 / (1 + rank)).mean())))
    return found
