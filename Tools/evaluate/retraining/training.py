"""Many models of one shape trained at once, each on rows of its own: their weights are stacked and run as one batch.

Small models spend most of their time between the operations; stacked, dozens cost little more than the arithmetic.
A model's result depends on its rows and its seed, not on the models beside it (but for rounding).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

__all__ = ["Recipe", "Weights", "losses", "losses_of", "stacked", "train", "without_axis"]

Weights = dict[str, Tensor]

BETA_1, BETA_2, TINY = 0.9, 0.99, 1e-8


@dataclass(frozen=True)
class Recipe:
    """AdamW with a warm-up of a tenth of the steps and a cosine; gradients are clipped to norm 1."""

    epochs: int
    batch: int
    peak: float
    decay: float = 0.01


def losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Each row's cross entropy, [rows]: the mean over its places where it has several."""
    if logits.dim() == 2:
        return nn.functional.cross_entropy(logits, targets, reduction="none")
    return nn.functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none").mean(1)


def stacked(weights: Weights, count: int) -> Weights:
    """The same weights `count` times, along a new first axis."""
    return {name: value.unsqueeze(0).repeat(count, *[1] * value.dim()) for name, value in weights.items()}


def without_axis(weights: Weights, index: int) -> Weights:
    """One model of a stack."""
    return {name: value[index].clone() for name, value in weights.items()}


def _orders(rows: Tensor, seeds: Sequence[int], epoch: int, batch: int) -> Tensor:
    """[steps, models, batch]: each model's rows in an order of its own; what fills no batch is left out."""
    order = []
    for own, seed in zip(rows, seeds, strict=True):
        generator = torch.Generator().manual_seed(1_000_003 * seed + epoch)
        order.append(own[torch.randperm(len(own), generator=generator)])
    steps = rows.shape[1] // batch
    return torch.stack(order)[:, : steps * batch].view(len(rows), steps, batch).transpose(0, 1)


def train(
    model: nn.Module,
    start: Weights,
    data: tuple[Tensor, Tensor],
    *,
    rows: Tensor,
    seeds: Sequence[int],
    recipe: Recipe,
    between: Callable[[], None] = lambda: None,
    after: Callable[[int, Weights, Weights], None] = lambda _epochs, _weights, _squares: None,
) -> Weights:
    """Trains one model for each row of `rows` and returns their weights, stacked.

    Args:
        model: The shape of all models; its own weights are not used.
        start: What all models start from.
        data: Inputs and targets, [examples, …].
        rows: [models, n], the examples that each is trained on.
        seeds: One per model, for the order of its examples.
        recipe: The optimizer's settings.
        between: Called before every epoch.
        after: Called after every epoch with the number of epochs done, the weights, and AdamW's means of squared
            gradients, corrected for their start at zero.
    """
    inputs, targets = data

    def loss(weights: Weights, x: Tensor, y: Tensor) -> Tensor:
        return losses(functional_call(model, weights, (x,)), y).mean()

    gradient = vmap(grad(loss))
    weights = stacked(start, len(rows))
    names = list(weights)
    values = [weights[name] for name in names]
    first, second = ([torch.zeros_like(value) for value in values] for _ in range(2))
    per_epoch = rows.shape[1] // recipe.batch
    if per_epoch == 0:
        raise ValueError(f"expected at least {recipe.batch} rows, a batch, for each model, found {rows.shape[1]}")
    total, step = recipe.epochs * per_epoch, 0
    for epoch in range(recipe.epochs):
        between()
        for chosen in _orders(rows, seeds, epoch, recipe.batch):
            step += 1
            rate = recipe.peak * min(step / max(1, total // 10), 0.5 * (1 + math.cos(math.pi * step / total)))
            with sdpa_kernel(SDPBackend.MATH):
                found = gradient(dict(zip(names, values, strict=True)), inputs[chosen], targets[chosen])
            grads = [found[name] for name in names]
            squares = torch.stack([g.flatten(1).square().sum(1) for g in grads]).sum(0)
            shrink = (1 / squares.sqrt().clamp_min(1e-12)).clamp_max(1)
            grads = [g * shrink.view(-1, *[1] * (g.dim() - 1)) for g in grads]
            torch._foreach_lerp_(first, grads, 1 - BETA_1)
            torch._foreach_mul_(second, BETA_2)
            torch._foreach_addcmul_(second, grads, grads, 1 - BETA_2)
            size = torch._foreach_div(second, 1 - BETA_2**step)
            torch._foreach_sqrt_(size)
            torch._foreach_add_(size, TINY)
            torch._foreach_mul_(values, 1 - rate * recipe.decay)
            torch._foreach_addcdiv_(values, first, size, value=-rate / (1 - BETA_1**step))
        squares_now = torch._foreach_div(second, 1 - BETA_2**step)
        after(epoch + 1, dict(zip(names, values, strict=True)), dict(zip(names, squares_now, strict=True)))
    return dict(zip(names, values, strict=True))


def losses_of(model: nn.Module, weights: Weights, data: tuple[Tensor, Tensor], batch: int = 64) -> Tensor:
    """[models, rows]: every model's loss on every row."""
    inputs, targets = data

    def one(own: Weights, x: Tensor, y: Tensor) -> Tensor:
        return losses(functional_call(model, own, (x,)), y)

    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        parts = [
            vmap(one, in_dims=(0, None, None))(weights, inputs[part], targets[part])
            for part in torch.arange(len(inputs)).split(batch)
        ]
    return torch.cat(parts, dim=1)
