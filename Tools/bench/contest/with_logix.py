"""LogIX: a log in its own format, scored by its own loop."""

import json
import os

import numpy as np
import torch
from dense import DenseContender
from logix.analysis.influence_function import InfluenceFunction
from logix.logging.log_loader import LogDataset
from logix.logging.log_loader_utils import collate_nested_dicts
from logix.state import LogIXState


class Logix(DenseContender):
    """`compute_influence_all` over a log with its own loader of 16 rows a batch."""

    def write(self) -> None:
        """One chunk; entries as its writer makes them, without holding all rows in memory."""
        self.store.mkdir()
        path = [[f"{name}.logix_lora_B", "grad"] for name in self.layers]
        entries = [
            {
                "data_id": f"example-{row:09d}",
                "path": path,
                "offset": row * self.length * 4,
                "shape": [[self.d2, self.d1]] * len(self.layers),
                "block_size": self.length,
                "dtype": "float32",
            }
            for row in range(self.rows)
        ]
        with (self.store / "log_rank_0_chunk_0_metadata.json").open("w", encoding="utf-8") as file:
            json.dump(entries, file, indent=2)
        data = self.store / "log_rank_0_chunk_0.mmap"
        if shared := self.specification.get("shared"):
            os.link(shared, data)  # the same bytes in the same order as bergson's file
            return
        with data.open("wb") as file:
            for _, block in self.source_blocks():
                file.write(memoryview(block.astype(np.float32)).cast("B"))

    def open(self) -> None:
        """Opens the log as `LogIX.build_log_dataloader` does."""
        self.influence = InfluenceFunction(LogIXState())
        self.loader = torch.utils.data.DataLoader(
            LogDataset(log_dir=str(self.store), flatten=False), batch_size=16, collate_fn=collate_nested_dicts
        )

    def prepared(self, queries: list[np.ndarray]) -> tuple[list[str], dict]:
        """A log of queries."""
        log = {
            f"{name}.logix_lora_B": {"grad": torch.from_numpy(layer.reshape(-1, self.d2, self.d1))}
            for name, layer in zip(self.layers, queries, strict=True)
        }
        return [str(query) for query in range(len(queries[0]))], log

    def scores(self, queries: tuple[list[str], dict]) -> torch.Tensor:
        """Its own loop."""
        return self.influence.compute_influence_all(queries, self.loader, precondition=False)["influence"]
