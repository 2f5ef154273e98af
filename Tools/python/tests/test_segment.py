"""The second reader against a segment that is put together here, field by field."""

import itertools
import json
import struct
from math import erf, exp, inf, pi, sqrt
from pathlib import Path

import numpy as np
import pytest
import xxhash
import zstandard
from lorif.basis import Basis
from lorif.page import POSITIVE_LEVELS, SegmentError, decode_vectors
from lorif.segment import Segment

GOLDEN = Path(__file__).resolve().parents[3] / "Tests" / "Golden" / "segment-1.0.segment"

IDS = ["one", "zwei", "три"]
LEFT = np.array([[1.0, 2.0], [-3.0, 0.5], [0.0, 4.0]], np.float32)
RIGHT = np.array([[1.0], [2.0], [-1.0]], np.float32)
DENSE = np.array([[1.0, 0.0], [0.0, -2.0], [3.0, 4.0]], np.float32)
# Exactly representable bounds: norms of |u| |v| and of the dense rows.
NORMS = np.array([[2.25, 6.09375, 4.0], [1.0, 2.0, 5.0]], np.float32)
RECORDS = [{"text": "a"}, {"text": None, "n": -7}, {"n": 1.5, "list": [1, "x"], "flag": True}]


def text(value: str) -> bytes:
    return struct.pack("<I", len(value.encode())) + value.encode()


def slices(values: list[bytes]) -> bytes:
    ends = np.concatenate([[0], np.cumsum([len(value) for value in values])]).astype("<u4")
    return ends.tobytes() + b"".join(values)


