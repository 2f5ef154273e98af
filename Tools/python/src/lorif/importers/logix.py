"""Logs of LogIX (and of GraSS, which bundles it): chunks of raw numbers with a JSON description of every example."""

import hashlib
import re
from array import array
from pathlib import Path
from typing import Any

import numpy as np

from lorif.batch import IDENTIFIER_LIMIT
from lorif.importers.source import (
    Array,
    ImporterError,
    Options,
    Source,
    SourceLayer,
    identifier,
    input_first,
    integer,
    mapped,
    read_entries,
    yaml_settings,
)

__all__ = ["LogixSource"]

_CHUNK = re.compile(r"log_rank_([0-9]{1,9})_chunk_([0-9]{1,9})\.mmap")
_NUMBERS = {"float16": "<f2", "float32": "<f4", "float64": "<f8"}
_PROJECTED = ".logix_lora_B"


class LogixSource(Source):
    """A log folder: all chunks of all ranks, by rank and chunk, examples in the order in which they were written."""

    def __init__(self, path: str, options: Options) -> None:
        super().__init__(Path(path))
        del options  # every shape is recorded
        if not self.path.is_dir():
            raise ImporterError(f"{self.path}: expected the folder of a LogIX log")
        self._form: tuple[Any, Any, Any] | None = None
        self._ids: list[str] = []
        self._texts: dict[int, str] = {}
        self._chunk_of = array("q")
        self._offset_of = array("q")
        self._chunks: list[Array] = []
        self._repeated = 0
        seen: set[str] = set()
        for number, binary in enumerate(self._chunk_files()):
            self._open_chunk(number, binary, seen)
        self.row_count = len(self._ids)
        self._describe()
        self.check()

    def read(self, start: int, stop: int) -> dict[str, Array]:
        """Rows of every layer; LogIX has the output side first, so each is transposed."""
        length = sum(layer.length for layer in self.layers)
        rows = np.empty((stop - start, length), self._dtype)
        size = length * self._dtype.itemsize
        for row in range(start, stop):
            offset = self._offset_of[row]
            rows[row - start] = self._chunks[self._chunk_of[row]][offset : offset + size].view(self._dtype)
        result, column = {}, 0
        for layer in self.layers:
            result[layer.name] = input_first(rows[:, column : column + layer.length], layer)
            column += layer.length
        return result

    def ids(self, start: int, stop: int) -> list[str]:
        """The data_id of each example."""
        return self._ids[start:stop]

    def records(self, start: int, stop: int) -> list[dict[str, Any]] | None:
        """The whole data_id, where it is too long for an id."""
        if not self._texts:
            return None
        return [{"data_id": self._texts[row]} if row in self._texts else {} for row in range(start, stop)]

    def _chunk_files(self) -> list[Path]:
        found: dict[tuple[int, int], Path] = {}
        for path in self.path.iterdir():
            if match := _CHUNK.fullmatch(path.name):
                found[int(match[1]), int(match[2])] = path
            elif path.name.startswith("log_") and path.suffix == ".mmap":
                raise ImporterError(f"{path}: expected a name log_rank_<number>_chunk_<number>.mmap")
        if not found:
            raise ImporterError(f"{self.path}: expected chunks log_rank_<number>_chunk_<number>.mmap, found none")
        for rank, chunk in found:
            if chunk > 0 and (rank, chunk - 1) not in found:
                raise ImporterError(
                    f"{self.path}: chunk {chunk - 1} of rank {rank} is missing, though there is chunk {chunk}"
                )
        for described in self.path.glob("log_rank_*_metadata.json"):
            binary = described.with_name(described.name.removesuffix("_metadata.json") + ".mmap")
            if not binary.exists():
                raise ImporterError(f"{binary} is missing, though {described.name} describes it")
        return [found[key] for key in sorted(found)]

    def _open_chunk(self, number: int, binary: Path, seen: set[str]) -> None:
        described = binary.with_name(f"{binary.stem}_metadata.json")
        size = binary.stat().st_size
        self.files += [binary, described]
        extents: list[tuple[int, int]] = []
        for place, entry in enumerate(read_entries(described)):
            where = f"{described}, entry {place}"
            length = self._check_form(where, entry)
            offset = integer(f"{where}, offset", entry.get("offset"))
            if offset + length > size:
                raise ImporterError(
                    f"{where}: expected data within the {size} bytes of {binary.name}, found bytes {offset} to "
                    f"{offset + length}: is the file cut off?"
                )
            extents.append((offset, length))
            name, text = _identifier(where, entry.get("data_id"))
            if name in seen:
                self._repeated += 1
                continue
            seen.add(name)
            if text is not None:
                self._texts[len(self._ids)] = text
            self._ids.append(name)
            self._chunk_of.append(number)
            self._offset_of.append(offset)
        end = 0
        for offset, length in sorted(extents):
            if offset != end:
                what = (
                    "overlaps the one before" if offset < end else f"leaves {offset - end} bytes before it undescribed"
                )
                raise ImporterError(f"{described}: the example at byte {offset} {what}")
            end = offset + length
        if end != size:
            raise ImporterError(
                f"{binary}: expected {end} bytes, as {described.name} says, found {size}: do they belong together?"
            )
        self._chunks.append(mapped(binary, np.dtype(np.uint8), (size,)) if size else np.empty(0, np.uint8))

    def _check_form(self, where: str, entry: dict[str, Any]) -> int:
        """Checks an entry's layers, which are the same in every entry; bytes of an example."""
        form = (entry.get("path"), entry.get("shape"), entry.get("dtype"))
        if self._form is None:
            self._take_form(where, *form)
            self._form = form
        elif form != self._form:
            raise ImporterError(f"{where}: expected path, shape and dtype of the log's first entry, found others")
        length = sum(layer.length for layer in self.layers)
        if entry.get("block_size") != length:
            raise ImporterError(f"{where}, block_size: expected {length} numbers, as its shapes say")
        return length * self._dtype.itemsize

    def _take_form(self, where: str, paths: Any, shapes: Any, dtype: Any) -> None:
        if not isinstance(dtype, str) or dtype not in _NUMBERS:
            raise ImporterError(
                f"{where}, dtype: expected {', '.join(_NUMBERS)}, found {str(dtype)[:40]!r} "
                "(LogIX casts to int8 without a scale, which loses the gradients)"
            )
        if not isinstance(paths, list) or not isinstance(shapes, list) or len(paths) != len(shapes) or not paths:
            raise ImporterError(f"{where}: expected one shape per path")
        self._dtype = np.dtype(_NUMBERS[dtype])
        for path, shape in zip(paths, shapes, strict=True):
            named = isinstance(path, list) and len(path) == 2 and all(isinstance(part, str) for part in path)
            if not named or path[1] != "grad":
                raise ImporterError(
                    f"{where}, path: expected [layer, 'grad'], found {str(path)[:80]}: activations are not gradients"
                )
            name = path[0].removesuffix(_PROJECTED)
            if not isinstance(shape, list) or len(shape) != 2:
                raise ImporterError(
                    f"{where}, layer {name!r}: expected a matrix [output, input], found shape {str(shape)[:80]}"
                )
            rows, columns = (integer(f"{where}, layer {name!r}, shape", length, least=1) for length in shape)
            self.layers.append(SourceLayer(name, columns, rows))
            self.provenance[f"logix.projected.{name}"] = str(path[0].endswith(_PROJECTED)).lower()

    def _describe(self) -> None:
        settings = yaml_settings(self.path / "config.yaml")
        projected = set(self.provenance.values()) == {"true"}
        self.provenance = {f"logix.{key}": settings[key] for key in ("project", "rank", "init") if key in settings}
        self.provenance["logix.projected"] = str(projected).lower()
        if self._repeated:
            self.notes.append(f"{self._repeated} examples left out whose data_id came before, as LogIX does")
        if self._texts:
            self.notes.append(
                f"{len(self._texts)} ids over {IDENTIFIER_LIMIT} bytes replaced by their SHA-256, kept as data_id"
            )
        if settings.get("num_workers", "1") not in ("0", "1"):
            self.notes.append(
                "the log was written with num_workers > 1, with which LogIX 0.1 loses chunks without an error: "
                "compare the number of rows with your training set"
            )
        self.notes.append("rows are scaled as the loss was reduced: with a mean over B examples, say --scale B")


def _identifier(where: str, value: Any) -> tuple[str, str | None]:
    """A row's id, and the text it stands for if that is too long."""
    if type(value) is int:
        return str(value), None
    if not isinstance(value, str):
        raise ImporterError(f"{where}, data_id: expected a string or an integer, found {type(value).__name__}")
    text = value.encode("utf-8", "surrogatepass")
    if len(text) > IDENTIFIER_LIMIT:
        return f"sha256-{hashlib.sha256(text).hexdigest()}", value
    return identifier(f"{where}, data_id", value), None
