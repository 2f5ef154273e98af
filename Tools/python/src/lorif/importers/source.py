"""What every importer is: rows of another program's store, as matrices with the input side first."""

import fnmatch
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lorif.batch import DIMENSION_LIMIT, GRADIENT_LENGTH_LIMIT, IDENTIFIER_LIMIT, LAYER_COUNT_LIMIT, LAYER_NAME_LIMIT

__all__ = ["ImporterError", "Options", "Source", "SourceLayer", "bfloat16", "mapped", "read_entries", "read_json"]

#: A description of a store; the per-example descriptions of LogIX are read entry by entry instead.
JSON_LIMIT = 64 << 20
ENTRY_LIMIT = 16 << 20

Array = NDArray[Any]


class ImporterError(ValueError):
    """A source, or a part of one, that cannot be imported; nothing was added."""


@dataclass(frozen=True)
class SourceLayer:
    """A layer of a source, in the orientation of lorif: the input side first."""

    name: str
    input_dimension: int
    output_dimension: int

    @property
    def length(self) -> int:
        """Numbers per example."""
        return self.input_dimension * self.output_dimension


@dataclass(frozen=True)
class Options:
    """What a store does not say of itself."""

    #: `matrix` or `vector`: what a row of a layer is, where it could be either; None refuses to guess.
    layout: str | None = None
    #: Output × input dimensions of layers by glob; the first that matches counts.
    shapes: Sequence[tuple[str, int, int]] = ()
    #: `mean` or `sum`: how the loss of a batch was reduced (dattri).
    loss: str = "mean"
    #: `grads` or `features` (TRAK).
    what: str = "grads"
    #: The experiment whose targets are read in place of the training rows (TRAK).
    experiment: str | None = None
    #: Whether the rows of a NumPy file have the input side first.
    input_first: bool = True

    def matrix_shape(self, where: str, name: str, length: int) -> tuple[int, int] | None:
        """Output × input dimensions that the caller gave a layer; None if none did."""
        for pattern, rows, columns in self.shapes:
            if fnmatch.fnmatchcase(name, pattern):
                if rows * columns != length:
                    raise ImporterError(
                        f"{where}, layer {name!r}: expected --shape {pattern}=OUTPUTxINPUT of {length} numbers, "
                        f"found {rows}x{columns}"
                    )
                return rows, columns
        return None


@dataclass
class Source(ABC):
    """A store of another program, opened and checked but for its numbers."""

    path: Path
    layers: list[SourceLayer] = field(default_factory=list)
    row_count: int = 0
    #: The files that hold it; their sizes are the bytes before, their sizes and times the source's identity.
    files: list[Path] = field(default_factory=list)
    #: What the caller should know: what was left out, how rows are scaled.
    notes: list[str] = field(default_factory=list)
    provenance: dict[str, str] = field(default_factory=dict)

    @abstractmethod
    def read(self, start: int, stop: int) -> dict[str, Array]:
        """Rows start..<stop of every layer, [n, d1, d2], in any type of numbers."""

    def ids(self, start: int, stop: int) -> list[str]:
        """The rows' ids; their numbers, unless the source knows better."""
        return [str(row) for row in range(start, stop)]

    def records(self, start: int, stop: int) -> list[dict[str, Any]] | None:
        """Metadata of the rows, if the source has any."""
        return None

    def check(self) -> None:
        """Checks what every source must fulfil; each opener calls it last."""
        if self.row_count < 1:
            raise ImporterError(f"{self.path}: expected at least one row, found none")
        if not 0 < len(self.layers) <= LAYER_COUNT_LIMIT:
            raise ImporterError(f"{self.path}: expected 1 to {LAYER_COUNT_LIMIT} layers, found {len(self.layers)}")
        seen: set[str] = set()
        for layer in self.layers:
            if not 0 < len(layer.name.encode("utf-8", "surrogatepass")) <= LAYER_NAME_LIMIT:
                raise ImporterError(f"{self.path}: expected layer names of 1 to {LAYER_NAME_LIMIT} bytes")
            if layer.name in seen:
                raise ImporterError(f"{self.path}: expected distinct layers, found {layer.name!r} twice")
            seen.add(layer.name)
            larger = max(layer.input_dimension, layer.output_dimension)
            if larger > DIMENSION_LIMIT or layer.length > GRADIENT_LENGTH_LIMIT:
                found = f"{layer.input_dimension} · {layer.output_dimension}"
                raise ImporterError(
                    f"{self.path}, layer {layer.name!r}: expected dimensions up to {DIMENSION_LIMIT} "
                    f"and a product of at most {GRADIENT_LENGTH_LIMIT}, found {found}"
                )


def input_first(rows: Array, layer: SourceLayer) -> Array:
    """Flattened output × input matrices [n, d2·d1] as [n, d1, d2]: the transposes, not copied."""
    return rows.reshape(len(rows), layer.output_dimension, layer.input_dimension).swapaxes(1, 2)


def vector_or_matrix(where: str, name: str, length: int, options: Options, square_is: str) -> SourceLayer:
    """The layer of flattened rows whose shape the store does not record: what the caller said, or a refusal."""
    if (shape := options.matrix_shape(where, name, length)) is not None:
        return SourceLayer(name, shape[1], shape[0])
    if options.layout == "vector":
        return SourceLayer(name, length, 1)
    side = math.isqrt(length)
    if options.layout == "matrix" and side * side == length:
        return SourceLayer(name, side, side)
    if options.layout == "matrix":
        raise ImporterError(
            f"{where}, layer {name!r}: {length} numbers are no square matrix; say --shape '{name}=OUTPUTxINPUT' "
            "(globs do), or --layout vector to import each row as it is"
        )
    raise ImporterError(f"{where}, layer {name!r}: {square_is}")


