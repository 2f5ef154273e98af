"""What every encoding of a store does to numbers, written from the format pages and nothing else."""

from functools import cache
from itertools import pairwise
from math import ceil, erf, exp, pi, sqrt
from statistics import NormalDist

import numpy as np
from experiment import Floats
from numpy.typing import NDArray

BITS = {"f32": 32, "f16": 16, "bf16": 16, "int8": 8, "q4": 4, "q3": 3, "q2": 2, "q1": 1}
ENCODINGS = tuple(BITS)
SCALE_BYTES = {encoding: 0 if encoding in ("f32", "bf16") else 2 for encoding in ENCODINGS}


def bfloat16(values: Floats) -> Floats:
    """The nearest bfloat16, ties to even, of finite numbers."""
    bits = values.astype(np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + (bits >> 16 & 1)) & np.uint32(0xFFFF0000)
    return rounded.view(np.float32)


def bfloat16_up(values: NDArray[np.float64]) -> Floats:
    """The smallest bfloat16 that is not less than a number ≥ 0."""
    narrow = values.astype(np.float32)
    narrow = np.where(narrow < values, np.nextafter(narrow, np.float32(np.inf)), narrow)
    bits = narrow.view(np.uint32)
    return ((bits + np.uint32(0xFFFF)) & np.uint32(0xFFFF0000)).view(np.float32)


@cache
def gaussian_levels(bits: int) -> Floats:
    """The 2^bits levels, ascending, with the least mean square error for a standard normal number (Lloyd-Max)."""
    count = 1 << bits
    levels = [NormalDist().inv_cdf((i + 0.5) / count) for i in range(count)]
    for _ in range(2000):
        edges = [(a + b) / 2 for a, b in pairwise(levels)]
        density = [0.0, *(exp(-x * x / 2) / sqrt(2 * pi) for x in edges), 0.0]
        below = [0.0, *((1 + erf(x / sqrt(2))) / 2 for x in edges), 1.0]
        levels = [(density[i] - density[i + 1]) / (below[i + 1] - below[i]) for i in range(count)]
    return np.array(levels, np.float32)


def reciprocal(values: Floats) -> Floats:
    """1 / values, and 0 for 0."""
    return np.divide(1, values, out=np.zeros_like(values), where=values > 0)


def gaussian_coded(vectors: Floats, bits: int) -> Floats:
    """Nearest level after division by the root mean square; then the best scale for those codes, in bfloat16."""
    levels = gaussian_levels(bits)
    mean_square = (vectors.astype(np.float64) ** 2).mean(axis=-1, keepdims=True)
    scaled = vectors * reciprocal(np.sqrt(mean_square).astype(np.float32))
    chosen = levels[np.searchsorted((levels[1:] + levels[:-1]) / 2, scaled, side="right")]
    wide = chosen.astype(np.float64)
    scale = (vectors * wide).sum(axis=-1, keepdims=True) / (wide * wide).sum(axis=-1, keepdims=True)
    return chosen * bfloat16(scale.astype(np.float32))


def stored(vectors: Floats, encoding: str) -> Floats:
    """What a store gives back for vectors along the last axis."""
    if encoding == "f32":
        return vectors
    if encoding == "bf16":
        return bfloat16(vectors)
    if encoding in ("f16", "int8"):
        largest = np.abs(vectors).max(axis=-1, keepdims=True).astype(np.float64)
        if encoding == "int8":
            scale = bfloat16_up(largest / 127)
            return np.rint(vectors * reciprocal(scale)) * scale
        # The power of two that brings the largest magnitude, once rounded, into the top binade of a half.
        fraction, exponent = np.frexp(largest)
        exponent = np.clip(exponent + (fraction >= 1 - 2.0**-12) - 16, -126, 112)
        codes = np.clip(np.ldexp(vectors, -exponent), -65504, 65504).astype(np.float16)
        return np.ldexp(codes.astype(np.float32), exponent)
    return gaussian_coded(vectors, BITS[encoding])


def factored(gradients: Floats, rank: int) -> tuple[Floats, Floats]:
    """The best rank-c approximation of every matrix [n, d1, d2]: left [n, c, d1] and right [n, c, d2], √σ in both."""
    left, values, right = np.linalg.svd(gradients, full_matrices=False)
    root = np.sqrt(values[:, :rank])[:, :, None]
    return left[:, :, :rank].transpose(0, 2, 1) * root, right[:, :rank] * root


def kept(gradients: Floats, factors: tuple[Floats, Floats] | None, encoding: str) -> Floats:
    """What a store holds as matrices [n, d1, d2]: factors in that encoding, or the gradients as dense rows."""
    if factors is None:
        return stored(gradients.reshape(len(gradients), -1), encoding).reshape(gradients.shape)
    left, right = (stored(side, encoding) for side in factors)
    return left.transpose(0, 2, 1) @ right


def bytes_per_example(shapes: list[tuple[int, int]], rank: int | None, encoding: str, identifier_bytes: float) -> float:
    """What an example costs in a large store before compression: codes, scales, two norms per layer, id and its index.

    Args:
        shapes: d1 and d2 of every layer.
        rank: c, or None for dense rows.
        encoding: Of factors or dense rows.
        identifier_bytes: The mean length of an id.
    """
    total = 0.0
    for d1, d2 in shapes:
        vectors = [d1 * d2] if rank is None else [d1, d2] * rank
        codes = sum(ceil(length * BITS[encoding] / 4) / 2 for length in vectors)
        total += codes + SCALE_BYTES[encoding] * len(vectors) + 4
    return total + identifier_bytes + 4 + 12
