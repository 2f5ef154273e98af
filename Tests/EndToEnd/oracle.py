"""A naive float64 oracle: scores from every gradient and every matrix H, without any of the program's shortcuts."""

from collections.abc import Sequence

import numpy as np

Rows = dict[str, np.ndarray]  # layer name -> [n, d1, d2]


def gradients(layers: dict[str, tuple[np.ndarray, ...]]) -> Rows:
    """Full matrices in float64 from (left [n, d1, c], right [n, d2, c]) or (full [n, d1, d2],) per layer."""
    widened = {name: [part.astype(np.float64) for part in parts] for name, parts in layers.items()}
    return {
        name: np.einsum("nac,nbc->nab", parts[0], parts[1]) if len(parts) == 2 else parts[0]
        for name, parts in widened.items()
    }


def flat(rows: Rows, names: Sequence[str]) -> np.ndarray:
    """The rows of those layers, row-major, one after another: [n, D]."""
    return np.concatenate([rows[name].reshape(len(rows[name]), -1) for name in names], axis=1)


def inverse(train: np.ndarray, rank: int | None, absolute: float | None, relative: float | None) -> np.ndarray:
    """(H + λI)⁻¹ as a dense matrix; H = Σ g gᵀ, cut to its `rank` leading eigenpairs; λ = relative · tr(H)/D."""
    H = train.T @ train
    damping = absolute if absolute is not None else relative * np.trace(H) / len(H)
    if rank is not None:
        values, vectors = np.linalg.eigh(H)
        values, vectors = values[::-1][:rank], vectors[:, ::-1][:, :rank]
        H = (vectors * values) @ vectors.T
    return np.linalg.inv(H + damping * np.eye(len(H)))


def influence(
    train: Rows, queries: Rows, groups: Sequence[Sequence[str]], rank: int | None = None, **damping: float
) -> np.ndarray:
    """Σ over groups of g_qᵀ (H + λI)⁻¹ g_i: [queries, n]; a group is a layer, or all layers together."""
    total = np.zeros((len(next(iter(queries.values()))), len(next(iter(train.values())))))
    for group in groups:
        rows = flat(train, group)
        inverted = inverse(rows, rank, damping.get("absolute"), damping.get("relative"))
        total += flat(queries, group) @ inverted @ rows.T
    return total


def self_influence(
    train: Rows, groups: Sequence[Sequence[str]], rank: int | None = None, **damping: float
) -> np.ndarray:
    """g_iᵀ (H + λI)⁻¹ g_i: [n]."""
    total = np.zeros(len(next(iter(train.values()))))
    for group in groups:
        rows = flat(train, group)
        total += ((rows @ inverse(rows, rank, damping.get("absolute"), damping.get("relative"))) * rows).sum(axis=1)
    return total


def dot(queries: Rows, train: Rows, names: Sequence[str]) -> np.ndarray:
    """⟨g_q, g_i⟩ over the layers named: [queries, n]."""
    return flat(queries, names) @ flat(train, names).T


def cosine(queries: Rows, train: Rows, names: Sequence[str]) -> np.ndarray:
    """Dot over both norms; the norms are over the layers named."""
    norms = [np.linalg.norm(flat(rows, names), axis=1) for rows in (queries, train)]
    return dot(queries, train, names) / np.outer(*norms)


def stored(values: np.ndarray, encoding: str) -> np.ndarray:
    """What an encoding keeps of vectors [n, d, c], each row and component with a scale of its own.

    Follows Formats/page.md: f16 has a power-of-two scale that brings the largest magnitude's exponent to 14; int8 has
    absmax / 127 as bfloat16, rounded up. Pass matrices as [n, d1 * d2, 1].
    """
    if encoding == "f32":
        return values
    if encoding == "bf16":
        return bfloat16(values)
    largest = np.abs(values).max(axis=1, keepdims=True).astype(np.float64)
    if encoding == "f16":
        scale = np.exp2(np.floor(np.log2(np.where(largest > 0, largest, 1))) - 14)
        return (values / scale).astype(np.float16).astype(np.float64) * scale
    if encoding == "int8":
        scale = np.where(largest > 0, bfloat16(largest / 127, upwards=True), 1)
        return np.rint(values / scale) * scale
    raise ValueError(encoding)


def bfloat16(values: np.ndarray, upwards: bool = False) -> np.ndarray:
    """Rounds float32 values to bfloat16, to nearest even or away from zero."""
    exact = np.asarray(values, dtype=np.float64)
    bits = exact.astype(np.float32).view(np.uint32).astype(np.uint64)
    if not upwards:
        bits = bits + 0x7FFF + ((bits >> 16) & 1)
    result = (bits & 0xFFFF0000).astype(np.uint32).view(np.float32)
    if upwards:
        next_up = ((bits & 0xFFFF0000) + 0x10000).astype(np.uint32).view(np.float32)
        result = np.where(result.astype(np.float64) < exact, next_up, result)
    return result.astype(np.float64)
