"""The container of segments and whitening bases, and the schema in its footer: written from Formats/*.md alone."""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import xxhash
import zstandard

from lorif.page import SegmentError, aligned, expect

HEADER_LENGTH, TAIL_LENGTH = 4096, 64
ENCODINGS = {1: "f32", 2: "f16", 3: "bf16", 4: "int8", 5: "q4", 6: "q3", 7: "q2", 8: "q1"}


@dataclass(frozen=True)
class StoredLayer:
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


class PagedFile:
    """A file of pages. Opening checks header, footer and tail; pages are checked when they are read."""

    magic: ClassVar[bytes]

    def __init__(self, path: str | Path, data: Any = None) -> None:
        """Opens the file at `path`, read whole; or `data`, which has a length and gives bytes by slices."""
        self.path = Path(path)
        self.data = self.path.read_bytes() if data is None else data
        if len(self.data) < HEADER_LENGTH + TAIL_LENGTH:
            raise SegmentError(f"{path}: {len(self.data)} bytes cannot be a paged file")
        footer = self._read_tail()
        schema = self._read_footer(Cursor(footer, "footer"))
        self._read_header(footer, schema)

    def _read_tail(self) -> bytes:
        tail = self.data[-TAIL_LENGTH:]
        magic, offset, length, file_length, digest, zero, checksum = struct.unpack("<8sQQQ16sQQ", tail)
        expect(magic, b"LORIFEND", "tail: magic")
        expect(checksum, xxhash.xxh3_64_intdigest(tail[:56]), "tail: checksum")
        expect((file_length, zero), (len(self.data), 0), "tail: file length and zero")
        expect((offset % 64, aligned(offset + length, 64) + TAIL_LENGTH), (0, file_length), "tail: footer's place")
        footer = self.data[offset : offset + length]
        expect(xxhash.xxh3_128_intdigest(footer).to_bytes(16, "little"), digest, "footer: digest")
        #: The file's name for others: 32 digits.
        self.digest = f"{xxhash.xxh3_128_intdigest(footer):032x}"
        self.footer_offset, self.footer_length = offset, length
        return footer

    def _read_footer(self, cursor: Cursor) -> bytes:
        cursor.take(40)
        schema = cursor.blob()
        #: The schema's bytes, equal in all segments of a store.
        self.schema = schema
        self._read_schema(Cursor(schema, "schema"))
        self.row_count, self.rows_per_block, self.block_count = cursor.fields("QII")
        self.statistics_blob = cursor.blob()
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
        code, has_basis, zeros, count = cursor.fields("BB2sI")
        expect((has_basis in (0, 1), zeros), (True, bytes(2)), "schema: flag and zeros")
        if code not in ENCODINGS:
            raise SegmentError(f"schema: unknown encoding {code}")
        self.encoding = ENCODINGS[code]
        self.layers = []
        for _ in range(count):
            name = cursor.blob().decode()
            d1, d2, form, rank = cursor.fields("IIBI")
            expect((form, rank > 0) in ((1, True), (2, False)), True, f"layer {name}: form {form} with rank {rank}")
            self.layers.append(StoredLayer(name, d1, d2, rank if form == 1 else None))
        #: The digest of the whitening basis that gradients are in, as 32 digits; None for gradients as they were given.
        self.basis: str | None = None
        if has_basis:
            low, high = cursor.fields("QQ")
            self.basis = f"{high:016x}{low:016x}"
        cursor.finish()

    def _read_header(self, footer: bytes, schema: bytes) -> None:
        header = self.data[:HEADER_LENGTH]
        magic, major, _, length, incompatible, _, _, digest = struct.unpack_from("<8sHHIQQQ16s", header)
        expect((magic, major, length, incompatible), (self.magic, 1, HEADER_LENGTH, 0), "header")
        expect(digest, xxhash.xxh3_128_intdigest(schema).to_bytes(16, "little"), "header: schema digest")
        expect(any(header[56:4088]), False, "header: reserved bytes in use")
        expect(struct.unpack_from("<Q", header, 4088)[0], xxhash.xxh3_64_intdigest(header[:4088]), "header: checksum")
        expect(footer[:40], header[:40], "footer: copy of the header")

    def _check_page_places(self) -> None:
        end = HEADER_LENGTH
        for page in self.pages:
            expect(page.offset, aligned(end, 4096 if page.stored_length >= 1048576 else 64), "page index: offset")
            end = page.offset + page.stored_length
        expect(self.footer_offset, aligned(end, 64), "tail: footer offset")

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

    def verify_bytes(self) -> None:
        """Checks every byte between the parts, and every page."""
        covered = [(0, HEADER_LENGTH), *((page.offset, page.offset + page.stored_length) for page in self.pages)]
        covered += [(self.footer_offset, self.footer_offset + self.footer_length)]
        ends = [start for start, _ in covered[1:]] + [len(self.data) - TAIL_LENGTH]
        for (_, end), following in zip(covered, ends, strict=True):
            expect(any(self.data[end:following]), False, f"{self.path.name}: padding at byte {end} in use")
        for page in self.pages:
            self.raw(page)
