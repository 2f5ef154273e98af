"""Writes curvature-1.0.curvature and coordinates-1.0.coordinates, from Formats/ alone: the program has no part in it.

    .venv/bin/python Tests/Golden/make_curvature.py

Two layers, one with an eigenbasis of two vectors and one without; five rows in blocks of two. The Swift tests compare
what the program reads and writes with these files; the second reader reads them in Tests/EndToEnd/test_golden.py.
"""

import struct
from pathlib import Path

import numpy as np
from paged import PagedFileWriter, digest, text

FOLDER = Path(__file__).resolve().parent
PROVENANCE = '{"algorithms":["gram/double"],"exact":false,"rank":2,"seed":0}'
EIGENVALUES = np.array([12.0, 5.0])
TRACE = 17.5
BASIS = np.array([[0.5, 0.5, 0.5, 0.5], [0.5, -0.5, 0.5, -0.5]], np.float32)
SEGMENT = "00112233445566778899aabbccddeeff"
# c and n of five rows, and n of the layer without a basis.
VALUES = np.array([[127.0, -3.0], [0.0, 0.0], [-0.5, 63.5], [1.0, -1.0], [254.0, 2.0]], np.float32)
OUTSIDE = (np.array([0, 0.25, 1, 2, 1e-3], np.float32), np.array([1, 0, 3, 0.5, 1e20], np.float32))
ROWS_PER_BLOCK = 2


def curvature() -> bytes:
    """The curvature file."""
    schema = struct.pack("<BBHI", 1, 0, 0, 2)
    schema += text("blocks.0/attn") + struct.pack("<IIBI", 2, 2, 1, 1)
    schema += text("schicht ü") + struct.pack("<IIBI", 1, 3, 2, 0)
    file = PagedFileWriter(b"LORIFCRV", schema)
    description = struct.pack("<QdQQ", 2, 0.875, 3, 5) + digest(b"rows")
    description += text("per-layer") + text("gram") + text(PROVENANCE)
    file.page(file.column(32), 0, 1, description)
    words = text("gram") + text("double") + text("lapack-all")
    group = struct.pack("<QQdQI", 4, 2, TRACE, 1, 0) + struct.pack("<QddQ", 1, 0, 2.0**-40, 0) + words
    file.page(file.column(33, 0), 0, 1, group)
    file.page(file.column(34, 0), 0, 2, EIGENVALUES.astype("<f8").tobytes())
    file.page(file.column(35, 0), 0, 8, BASIS.astype("<f4").tobytes())
    group = struct.pack("<QQdQI", 3, 0, 0, 1, 1) + struct.pack("<QddQ", 1, 0, 0, 1) + words
    file.page(file.column(33, 1), 0, 1, group)
    return file.finished(2, 4194304, 1, PROVENANCE)


def int8_vectors(vectors: np.ndarray) -> bytes:
    """Codes, filled up to eight bytes, and scales: the largest magnitude over 127, rounded up to bfloat16."""
    scale = (np.abs(vectors).max(axis=1).astype(np.float64) / 127).astype(np.float32)
    bits = (scale.view(np.uint32) + np.uint32(0xFFFF)) & np.uint32(0xFFFF0000)
    wide = np.where(bits.view(np.float32) > 0, bits.view(np.float32), 1)
    codes = np.rint(vectors / wide[:, None]).astype(np.int8).tobytes()
    return codes + bytes(-len(codes) % 8) + (bits >> 16).astype("<u2").tobytes()


def coordinates(curvature_digest: str) -> bytes:
    """The coordinates file of a segment of five rows."""
    file = PagedFileWriter(b"LORIFCOO", b"")
    description = b"".join(int(name, 16).to_bytes(16, "little") for name in (curvature_digest, SEGMENT))
    file.page(file.column(64), 0, 1, description + struct.pack("<QQQQ", 4, 2, 2, 0))
    columns = file.column(65, 0), file.column(66, 0), file.column(65, 1)
    for block, start in enumerate(range(0, len(VALUES), ROWS_PER_BLOCK)):
        rows = slice(start, start + ROWS_PER_BLOCK)
        count = len(VALUES[rows])
        file.page(columns[0], block, count, OUTSIDE[0][rows].astype("<f4").tobytes())
        file.page(columns[1], block, count, int8_vectors(VALUES[rows]))
        file.page(columns[2], block, count, OUTSIDE[1][rows].astype("<f4").tobytes())
    return file.finished(len(VALUES), ROWS_PER_BLOCK, 3, "{}")


def main() -> None:
    """Writes both."""
    whole = curvature()
    offset, length = struct.unpack_from("<QQ", whole, len(whole) - 56)
    (FOLDER / "curvature-1.0.curvature").write_bytes(whole)
    name = f"{int.from_bytes(digest(whole[offset : offset + length]), 'little'):032x}"
    (FOLDER / "coordinates-1.0.coordinates").write_bytes(coordinates(name))


if __name__ == "__main__":
    main()
