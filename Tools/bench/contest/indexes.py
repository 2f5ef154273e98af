"""FAISS over the dense rows as vectors: the exhaustive flat index, and an inverted file of 8-bit codes."""

import faiss
import numpy as np
from dense import DenseContender


class FaissFlat(DenseContender):
    """IndexFlatIP in f32, read into memory as FAISS does."""

    def write(self) -> None:
        """Adds all rows; the index is in memory until it is written."""
        index = faiss.IndexFlatIP(self.length)
        for _, rows in self.source_blocks():
            index.add(rows.astype(np.float32))
        faiss.write_index(index, str(self.store))

    def open(self) -> None:
        """Reads the index."""
        self.index = faiss.read_index(str(self.store))

    def prepared(self, queries: list[np.ndarray]) -> np.ndarray:
        """One matrix [Q, length] for NumPy."""
        return super().prepared(queries).numpy()

    def search(self, queries: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
        """The index's own search."""
        return self.index.search(queries, top)

    def scores(self, queries: np.ndarray) -> np.ndarray:
        """A search for all N, put back in the order of the rows."""
        values, indices = self.index.search(queries, self.rows)
        found = np.full((len(queries), self.rows), -np.inf, np.float32)
        for query, (value, index) in enumerate(zip(values, indices, strict=True)):
            kept = index >= 0
            found[query, index[kept]] = value[kept]
        return found


class FaissInverted(FaissFlat):
    """IVF with 8-bit scalar codes, mapped into memory; approximate: it looks into an eighth of the lists."""

    def write(self) -> None:
        """Trains on at most 39 rows a list, FAISS's least, and adds all rows."""
        lists = max(1, min(64, self.rows // 39))
        quantizer = faiss.IndexFlatIP(self.length)
        index = faiss.IndexIVFScalarQuantizer(
            quantizer, self.length, lists, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
        )
        matrices = np.memmap(self.source, np.float16, "r", shape=(self.rows, self.length))
        sample = np.linspace(0, self.rows - 1, min(self.rows, 39 * lists)).astype(np.int64)
        index.train(matrices[sample].astype(np.float32))
        for _, rows in self.source_blocks():
            index.add(rows.astype(np.float32))
        faiss.write_index(index, str(self.store))

    def open(self) -> None:
        """Maps the lists; FAISS can for inverted files."""
        self.index = faiss.read_index(str(self.store), faiss.IO_FLAG_MMAP)
        self.index.nprobe = max(1, self.index.nlist // 8)
