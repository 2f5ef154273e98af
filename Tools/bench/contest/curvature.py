"""What others do in place of `lorif fit`, and how fast this machine multiplies."""

import time

import numpy as np
import torch
from factored import Factors


class Build(Factors):
    """The rows of one layer as a matrix [N, d1·d2] in f32."""

    def layer(self, name: str) -> torch.Tensor:
        """Reconstructed from the factors, so that all see the same rows."""
        parts = []
        for file in self.files:
            left, right = (file[f"{name}/{side}"][:, :, 0].float() for side in ("left", "right"))
            parts.append((left[:, :, None] * right[:, None, :]).flatten(1))
        return torch.cat(parts)

    def run(self) -> dict[str, object]:
        """Every layer by itself; seconds without reconstructing the rows."""
        self.open()
        torch.manual_seed(0)
        seconds, kept, total = 0.0, 0.0, 0.0
        for name in self.layers:
            rows = self.layer(name)
            start = time.perf_counter()
            kept += self.build(rows)
            seconds += time.perf_counter() - start
            total += float(rows.double().square().sum())
        return {"seconds": seconds, "energy": kept / total}


class RandomisedSVD(Build):
    """`torch.svd_lowrank` of the rows with its two iterations."""

    def build(self, rows: torch.Tensor) -> float:
        """The energy of the singular values."""
        _, values, _ = torch.svd_lowrank(rows, q=self.specification["rank"], niter=2)
        return float(values.double().square().sum())


class Covariance(Build):
    """LoGRA: H = Gᵀ G and the inverse of H plus a tenth of its mean eigenvalue, in f32."""

    def build(self, rows: torch.Tensor) -> float:
        """All of the energy."""
        moments = rows.T @ rows
        trace = float(moments.diagonal().double().sum())
        moments.diagonal().add_(0.1 * trace / len(moments))
        torch.linalg.inv(moments)
        return trace


class Limits(Factors):
    """sgemm of square matrices by torch and by NumPy."""

    SIDE, REPEATS = 2048, 5

    def run(self) -> dict[str, object]:
        """Operations per second, the best of some."""
        found = {}
        matrix = np.random.default_rng(0).standard_normal((self.SIDE, self.SIDE), np.float32)
        for name, left in (("torch", torch.from_numpy(matrix)), ("numpy", matrix)):
            best = float("inf")
            for _ in range(self.REPEATS):
                start = time.perf_counter()
                left @ left
                best = min(best, time.perf_counter() - start)
            found[name] = 2 * self.SIDE**3 / best
        return found
