"""Indexes of bergson: `gradients.bin` with `info.json`; also those before version 0.11, per-token and sharded ones."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np

from lorif.importers.npy import open_array
from lorif.importers.source import (
    Array,
    ImporterError,
    Options,
    Source,
    SourceLayer,
    bfloat16,
    input_first,
    integer,
    mapped,
    read_json,
    vector_or_matrix,
    yaml_settings,
)

__all__ = ["open_bergson"]

_NUMBERS = {"float16": "<f2", "float32": "<f4", "float64": "<f8", "bfloat16": "<u2"}
_UNKNOWN_SHAPE = (
    "the index holds whole gradients and does not record their shape; say --shape 'GLOB=OUTPUTxINPUT' for every layer "
    "(with include_bias, INPUT has one more), or --layout vector to import each row as it is"
)


def open_bergson(path: str, options: Options) -> Source:
    """An index folder, or a folder of shards with one index each, in the order of their names."""
    folder = Path(path)
    if not folder.is_dir():
        raise ImporterError(f"{folder}: expected the folder of a bergson index")
    if folder.name.endswith(".part"):
        raise ImporterError(f"{folder}: bergson names an index so until it is complete; let the build finish")
    if (folder / "info.json").exists():
        return BergsonSource(folder, options)
    shards = sorted(child for child in folder.iterdir() if child.is_dir() and "shard" in child.name)
    if not shards:
        inner = [str(found.parent.relative_to(folder)) for found in sorted(folder.glob("*/**/info.json"))[:5]]
        found = f"; there is one in {', '.join(inner)}" if inner else ""
        raise ImporterError(f"{folder}: expected info.json of a bergson index{found}")
    return ShardedSource(folder, [BergsonSource(shard, options) for shard in shards])


class BergsonSource(Source):
    """One index."""

    def __init__(self, folder: Path, options: Options) -> None:
        super().__init__(folder)
        info_path = folder / "info.json"
        info = read_json(info_path)
        if "num_scores" in info:
            raise ImporterError(
                f"{folder}: this folder holds scores, not gradients: import the index they were made from"
            )
        per_token = info.get("attribute_tokens") is True
        sizes = info.get("grad_sizes")
        if not isinstance(sizes, dict) or not sizes:
            raise ImporterError(f"{info_path}: expected grad_sizes, an object of layers, found none")
        sizes = {name: integer(f"{info_path}, layer {name!r}", size, least=1) for name, size in sizes.items()}
        self._dtype = _number_type(info_path, info, sizes)
        self._bfloat16 = info.get("base_dtype") == "bfloat16"
        binary = folder / "gradients.bin"
        count = info.get("num_grads")
        if count is None and per_token:  # before 0.11
            binary, count = folder / "token_gradients.bin", info.get("total_tokens")
        self.row_count = integer(f"{info_path}, number of rows", count)
        self.files = [info_path, binary]
        self._rows = mapped(binary, self._dtype, (self.row_count, sum(sizes.values())))
        self._offsets = self._token_offsets(info_path, info) if per_token else None
        self.layers = _layers(folder, sizes, options)
        starts = np.cumsum([0, *sizes.values()])
        self._columns = [slice(int(low), int(high)) for low, high in itertools.pairwise(starts)]
        self._describe()
        self.check()

    def read(self, start: int, stop: int) -> dict[str, Array]:
        """Rows of every layer; bergson has the output side first, so each is transposed."""
        rows = np.asarray(self._rows[start:stop])
        result = {}
        for layer, columns in zip(self.layers, self._columns, strict=True):
            values = rows[:, columns]
            result[layer.name] = input_first(bfloat16(values) if self._bfloat16 else values, layer)
        return result

    def ids(self, start: int, stop: int) -> list[str]:
        """The document's number in the dataset; per token `<document>/<token>`."""
        if self._offsets is None:
            return super().ids(start, stop)
        rows = np.arange(start, stop)
        documents = np.searchsorted(self._offsets, rows, side="right") - 1
        tokens = rows - self._offsets[documents]
        return [f"{document}/{token}" for document, token in zip(documents, tokens, strict=True)]

    def _token_offsets(self, info_path: Path, info: dict[str, Any]) -> Array:
        path = info_path.parent / "offsets.npy"
        offsets = open_array(path, kinds="iu")
        documents = integer(f"{info_path}, num_items", info.get("num_items"))
        right = offsets.shape == (documents + 1,) and offsets.dtype.kind in "iu"
        if not right or offsets[0] != 0 or offsets[-1] != self.row_count or (np.diff(offsets) < 0).any():
            raise ImporterError(f"{path}: expected {documents + 1} increasing integers from 0 to {self.row_count}")
        self.files.append(path)
        return offsets

    def _describe(self) -> None:
        settings = yaml_settings(self.path / "config.yaml")
        processor = yaml_settings(self.path / "processor_config.yaml")
        self.provenance = {
            f"bergson.{key}": value
            for key, value in (settings | processor).items()
            if key.startswith("projection_")
            or key in ("bergson_version", "include_bias", "loss_fn", "loss_reduction", "model", "unit_normalize")
        }
        if settings.get("hessian_path", "null") not in ("null", ""):
            self.notes.append(
                "rows are preconditioned already (hessian_path): ask with --method dot, without a curvature"
            )
        if settings.get("unit_normalize") == "true":
            self.notes.append("rows are of unit norm (unit_normalize): dot products are cosines")
        if settings.get("optimizer_state", "null") not in ("null", "''", ""):
            self.notes.append("rows are normalized by an optimizer's second moments (optimizer_state)")
        if settings.get("aggregation", "none") not in ("none", "null"):
            self.notes.append("the index is aggregated: its rows are no training examples")


