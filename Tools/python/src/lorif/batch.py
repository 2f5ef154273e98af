"""Factor batches: the interchange files of per-example gradients that `lorif ingest` and `lorif query` take.

A batch is a safetensors file. A layer is either `<layer>/left` [n, d1, c] with `<layer>/right` [n, d2, c], where the
gradient of an example is left · rightᵀ, or `<layer>/full` [n, d1, d2]. The input side comes first. User metadata of
the examples ride in a JSON Lines file beside it. `Formats/factor-batch.md` is the specification.

    write_batch("train.safetensors", {"h.0.mlp": Factors(left, right)}, ids=ids, records=records)
    batch = FactorBatch("train.safetensors")
    batch.gradients("h.0.mlp", slice(0, 10))     # [10, d1, d2]
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lorif.safetensors_header import BatchError, Tensor, decoded, header_bytes, read_header

__all__ = ["BatchError", "FactorBatch", "Factors", "Layer", "SecondMoments", "natural_key", "write_batch"]

#: The version of the batch format that this module writes and reads.
VERSION = "1"
LAYER_NAME_LIMIT = 1024
LAYER_COUNT_LIMIT = 65_536
DIMENSION_LIMIT = 1 << 20
GRADIENT_LENGTH_LIMIT = 1 << 28
RANK_LIMIT = 4096
IDENTIFIER_LIMIT = 4096
RECORD_LIMIT = 1 << 20

_NUMPY_TYPES = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}
_DTYPES = {"f32": "F32", "f16": "F16", "bf16": "BF16"}

_SURROGATE = re.compile("[\ud800-\udfff]")

Array = NDArray[Any]


class SecondMoments(NamedTuple):
    """C1 = mean G Gᵀ [d1, d1] and C2 = mean Gᵀ G [d2, d2] of a layer: what `--whiten-from` finds a whitening from."""

    left: Array
    right: Array


class Factors(NamedTuple):
    """Rank-c factors of n examples: left [n, d1, c] (input side) and right [n, d2, c] (output side)."""

    left: Array
    right: Array


@dataclass(frozen=True)
class Layer:
    """One layer of a batch; `rank` is None for full matrices."""

    name: str
    input_dimension: int
    output_dimension: int
    rank: int | None


def natural_key(name: str) -> tuple[list[tuple[int, int, bytes]], bytes]:
    """Sorts names as people do: "blocks.2" before "blocks.10"; runs of digits by value, all else by UTF-8 bytes."""
    encoded = name.encode("utf-8")
    parts: list[tuple[int, int, bytes]] = []
    for match in re.finditer(rb"([0-9]+)|(.)", encoded, re.DOTALL):
        digits, other = match.groups()
        if digits is None:
            parts.append((other[0], 0, b""))
        else:
            significant = digits.lstrip(b"0")
            parts.append((ord("0"), len(significant), significant))
    return parts, encoded


def write_batch(
    path: str | Path,
    layers: Mapping[str, Factors | Array],
    *,
    ids: Sequence[str] | None = None,
    records: Sequence[Mapping[str, Any]] | None = None,
    provenance: Mapping[str, str] | None = None,
    dtype: str = "f32",
    basis: str | None = None,
    second_moments: Mapping[str, SecondMoments] | None = None,
) -> None:
    """Writes a batch, whole or not at all; when this returns, the disk has it.

    `layers` maps a name to `Factors` or to full matrices [n, d1, d2]; its order is that of the global vectorisation.
    `ids` are one distinct string per row; without them the store counts rows. `records` are the examples' metadata, one
    JSON object per row, written to X.jsonl beside X.safetensors with their `id`. `dtype` is f32, f16 or bf16; a value
    that overflows it is refused.
    `basis` is the digest of the whitening basis that the gradients are in already; without it they are as the model
    gave them. `second_moments` of some layers go into the same file, in float64.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise BatchError(f"{path}: expected a name that ends in .safetensors")
    if dtype not in _DTYPES:
        raise BatchError(f"expected dtype f32, f16 or bf16, found {dtype!r}")
    reserved = {"lorif.batch", "ids", "layers", "basis"} & set(provenance or {})
    if reserved:
        raise BatchError(f"provenance: expected other keys than {sorted(reserved)}")

    tensors: list[tuple[str, Array]] = []
    for name, value in layers.items():
        parts = zip(("left", "right"), value, strict=True) if isinstance(value, Factors) else (("full", value),)
        tensors += [(f"{name}/{part}", np.asarray(array)) for part, array in parts]
    shapes = [Tensor(name, _DTYPES[dtype], array.shape, 0, 0) for name, array in tensors]
    for name, moment in _named_moments(second_moments or {}):
        tensors.append((name, moment))
        shapes.append(Tensor(name, "F64", moment.shape, 0, 0))
    _, count = _layers(path, shapes, list(layers))
    if ids is not None:
        _check_ids(path, ids, count)
    if records is not None and len(records) != count:
        raise BatchError(f"{path}: expected {count} records, one per row, found {len(records)}")

    metadata = {"lorif.batch": VERSION, "layers": json.dumps(list(layers), ensure_ascii=False)}
    metadata |= {} if ids is None else {"ids": json.dumps(list(ids), ensure_ascii=False)}
    metadata |= {} if basis is None else {"basis": _checked_basis(path, basis)}
    metadata |= provenance or {}
    head = header_bytes(((tensor.name, tensor.dtype, tensor.shape) for tensor in shapes), metadata)

    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(head)
            for (name, array), shape in zip(tensors, shapes, strict=True):
                file.write(_narrowed(array, shape.dtype, f"{path}, tensor {name!r}", ids).tobytes())
            _sync(file)
        if records is not None:
            _write_records(path.with_suffix(".jsonl"), ids, records)
        temporary.replace(path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _named_moments(second_moments: Mapping[str, SecondMoments]) -> list[tuple[str, Array]]:
    """The tensors of second moments, by name."""
    return [
        (f"{layer}/second_moment_{side}", np.asarray(moment, "<f8"))
        for layer, pair in second_moments.items()
        for side, moment in zip(("left", "right"), pair, strict=True)
    ]


class FactorBatch:
    """A batch file, validated but for its numbers, which are read on demand and validated then."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        tensors, metadata = read_header(self.path)
        version = metadata.get("lorif.batch", VERSION)
        if version != VERSION:
            raise BatchError(f"{self.path}, __metadata__ 'lorif.batch': expected {VERSION!r}, found {version!r}")
        listed = _strings(self.path, "layers", metadata)
        self.layers, self.row_count = _layers(self.path, tensors, listed)
        self.ids = _strings(self.path, "ids", metadata)
        if self.ids is not None:
            _check_ids(self.path, self.ids, self.row_count)
        #: The digest of the whitening basis that the gradients are in; None: as the model gave them.
        self.basis = _checked_basis(self.path, metadata["basis"]) if "basis" in metadata else None
        self.provenance = {k: v for k, v in metadata.items() if k not in ("lorif.batch", "ids", "layers", "basis")}
        self._tensors = {tensor.name: tensor for tensor in tensors}
        self._by_name = {layer.name: layer for layer in self.layers}

    def layer(self, name: str) -> Layer:
        """The layer of that name; KeyError if there is none."""
        return self._by_name[name]

    def factors(self, name: str, rows: slice = slice(None)) -> Factors:
        """Left and right factors of some rows of a factored layer, as float32."""
        return Factors(self._read(f"{name}/left", rows), self._read(f"{name}/right", rows))

    def gradients(self, name: str, rows: slice = slice(None)) -> NDArray[np.float32]:
        """Full matrices [rows, d1, d2] of some rows, as float32; factors are multiplied out in float64."""
        if self.layer(name).rank is None:
            return self._read(f"{name}/full", rows)
        left, right = (side.astype(np.float64) for side in self.factors(name, rows))
        return np.einsum("nac,nbc->nab", left, right).astype(np.float32)

    def second_moments(self, name: str) -> SecondMoments | None:
        """The moments that the file gives of a layer, as float64; None if it gives none."""
        if f"{name}/second_moment_left" not in self._tensors:
            return None
        found = []
        for side in ("left", "right"):
            tensor = self._tensors[f"{name}/second_moment_{side}"]
            kind = "<f8" if tensor.dtype == "F64" else "<f4"
            mapped = np.memmap(self.path, np.dtype(kind), "r", tensor.start, tensor.shape)
            found.append(np.asarray(mapped, np.float64))
        return SecondMoments(*found)

    def _read(self, tensor_name: str, rows: slice) -> NDArray[np.float32]:
        tensor = self._tensors[tensor_name]
        shape = tensor.shape
        mapped = np.memmap(self.path, _NUMPY_TYPES[tensor.dtype], "r", tensor.start, shape)[rows]
        values = _widened(np.asarray(mapped), tensor.dtype)
        first_row = rows.indices(self.row_count)[0]
        _check_finite(values, f"{self.path}, tensor {tensor_name!r}", self.ids, first_row)
        return values


def _layers(path: Path, tensors: Sequence[Tensor], listed: Sequence[str] | None) -> tuple[list[Layer], int]:
    """The layers in vectorisation order, and the number of rows."""
    parts: dict[str, dict[str, Tensor]] = {}
    moments: dict[str, dict[str, Tensor]] = {}
    for tensor in tensors:
        layer, _, part = tensor.name.rpartition("/")
        if layer and part in ("second_moment_left", "second_moment_right"):
            moments.setdefault(layer, {})[part] = tensor
            continue
        if not layer or part not in ("left", "right", "full"):
            raise BatchError(f"{path}: expected <layer>/left, /right or /full, found tensor {tensor.name!r}")
        _check_shape(path, tensor)
        parts.setdefault(layer, {})[part] = tensor
    if not parts:
        raise BatchError(f"{path}: expected at least one layer, found none")
    if len(parts) > LAYER_COUNT_LIMIT:
        raise BatchError(f"{path}: expected at most {LAYER_COUNT_LIMIT} layers, found {len(parts)}")
    gradients = [tensor for found in parts.values() for tensor in found.values()]
    count = gradients[0].shape[0]
    for tensor in gradients:
        if tensor.shape[0] != count:
            raise BatchError(f"{path}, tensor {tensor.name!r}: expected {count} rows, found {tensor.shape[0]}")
    order = sorted(parts, key=natural_key) if listed is None else list(listed)
    if len(set(order)) != len(order) or set(order) != set(parts):
        unequal = sorted(set(order) ^ set(parts)) or [name for name in order if order.count(name) > 1]
        raise BatchError(f"{path}, __metadata__ 'layers': expected each layer of the file once; see {unequal[0]!r}")
    layers = [_layer(path, name, parts[name]) for name in order]
    _check_moments(path, layers, moments)
    return layers, count


def _check_moments(path: Path, layers: Sequence[Layer], moments: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Both sides, square, of a layer that is in the file."""
    dimensions = {layer.name: (layer.input_dimension, layer.output_dimension) for layer in layers}
    for name, found in moments.items():
        where = f"{path}, second moments of layer {name!r}"
        if name not in dimensions or len(found) != 2:
            raise BatchError(f"{where}: expected left and right, and gradients of the layer in the same file")
        for side, d in zip(("left", "right"), dimensions[name], strict=True):
            tensor = found[f"second_moment_{side}"]
            if tensor.shape != (d, d) or tensor.dtype not in ("F32", "F64"):
                found_shape = f"{tensor.dtype} {list(tensor.shape)}"
                raise BatchError(f"{where}: expected [{d}, {d}] in F32 or F64, found {found_shape}")


def _checked_basis(path: Path, basis: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{32}", basis):
        raise BatchError(f"{path}, __metadata__ 'basis': expected 32 hexadecimal digits, found {basis!r}")
    return basis


def _check_shape(path: Path, tensor: Tensor) -> None:
    where = f"{path}, tensor {tensor.name!r}"
    if tensor.dtype not in _NUMPY_TYPES:
        raise BatchError(f"{where}: expected dtype F32, F16 or BF16, found {tensor.dtype!r}")
    if len(tensor.shape) != 3 or 0 in tensor.shape[1:]:
        raise BatchError(f"{where}: expected three dimensions without zeros, found {list(tensor.shape)}")
    if tensor.shape[0] == 0:
        raise BatchError(f"{where}: expected at least one row, found none")
    if tensor.shape[1] > DIMENSION_LIMIT:
        raise BatchError(f"{where}: expected a dimension of at most {DIMENSION_LIMIT}, found {tensor.shape[1]}")


def _layer(path: Path, name: str, parts: dict[str, Tensor]) -> Layer:
    where = f"{path}, layer {name!r}"
    if len(name.encode("utf-8", "surrogatepass")) > LAYER_NAME_LIMIT:
        raise BatchError(f"{where}: expected a name of at most {LAYER_NAME_LIMIT} bytes")
    rank: int | None = None
    if set(parts) == {"full"}:
        _, d1, d2 = parts["full"].shape
    elif set(parts) == {"left", "right"}:
        (_, d1, rank), (_, d2, other) = parts["left"].shape, parts["right"].shape
        if rank != other:
            raise BatchError(f"{where}: expected one rank, found {rank} left and {other} right")
        if parts["left"].dtype != parts["right"].dtype:
            raise BatchError(f"{where}: expected one dtype, found {parts['left'].dtype} and {parts['right'].dtype}")
        if rank > RANK_LIMIT:
            raise BatchError(f"{where}: expected a rank of at most {RANK_LIMIT}, found {rank}")
    else:
        raise BatchError(f"{where}: expected left and right, or full, found {', '.join(sorted(parts))}")
    if d2 > DIMENSION_LIMIT or d1 * d2 > GRADIENT_LENGTH_LIMIT:
        raise BatchError(f"{where}: expected d1 · d2 of at most {GRADIENT_LENGTH_LIMIT}, found {d1} · {d2}")
    return Layer(name, d1, d2, rank)


def _strings(path: Path, key: str, metadata: Mapping[str, str]) -> list[str] | None:
    """A metadata value that holds a JSON array of strings, if it is there."""
    if key not in metadata:
        return None
    try:
        value = decoded(metadata[key])
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise BatchError(f"{path}, __metadata__ {key!r}: expected a JSON array of strings")
    return value


def _check_ids(path: Path, ids: Sequence[str], count: int) -> None:
    where = f"{path}, ids"
    if len(ids) != count:
        raise BatchError(f"{where}: expected {count} ids, one per row, found {len(ids)}")
    rows: dict[str, int] = {}
    for row, identifier in enumerate(ids):
        if not isinstance(identifier, str) or not 0 < len(_utf8(identifier)) <= IDENTIFIER_LIMIT:
            raise BatchError(f"{where}, row {row}: expected a string of 1 to {IDENTIFIER_LIMIT} bytes")
        if identifier in rows:
            raise BatchError(
                f"{where}: expected distinct ids, found {identifier!r} in rows {rows[identifier]} and {row}"
            )
        rows[identifier] = row


def _utf8(text: str) -> bytes:
    """The text's bytes; none for half of a surrogate pair, which has none."""
    return b"" if _SURROGATE.search(text) else text.encode("utf-8")


def _check_finite(values: Array, where: str, ids: Sequence[str] | None, first_row: int = 0) -> None:
    finite = np.isfinite(values)
    if not finite.all():
        index = np.unravel_index(np.argmin(finite), finite.shape)
        row = first_row + int(index[0])
        name = f" (id {ids[row]!r})" if ids is not None else ""
        raise BatchError(f"{where}, row {row}{name}: expected a finite number, found {values[index]}")


def _narrowed(values: Array, dtype: str, where: str, ids: Sequence[str] | None) -> Array:
    """Values in the file's type, rounded to nearest even; not finite before or after is refused."""
    if dtype == "F64":
        _check_finite(values, where, None)
        return np.ascontiguousarray(values, "<f8")
    single = values.astype(np.float32)
    _check_finite(single, where, ids)
    if dtype == "BF16":
        bits = single.view(np.uint32)
        result = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
    else:
        with np.errstate(over="ignore"):
            result = single.astype(_NUMPY_TYPES[dtype])
    _check_finite(_widened(result, dtype), f"{where} as {dtype}", ids)
    return result


def _widened(values: Array, dtype: str) -> NDArray[np.float32]:
    if dtype == "BF16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32)


def _write_records(path: Path, ids: Sequence[str] | None, records: Sequence[Mapping[str, Any]]) -> None:
    """One object per row, with its id first; without ids, the row number."""
    lines = []
    for row, record in enumerate(records):
        identifier = row if ids is None else ids[row]
        if record.get("id", identifier) != identifier:
            raise BatchError(f"{path}, row {row}: expected id {identifier!r}, found {record['id']!r}")
        fields = {"id": identifier, **{key: value for key, value in record.items() if key != "id"}}
        line = json.dumps(fields, ensure_ascii=False, allow_nan=False)
        if len(line.encode("utf-8")) > RECORD_LIMIT:
            raise BatchError(f"{path}, row {row}: expected an object of at most {RECORD_LIMIT} bytes")
        lines.append(line + "\n")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(lines)
            _sync(file)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _sync(file: IO[Any]) -> None:
    """Waits until the disk has the file's content: a name must not outlive a crash that its bytes do not."""
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Waits until the disk has the names in a folder."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
