"""A second reader of segment files, written from Formats/*.md alone.

It exists to check the first: whoever can read a store with these lines does not depend on the program that wrote it.
It reads the whole file into memory and is meant for tests and rescue, not for speed. Needs the extra `segment`.

    segment = Segment("store/segments/0000000000000001.segment")
    segment.verify()
    segment.identifiers(), segment.metadata(), segment.values(layer=0)
"""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
import zstandard
from numpy.typing import NDArray

from lorif.batch import Factors
from lorif.page import SegmentError, aligned, bfloat16, decode_slices, decode_value, decode_vectors, expect

HEADER_LENGTH, TAIL_LENGTH, PAGE_ENTRY_LENGTH = 4096, 64, 40
LEFT, RIGHT, DENSE, NORMS, RESIDUAL_NORMS, IDENTIFIERS, IDENTIFIER_INDEX, FIELD = range(1, 9)
ENCODINGS = {1: "f32", 2: "f16", 3: "bf16", 4: "int8", 5: "q4", 6: "q3", 7: "q2", 8: "q1"}


@dataclass(frozen=True)
class SegmentLayer:
    """A layer record of the schema; rank is None for a dense layer."""

    name: str
    input_dimension: int
    output_dimension: int
    rank: int | None


@dataclass(frozen=True)
class Column:
    """A column record."""

    kind: int
    encoding: int
    layer: int
    component: int
    name: str


@dataclass(frozen=True)
class Page:
    """A page index entry."""

    column: int
    block: int
    offset: int
    stored_length: int
    raw_length: int
    codec: int
    stride: int
    row_count: int
    checksum: int


class Cursor:
    """Reads little-endian fields one after another."""

    def __init__(self, data: bytes, what: str) -> None:
        self.data, self.what, self.offset = data, what, 0

    def take(self, count: int) -> bytes:
        """The next bytes."""
        if count > len(self.data) - self.offset:
            raise SegmentError(f"{self.what}: {count} bytes wanted at {self.offset}, {len(self.data)} there")
        self.offset += count
        return self.data[self.offset - count : self.offset]

    def fields(self, form: str) -> tuple[Any, ...]:
        """The next fields, in the notation of `struct`."""
        return struct.unpack("<" + form, self.take(struct.calcsize("<" + form)))

    def blob(self) -> bytes:
        """A u32 length and that many bytes."""
        return self.take(*self.fields("I"))

    def finish(self) -> None:
        """Raises if anything is left."""
        expect(self.offset, len(self.data), f"{self.what}: length")


