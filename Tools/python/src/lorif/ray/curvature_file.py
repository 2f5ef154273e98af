"""Writes curvature files as Formats/curvature.md and paged-file.md have them."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import xxhash
from numpy.typing import NDArray

from lorif.curvature import BASIS, DESCRIPTION, EIGENVALUES, GROUP, NUMBERS_PER_PAGE
from lorif.page import aligned
from lorif.paged_file import HEADER_LENGTH
from lorif.ray.catalog import digest_bytes, digest_of

_LARGE_PAGE = 1 << 20


@dataclass(frozen=True)
class FittedGroup:
    """The eigenpairs of one layer: values descending, the basis [r, D] in f32, and how they were found."""

    layer: int
    gradient_length: int
    trace: float
    eigenvalues: NDArray[np.float64]
    basis: NDArray[np.float32]
    passes: int
    orthogonality_error: float
    residual: float
    spans_rows: bool
    algorithm: str
    arithmetic: str
    solver: str

    def encoded(self) -> bytes:
        """The group's page."""
        fixed = struct.pack("<QQdQI", self.gradient_length, len(self.eigenvalues), self.trace, 1, self.layer)
        found = struct.pack("<QddQ", self.passes, self.orthogonality_error, self.residual, int(self.spans_rows))
        return fixed + found + b"".join(map(_string, (self.algorithm, self.arithmetic, self.solver)))


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<I", len(raw)) + raw


class CurvatureWriter:
    """Writes one file; the first page is the description, so that it comes first, and groups follow one by one."""

    def __init__(self, path: Path, schema: bytes) -> None:
        self._file: BinaryIO = path.open("w+b")
        self._schema = schema
        self._columns: list[tuple[int, int]] = []
        self._pages: list[bytes] = []
        self._groups = 0
        self._end = HEADER_LENGTH
        head = struct.pack("<8sHHIQQQ", b"LORIFCRV", 1, 0, HEADER_LENGTH, 0, 0, 0)
        self._head = head
        header = head + digest_bytes(digest_of(schema)) + bytes(4032)
        self._file.write(header + struct.pack("<Q", xxhash.xxh3_64_intdigest(header)))

    def __enter__(self) -> "CurvatureWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def describe(
        self, *, rank: int, captured_energy: float, generation: int, rows: int, row_digest: str, algorithm: str,
        provenance: str,
    ) -> bytes:  # fmt: skip
        """Writes the description, before all groups; gives its bytes."""
        fixed = struct.pack("<QdQQ", rank, captured_energy, generation, rows) + digest_bytes(row_digest)
        description = fixed + b"".join(map(_string, ("per-layer", algorithm, provenance)))
        self._provenance = provenance
        self._column(DESCRIPTION, 0)
        self._page(0, description, 1)
        return description

    def append(self, group: FittedGroup) -> None:
        """Writes the next group."""
        number = self._groups
        self._groups += 1
        self._column(GROUP, number)
        self._page(0, group.encoded(), 1)
        if not len(group.eigenvalues):
            return
        self._column(EIGENVALUES, number)
        self._page(0, group.eigenvalues.astype("<f8").tobytes(), len(group.eigenvalues))
        self._column(BASIS, number)
        numbers = np.ascontiguousarray(group.basis, "<f4").reshape(-1)
        for block, start in enumerate(range(0, len(numbers), NUMBERS_PER_PAGE)):
            piece = numbers[start : start + NUMBERS_PER_PAGE]
            self._page(block, piece.tobytes(), len(piece))

    def finish(self, blocks: int) -> None:
        """Writes footer and tail; `blocks` is the largest number of basis pages of a group, at least 1."""
        columns = b"".join(
            struct.pack("<BBBBII", kind, 0, 0, 0, layer, 0) + _string("") for kind, layer in self._columns
        )
        footer = b"".join(
            [
                self._head,
                struct.pack("<I", len(self._schema)) + self._schema,
                struct.pack("<QII", self._groups, NUMBERS_PER_PAGE, blocks),
                struct.pack("<I", 0),
                struct.pack("<I", len(self._columns)) + columns,
                struct.pack("<Q", len(self._pages)) + b"".join(self._pages),
                _string(self._provenance),
            ]
        )
        offset = aligned(self._end, 64)
        length = aligned(offset + len(footer), 64) + 64
        tail = struct.pack("<8sQQQ", b"LORIFEND", offset, len(footer), length) + digest_bytes(digest_of(footer))
        tail += bytes(8)
        tail += struct.pack("<Q", xxhash.xxh3_64_intdigest(tail))
        self._file.seek(offset)
        self._file.write(footer + bytes(length - 64 - offset - len(footer)) + tail)
        self._file.flush()

    def _column(self, kind: int, layer: int) -> None:
        self._columns.append((kind, layer))

    def _page(self, block: int, raw: bytes, rows: int) -> None:
        column = len(self._columns) - 1
        offset = aligned(self._end, 4096 if len(raw) >= _LARGE_PAGE else 64)
        self._file.seek(offset)
        self._file.write(raw)
        self._end = offset + len(raw)
        checksum = xxhash.xxh3_64_intdigest(raw, seed=column << 32 | block)
        self._pages.append(
            struct.pack("<IIQIIBBHIQ", column, block, offset, len(raw), len(raw), 0, 1, 0, rows, checksum)
        )


def basis_pages(groups: Sequence[tuple[int, int]]) -> int:
    """The largest number of basis pages of groups given as (rank, gradient length), at least 1."""
    return max([1, *(-(-rank * length // NUMBERS_PER_PAGE) for rank, length in groups)])
