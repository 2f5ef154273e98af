"""Starts the program, writes its input files byte by byte, reads its answers."""

import json
import os
import struct
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import safe_open

BINARY = os.environ.get("LORIF_BIN", "")
TIMEOUT = 120

OK, NO, USAGE, REFUSED, DAMAGED, ENVIRONMENT, INTERRUPTED = 0, 1, 2, 3, 4, 5, 130

# bfloat16 has no NumPy type: an array of it is uint16 marked by this name.
DTYPE_NAMES = {"float64": "F64", "float32": "F32", "float16": "F16", "uint16": "BF16", "int32": "I32"}


@dataclass(frozen=True)
class Outcome:
    """What one run of the program left behind."""

    code: int
    stdout: str
    stderr: str
    command: str

    def __str__(self) -> str:
        return f"$ {self.command}\nexit code {self.code}\n{self.stdout}{self.stderr}"

    def json(self) -> dict:
        return json.loads(self.stdout)

    def json_lines(self) -> list[dict]:
        return [json.loads(line) for line in self.stdout.splitlines()]


def attempt(*arguments: object, timeout: float = TIMEOUT) -> Outcome:
    """Runs the program and returns whatever happened, except a crash, which fails the test."""
    command = [BINARY, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, timeout=timeout, stdin=subprocess.DEVNULL, check=False)
    outcome = Outcome(
        done.returncode, done.stdout.decode("utf-8"), done.stderr.decode("utf-8"), " ".join(["lorif", *command[1:]])
    )
    assert outcome.code >= 0, f"killed by a signal\n{outcome}"
    assert outcome.code in (OK, NO, USAGE, REFUSED, DAMAGED, ENVIRONMENT, INTERRUPTED), str(outcome)
    return outcome


def run(*arguments: object) -> Outcome:
    """Runs the program, which must succeed."""
    outcome = attempt(*arguments)
    assert outcome.code == OK, str(outcome)
    return outcome


def refused(*arguments: object, code: int = REFUSED, says: Sequence[object] = ()) -> Outcome:
    """Runs the program, which must refuse with that exit code, say these things on stderr and print no result."""
    outcome = attempt(*arguments)
    assert outcome.code == code, f"expected exit code {code}\n{outcome}"
    assert outcome.stdout == "", str(outcome)
    for text in says:
        assert str(text) in outcome.stderr, f"stderr does not say {str(text)!r}\n{outcome}"
    assert "Fatal error" not in outcome.stderr, str(outcome)
    return outcome


def tensor_entry(dtype: str, shape: Sequence[int], start: int, end: int) -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


def safetensors_bytes(header: Mapping | bytes, data: bytes, header_length: int | None = None) -> bytes:
    """A safetensors file, right or wrong: the length can be made to lie."""
    text = header if isinstance(header, bytes) else json.dumps(header, ensure_ascii=False).encode()
    return struct.pack("<Q", len(text) if header_length is None else header_length) + text + data


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> Path:
    """Writes tensors in the given order."""
    header: dict = {"__metadata__": dict(metadata)} if metadata else {}
    data = b""
    for name, array in tensors.items():
        content = np.ascontiguousarray(array).tobytes()
        header[name] = tensor_entry(DTYPE_NAMES[str(array.dtype)], array.shape, len(data), len(data) + len(content))
        data += content
    path.write_bytes(safetensors_bytes(header, data))
    return path


Layers = Mapping[str, tuple[np.ndarray, ...]]


def batch_tensors(layers: Layers) -> dict[str, np.ndarray]:
    tensors = {}
    for name, parts in layers.items():
        for part, array in zip(("left", "right") if len(parts) == 2 else ("full",), parts, strict=True):
            tensors[f"{name}/{part}"] = array
    return tensors


def write_batch(
    path: Path,
    layers: Layers,
    ids: Iterable[str] | None = None,
    records: Iterable[Mapping] | None = None,
    **metadata: str,
) -> Path:
    """Writes a factor batch, and the user metadata beside it if there is any."""
    fields = {"lorif.batch": "1", "layers": json.dumps(list(layers)), **metadata}
    if ids is not None:
        fields["ids"] = json.dumps(list(ids), ensure_ascii=False)
    write_tensors(path, batch_tensors(layers), fields)
    if records is not None:
        path.with_suffix(".jsonl").write_text(
            "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8"
        )
    return path


def read_tensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    with safe_open(path, "np") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118


def scores(store: Path, queries: Path | None, *options: object, form: str = "safetensors") -> np.ndarray:
    """The whole score matrix, through --output."""
    path = store.parent / f"scores-{store.name}.{form}"
    path.unlink(missing_ok=True)
    run("query", store, *([] if queries is None else [queries]), *options, "--output", path, "--format", "jsonl")
    if form == "npy":
        return np.load(path)
    tensors, _ = read_tensors(path)
    assert list(tensors) == ["scores"]
    return tensors["scores"]


def assert_close(actual: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    """Every score within `tolerance` of the expected one, relative to the largest magnitude of its row."""
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    assert actual.dtype == np.float32
    scale = np.abs(expected).max(axis=1, keepdims=True)
    error = np.abs(actual.astype(np.float64) - expected) / np.where(scale > 0, scale, 1)
    assert error.max() <= tolerance, (
        f"largest error {error.max():.3g} at {np.unravel_index(error.argmax(), error.shape)}"
    )


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder but locks, which readers and writers may touch."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("lock.mdb", "writer.lock")
    }