class Segment:
    """One segment file. Opening checks header, footer and tail; pages are checked when they are read."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.data = self.path.read_bytes()
        if len(self.data) < HEADER_LENGTH + TAIL_LENGTH:
            raise SegmentError(f"{path}: {len(self.data)} bytes cannot be a segment")
        footer = self._read_tail()
        schema = self._read_footer(Cursor(footer, "footer"))
        self._read_header(footer, schema)
        self._check_page_order()

    def _read_tail(self) -> bytes:
        tail = self.data[-TAIL_LENGTH:]
        magic, offset, length, file_length, digest, zero, checksum = struct.unpack("<8sQQQ16sQQ", tail)
        expect(magic, b"LORIFEND", "tail: magic")
        expect(checksum, xxhash.xxh3_64_intdigest(tail[:56]), "tail: checksum")
        expect((file_length, zero), (len(self.data), 0), "tail: file length and zero")
        expect((offset % 64, aligned(offset + length, 64) + TAIL_LENGTH), (0, file_length), "tail: footer's place")
        footer = self.data[offset : offset + length]
        expect(xxhash.xxh3_128_intdigest(footer).to_bytes(16, "little"), digest, "footer: digest")
        self.footer_offset, self.footer_length = offset, length
        return footer

    def _read_footer(self, cursor: Cursor) -> bytes:
        cursor.take(40)
        schema = cursor.blob()
        self._read_schema(Cursor(schema, "schema"))
        self.row_count, self.rows_per_block, self.block_count = cursor.fields("QII")
        expect(self.block_count, -(-self.row_count // max(1, self.rows_per_block)), "footer: block count")
        self.statistics = np.frombuffer(cursor.blob(), [("norms", "<f4", 3), ("zero", "<u4")])
        expect((len(self.statistics), self.statistics["zero"].any()), (self.block_count, False), "footer: statistics")
        self.columns = []
        for _ in range(*cursor.fields("I")):
            kind, plane, encoding, zero, layer, component = cursor.fields("BBBBII")
            expect((plane, zero), (0, 0), "column: plane and zero")
            self.columns.append(Column(kind, encoding, layer, component, cursor.blob().decode()))
        self.pages = []
        for _ in range(*cursor.fields("Q")):
            *fields, zero, row_count, checksum = cursor.fields("IIQIIBBHIQ")
            expect(zero, 0, "page index: zero")
            self.pages.append(Page(*fields, row_count, checksum))
        self.provenance = json.loads(cursor.blob())
        cursor.finish()
        return schema

    def _read_schema(self, cursor: Cursor) -> None:
        code, zeros, count = cursor.fields("B3sI")
        expect(zeros, bytes(3), "schema: zeros")
        if code not in ENCODINGS:
            raise SegmentError(f"schema: unknown encoding {code}")
        self.encoding = ENCODINGS[code]
        self.layers = []
        for _ in range(count):
            name = cursor.blob().decode()
            d1, d2, form, rank = cursor.fields("IIBI")
            expect((form, rank > 0) in ((1, True), (2, False)), True, f"layer {name}: form {form} with rank {rank}")
            self.layers.append(SegmentLayer(name, d1, d2, rank if form == 1 else None))
        cursor.finish()

    def _read_header(self, footer: bytes, schema: bytes) -> None:
        header = self.data[:HEADER_LENGTH]
        magic, major, _, length, incompatible, _, _, digest = struct.unpack_from("<8sHHIQQQ16s", header)
        expect((magic, major, length, incompatible), (b"LORIFSEG", 1, HEADER_LENGTH, 0), "header")
        expect(digest, xxhash.xxh3_128_intdigest(schema).to_bytes(16, "little"), "header: schema digest")
        expect(any(header[56:4088]), False, "header: reserved bytes in use")
        expect(struct.unpack_from("<Q", header, 4088)[0], xxhash.xxh3_64_intdigest(header[:4088]), "header: checksum")
        expect(footer[:40], header[:40], "footer: copy of the header")

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
        end = HEADER_LENGTH
        for page in self.pages:
            expect(page.offset, aligned(end, 4096 if page.stored_length >= 65536 else 64), "page index: offset")
            expect(page.row_count, len(self.rows(page.block)), "page index: rows")
            end = page.offset + page.stored_length
        expect(self.footer_offset, aligned(end, 64), "tail: footer offset")

    def rows(self, block: int) -> range:
        """The rows of a block."""
        return range(block * self.rows_per_block, min((block + 1) * self.rows_per_block, self.row_count))

    def raw(self, page: Page) -> bytes:
        """A page's bytes, checked and decompressed."""
        what = f"{self.path.name}: page of column {page.column}, block {page.block}, at byte {page.offset}"
        stored = self.data[page.offset : page.offset + page.stored_length]
        seed = page.column << 32 | page.block
        expect(xxhash.xxh3_64_intdigest(stored, seed=seed), page.checksum, f"{what}: checksum")
        if page.codec == 0:
            expect((page.stored_length, page.stride), (page.raw_length, 1), f"{what}: raw page")
            return stored
        expect((page.codec, page.stride in (1, 2, 4)), (1, True), f"{what}: codec and stride")
        frame = zstandard.ZstdDecompressor(max_window_size=1 << 24).decompressobj()
        content = frame.decompress(stored)
        expect((len(content), frame.eof, frame.unused_data), (page.raw_length, True, b""), f"{what}: zstd frame")
        return np.frombuffer(content, np.uint8).reshape(page.stride, -1).T.tobytes()

    def blocks(self, kind: int, layer: int = 0, component: int = 0, name: str = "") -> Iterator[tuple[int, bytes]]:
        """Block and raw bytes of each page of a column."""
        for page in self.pages:
            column = self.columns[page.column]
            if (column.kind, column.layer, column.component, column.name) == (kind, layer, component, name):
                yield page.block, self.raw(page)

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
        covered = [(0, HEADER_LENGTH), *((page.offset, page.offset + page.stored_length) for page in self.pages)]
        covered += [(self.footer_offset, self.footer_offset + self.footer_length)]
        ends = [start for start, _ in covered[1:]] + [len(self.data) - TAIL_LENGTH]
        for (_, end), following in zip(covered, ends, strict=True):
            expect(any(self.data[end:following]), False, f"{self.path.name}: padding at byte {end} in use")
        for page in self.pages:
            self.raw(page)
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