class ShardedSource(Source):
    """Several indexes one after the other."""

    def __init__(self, folder: Path, shards: list[BergsonSource]) -> None:
        super().__init__(folder, shards[0].layers)
        for shard in shards:
            if shard.layers != self.layers:
                raise ImporterError(f"{shard.path}: expected the layers of {shards[0].path.name}, found others")
        self._shards = shards
        self._starts = [0]
        for shard in shards:
            self._starts.append(self._starts[-1] + shard.row_count)
            self.files += shard.files
        self.row_count = self._starts[-1]
        self.notes, self.provenance = list(shards[0].notes), dict(shards[0].provenance)
        self.check()

    def read(self, start: int, stop: int) -> dict[str, Array]:
        """Rows of every layer, across shards."""
        parts = [shard.read(low, high) for shard, low, high in self._pieces(start, stop)]
        return {layer.name: np.concatenate([part[layer.name] for part in parts]) for layer in self.layers}

    def _pieces(self, start: int, stop: int) -> list[tuple[BergsonSource, int, int]]:
        found = []
        for shard, first, end in zip(self._shards, self._starts, self._starts[1:], strict=False):
            low, high = max(start, first), min(stop, end)
            if low < high:
                found.append((shard, low - first, high - first))
        return found


def _number_type(info_path: Path, info: dict[str, Any], sizes: dict[str, int]) -> np.dtype:
    structure = info.get("dtype")
    legacy = None
    if structure is not None:
        # Before 0.11: a packed NumPy structure, whose bytes are those of the flat layout.
        formats = structure.get("formats") if isinstance(structure, dict) else None
        kinds = set()
        for size, text in zip(sizes.values(), formats if isinstance(formats, list) else (), strict=False):
            prefix, _, kind = str(text).rpartition(")")
            kinds.add(kind if prefix == f"({size}," else None)
        packed = isinstance(formats, list) and len(formats) == len(sizes) and structure.get("names") == list(sizes)
        if not packed or len(kinds) != 1 or None in kinds or "offsets" in structure:
            raise ImporterError(f"{info_path}, dtype: expected a packed structure of the layers in grad_sizes")
        (legacy,) = kinds
    name = info.get("base_dtype")
    if isinstance(name, str) and name in _NUMBERS:
        return np.dtype(_NUMBERS[name])
    if name is None and legacy in ("<f2", "<f4", "<f8", ">f2", ">f4", ">f8"):
        return np.dtype(legacy)
    shown = json.dumps(name)[:60]
    raise ImporterError(f"{info_path}, base_dtype: expected {', '.join(_NUMBERS)}, found {shown}")


def _layers(folder: Path, sizes: dict[str, int], options: Options) -> list[SourceLayer]:
    processor = yaml_settings(folder / "processor_config.yaml")
    if options.layout != "vector" and (processor.get("projection_target") == "global" or list(sizes) == ["gradients"]):
        raise ImporterError(
            f"{folder}: projection_target is global, which leaves one vector per example and no matrix to factor; "
            "build the index with per_module, or say --layout vector to import the vectors as they are"
        )
    side = processor.get("projection_dim", "null")
    layers = []
    for name, size in sizes.items():
        where = str(folder)
        if options.layout != "vector" and side.isdecimal() and 0 < len(side) < 8 and int(side) > 0:
            if int(side) ** 2 != size:
                raise ImporterError(
                    f"{folder}, layer {name!r}: expected {side} · {side} numbers by processor_config.yaml, found {size}"
                )
            layers.append(SourceLayer(name, int(side), int(side)))
        else:
            layers.append(vector_or_matrix(where, name, size, options, _UNKNOWN_SHAPE))
    return layers
