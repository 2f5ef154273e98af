"""Sums over the rows of a unit, for fits: H = Σ g gᵀ of a layer, or H Ω for some directions Ω; block by block."""

import mmap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from lorif.page import decode_vectors
from lorif.ray.cache import Unit
from lorif.ray.errors import SegmentsUnreadableError
from lorif.ray.settings import Settings
from lorif.ray.worker import node_cache
from lorif.segment import DENSE, LEFT, RIGHT, Segment

#: Gradients longer than this are multiplied in single precision; sums over tiles are kept in double.
LONGEST_IN_DOUBLE = 1024
_TILE_NUMBERS = 8 << 20
#: Sums that one task of a reduction adds up.
_FAN_IN = 8


def arithmetic(length: int) -> str:
    """In which precision products of gradients of this length are taken, in the word of curvature files."""
    return "double" if length <= LONGEST_IN_DOUBLE else "single"


def tiles(segment: Segment, layer: int, deleted: NDArray[np.bool_]) -> Iterator[NDArray[np.float32]]:
    """The live rows' gradients of one layer as matrices [rows, d1·d2], a bounded number of rows at a time."""
    shape = segment.layers[layer]
    d1, d2 = shape.input_dimension, shape.output_dimension
    step = max(1, _TILE_NUMBERS // (d1 * d2))
    if shape.rank is None:
        sources = [segment.blocks(DENSE, layer)]
    else:
        sources = [segment.blocks(kind, layer, component) for component in range(shape.rank) for kind in (LEFT, RIGHT)]
    for pages in zip(*sources, strict=True):
        rows = segment.rows(pages[0][0])
        live = ~deleted[rows.start : rows.stop] if len(deleted) else np.ones(len(rows), bool)
        lengths = [d1 * d2] if shape.rank is None else [d1, d2] * shape.rank
        decoded = [
            decode_vectors(raw, len(rows), length, segment.encoding)[live]
            for (_, raw), length in zip(pages, lengths, strict=True)
        ]
        for start in range(0, len(decoded[0]), step):
            parts = [each[start : start + step] for each in decoded]
            if shape.rank is None:
                yield parts[0]
                continue
            left, right = np.stack(parts[0::2], axis=2), np.stack(parts[1::2], axis=1)
            yield (left @ right).reshape(len(left), d1 * d2)


def _each_tile(unit: Unit, layer: int, settings: Settings) -> Iterator[NDArray[np.float32]]:
    """The tiles of all segments of a unit; raises SegmentsUnreadableError at the first that cannot be read."""
    cache = node_cache(settings)
    for entry in unit.segments:
        try:
            path, _ = cache.get(entry)
            deleted = np.unpackbits(np.frombuffer(entry.tombstones, np.uint8), bitorder="little").astype(bool)
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                segment = Segment(path, data)
                if segment.digest != entry.digest:
                    raise ValueError(f"expected the digest {entry.digest}, found {segment.digest}")
                yield from tiles(segment, layer, deleted)
        except (OSError, ValueError) as error:
            cache.drop(entry.digest)
            raise SegmentsUnreadableError({entry.digest: f"{entry.url}: {error}"}) from None


def gram(argument: tuple[Unit, tuple[int, ...]], settings: Settings) -> tuple[int, list[NDArray[np.float64]]]:
    """Live rows of a unit, and H of each of some layers over them."""
    unit, layers = argument
    sums = []
    for layer in layers:
        total: Any = None
        for tile in _each_tile(unit, layer, settings):
            values = tile.astype(np.float64) if tile.shape[1] <= LONGEST_IN_DOUBLE else tile
            product = values.T @ values
            total = product.astype(np.float64) if total is None else total + product
        sums.append(total)
    return unit.live_rows, sums


def applied(
    argument: tuple[Unit, tuple[int, ...]], directions: Mapping[int, NDArray[np.float32]], settings: Settings
) -> tuple[int, list[NDArray[np.float64]]]:
    """Live rows of a unit, and of each of some layers H Ω with one more column: tr(H) above zeros."""
    unit, layers = argument
    sums = []
    for layer in layers:
        omega = directions[layer]
        total = np.zeros((omega.shape[0], omega.shape[1] + 1))
        for tile in _each_tile(unit, layer, settings):
            total[:, :-1] += tile.T @ (tile @ omega)
            total[0, -1] += np.einsum("ij,ij->", tile, tile, dtype=np.float64)
        sums.append(total)
    return unit.live_rows, sums


def added(*sums: Sequence[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
    """Sums of units added up, layer by layer, in the order given."""
    totals = [np.array(each) for each in sums[0]]
    for other in sums[1:]:
        for place, each in enumerate(other):
            totals[place] += each
    return totals


def reduced(parts: Sequence["ray.ObjectRef"]) -> "ray.ObjectRef":
    """A reference to the sums of tasks added up in a tree, in the order given, wherever there is room."""
    level = list(parts)
    remote = ray.remote(max_retries=0)(added).options(scheduling_strategy="SPREAD")
    while len(level) > 1:
        level = [
            level[at] if at + 1 == len(level) else remote.remote(*level[at : at + _FAN_IN])
            for at in range(0, len(level), _FAN_IN)
        ]
    return level[0]