def bfloat16(bits: Array) -> NDArray[np.float32]:
    """The numbers whose bfloat16 bits are given as uint16."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def mapped(path: Path, dtype: np.dtype, shape: tuple[int, ...]) -> Array:
    """A raw file as an array without reading it; its size must be that of the shape."""
    expected = math.prod(shape) * dtype.itemsize
    try:
        found = path.stat().st_size
    except FileNotFoundError:
        raise ImporterError(f"{path} does not exist") from None
    if found != expected:
        shown = " · ".join(str(length) for length in shape)
        raise ImporterError(f"{path}: expected {expected} bytes for {shown} numbers of {dtype}, found {found}")
    return np.memmap(path, dtype, "r", shape=shape)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key comes twice")
    return result


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_distinct, parse_constant=_no_constant)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of at most 64 MiB; anything else is refused by name."""
    try:
        if path.stat().st_size > JSON_LIMIT:
            raise ImporterError(f"{path}: expected at most {JSON_LIMIT} bytes of JSON, found {path.stat().st_size}")
        value = _DECODER.decode(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ImporterError(f"{path} does not exist") from None
    except (ValueError, RecursionError) as error:
        if isinstance(error, ImporterError):
            raise
        raise ImporterError(f"{path}: expected JSON: {_shortened(error)}") from None
    if not isinstance(value, dict):
        raise ImporterError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def read_entries(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file that holds a JSON array of them, one at a time; an object takes at most 16 MiB."""
    try:
        with path.open(encoding="utf-8") as file:
            yield from _entries(path, file)
    except FileNotFoundError:
        raise ImporterError(f"{path} does not exist") from None
    except UnicodeDecodeError as error:
        raise ImporterError(f"{path}: expected UTF-8: {_shortened(error)}") from None


def _entries(path: Path, file: Any) -> Iterator[dict[str, Any]]:
    text = file.read(1 << 20).lstrip()
    if not text.startswith("["):
        raise ImporterError(f"{path}: expected a JSON array of objects")
    text, first = text[1:].lstrip(), True
    while True:
        if not text and not (text := file.read(1 << 20).lstrip()):
            raise ImporterError(f"{path} is cut off: expected ']' at its end")
        if text[0] == "]":
            rest = text[1:] + file.read(1 << 10)
            if rest.strip():
                raise ImporterError(f"{path}: expected nothing after the array, found {rest.strip()[:20]!r}")
            return
        if not first:
            if text[0] != ",":
                raise ImporterError(f"{path}: expected ',' or ']' between objects, found {text[:20]!r}")
            text = text[1:].lstrip() or file.read(1 << 20).lstrip()
        if not text.startswith("{"):
            raise ImporterError(f"{path}: expected an object, found {text[:20]!r}")
        # What ends an object is its last brace, so that a text that is cut off cannot be taken for a whole one.
        while True:
            try:
                entry, end = _DECODER.raw_decode(text)
                break
            except (ValueError, RecursionError) as error:
                more = file.read(1 << 20) if len(text) < ENTRY_LIMIT else ""
                if not more or isinstance(error, RecursionError):
                    raise ImporterError(f"{path}: expected JSON objects: {_shortened(error)}") from None
                text += more
        yield entry
        text, first = text[end:].lstrip(), False


def _shortened(error: Exception) -> str:
    text = str(error)
    return text if len(text) <= 200 else text[:200] + "…"


def integer(where: str, value: Any, *, least: int = 0) -> int:
    """A JSON integer of at least `least` and below 2^62."""
    if type(value) is not int or not least <= value < 1 << 62:
        shown = f"a {type(value).__name__}" if type(value) is not int else "another one"
        raise ImporterError(f"{where}: expected an integer from {least} to 2^62, found {shown}")
    return value


def strings(where: str, value: Any) -> list[str]:
    """A JSON array of strings."""
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ImporterError(f"{where}: expected an array of strings")
    return value


def yaml_settings(path: Path) -> Mapping[str, str]:
    """The scalars of a YAML file by their keys, whatever the nesting; of a key that comes twice, the last.

    Enough for the flat settings that other programs write with safe_dump, and needs no YAML package.
    """
    try:
        with path.open(encoding="utf-8") as file:
            # Settings are a few hundred lines; whatever calls itself so is not held in memory.
            text = file.read(1 << 18)
    except (FileNotFoundError, UnicodeDecodeError):
        return {}
    found: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.strip().lstrip("- ").partition(":")
        if colon and (value := value.strip()) and not value.startswith("#"):
            found[key.strip()] = value.strip("'\"")
    return found


def identifier(where: str, value: str) -> str:
    """An id within the store's limits, or a refusal."""
    try:
        length = len(value.encode("utf-8"))
    except UnicodeEncodeError:
        raise ImporterError(f"{where}: expected an id of Unicode text, found half a surrogate pair") from None
    if not 0 < length <= IDENTIFIER_LIMIT:
        raise ImporterError(f"{where}: expected an id of 1 to {IDENTIFIER_LIMIT} bytes, found {length}")
    return value