def bfloat16(values: np.ndarray) -> bytes:
    return (values.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()


def field(name: str) -> bytes:
    tags, values = b"", []
    for record in RECORDS:
        value = record.get(name)
        tag, content = {
            "NoneType": (1 if name in record else 0, b""),
            "bool": (3 if value else 2, b""),
            "int": (4, struct.pack("<q", value) if isinstance(value, int) else b""),
            "float": (5, struct.pack("<d", value) if isinstance(value, float) else b""),
            "str": (6, str(value).encode()),
            "list": (7, json.dumps(value).encode()),
        }[type(value).__name__]
        tags += bytes([tag])
        values.append(content)
    return tags + bytes(5) + slices(values)


def compressed(raw: bytes, stride: int) -> bytes:
    planes = np.frombuffer(raw, np.uint8).reshape(-1, stride).T.tobytes()
    return zstandard.ZstdCompressor(level=1).compress(planes)


def build(path: Path, zstd_column: int | None = None) -> Path:
    """Writes a segment of three rows with one factored and one dense layer, as Formats/*.md say."""
    schema = struct.pack("<B3xI", 1, 2)
    schema += text("l/1") + struct.pack("<IIBI", 2, 1, 1, 1) + text("l/2") + struct.pack("<IIBI", 1, 2, 2, 0)
    header = struct.pack("<8sHHIQQQ", b"LORIFSEG", 1, 0, 4096, 0, 0, 0)
    header += xxhash.xxh3_128_intdigest(schema).to_bytes(16, "little")
    header += bytes(4088 - len(header))
    header += struct.pack("<Q", xxhash.xxh3_64_intdigest(header))

    hashes = sorted((xxhash.xxh3_64_intdigest(name.encode()), row) for row, name in enumerate(IDS))
    index = np.array([h for h, _ in hashes], "<u8").tobytes() + np.array([r for _, r in hashes], "<u4").tobytes()
    names = ["text", "n", "list", "flag"]
    columns = [(1, 1, 0, ""), (2, 1, 0, ""), (3, 1, 1, ""), (4, 3, 0, ""), (5, 3, 0, ""), (6, 0, 0, ""), (7, 0, 0, "")]
    columns += [(8, 0, 0, name) for name in names]
    pages = [(0, LEFT.tobytes()), (1, RIGHT.tobytes() + bytes(4)), (2, DENSE.tobytes())]
    pages += [(3, bfloat16(NORMS)), (4, bfloat16(0 * NORMS)), (5, slices([name.encode() for name in IDS]))]
    pages += [(7 + number, field(name)) for number, name in enumerate(names)] + [(6, index)]

    body, entries = bytearray(header), b""
    for column, raw in pages:
        stored, codec, stride = (compressed(raw, 2), 1, 2) if column == zstd_column else (raw, 0, 1)
        body += bytes(-len(body) % 64)
        checksum = xxhash.xxh3_64_intdigest(stored, seed=column << 32)
        entries += struct.pack(
            "<IIQIIBBHIQ", column, 0, len(body), len(stored), len(raw), codec, stride, 0, 3, checksum
        )
        body += stored
    body += bytes(-len(body) % 64)

    footer = header[:40] + struct.pack("<I", len(schema)) + schema + struct.pack("<QII", 3, 32, 1)
    footer += struct.pack("<I", 16) + struct.pack("<fffI", 2.0, 6.5, 0.0, 0)
    footer += struct.pack("<I", len(columns))
    for kind, encoding, layer, name in columns:
        footer += struct.pack("<BBBBII", kind, 0, encoding, 0, layer, 0) + text(name)
    footer += struct.pack("<Q", len(pages)) + entries + text('{"tool":"test"}')
    offset = len(body)
    body += footer + bytes(-len(footer) % 64)
    digest = xxhash.xxh3_128_intdigest(footer).to_bytes(16, "little")
    tail = struct.pack("<8sQQQ16sQ", b"LORIFEND", offset, len(footer), len(body) + 64, digest, 0)
    path.write_bytes(body + tail + struct.pack("<Q", xxhash.xxh3_64_intdigest(tail)))
    return path


@pytest.mark.parametrize("zstd_column", [None, 0, 2])
def test_everything_is_read(zstd_column: int | None, tmp_path: Path) -> None:
    segment = Segment(build(tmp_path / "s.segment", zstd_column))
    segment.verify()
    assert (segment.encoding, segment.row_count, segment.rows_per_block, segment.block_count) == ("f32", 3, 32, 1)
    assert [(layer.name, layer.rank) for layer in segment.layers] == [("l/1", 1), ("l/2", None)]
    left, right = segment.values(0)
    assert np.array_equal(left[:, :, 0], LEFT)
    assert np.array_equal(right[:, :, 0], RIGHT)
    assert np.array_equal(segment.values(1)[:, 0, :], DENSE)
    assert np.array_equal(segment.norms(), NORMS)
    assert segment.identifiers() == IDS
    assert segment.metadata() == RECORDS
    assert segment.provenance == {"tool": "test"}


def test_every_flipped_byte_is_found(tmp_path: Path) -> None:
    path = build(tmp_path / "s.segment", zstd_column=0)
    good = path.read_bytes()
    for offset in range(len(good)):
        # Of the header's reserved zeros every 64th does.
        if 64 <= offset < 4088 and offset % 64:
            continue
        path.write_bytes(good[:offset] + bytes([good[offset] ^ 0x41]) + good[offset + 1 :])
        with pytest.raises(SegmentError):
            Segment(path).verify()


def test_every_cut_is_found(tmp_path: Path) -> None:
    path = build(tmp_path / "s.segment")
    good = path.read_bytes()
    for length in (*range(0, len(good), 61), len(good) - 1):
        path.write_bytes(good[:length])
        with pytest.raises(SegmentError):
            Segment(path)


@pytest.mark.parametrize(("bits", "encoding"), [(4, "q4"), (3, "q3"), (2, "q2"), (1, "q1")])
def test_low_bit_codes(bits: int, encoding: str) -> None:
    """Codes placed one by one where Formats/page.md puts them."""
    rows, length = 37, 5
    random = np.random.default_rng(bits)
    indices = random.integers(0, 1 << bits, (rows, length))
    planes = [(indices, bits)] if bits != 3 else [(indices >> 1, 2), (indices & 1, 1)]
    raw = b""
    for plane, width in planes:
        nibble_count = -(-length * width // 4)
        codes = bytearray(2 * nibble_count * 16)
        for row in range(rows):
            for coordinate in range(length):
                nibble, shift = divmod(coordinate * width, 4)
                group, place = divmod(row, 32)
                value = int(plane[row, coordinate]) << shift << (4 if place >= 16 else 0)
                codes[(group * nibble_count + nibble) * 16 + place % 16] |= value
        raw += bytes(codes)
    raw += bytes(-len(raw) % 8)
    scales = np.array([2.0 ** (row % 5 - 2) for row in range(rows)], np.float32)
    values = decode_vectors(raw + bfloat16(scales), rows, length, encoding)
    levels = np.unique(np.abs(values / scales[:, None]))
    assert len(levels) == 1 << (bits - 1)
    ascending = np.concatenate([-levels[::-1], levels])
    assert np.array_equal(values, ascending[indices].astype(np.float32) * scales[:, None])


def test_codebooks_are_optimal_for_the_gaussian() -> None:
    """Lloyd-Max: each level is the mean of the normal distribution between the midpoints to its neighbours."""

    def density(x: float) -> float:
        return exp(-x * x / 2) / sqrt(2 * pi)

    for positive in POSITIVE_LEVELS.values():
        edges = [0.0, *((a + b) / 2 for a, b in itertools.pairwise(positive)), inf]
        for level, low, high in zip(positive, edges[:-1], edges[1:], strict=True):
            mass = (erf(high / sqrt(2)) - erf(low / sqrt(2))) / 2
            assert level == pytest.approx((density(low) - density(high)) / mass, rel=1e-6)


def test_golden_basis() -> None:
    basis = Basis(GOLDEN.with_name("basis-1.0.basis"))
    assert (basis.epsilon, basis.sample_count) == (0.125, 40)
    assert [(layer.name, layer.input_dimension, layer.output_dimension) for layer in basis.layers] == [
        ("blocks.0/attn", 3, 2),
        ("schicht ü", 1, 2),
    ]
    left, right = basis.maps("blocks.0/attn")
    assert left.tolist() == [[1, 0.5, -0.25], [0.5, 2, 0.125], [-0.25, 0.125, 3]]
    assert right.tolist() == [[0.5, -1], [-1, 4]]
    assert [values.tolist() for values in basis.eigenvalues("blocks.0/attn")] == [[4, 2.5, 0], [6, 0.5]]
    with pytest.raises(SegmentError, match="no layer"):
        basis.maps("blocks.1")
