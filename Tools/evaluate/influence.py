"""Per-layer damped influence in float64, summed over subsets, by dense linear algebra that shares no code."""

from collections.abc import Sequence

import numpy as np
from experiment import Doubles, Floats


class LayerInfluence:
    """One layer's curvature H = Σ g gᵀ over the stored rows, diagonalised once and then asked for any rank and damping.

    Only sums of scores over subsets are needed, and those are linear in the rows: scores are never formed.
    """

    def __init__(self, rows: Floats, queries: Floats, subsets: Doubles) -> None:
        """Rows [n, d1, d2] as stored, queries [q, d1, d2], subsets [s, n]."""
        matrix = rows.reshape(len(rows), -1).astype(np.float64)
        query = queries.reshape(len(queries), -1).astype(np.float64)
        values, vectors = np.linalg.eigh(matrix.T @ matrix)
        self.eigenvalues = np.maximum(values[::-1], 0)
        self.mean_eigenvalue = float(self.eigenvalues.mean())
        basis = vectors[:, ::-1]
        self._query = query @ basis
        self._sums = basis.T @ (subsets @ matrix).T

    def dot(self) -> Doubles:
        """[queries, subsets]: Σ_i in subset ⟨g_q, g_i⟩."""
        return self._query @ self._sums

    def influence(self, rho: float, rank: int | None = None) -> Doubles:
        """[queries, subsets]: Σ_i in subset g_qᵀ (H_r + λI)⁻¹ g_i with λ = ρ · mean eigenvalue of H.

        H_r keeps the `rank` largest eigenvalues of H; None: all.
        """
        damping = rho * self.mean_eigenvalue
        if damping == 0:
            return np.zeros((len(self._query), self._sums.shape[1]))
        spectrum = self.eigenvalues.copy()
        if rank is not None:
            spectrum[rank:] = 0
        return (self._query / (spectrum + damping)) @ self._sums


def total_dot(layers: Sequence[LayerInfluence]) -> Doubles:
    """The plain inner product over all layers."""
    return np.sum([layer.dot() for layer in layers], axis=0)


def total_influence(layers: Sequence[LayerInfluence], rho: float, rank: int | None = None) -> Doubles:
    """Per-layer influence summed over all layers."""
    return np.sum([layer.influence(rho, rank) for layer in layers], axis=0)
