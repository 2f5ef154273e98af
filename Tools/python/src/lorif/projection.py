"""Projections of activations and output gradients, reproducible from a seed by any program in any language.

The projected gradient of an example is G = (X P_in)ᵀ (dY P_out), with X [tokens, inputs] the layer's input, dY [tokens,
outputs] the gradient of the loss with respect to the layer's output, and the matrices made here. All kinds are scaled
so that E[P Pᵀ] is the identity; products of projected gradients are then unbiased estimates of the true ones.

The numbers come from SHAKE-256 of the UTF-8 text "lorif projection 1\\n<kind>\\n<seed>\\n<layer>\\n<in or out>\\n
<dimension>\\n<d>" (one line feed between the parts, none at the end), and fill the matrix [dimension, d] row by row:

- rademacher: bit k of the output (lowest bit of a byte first), 1 for +1/√d and 0 for -1/√d;
- gaussian: the output as n little-endian u64, w, with n = dimension·d rounded up to even; u = (⌊w/2¹¹⌋ + ½)·2⁻⁵³; the
  first half of the u is u₁, the second u₂; √(-2 ln u₁) cos 2πu₂ in the first n/2 places, √(-2 ln u₁) sin 2πu₂ in the
  others; times 1/√d;
- orthogonal: Q of the QR decomposition, with R's diagonal positive, of √d times the gaussian matrix, made from the text
  that says orthogonal; times √(dimension/d).

A side with d ≥ dimension is not projected.
"""

import hashlib
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

__all__ = ["Kind", "Side", "Whitening", "factor", "projection_matrix", "whitening"]

Kind = Literal["gaussian", "rademacher", "orthogonal"]
Side = Literal["in", "out"]
Matrix = NDArray[np.float64]


def projection_matrix(kind: Kind, seed: int, layer: str, side: Side, *, dimension: int, d: int | None) -> Matrix | None:
    """The matrix [dimension, d] of one side of a layer; None where nothing is projected (d None or ≥ dimension)."""
    if kind not in get_args(Kind):
        raise ValueError(f"expected projection {', '.join(get_args(Kind))}, found {kind!r}")
    if side not in get_args(Side):
        raise ValueError(f"expected side in or out, found {side!r}")
    if dimension < 1 or (d is not None and d < 1):
        raise ValueError(f"layer {layer!r}: expected positive dimensions, found {dimension} and {d}")
    if d is None or d >= dimension:
        return None
    name = f"lorif projection 1\n{kind}\n{seed}\n{layer}\n{side}\n{dimension}\n{d}".encode()
    stream = hashlib.shake_256(name)
    count = dimension * d
    if kind == "rademacher":
        bits = np.unpackbits(np.frombuffer(stream.digest((count + 7) // 8), np.uint8), count=count, bitorder="little")
        return ((bits.astype(np.float64) * 2 - 1) / np.sqrt(d)).reshape(dimension, d)
    half = (count + 1) // 2
    words = np.frombuffer(stream.digest(16 * half), "<u8")
    uniform = ((words >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    radius, angle = np.sqrt(-2 * np.log(uniform[:half])), 2 * np.pi * uniform[half:]
    normal = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count].reshape(dimension, d)
    if kind == "gaussian":
        return normal / np.sqrt(d)
    q, r = np.linalg.qr(normal)
    return q * np.where(np.diag(r) < 0, -1.0, 1.0) * np.sqrt(dimension / d)


@dataclass(frozen=True)
class Whitening:
    """The maps of both sides, symmetric: a whitened gradient is left · G · right."""

    left: Matrix
    right: Matrix


def whitening(left_moment: Matrix, right_moment: Matrix, epsilon: float) -> Whitening:
    """The two-sided whitening of a layer from C1 = mean G Gᵀ [d1, d1] and C2 = mean Gᵀ G [d2, d2].

    W = (C + ε·(mean eigenvalue)·I)^(-1/2) on each side, times √(tr C1) in all: with the Kronecker approximation
    C1 ⊗ C2 / tr C1 of the second moment of vec(G), whitened gradients have about unit variance in every entry.
    """
    scale = float(np.trace(left_moment))
    if not np.isfinite(scale) or scale <= 0:
        raise ValueError(f"expected gradients that are finite and not all zero, found mean squared norm {scale}")
    left, right = (_inverse_root(moment, epsilon) for moment in (left_moment, right_moment))
    return Whitening(left * np.sqrt(scale), right)


def _inverse_root(moment: Matrix, epsilon: float) -> Matrix:
    values, vectors = np.linalg.eigh((moment + moment.T) / 2)
    damped = np.maximum(values, 0) + epsilon * float(np.trace(moment)) / len(values)
    return (vectors / np.sqrt(damped)) @ vectors.T


def factor(gradients: NDArray[Any], rank: int) -> tuple[Matrix, Matrix]:
    """Best rank-c factors of matrices [n, d1, d2]: left [n, d1, c] and right [n, d2, c], √σ in both."""
    u, sigma, v = np.linalg.svd(np.asarray(gradients, np.float64), full_matrices=False)
    missing = rank - sigma.shape[1]
    root = np.sqrt(sigma[:, None, :rank])
    left, right = u[:, :, :rank] * root, np.swapaxes(v, 1, 2)[:, :, :rank] * root
    if missing > 0:
        left, right = (np.pad(side, ((0, 0), (0, 0), (0, missing))) for side in (left, right))
    return left, right
