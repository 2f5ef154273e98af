"""bergson: an index in its own format, searched by its own `Attributor`."""

import numpy as np
import torch
from bergson import GradientProcessor
from bergson.data import create_index
from bergson.query.attributor import Attributor
from dense import DenseContender


class Bergson(DenseContender):
    """`Attributor` on an index directory; one that is f16 on disk becomes f32 in memory, as is its default."""

    def write(self) -> None:
        """Index and processor by bergson's own writers."""
        sizes = dict.fromkeys(self.layers, self.d1 * self.d2)
        rows = create_index(self.store, self.rows, sizes, self.specification["dtype"])
        for start, block in self.source_blocks():
            rows[start : start + len(block)] = block
        rows.flush()
        GradientProcessor(projection_dim=self.d1).save(self.store)

    def open(self) -> None:
        """Reads the whole index into memory."""
        self.attributor = Attributor(self.store)

    def prepared(self, queries: list[np.ndarray]) -> dict[str, torch.Tensor]:
        """A matrix [Q, d1·d2] per module."""
        return {
            name: torch.from_numpy(layer.reshape(len(layer), -1))
            for name, layer in zip(self.layers, queries, strict=True)
        }

    def search(self, queries: dict[str, torch.Tensor], top: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Its own search."""
        return tuple(self.attributor.search(queries, top))

    def scores(self, queries: dict[str, torch.Tensor]) -> torch.Tensor:
        """A search for all N, put back in the order of the rows."""
        values, indices = self.attributor.search(queries, None)
        return torch.empty_like(values).scatter_(1, indices, values)
