"""Disk caches of dattri's block-projected influence (LoGra, FactGraSS): chunks of batches in the order they came."""

from pathlib import Path
from typing import Any

import numpy as np

from lorif.importers.source import (
    Array,
    ImporterError,
    Options,
    Source,
    bfloat16,
    input_first,
    integer,
    mapped,
    read_json,
    strings,
    vector_or_matrix,
)

__all__ = ["DattriSource"]

_NUMBERS = {"float16": "<f2", "float32": "<f4", "float64": "<f8", "uint16": "<u2"}
_UNKNOWN_LAYOUT = (
    "the cache does not record what a row is: say --layout matrix if LoGra wrote it (square matrices), --layout vector "
    "if FactGraSS did (its second projection leaves no matrix), or --shape 'GLOB=OUTPUTxINPUT'"
)


class DattriSource(Source):
    """The gradients of a cache folder (`grad/`); `ifvp/` is derived from them."""

    def __init__(self, path: str, options: Options) -> None:
        super().__init__(Path(path))
        if not self.path.is_dir():
            raise ImporterError(f"{self.path}: expected the cache folder of dattri")
        described = self.path / "batch_metadata.json"
        self.files = [described]
        description = read_json(described)
        names = strings(f"{described}, layer_names", description.get("layer_names"))
        lengths = description.get("layer_dims")
        if not isinstance(lengths, list) or len(lengths) != len(names):
            raise ImporterError(f"{described}, layer_dims: expected one number per layer")
        lengths = [integer(f"{described}, layer {name!r}", length) for name, length in zip(names, lengths, strict=True)]
        empty = [name for name, length in zip(names, lengths, strict=True) if length == 0]
        if empty:
            self.notes.append(f"{len(empty)} layers without gradients left out: {', '.join(empty[:3])}")
        self._lengths = lengths
        self._columns: list[slice] = []
        start = 0
        for name, length in zip(names, lengths, strict=True):
            if length:
                self.layers.append(vector_or_matrix(str(self.path), name, length, options, _UNKNOWN_LAYOUT))
                self._columns.append(slice(start, start + length))
            start += length
        #: First row of the batch, its rows, and where they are, in the order of the rows.
        self._batches: list[tuple[int, int, Array, int, bool]] = []
        self._open_batches(described, description)
        self._divide = options.loss == "sum"
        self.provenance = {"dattri.layout": options.layout or "shape", "dattri.loss": options.loss}
        self.notes.append(
            "each batch divided by its size, which dattri had multiplied in"
            if self._divide
            else "rows are taken for gradients of one example: dattri multiplies a batch by its size to undo a "
            "mean loss; if the loss was a sum, say --loss sum"
        )
        self.check()

    def read(self, start: int, stop: int) -> dict[str, Array]:
        """Rows of every layer; LoGra has the output side first, so each is transposed."""
        pieces = []
        for first, count, chunk, row, half in self._batches:
            low, high = max(start, first), min(stop, first + count)
            if low < high:
                rows = np.asarray(chunk[row + low - first : row + high - first])
                rows = bfloat16(rows) if half else rows
                pieces.append(rows / count if self._divide else rows)
        rows = np.concatenate(pieces)
        return {
            layer.name: input_first(rows[:, columns], layer)
            for layer, columns in zip(self.layers, self._columns, strict=True)
        }

    def _open_batches(self, described: Path, description: dict[str, Any]) -> None:
        info = description.get("batch_info")
        if not isinstance(info, dict) or not info:
            raise ImporterError(f"{described}, batch_info: expected an object of batches, found none")
        expected: dict[int, tuple[int, int]] = {}
        for key, batch in info.items():
            where = f"{described}, batch {key[:20]!r}"
            if not (key.isascii() and key.isdecimal() and len(key) < 19) or not isinstance(batch, dict):
                raise ImporterError(f"{where}: expected a batch number with start_idx and sample_count")
            first = integer(f"{where}, start_idx", batch.get("start_idx"))
            expected[int(key)] = (first, integer(f"{where}, sample_count", batch.get("sample_count"), least=1))
        end = 0
        for number, (first, count) in sorted(expected.items(), key=lambda item: item[1]):
            if first != end:
                raise ImporterError(f"{described}, batch {number}: expected start_idx {end}, found {first}")
            end = first + count
        self.row_count = end
        if description.get("total_samples") != end:
            raise ImporterError(f"{described}, total_samples: expected {end}, the sum of its batches")
        found: set[int] = set()
        for chunk in sorted((self.path / "grad").glob("chunk_gradients_*_metadata.json")):
            self._open_chunk(chunk, expected, found)
        missing = sorted(expected.keys() - found)
        if missing:
            raise ImporterError(
                f"{self.path / 'grad'}: {len(missing)} of {len(expected)} batches are in no chunk, the first is "
                f"{missing[0]}: the cache is not complete"
            )
        self._batches.sort(key=lambda batch: batch[0])

    def _open_chunk(self, described: Path, expected: dict[int, tuple[int, int]], found: set[int]) -> None:
        chunk = read_json(described)
        binary = described.with_name(described.name.removesuffix("_metadata.json") + ".mmap")
        self.files += [described, binary]
        kind, shape = chunk.get("storage_dtype"), chunk.get("shape")
        if not isinstance(kind, str) or kind not in _NUMBERS:
            raise ImporterError(f"{described}, storage_dtype: expected {', '.join(_NUMBERS)}, found {str(kind)[:40]!r}")
        if not isinstance(shape, list) or len(shape) != 2 or shape[1] != sum(self._lengths):
            raise ImporterError(f"{described}, shape: expected [rows, {sum(self._lengths)}], found {str(shape)[:80]}")
        if chunk.get("layer_dims") != self._lengths:
            raise ImporterError(f"{described}, layer_dims: expected those of batch_metadata.json, found others")
        rows = integer(f"{described}, shape", shape[0], least=1)
        numbers = mapped(binary, np.dtype(_NUMBERS[kind]), (rows, shape[1]))
        batches = chunk.get("batches")
        if not isinstance(batches, list):
            raise ImporterError(f"{described}, batches: expected an array")
        end = 0
        for place, batch in enumerate(batches):
            where = f"{described}, batches[{place}]"
            if not isinstance(batch, dict):
                raise ImporterError(f"{where}: expected an object")
            number, low, high = (integer(where, batch.get(key)) for key in ("batch_idx", "start_row", "end_row"))
            if number not in expected:
                raise ImporterError(f"{where}: batch {number} is not in batch_metadata.json")
            if number in found:
                raise ImporterError(f"{where}: batch {number} is in another chunk, too: remains of an earlier run?")
            first, count = expected[number]
            if low != end or high - low != count:
                raise ImporterError(f"{where}: expected rows {end} to {end + count}, found {low} to {high}")
            found.add(number)
            self._batches.append((first, count, numbers, low, kind == "uint16"))
            end = high
        if end != rows:
            raise ImporterError(f"{described}: expected batches for all {rows} rows, found {end}")
