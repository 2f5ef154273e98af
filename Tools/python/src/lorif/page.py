"""What the pages of a segment hold: the second reader of Formats/page.md.

A page's raw bytes come in, values go out; every byte is checked that the page's description fixes.
"""

import itertools
import json
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

WITHOUT_SCALE = ("f32", "bf16")
BITS = {"q4": 4, "q3": 3, "q2": 2, "q1": 1}
POSITIVE_LEVELS = {
    1: [0.79788456080287],
    2: [0.45278003463649, 1.5104176084991],
    3: [0.24509417894422, 0.75600528120588, 1.343909278505, 2.151945704537],
    4: [
        *(0.12839502985115, 0.38804829949029, 0.65675911853246, 0.94234045648696),
        *(1.2562311973472, 1.6180463860219, 2.0690172265314, 2.7325895709952),
    ],
}


class SegmentError(ValueError):
    """A byte that is not as the format says."""


def expect(found: object, expected: object, what: str) -> None:
    """Raises unless both are equal."""
    if found != expected:
        raise SegmentError(f"{what}: expected {expected!r}, found {found!r}")


def aligned(offset: int, alignment: int) -> int:
    """The smallest multiple of `alignment` that is not below `offset`."""
    return -(-offset // alignment) * alignment


def bfloat16(raw: bytes) -> NDArray[np.float32]:
    """The upper halves of f32."""
    return (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)


def decode_slices(raw: bytes, start: int, count: int, what: str) -> list[bytes]:
    """u32 offsets[count + 1] at `start`, then the bytes that they cut."""
    table_end = start + 4 * (count + 1)
    if len(raw) < table_end:
        raise SegmentError(f"{what}: {len(raw)} bytes are too few")
    offsets, text = np.frombuffer(raw, "<u4", count + 1, start).tolist(), raw[table_end:]
    expect((offsets[0], offsets[-1], sorted(offsets)), (0, len(text), offsets), f"{what}: offsets")
    return [text[begin:end] for begin, end in itertools.pairwise(offsets)]


def decode_value(tag: int, value: bytes) -> Any:
    """One metadata value."""
    match tag, len(value):
        case ((1 | 2 | 3), 0):
            return {1: None, 2: False, 3: True}[tag]
        case 4, 8:
            return struct.unpack("<q", value)[0]
        case 5, 8:
            return struct.unpack("<d", value)[0]
        case 6, _:
            return value.decode()
        case 7, _:
            return json.loads(value)
    raise SegmentError(f"metadata: tag {tag} with {len(value)} bytes")


def decode_vectors(raw: bytes, count: int, length: int, encoding: str) -> NDArray[np.float32]:
    """The values [count, length] of a page of vectors."""
    code_length = vector_code_length(count, length, encoding)
    scale_start = aligned(code_length, 8)
    scaled = encoding not in WITHOUT_SCALE
    expect(len(raw), scale_start + 2 * count * scaled, f"{encoding} page: length")
    expect(any(raw[code_length:scale_start]), False, f"{encoding} page: padding")
    if encoding == "bf16":
        return bfloat16(raw[:code_length]).reshape(count, length)
    if encoding in BITS:
        bits = BITS[encoding]
        indices = nibble_codes(raw[:code_length], count, length, bits)
        positive = np.array(POSITIVE_LEVELS[bits], np.float32)
        codes = np.concatenate([-positive[::-1], positive])[indices]
    else:
        dtype = {"f32": "<f4", "f16": "<f2", "int8": "<i1"}[encoding]
        codes = np.frombuffer(raw, dtype, count * length).reshape(count, length).astype(np.float32)
    return codes * bfloat16(raw[scale_start:])[:, None] if scaled else codes


def vector_code_length(count: int, length: int, encoding: str) -> int:
    """Bytes of the codes of a page."""
    planes = {"q4": (4,), "q3": (2, 1), "q2": (2,), "q1": (1,)}.get(encoding)
    if planes is None:
        return count * length * {"f32": 4, "f16": 2, "bf16": 2, "int8": 1}[encoding]
    return sum(-(-count // 32) * -(-length * bits // 4) * 16 for bits in planes)


def nibble_codes(raw: bytes, count: int, length: int, bits: int) -> NDArray[np.uint8]:
    """Codebook indices [count, length] from interleaved nibbles."""
    if bits == 3:
        high_length = vector_code_length(count, length, "q2")
        high = nibble_codes(raw[:high_length], count, length, 2)
        return high << 1 | nibble_codes(raw[high_length:], count, length, 1)
    groups = np.frombuffer(raw, np.uint8).reshape(-(-count // 32), -1, 16)
    nibbles = np.concatenate([groups & 15, groups >> 4], axis=2)  # [group, nibble, row of the group]
    rows = nibbles.swapaxes(1, 2).reshape(-1, nibbles.shape[1])
    parts = np.arange(4 // bits) * bits
    codes = (rows[:, :, None] >> parts & (1 << bits) - 1).reshape(len(rows), -1)
    expect(bool(codes[count:].any() or codes[:, length:].any()), False, "interleaved codes: filling in use")
    return codes[:count, :length]
