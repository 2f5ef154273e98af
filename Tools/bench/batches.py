"""Factor batches of any size, made from a few hundred real ones and streamed to disk."""

import json
import os
import struct
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

Floats = NDArray[np.float32]

DTYPES = {"f32": ("F32", np.dtype("<f4")), "f16": ("F16", np.dtype("<f2"))}
CHUNK_NUMBERS = 1 << 22


@dataclass(frozen=True)
class Shape:
    """What to generate.

    Attributes:
        rows: Examples over all files.
        layers: Number of layers, all alike.
        d1: Input side.
        d2: Output side.
        rank: c.
        dtype: `f32` or `f16`.
        files: Number of files; the last may be shorter.
        seed: Of everything random.
    """

    rows: int
    layers: int
    d1: int
    d2: int
    rank: int
    dtype: str
    files: int
    seed: int

    @property
    def layer_names(self) -> list[str]:
        """The layers, in vectorisation order."""
        return [f"model.layers.{layer}.linear" for layer in range(self.layers)]

    @property
    def numbers_per_row(self) -> int:
        """Numbers of one example over all layers."""
        return self.layers * self.rank * (self.d1 + self.d2)

    @property
    def number_bytes(self) -> int:
        """Bytes of all numbers of all files."""
        return self.rows * self.numbers_per_row * DTYPES[self.dtype][1].itemsize

    @property
    def float32_bytes(self) -> int:
        """The same in f32, whatever the dtype."""
        return self.rows * self.numbers_per_row * 4

    def row_ranges(self) -> list[range]:
        """The rows of every file."""
        step = ceil(self.rows / self.files)
        return [range(start, min(start + step, self.rows)) for start in range(0, self.rows, step)]


def identifier(row: int) -> str:
    """The id of an example."""
    return f"example-{row:09d}"


@dataclass(frozen=True)
class Source:
    """Real rank-1 factors of one layer, each side [rows, d]."""

    left: Floats
    right: Floats


def read_sources(path: Path) -> list[Source]:
    """The first component of every layer of a factor batch, in layer order."""
    with safe_open(path, "np") as file:
        names = json.loads(file.metadata()["layers"])
        return [
            Source(*(file.get_tensor(f"{name}/{side}")[:, :, 0].astype(np.float32) for side in ("left", "right")))
            for name in names
        ]


def header(shape: Shape, rows: range) -> tuple[bytes, dict[str, int]]:
    """The header of one file with its length field, and where in the file each tensor starts."""
    name, dtype = DTYPES[shape.dtype]
    entries: dict[str, object] = {
        "__metadata__": {
            "lorif.batch": "1",
            "layers": json.dumps(shape.layer_names),
            "ids": json.dumps([identifier(row) for row in rows]),
            "tool": "Tools/bench/storage.py",
        }
    }
    offset = 0
    starts = {}
    for layer in shape.layer_names:
        for side, length in (("left", shape.d1), ("right", shape.d2)):
            end = offset + len(rows) * length * shape.rank * dtype.itemsize
            entries[f"{layer}/{side}"] = {
                "dtype": name,
                "shape": [len(rows), length, shape.rank],
                "data_offsets": [offset, end],
            }
            starts[f"{layer}/{side}"] = offset
            offset = end
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    content = struct.pack("<Q", len(text)) + text
    return content, {tensor: len(content) + start for tensor, start in starts.items()}


def fresh_vectors(source: Floats, picks: NDArray[np.int64], length: int, random: np.random.Generator) -> Floats:
    """Vectors [n, length] with the magnitudes of real ones and directions of their own.

    Pieces of the real rows `picks` [n, pieces] side by side, every coordinate's sign flipped at random, and noise of a
    tenth of the row's root mean square.
    """
    count = len(picks)
    vectors = source[picks].reshape(count, -1)[:, :length]
    flips = np.unpackbits(np.frombuffer(random.bytes(ceil(count * length / 8)), np.uint8), count=count * length)
    bits = np.ascontiguousarray(vectors).view(np.uint32)
    bits ^= flips.reshape(count, length).astype(np.uint32) << np.uint32(31)
    vectors = bits.view(np.float32)
    noise = random.standard_normal((count, length), np.float32)
    noise *= 0.1 * np.sqrt(np.einsum("ij,ij->i", vectors, vectors) / length)[:, None]
    vectors += noise
    return vectors


def chunk(shape: Shape, sources: list[Source], layer: int, rows: range) -> tuple[Floats, Floats]:
    """Left [n, d1, c] and right [n, d2, c] of some rows: a pure function of the arguments.

    Component k is drawn from other real rows than the rest and scaled by 0.7^k; both sides of a row carry a
    norm of their own.
    """
    random = np.random.Generator(np.random.SFC64([shape.seed, layer, rows.start]))
    source = sources[layer % len(sources)]
    count = len(rows)
    sides = (np.empty((count, shape.d1, shape.rank), np.float32), np.empty((count, shape.d2, shape.rank), np.float32))
    norms = np.exp(0.3 * random.standard_normal((count, 1), np.float32))
    for component in range(shape.rank):
        pieces = max(ceil(shape.d1 / source.left.shape[1]), ceil(shape.d2 / source.right.shape[1]))
        picks = random.integers(len(source.left), size=(count, pieces))
        for side, real in zip(sides, (source.left, source.right), strict=True):
            side[:, :, component] = fresh_vectors(real, picks, side.shape[1], random) * (norms * 0.7**component)
    return sides


def chunks(shape: Shape, rows: range) -> Iterator[range]:
    """Pieces of a few million numbers over all layers."""
    step = max(1, CHUNK_NUMBERS // max(1, shape.numbers_per_row // shape.layers))
    for start in range(rows.start, rows.stop, step):
        yield range(start, min(start + step, rows.stop))


def write_batch(path: Path, shape: Shape, sources: list[Source], rows: range) -> None:
    """Writes one file; memory holds one chunk."""
    content, starts = header(shape, rows)
    dtype = DTYPES[shape.dtype][1]
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        os.write(descriptor, content)
        for part in chunks(shape, rows):
            for layer, name in enumerate(shape.layer_names):
                for side, values in zip(("left", "right"), chunk(shape, sources, layer, part), strict=True):
                    row_bytes = values[0].size * dtype.itemsize
                    data = memoryview(values.astype(dtype, copy=False)).cast("B")
                    offset = starts[f"{name}/{side}"] + (part.start - rows.start) * row_bytes
                    while data:
                        written = os.pwrite(descriptor, data, offset)
                        data, offset = data[written:], offset + written
    finally:
        os.close(descriptor)


def generate(folder: Path, shape: Shape, tile: Path) -> list[Path]:
    """The files of a shape in a folder; those of an earlier run with the same arguments are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / "shape.json"
    wanted = json.dumps({**asdict(shape), "tile": tile.name, "tile_bytes": tile.stat().st_size})
    paths = [folder / f"batch-{index:03d}.safetensors" for index in range(len(shape.row_ranges()))]
    if note.exists() and note.read_text() == wanted and all(path.exists() for path in paths):
        return paths
    note.unlink(missing_ok=True)
    sources = read_sources(tile)
    for path, rows in zip(paths, shape.row_ranges(), strict=True):
        write_batch(path, shape, sources, rows)
    note.write_text(wanted)
    return paths
