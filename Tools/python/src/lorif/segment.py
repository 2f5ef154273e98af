"""A second reader of segment files, written from Formats/*.md alone.

It exists to check the first: whoever can read a store with these lines does not depend on the program that wrote it.
It reads the whole file into memory and is meant for tests and rescue, not for speed. Needs the extra `segment`.

    segment = Segment("store/segments/0000000000000001.segment")
    segment.verify()
    segment.identifiers(), segment.metadata(), segment.values(layer=0)
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from lorif.batch import Factors
from lorif.page import aligned, bfloat16, decode_slices, decode_value, decode_vectors, expect
from lorif.paged_file import PagedFile

LEFT, RIGHT, DENSE, NORMS, RESIDUAL_NORMS, IDENTIFIERS, IDENTIFIER_INDEX, FIELD = range(1, 9)


class Segment(PagedFile):
    """One segment file. Opening checks header, footer and tail; pages are checked when they are read."""

    magic = b"LORIFSEG"

    def __init__(self, path: str | Path, data: Any = None) -> None:
        super().__init__(path, data)
        expect(self.block_count, -(-self.row_count // max(1, self.rows_per_block)), "footer: block count")
        self.statistics = np.frombuffer(self.statistics_blob, [("norms", "<f4", 3), ("zero", "<u4")])
        expect((len(self.statistics), self.statistics["zero"].any()), (self.block_count, False), "footer: statistics")
        self._check_page_order()

    def _expected_columns(self) -> Iterator[tuple[int, int, int]]:
        """Kind, layer and component of all columns but the fields'."""
        ranks = [layer.rank or 0 for layer in self.layers]
        for component in range(max(ranks)):
            for number, rank in enumerate(ranks):
                if component < rank:
                    yield from ((LEFT, number, component), (RIGHT, number, component))
        yield from ((DENSE, number, 0) for number, rank in enumerate(ranks) if not rank)
        yield from ((kind, 0, 0) for kind in (NORMS, RESIDUAL_NORMS, IDENTIFIERS, IDENTIFIER_INDEX))

    def _check_page_order(self) -> None:
        fixed = list(self._expected_columns())
        found = [(column.kind, column.layer, column.component) for column in self.columns]
        expect(found[: len(fixed)], fixed, "columns")
        expect({kind for kind, _, _ in found[len(fixed) :]} <= {FIELD}, True, "columns after the index are fields")
        index, field_columns = len(fixed) - 1, set(range(len(fixed), len(found)))
        present = {(page.block, page.column) for page in self.pages}
        order = []
        for block in range(self.block_count):
            order += [(block, column) for column in range(index)]
            order += [(block, column) for column in sorted(field_columns) if (block, column) in present]
        order += [(block, index) for block in range(self.block_count)]
        expect([(page.block, page.column) for page in self.pages], order, "page index: order")
        for page in self.pages:
            expect(page.row_count, len(self.rows(page.block)), "page index: rows")
        self._check_page_places()

    def rows(self, block: int) -> range:
        """The rows of a block."""
        return range(block * self.rows_per_block, min((block + 1) * self.rows_per_block, self.row_count))

    def values(self, layer: int) -> Factors | NDArray[np.float32]:
        """What the store keeps of a layer: factors [n, d, c], or matrices [n, d1, d2]."""
        shape = self.layers[layer]
        d1, d2 = shape.input_dimension, shape.output_dimension
        if shape.rank is None:
            return self._vectors(DENSE, layer, 0, d1 * d2).reshape(-1, d1, d2)
        left, right = (
            np.stack([self._vectors(kind, layer, component, d) for component in range(shape.rank)], axis=2)
            for kind, d in ((LEFT, d1), (RIGHT, d2))
        )
        return Factors(left, right)

    def _vectors(self, kind: int, layer: int, component: int, length: int) -> NDArray[np.float32]:
        return np.concatenate(
            [
                decode_vectors(raw, len(self.rows(block)), length, self.encoding)
                for block, raw in self.blocks(kind, layer, component)
            ]
        )

    def norms(self, kind: int = NORMS) -> NDArray[np.float32]:
        """Norms, or residual norms, [layers, n]."""
        pages = [bfloat16(raw).reshape(len(self.layers), -1) for _, raw in self.blocks(kind)]
        return np.concatenate(pages, axis=1)

    def identifiers(self) -> list[str]:
        """The ids of all rows."""
        return [
            text.decode()
            for block, raw in self.blocks(IDENTIFIERS)
            for text in decode_slices(raw, 0, len(self.rows(block)), "identifiers")
        ]

    def identifier_index(self) -> list[tuple[int, int]]:
        """Hash and row of every id, by hash."""
        pairs = []
        for block, raw in self.blocks(IDENTIFIER_INDEX):
            count = len(self.rows(block))
            expect(len(raw), 12 * count, "identifier index: length")
            hashes, rows = np.frombuffer(raw, "<u8", count), np.frombuffer(raw, "<u4", count, 8 * count)
            pairs += list(zip(hashes.tolist(), rows.tolist(), strict=True))
        return pairs

    def metadata(self) -> list[dict[str, Any]]:
        """The metadata fields of all rows."""
        records: list[dict[str, Any]] = [{} for _ in range(self.row_count)]
        for name in (column.name for column in self.columns if column.kind == FIELD):
            for block, raw in self.blocks(FIELD, name=name):
                rows = self.rows(block)
                start = aligned(len(rows), 8)
                expect(any(raw[len(rows) : start]), False, f"field {name}: padding")
                values = decode_slices(raw, start, len(rows), f"field {name}")
                for row, tag, value in zip(rows, raw[: len(rows)], values, strict=True):
                    if tag:
                        records[row][name] = decode_value(tag, value)
        return records

    def verify(self) -> None:
        """Checks every byte of the file, and what the bytes say where one thing follows from another."""
        self.verify_bytes()
        ids = self.identifiers()
        expect(len(set(ids)), self.row_count, "identifiers: distinct")
        index = sorted((xxhash.xxh3_64_intdigest(text.encode()), row) for row, text in enumerate(ids))
        expect(self.identifier_index(), index, "identifier index")
        self.metadata()
        norms = self.norms()
        expect((self.norms(RESIDUAL_NORMS) >= 0).all(), True, "residual norms: bounds")
        for number in range(len(self.layers)):
            values = self.values(number)
            left, right = (
                (side.astype(np.float64) for side in values)
                if isinstance(values, Factors)
                else (values.astype(np.float64), np.eye(values.shape[2])[None].repeat(len(values), 0))
            )
            exact = np.linalg.norm(left @ right.swapaxes(1, 2), axis=(1, 2))
            expect((norms[number] >= exact * (1 - 1e-12)).all(), True, f"norms of layer {number}: bounds")
            expect((norms[number] <= exact * 1.01).all(), True, f"norms of layer {number}: tight")
