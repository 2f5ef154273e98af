"""TRAK: features in one array, scored by its own product."""

import numpy as np
import torch
from dense import DenseContender
from trak.score_computers import BasicScoreComputer


class Trak(DenseContender):
    """`BasicScoreComputer.get_scores` on f16 features: the dense row summed into p signed buckets."""

    def __init__(self, specification: dict) -> None:
        super().__init__(specification)
        self.buckets = max(1, min(4096, self.length // 8))
        random = np.random.default_rng(7)
        self.order = random.permutation(self.length)
        self.signs = random.choice(np.array([-1, 1], np.float32), self.length)

    def sketch(self, rows: np.ndarray) -> np.ndarray:
        """[n, length] to [n, p]."""
        signed = rows.astype(np.float32)[:, self.order] * self.signs
        return signed.reshape(len(rows), self.buckets, -1).sum(2)

    def write(self) -> None:
        """The array of features as TRAK's saver keeps it."""
        features = np.lib.format.open_memmap(self.store, "w+", np.float16, (self.rows, self.buckets))
        for start, block in self.source_blocks():
            features[start : start + len(block)] = self.sketch(block)
        features.flush()

    def open(self) -> None:
        """Maps the features."""
        self.features = np.lib.format.open_memmap(self.store, "r+")
        self.computer = BasicScoreComputer(torch.float16, torch.device("cpu"))

    def prepared(self, queries: list[np.ndarray]) -> torch.Tensor:
        """Sketches of the queries, in f16."""
        flat = np.concatenate([layer.reshape(len(layer), -1) for layer in queries], axis=1)
        return torch.from_numpy(self.sketch(flat).astype(np.float16))

    def scores(self, queries: torch.Tensor) -> torch.Tensor:
        """Its own product."""
        found = torch.zeros(len(self.features), len(queries))
        self.computer.get_scores(torch.as_tensor(self.features), queries, found)
        return found.T
