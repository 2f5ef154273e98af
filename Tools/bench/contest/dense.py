"""LoGRA's matrices as a memory map, scored by torch; the base of all who keep dense rows."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch


class DenseContender:
    """What all with dense rows share: the shape, flat queries, the choice of the best."""

    def __init__(self, specification: dict) -> None:
        self.store = Path(specification["store"])
        self.source = Path(specification.get("source", specification["store"]))
        self.rows: int = specification["rows"]
        self.layers: list[str] = specification["layers"]
        self.d1: int = specification["d1"]
        self.d2: int = specification["d2"]
        self.specification = specification
        self.length = len(self.layers) * self.d1 * self.d2

    def open(self) -> None:
        """Nothing to open."""

    def source_blocks(self, step: int = 1024) -> Iterator[tuple[int, np.ndarray]]:
        """First row and rows [n, length] of the dense f16 file, in order."""
        matrices = np.memmap(self.source, np.float16, "r", shape=(self.rows, self.length))
        for start in range(0, self.rows, step):
            yield start, matrices[start : start + step]

    def prepared(self, queries: list[np.ndarray]) -> torch.Tensor:
        """Queries as one matrix [Q, length]."""
        return torch.from_numpy(np.concatenate([layer.reshape(len(layer), -1) for layer in queries], axis=1))

    def best(self, scores: torch.Tensor, top: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Values and rows of the highest scores of each query."""
        return torch.topk(scores, min(top, scores.shape[1]), dim=1)


class LograMatrices(DenseContender):
    """f16 matrices in a memory map, widened a block at a time into one buffer, times all queries in f32.

    Blocks are the fastest of those tried on two cores with 32 MB of cache: what a few queries need stays in the cache.
    """

    BLOCK_OF_FEW, FEW, BLOCK = 32, 8, 256

    def open(self) -> None:
        """Maps the file; copy-on-write, because torch wants to be allowed to write."""
        mapped = np.memmap(self.store, np.float16, "c", shape=(self.rows, self.length))
        self.matrices = torch.from_numpy(mapped)

    def scores(self, queries: torch.Tensor) -> torch.Tensor:
        """All scores [Q, N]."""
        step = self.BLOCK_OF_FEW if len(queries) <= self.FEW else self.BLOCK
        found = torch.empty(len(queries), self.rows)
        buffer = torch.empty(step, self.length)
        for start in range(0, self.rows, step):
            rows = self.matrices[start : start + step]
            block = buffer[: len(rows)].copy_(rows)
            torch.mm(queries, block.T, out=found[:, start : start + step])
        return found
