# ruff: noqa: D103, S101
"""Generated batches: valid files, the numbers they promise, the same in every run."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from batches import Shape, Source, chunk, generate, identifier
from safetensors import safe_open
from safetensors.numpy import save_file

SHAPE = Shape(rows=23, layers=3, d1=5, d2=7, rank=2, dtype="f32", files=3, seed=4)


@pytest.fixture
def tile(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    sides = {"left": 4, "right": 3}
    tensors = {
        f"{name}/{side}": random.standard_normal((6, length, 1)).astype(np.float32)
        for name in ("b", "a")
        for side, length in sides.items()
    }
    path = tmp_path / "tile.safetensors"
    save_file(tensors, path, {"layers": json.dumps(["b", "a"])})
    return path


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    with safe_open(path, "np") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118


@pytest.mark.parametrize("dtype", ["f32", "f16"])
def test_files_hold_every_row_once(tile: Path, tmp_path: Path, dtype: str) -> None:
    shape = replace(SHAPE, dtype=dtype)
    paths = generate(tmp_path / "out", shape, tile)
    assert len(paths) == 3
    ids: list[str] = []
    number_bytes = 0
    for path in paths:
        tensors, metadata = read(path)
        assert metadata["lorif.batch"] == "1"
        assert json.loads(metadata["layers"]) == shape.layer_names
        own = json.loads(metadata["ids"])
        ids += own
        for name in shape.layer_names:
            assert tensors[f"{name}/left"].shape == (len(own), 5, 2)
            assert tensors[f"{name}/right"].shape == (len(own), 7, 2)
        assert len(tensors) == 6
        assert all(np.isfinite(tensor).all() and (tensor != 0).any() for tensor in tensors.values())
        number_bytes += sum(tensor.nbytes for tensor in tensors.values())
    assert ids == [identifier(row) for row in range(23)]
    assert number_bytes == shape.number_bytes


def test_numbers_land_in_their_rows_whatever_the_chunks(
    tile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Four rows per chunk: 24 numbers of one layer each.
    monkeypatch.setattr("batches.CHUNK_NUMBERS", 4 * 24)
    path = generate(tmp_path / "out", replace(SHAPE, files=1), tile)[0]
    tensors, _ = read(path)
    with safe_open(tile, "np") as file:
        sources = [Source(file.get_tensor(f"{n}/left")[..., 0], file.get_tensor(f"{n}/right")[..., 0]) for n in "ba"]
    left, right = chunk(replace(SHAPE, files=1), sources, 2, range(20, 23))
    assert np.array_equal(tensors[f"{SHAPE.layer_names[2]}/left"][20:], left)
    assert np.array_equal(tensors[f"{SHAPE.layer_names[2]}/right"][20:], right)


def test_same_seed_same_bytes_and_other_seed_others(tile: Path, tmp_path: Path) -> None:
    contents = [
        [path.read_bytes() for path in generate(tmp_path / name, replace(SHAPE, seed=seed), tile)]
        for name, seed in (("first", 1), ("again", 1), ("other", 2))
    ]
    assert contents[0] == contents[1]
    assert contents[0] != contents[2]


def test_files_of_an_earlier_run_are_used_again_only_for_the_same_arguments(tile: Path, tmp_path: Path) -> None:
    path = generate(tmp_path / "out", SHAPE, tile)[0]
    before = path.stat().st_mtime_ns
    assert generate(tmp_path / "out", SHAPE, tile)[0].stat().st_mtime_ns == before
    generate(tmp_path / "out", replace(SHAPE, seed=9), tile)
    assert path.stat().st_mtime_ns != before


def test_directions_are_fresh(tile: Path, tmp_path: Path) -> None:
    shape = replace(SHAPE, rows=200, d1=40, files=1)
    tensors, _ = read(generate(tmp_path / "out", shape, tile)[0])
    vectors = tensors[f"{shape.layer_names[0]}/left"][:, :, 0]
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = np.abs(vectors @ vectors.T)[~np.eye(200, dtype=bool)]
    assert cosines.max() < 0.95
