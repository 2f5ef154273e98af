"""A writer of paged files, from Formats/ alone: for golden files that the program did not make."""

import struct
from dataclasses import dataclass, field

import xxhash


def text(value: str) -> bytes:
    """A u32 length and that many bytes of UTF-8."""
    return struct.pack("<I", len(value.encode())) + value.encode()


def digest(data: bytes) -> bytes:
    """16 bytes: the low word of the XXH3-128, then the high one."""
    return xxhash.xxh3_128_intdigest(data).to_bytes(16, "little")


@dataclass
class PagedFileWriter:
    """Collects columns and raw pages in order.

    Attributes:
        magic: Eight letters.
        schema: Its bytes.
        content: What follows the header so far.
        columns: Records of the columns.
        pages: Entries of the page index.
    """

    magic: bytes
    schema: bytes
    content: bytes = b""
    columns: list[bytes] = field(default_factory=list)
    pages: list[bytes] = field(default_factory=list)

    def column(self, kind: int, group: int = 0) -> int:
        """A new column; its number."""
        self.columns.append(struct.pack("<BBBBII", kind, 0, 0, 0, group, 0) + text(""))
        return len(self.columns) - 1

    def page(self, column: int, block: int, rows: int, raw: bytes) -> None:
        """A page, too short to be aligned to more than 64 bytes."""
        self.content += bytes(-len(self.content) % 64)
        checksum = xxhash.xxh3_64_intdigest(raw, seed=column << 32 | block)
        fields = (column, block, 4096 + len(self.content), len(raw), len(raw), 0, 1, 0, rows, checksum)
        self.pages.append(struct.pack("<IIQIIBBHIQ", *fields))
        self.content += raw

    def finished(self, row_count: int, rows_per_block: int, block_count: int, provenance: str) -> bytes:
        """The whole file."""
        header = struct.pack("<8sHHIQQQ16s", self.magic, 1, 0, 4096, 0, 0, 0, digest(self.schema)).ljust(4088, b"\0")
        header += struct.pack("<Q", xxhash.xxh3_64_intdigest(header))
        blob = struct.pack("<I", len(self.schema)) + self.schema
        footer = header[:40] + blob + struct.pack("<QII", row_count, rows_per_block, block_count) + text("")
        footer += struct.pack("<I", len(self.columns)) + b"".join(self.columns)
        footer += struct.pack("<Q", len(self.pages)) + b"".join(self.pages) + text(provenance)
        body = header + self.content
        body += bytes(-len(body) % 64)
        offset = len(body)
        body += footer
        body += bytes(-len(body) % 64)
        tail = struct.pack("<8sQQQ", b"LORIFEND", offset, len(footer), len(body) + 64) + digest(footer) + bytes(8)
        return body + tail + struct.pack("<Q", xxhash.xxh3_64_intdigest(tail))
