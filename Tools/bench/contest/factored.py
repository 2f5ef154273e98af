"""Rank-1 factors in memory-mapped safetensors files, scored by torch in three ways."""

import json
import struct
from pathlib import Path

import numpy as np
import torch
from dense import DenseContender


def mapped_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Every f16 tensor of a file, in place."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin = 8 + length + entry["data_offsets"][0]
            tensors[name] = torch.from_numpy(np.memmap(path, np.float16, "c", begin, tuple(entry["shape"])))
    return tensors


class Factors(DenseContender):
    """The files of a folder in order; `store` is the folder. Blocks are the fastest of those tried."""

    BLOCK_OF_FEW, FEW, BLOCK = 2048, 8, 512

    def open(self) -> None:
        """Maps every file."""
        self.files = [mapped_tensors(path) for path in sorted(self.store.glob("*.safetensors"))]

    def count(self, queries: list) -> int:
        """How many queries there are."""
        return len(queries[0][0]) if isinstance(queries[0], tuple) else len(queries[0])

    def scores(self, queries: list) -> torch.Tensor:
        """All scores [Q, N], a block of rows at a time."""
        step = self.BLOCK_OF_FEW if self.count(queries) <= self.FEW else self.BLOCK
        found = []
        seen = 0
        for file in self.files:
            count = min(len(file[f"{self.layers[0]}/left"]), self.rows - seen)
            seen += count
            for start in range(0, count, step):
                rows = slice(start, min(start + step, count))
                total = None
                for layer, name in enumerate(self.layers):
                    left = file[f"{name}/left"][rows, :, 0].float()
                    right = file[f"{name}/right"][rows, :, 0].float()
                    part = self.part(queries[layer], left, right)
                    total = part if total is None else total.add_(part)
                found.append(total)
        return torch.cat(found, dim=1)


class Reconstructed(Factors):
    """Rows made into matrices again, then one matrix product with the queries."""

    BLOCK_OF_FEW, BLOCK = 128, 256

    def prepared(self, queries: list[np.ndarray]) -> list[torch.Tensor]:
        """One matrix [Q, d1·d2] per layer."""
        return [torch.from_numpy(layer.reshape(len(layer), -1)) for layer in queries]

    def part(self, query: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """Scores of one layer."""
        return query @ (left[:, :, None] * right[:, None, :]).flatten(1).T


class Bilinear(Factors):
    """uᵀ G_q v for every query: the same operations without the matrices of the rows."""

    def prepared(self, queries: list[np.ndarray]) -> list[torch.Tensor]:
        """[Q, d1, d2] per layer."""
        return [torch.from_numpy(layer) for layer in queries]

    def part(self, query: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """Scores of one layer, one query at a time."""
        return torch.stack([((left @ matrix) * right).sum(1) for matrix in query])


class Factored(Factors):
    """Rank-1 queries: the product of two inner products."""

    def prepared(self, queries: list[tuple[np.ndarray, np.ndarray]]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Both sides per layer."""
        return [(torch.from_numpy(left), torch.from_numpy(right)) for left, right in queries]

    def part(self, query: tuple[torch.Tensor, torch.Tensor], left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """Scores of one layer."""
        return (query[0] @ left.T).mul_(query[1] @ right.T)
