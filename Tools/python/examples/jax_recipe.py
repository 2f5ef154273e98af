"""How to write factor batches from JAX, or from anything that can differentiate; runs with NumPy alone.

JAX has no hooks, so the model adds a *tap*, an array of zeros, to the output of each layer to record, and hands out the
layer's input. The gradient of the summed loss with respect to a tap is the gradient dY of the layer's output:

    def summed_loss(taps, parameters, batch):
        inputs = {}
        x = batch["x"]
        for name in layers:
            inputs[name] = x
            x = activation(x @ parameters[name]["w"] + parameters[name]["b"] + taps[name])
        return loss(x, batch["y"]).sum(), inputs

    taps = {name: jnp.zeros((examples, tokens, width[name])) for name in layers}
    output_gradients, inputs = jax.jit(jax.grad(summed_loss, has_aux=True))(taps, parameters, batch)

From there on everything is `factors` below; on a device, write its three lines with jax.numpy and factor with
jnp.linalg.svd, since lorif.projection's numbers come from NumPy in any case. Sum the loss, do not average it: then rows
are the gradients of each example's own loss. This file does it for a small network in NumPy, with the backward pass by
hand, and writes the batches of training data and of queries.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from lorif.batch import Factors, write_batch
from lorif.projection import factor, projection_matrix
from numpy.typing import NDArray

Array = NDArray[Any]

SEED = 0
D = 8
LAYERS = ("first", "second")


def network(seed: int) -> dict[str, Array]:
    """Weights [inputs, outputs] of two layers."""
    random = np.random.default_rng(seed)
    return {"first": random.normal(size=(12, 10)) / 4, "second": random.normal(size=(10, 3)) / 4}


def summed_loss(
    weights: dict[str, Array], x: Array, y: Array, taps: dict[str, Array]
) -> tuple[float, dict[str, Array]]:
    """The loss summed over examples and tokens, and the inputs of the layers [examples, tokens, width]."""
    hidden = np.tanh(x @ weights["first"] + taps["first"])
    output = hidden @ weights["second"] + taps["second"]
    return float(((output - y) ** 2).sum()), {"first": x, "second": hidden}


def output_gradients(weights: dict[str, Array], x: Array, y: Array) -> dict[str, Array]:
    """What jax.grad gives for taps of zeros."""
    hidden = np.tanh(x @ weights["first"])
    second = 2 * (hidden @ weights["second"] - y)
    return {"first": (second @ weights["second"].T) * (1 - hidden**2), "second": second}


def projected_gradients(layer: str, inputs: Array, gradients: Array, mask: Array | None = None) -> Array:
    """G = (X P_in)ᵀ (dY P_out) of each example [examples, d1, d2]; `mask` [examples, tokens] leaves padding out."""
    p_in = projection_matrix("orthogonal", SEED, layer, "in", dimension=inputs.shape[-1], d=D)
    p_out = projection_matrix("orthogonal", SEED, layer, "out", dimension=gradients.shape[-1], d=D)
    left = inputs if p_in is None else inputs @ p_in
    right = gradients if p_out is None else gradients @ p_out
    right = right if mask is None else right * mask[..., None]
    return np.einsum("nta,ntb->nab", left, right)


def main(folder: Path) -> None:
    """Writes train.safetensors with factors of rank 2 and query.safetensors with full matrices."""
    random = np.random.default_rng(1)
    weights = network(SEED)
    for name, rows, rank in (("train", 50, 2), ("query", 5, None)):
        x, y = random.normal(size=(rows, 6, 12)), random.normal(size=(rows, 6, 3))
        taps = {"first": np.zeros((rows, 6, 10)), "second": np.zeros((rows, 6, 3))}
        _, inputs = summed_loss(weights, x, y, taps)
        gradients = output_gradients(weights, x, y)
        matrices = {layer: projected_gradients(layer, inputs[layer], gradients[layer]) for layer in LAYERS}
        write_batch(
            folder / f"{name}.safetensors",
            matrices if rank is None else {layer: Factors(*factor(full, rank)) for layer, full in matrices.items()},
            ids=[f"{name}-{row}" for row in range(rows)],
            provenance={"projection": f"orthogonal, seed {SEED}, d {D}", "reduction": "sum"},
        )


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
