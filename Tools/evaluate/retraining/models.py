"""Training: the common start, the model that is explained, and the models without some of the examples."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from retraining.tasks import Task
from retraining.training import Weights, losses_of, train, without_axis
from retraining.ways import halfway
from retraining.workshop import Workshop

__all__ = ["checkpoint", "explained", "random_halves", "retrained", "squared_gradients"]


def _named(model: nn.Module) -> Weights:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def start(workshop: Workshop, task: Task) -> Weights:
    """What every model is trained from: trained on examples that are not among the others."""
    if not workshop.has("start"):
        workshop.begin()
        model = task.model()
        rows = torch.arange(len(task.before[0]))[None]
        found = train(
            model, _named(model), task.before, rows=rows, seeds=[0], recipe=workshop.plan.first, between=workshop.pause
        )
        workshop.save("start", {name: value.numpy() for name, value in without_axis(found, 0).items()})
        workshop.done("training the start")
    return {name: torch.from_numpy(value) for name, value in workshop.load("start").items()}


def explained(workshop: Workshop, task: Task) -> nn.Module:
    """The model trained on all training examples, whose gradients are recorded."""
    model = task.model()
    if not workshop.has("explained"):
        begin = start(workshop, task)
        workshop.begin()
        rows = torch.arange(workshop.plan.train)[None]
        found = train(
            model, begin, task.train, rows=rows, seeds=[0], recipe=workshop.plan.tuning, between=workshop.pause
        )
        workshop.save("explained", {name: value.numpy() for name, value in without_axis(found, 0).items()})
        workshop.done("training the explained model")
    model.load_state_dict({name: torch.from_numpy(value) for name, value in workshop.load("explained").items()})
    return model.eval()


def _course(workshop: Workshop, task: Task) -> dict[str, NDArray]:
    """The training of the explained model once more: weights on the way, AdamW's mean squared gradients at the end."""
    if not workshop.has("course"):
        begin = start(workshop, task)
        workshop.begin()
        kept: dict[str, NDArray] = {}

        def keep(epochs: int, weights: Weights, squares: Weights) -> None:
            for name, value in without_axis(weights, 0).items():
                if epochs in halfway(workshop.plan):
                    kept[f"{epochs}/{name}"] = value.numpy()
            if epochs == workshop.plan.tuning.epochs:
                kept.update({f"squares/{name}": value.numpy() for name, value in without_axis(squares, 0).items()})

        rows = torch.arange(workshop.plan.train)[None]
        train(
            task.model(), begin, task.train, rows=rows, seeds=[0], recipe=workshop.plan.tuning, between=workshop.pause,
            after=keep,
        )  # fmt: skip
        workshop.save("course", kept)
        workshop.done("training the explained model")
    return workshop.load("course")


def _under(arrays: dict[str, NDArray], prefix: str) -> Weights:
    return {
        name.removeprefix(f"{prefix}/"): torch.from_numpy(value)
        for name, value in arrays.items()
        if name.startswith(f"{prefix}/")
    }


def checkpoint(workshop: Workshop, task: Task, epochs: int) -> nn.Module:
    """The explained model as it was after some epochs that `halfway` names."""
    model = task.model()
    model.load_state_dict(_under(_course(workshop, task), str(epochs)))
    return model.eval()


def squared_gradients(workshop: Workshop, task: Task) -> Weights:
    """What AdamW knew of every weight's squared gradient at the end."""
    return _under(_course(workshop, task), "squares")


def random_halves(workshop: Workshop) -> NDArray[np.bool_]:
    """[subsets, train]: every subset is a random half."""
    plan = workshop.plan
    draw = np.random.default_rng(plan.subsets)
    subsets = np.zeros((plan.subsets, plan.train), bool)
    for subset in subsets:
        subset[draw.permutation(plan.train)[: plan.train // 2]] = True
    return subsets


def retrained(
    workshop: Workshop, task: Task, name: str, kept: NDArray[np.bool_], seeds: Sequence[int]
) -> NDArray[np.float64]:
    """[models, queries]: each query's loss under models trained on the marked examples.

    Args:
        workshop: Keeps what is done, in pieces of `plan.models` models.
        task: The data.
        name: What the pieces are called.
        kept: [models, train], equally many marked in each row.
        seeds: One per model.
    """
    rows = torch.from_numpy(np.stack([np.flatnonzero(row) for row in kept]))
    model = task.model()
    parts = []
    for place in range(0, len(rows), workshop.plan.models):
        piece = f"retrained/{name}-{place:05}"
        if not workshop.has(piece):
            begin = start(workshop, task)
            workshop.begin()
            chosen = slice(place, place + workshop.plan.models)
            found = train(
                model,
                begin,
                task.train,
                rows=rows[chosen],
                seeds=seeds[chosen],
                recipe=workshop.plan.tuning,
                between=workshop.pause,
            )
            workshop.save(piece, {"losses": losses_of(model, found, task.query).double().numpy()})
            workshop.done("retraining")
        parts.append(workshop.load(piece)["losses"])
    return np.concatenate(parts)
