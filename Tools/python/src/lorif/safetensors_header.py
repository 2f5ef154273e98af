"""The header of a safetensors file: read with every check, written with every tensor in the given order."""

import json
import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

#: Longest header, in bytes; the limit of the safetensors format itself.
HEADER_LIMIT = 100_000_000
#: How deep arrays and objects of the header may nest.
DEPTH_LIMIT = 128
#: Bytes of one number of each type that may hold gradients, and of that of second moments.
ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2, "F64": 8}


class BatchError(ValueError):
    """A file that is not a factor batch, or values that cannot be one: where, what was expected, what was found."""


@dataclass(frozen=True)
class Tensor:
    """Where one tensor's numbers are: bytes `start` up to `end`, counted from the start of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; a key that occurs twice is refused, since readers disagree about which one counts."""
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise BatchError(f"header: expected distinct names, found {key!r} twice")
        result[key] = value
    return result


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON value")


def decoded(text: str) -> Any:
    """A JSON value by the rules of the format: no NaN, no name twice, no half of a surrogate pair, not too deep."""
    depth = deepest = 0
    for token in re.finditer(r'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', text, re.DOTALL):
        if token[0] in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif token[0] in "]}":
            depth -= 1
    if deepest > DEPTH_LIMIT:
        raise ValueError(f"expected at most {DEPTH_LIMIT} nested arrays and objects, found {deepest}")
    value = json.loads(text, object_pairs_hook=_object, parse_constant=_refuse_constant)
    if "\\u" in text:
        # Only an escape can bring one in; the text itself was UTF-8.
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    return value


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _tensor(path: Path, name: str, entry: object, data_start: int, size: int) -> Tensor:
    where = f"{path}, tensor {name!r}"
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= set(entry):
        raise BatchError(f"{where}: expected an object with dtype, shape and data_offsets, found {entry!r}")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise BatchError(f"{where}: expected dtype F32, F16 or BF16, found {dtype!r}")
    if not isinstance(shape, list) or not all(map(_is_count, shape)):
        raise BatchError(f"{where}: expected a shape of counts, found {shape!r}")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_count, offsets)):
        raise BatchError(f"{where}: expected data_offsets [start, end], found {offsets!r}")
    start, end = (data_start + offset for offset in offsets)
    if not start <= end <= size:
        raise BatchError(f"{where}: expected data_offsets within {size - data_start} bytes, found {offsets}")
    if end - start != prod(shape) * ITEM_BYTES[dtype]:
        raise BatchError(f"{where}: expected {prod(shape) * ITEM_BYTES[dtype]} bytes for {shape}, found {end - start}")
    return Tensor(name, dtype, tuple(shape), start, end)


def read_header(path: Path) -> tuple[list[Tensor], dict[str, str]]:
    """Tensors in file order, which cover the data without holes or overlaps, and the metadata."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
        if len(head) < 8:
            raise BatchError(f"{path}: expected at least 8 bytes, found {size}")
        (length,) = struct.unpack("<Q", head)
        if length > min(HEADER_LIMIT, size - 8):
            raise BatchError(
                f"{path}: expected a header of at most {min(HEADER_LIMIT, size - 8)} bytes, found {length}; "
                "the file is cut or not a safetensors file"
            )
        text = file.read(length)
    try:
        header = decoded(text.decode("utf-8"))
    except BatchError as error:
        raise BatchError(f"{path}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise BatchError(f"{path}: the header is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise BatchError(f"{path}: expected an object as header, found {type(header).__name__}")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise BatchError(f"{path}, __metadata__: expected an object of strings")

    tensors = [_tensor(path, name, entry, 8 + length, size) for name, entry in header.items()]
    tensors.sort(key=lambda tensor: (tensor.start, tensor.end))
    covered = 8 + length
    for tensor in tensors:
        if tensor.start != covered:
            what = "a hole before" if tensor.start > covered else "an overlap at"
            raise BatchError(f"{path}: expected data without holes or overlaps, found {what} tensor {tensor.name!r}")
        covered = tensor.end
    if covered != size:
        raise BatchError(f"{path}: expected the file to end at byte {covered}, found {size} bytes")
    return tensors, metadata


def header_bytes(tensors: Iterable[tuple[str, str, tuple[int, ...]]], metadata: Mapping[str, str]) -> bytes:
    """Length and header for tensors (name, dtype, shape) whose data follow in that order; padded to 8 bytes."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    offset = 0
    for name, dtype, shape in tensors:
        end = offset + prod(shape) * ITEM_BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    try:
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    except UnicodeEncodeError as error:
        raise BatchError(f"expected names and metadata of Unicode text, found {error.object[error.start]!r}") from None
    text += b" " * (-len(text) % 8)
    if len(text) > HEADER_LIMIT:
        raise BatchError(
            f"expected a header of at most {HEADER_LIMIT} bytes, found {len(text)}; write fewer rows a file"
        )
    return struct.pack("<Q", len(text)) + text
