"""dattri: a disk cache of its own format, scored by its own loop."""

import os

os.environ["TORCHDYNAMO_DISABLE"] = "1"  # it compiles; a scan needs no compiler

from types import SimpleNamespace

import numpy as np
import torch
from dattri.algorithm.block_projected_if.core.metadata import MetadataManager
from dattri.algorithm.block_projected_if.offload.disk import DiskOffloadManager
from dattri.algorithm.block_projected_if.offload.disk_io.memory_map import ChunkedMemoryMapHandler
from dattri.algorithm.logra import LoGraAttributor
from dense import DenseContender


class Dattri(DenseContender):
    """`attribute` of the block-projected influence function on its disk cache; query gradients are given."""

    BATCH, BATCHES = 32, 32

    def write(self) -> None:
        """Chunks of 1,024 rows by its own writer; gradients and IFVP, the same for an identity Hessian."""
        dims = [self.d1 * self.d2] * len(self.layers)
        known = MetadataManager(str(self.store), self.layers)
        known.set_layer_dims(dims)
        (self.store / "grad").mkdir()
        for start, block in self.source_blocks(self.BATCH * self.BATCHES):
            batches = []
            for first in range(0, len(block), self.BATCH):
                count = min(self.BATCH, len(block) - first)
                number = (start + first) // self.BATCH
                known.batch_info[number] = {"sample_count": count, "start_idx": start + first}
                batches.append({"batch_idx": number, "start_row": first, "end_row": first + count})
            values = torch.from_numpy(block.astype(np.float32))
            name = ChunkedMemoryMapHandler.write_chunk(str(self.store / "ifvp"), "ifvp", values, batches, dims)
            for end in (".mmap", "_metadata.json"):
                os.link(self.store / f"ifvp/{name}{end}", self.store / f"grad/{name.replace('ifvp', 'gradients')}{end}")
        known.save_metadata()

    def open(self) -> None:
        """An attributor that finds its cache and needs no model."""
        attributor = object.__new__(LoGraAttributor)
        attributor.device = "cpu"
        attributor.compressors = []
        attributor.layer_dims = None
        attributor.metadata = MetadataManager(str(self.store), self.layers)
        attributor.offload_manager = DiskOffloadManager("cpu", self.layers, str(self.store))
        self.attributor = attributor

    def scores(self, queries: torch.Tensor) -> torch.Tensor:
        """Its own loop, with the queries in place of a pass through the model."""
        self.attributor._compute_test_gradients = lambda _: (queries, {})
        loader = SimpleNamespace(sampler=range(self.rows))
        self.attributor.full_train_dataloader = loader
        return self.attributor.attribute(loader, loader).T
