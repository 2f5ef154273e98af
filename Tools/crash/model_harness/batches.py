"""Random factor batches whose every number, and every inner product of them, is exact in float32.

Factors are whole numbers of magnitude at most 4 times one power of two per row, and probes are whole numbers of
magnitude at most 4. A layer has at most 6 × 6 numbers and rank at most 3, a store at most 4 layers, so an inner
product is a whole number below 2^15 times that power of two: the order of additions does not matter, and scores
compare with ==.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

LARGEST = 4
PROBE_COUNT = 3
KINDS = ("bible", "fortunes", "anarchism", "übung ☃")


@dataclass(frozen=True)
class Layer:
    """One layer of a store's schema; rank 0 means dense."""

    name: str
    inputs: int
    outputs: int
    rank: int

    @property
    def gradient_length(self) -> int:
        """Numbers of the layer's gradient."""
        return self.inputs * self.outputs

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of one row of each of the layer's tensors, by tensor name."""
        if self.rank == 0:
            return {f"{self.name}/full": (self.inputs, self.outputs)}
        return {
            f"{self.name}/left": (self.inputs, self.rank),
            f"{self.name}/right": (self.outputs, self.rank),
        }


Schema = tuple[Layer, ...]


@dataclass
class Row:
    """One example as it was given to the program."""

    serial: int
    # None until the program has numbered a row that came without an id.
    identifier: str | None
    # The row's numbers of every tensor, in schema order: what an export must give back bit for bit.
    fingerprint: bytes
    # The gradients of all layers, one after the other.
    gradient: np.ndarray
    metadata: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Batch:
    """A factor batch file and the serial numbers of its rows."""

    path: Path
    rows: tuple[int, ...]
    has_identifiers: bool


def random_schema(random: np.random.Generator) -> Schema:
    """One to four layers, factored or dense, with names as models have them."""
    layers = []
    for number in range(int(random.integers(1, 5))):
        inputs, outputs = (int(d) for d in random.integers(1, 7, 2))
        dense = random.random() < 0.3
        rank = 0 if dense else int(random.integers(1, min(inputs, outputs, 3) + 1))
        separator = "/" if random.random() < 0.2 else "."
        layers.append(Layer(f"h.{number}{separator}c_fc", inputs, outputs, rank))
    return tuple(layers)


def row_gradient(schema: Schema, tensors: dict[str, np.ndarray], row: int) -> np.ndarray:
    """The gradients of one row, layer after layer, row-major, in float64."""
    parts = []
    for layer in schema:
        if layer.rank == 0:
            parts.append(tensors[f"{layer.name}/full"][row].astype(np.float64))
        else:
            left, right = (tensors[f"{layer.name}/{side}"][row].astype(np.float64) for side in ("left", "right"))
            parts.append(left @ right.T)
    return np.concatenate([part.ravel() for part in parts])


def row_fingerprint(schema: Schema, tensors: dict[str, np.ndarray], row: int) -> bytes:
    """The bytes of one row of every tensor, in schema order; the tensors must be float32."""
    return b"".join(
        np.ascontiguousarray(tensors[name][row]).tobytes() for layer in schema for name in layer.tensor_shapes()
    )


def random_metadata(random: np.random.Generator, serial: int) -> dict[str, object]:
    """User metadata of every type that JSON has, with fields that some rows lack."""
    record: dict[str, object] = {"kind": KINDS[int(random.integers(len(KINDS)))], "number": serial}
    optional = {"weight": float(random.integers(-8, 9)) / 4, "good": bool(random.integers(2)), "nothing": None}
    optional["tags"] = ["x", serial, {"y": [1.5, None]}]
    record.update({name: value for name, value in optional.items() if random.random() < 0.5})
    return record


@dataclass
class BatchMaker:
    """Makes batches for one store and remembers every row it ever gave out."""

    folder: Path
    schema: Schema
    random: np.random.Generator
    rows: dict[int, Row] = field(default_factory=dict)
    batch_count: int = 0

    def tensors(self, count: int) -> dict[str, np.ndarray]:
        """Random tensors of that many rows."""
        made = {
            name: self.random.integers(-LARGEST, LARGEST + 1, (count, *shape)).astype(np.float32)
            for layer in self.schema
            for name, shape in layer.tensor_shapes().items()
        }
        scale = np.exp2(self.random.integers(-3, 4, count)).astype(np.float32)
        for name in made:
            if not name.endswith("/right"):
                made[name] *= scale[:, None, None]
        return made

    def make(self, identifiers: list[str] | None, count: int, with_metadata: bool) -> Batch:
        """Writes a batch of `count` rows; identifiers, if given, are as many."""
        self.batch_count += 1
        path = self.folder / f"batch-{self.batch_count}.safetensors"
        tensors = self.tensors(count)
        serials = []
        for index in range(count):
            serial = len(self.rows)
            self.rows[serial] = Row(
                serial,
                identifiers[index] if identifiers else None,
                row_fingerprint(self.schema, tensors, index),
                row_gradient(self.schema, tensors, index),
                random_metadata(self.random, serial) if with_metadata else {},
            )
            serials.append(serial)
        metadata = {"lorif.batch": "1", "layers": json.dumps([layer.name for layer in self.schema])}
        if identifiers:
            metadata["ids"] = json.dumps(identifiers)
        # Without ids two files could be equal, and then the second one would rightly add nothing.
        metadata["note"] = f"file {self.batch_count}"
        save_file(tensors, path, metadata)
        if with_metadata:
            self._write_metadata(path.with_suffix(".jsonl"), serials)
        return Batch(path, tuple(serials), identifiers is not None)

    def _write_metadata(self, path: Path, serials: list[int]) -> None:
        with path.open("w", encoding="utf-8") as file:
            for serial in serials:
                row = self.rows[serial]
                named = {} if row.identifier is None else {"id": row.identifier}
                file.write(json.dumps({**named, **row.metadata}, ensure_ascii=False) + "\n")

    def new_identifiers(self, count: int) -> list[str]:
        """Identifiers that no row of this store ever had."""
        first = len(self.rows)
        return [f"row-{first + index}" for index in range(count)]

    def make_probes(self) -> tuple[Path, np.ndarray]:
        """Writes the query batch, full matrices; returns its path and its gradients, one query per row."""
        path = self.folder / "probes.safetensors"
        dense = tuple(Layer(layer.name, layer.inputs, layer.outputs, 0) for layer in self.schema)
        tensors = {
            f"{layer.name}/full": self.random.integers(
                -LARGEST, LARGEST + 1, (PROBE_COUNT, layer.inputs, layer.outputs)
            ).astype(np.float32)
            for layer in dense
        }
        names = json.dumps([f"probe-{index}" for index in range(PROBE_COUNT)])
        layers = json.dumps([layer.name for layer in dense])
        save_file(tensors, path, {"lorif.batch": "1", "ids": names, "layers": layers})
        return path, np.stack([row_gradient(dense, tensors, row) for row in range(PROBE_COUNT)])
