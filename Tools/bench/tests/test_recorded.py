# ruff: noqa: D103, S101
"""Recorded gradients in the files of the contest, against truncations of their own."""

from pathlib import Path

import numpy as np
import pytest
from batches import Shape
from contest.agreement import batch_rows
from contest.data import DENSE, dense_rows, query_file
from contest.recorded import Recorded, write_recorded, write_recorded_queries
from lorif.batch import Factors, write_batch
from safetensors.numpy import load_file

LAYERS = ("a", "b")
SHAPE = Shape(rows=21, layers=2, d1=6, d2=6, rank=1, dtype="f16", files=1, seed=0)


@pytest.fixture
def recording(tmp_path: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """25 rows in three files, of which the second is the tenth by name."""
    random = np.random.default_rng(4)
    rows = {name: random.standard_normal((25, 6, 6)).astype(np.float32) for name in LAYERS}
    folder = tmp_path / "recording"
    folder.mkdir()
    for name, part in (("f-1", slice(0, 4)), ("f-2", slice(4, 17)), ("f-10", slice(17, 25))):
        layers = {layer: values[part] for layer, values in rows.items()}
        write_batch(folder / f"{name}.safetensors", layers, ids=[str(row) for row in range(25)[part]])
    return folder, rows


def best(matrix: np.ndarray, rank: int) -> np.ndarray:
    u, sigma, v = np.linalg.svd(matrix)
    return (u[:, :rank] * sigma[:rank]) @ v[:rank]


def test_rows_and_their_truncations(
    recording: tuple[Path, dict[str, np.ndarray]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("contest.recorded.ROWS_PER_FILE", 16)
    monkeypatch.setattr("contest.recorded.BLOCK", 5)
    folder, rows = recording
    kept = write_recorded(tmp_path / "made", SHAPE, Recorded(folder))
    dense = dense_rows(tmp_path / "made" / DENSE, SHAPE, range(21)).astype(np.float64)
    for layer, name in enumerate(LAYERS):
        assert np.array_equal(dense[:, layer], rows[name][:21].astype(np.float16))
    for rank in (1, 4):
        files = sorted((tmp_path / f"made/factors-c{rank}").glob("*"))
        found = np.concatenate([batch_rows(path, SHAPE) for path in files])
        expected = np.stack([[best(matrix, rank) for matrix in row] for row in dense])
        assert np.abs(found - expected).max() < 2e-2
        assert kept[rank] == pytest.approx((expected**2).sum() / (dense**2).sum(), abs=1e-4)


def test_queries_begin_with_fewer_queries(recording: tuple[Path, dict[str, np.ndarray]], tmp_path: Path) -> None:
    folder, rows = recording
    write_recorded_queries(tmp_path / "queries", SHAPE, Recorded(folder), (2, 6))
    for count in (2, 6):
        full = load_file(query_file(tmp_path / "queries", "full", count))
        pairs = load_file(query_file(tmp_path / "queries", "rank-1", count))
        for layer, name in enumerate(SHAPE.layer_names):
            assert np.array_equal(full[f"{name}/full"], rows[LAYERS[layer]][:count])
            product = pairs[f"{name}/left"] @ pairs[f"{name}/right"].transpose(0, 2, 1)
            expected = np.stack([best(matrix, 1) for matrix in rows[LAYERS[layer]][:count].astype(np.float64)])
            assert np.abs(product - expected).max() < 1e-5


def test_what_is_no_such_recording(recording: tuple[Path, dict[str, np.ndarray]], tmp_path: Path) -> None:
    folder, rows = recording
    with pytest.raises(ValueError, match="found none"):
        Recorded(tmp_path)
    with pytest.raises(ValueError, match="expected 26 queries, found 25"):
        write_recorded_queries(tmp_path / "queries", SHAPE, Recorded(folder), (26,))
    left = np.ones((1, 6, 1), np.float32)
    write_batch(folder / "f-3.safetensors", {"a": Factors(left, left), "b": rows["b"][:1]}, ids=["x"])
    with pytest.raises(ValueError, match="full matrices of one shape"):
        Recorded(folder)
    write_batch(folder / "f-3.safetensors", {"a": rows["a"][:1]}, ids=["x"])
    with pytest.raises(ValueError, match="expected the layers of"):
        Recorded(folder)
    (folder / "f-3.safetensors").unlink()
    write_batch(
        folder / "f-3.safetensors", {name: 1e5 * rows[name] for name in LAYERS}, ids=[str(i) for i in range(30, 55)]
    )
    with pytest.raises(ValueError, match="within f16"):
        write_recorded(tmp_path / "large", Shape(**{**SHAPE.__dict__, "rows": 30}), Recorded(folder))
