"""Golden files: segments of every encoding and broken ones (make.py), curvature and coordinates (make_curvature.py)."""

import json
import shutil
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from harness import attempt, refused, run
from lorif.batch import FactorBatch
from lorif.coordinates import Coordinates
from lorif.curvature import Curvature
from lorif.page import SegmentError

sys.path.insert(0, str(ROOT / "Tests" / "Golden"))
import make_curvature
from make import ENCODINGS, ROWS, Segment, values

GOLDEN = ROOT / "Tests" / "Golden"
BAD = json.loads((GOLDEN / "bad" / "bad.json").read_text())


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_second_reader_finds_the_same_numbers(encoding: str) -> None:
    segment = Segment(GOLDEN / "encodings" / f"{encoding}.segment")
    segment.verify()
    assert values(segment) == (GOLDEN / "encodings" / f"{encoding}.values").read_bytes()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_program_finds_the_same_numbers(encoding: str, tmp_path: Path) -> None:
    store, out = tmp_path / "s.lorif", tmp_path / "out.safetensors"
    run("attach", store, GOLDEN / "encodings" / f"{encoding}.segment")
    run("export", store, out)
    exported = FactorBatch(out)
    factored, whole = exported.factors("factored"), exported.gradients("whole")
    parts = [side[:, :, component] for component in range(2) for side in (factored.left, factored.right)]
    expected = np.frombuffer((GOLDEN / "encodings" / f"{encoding}.values").read_bytes(), "<f4")
    found = np.concatenate([np.asarray(part, np.float32).ravel() for part in (*parts, whole)])
    assert np.array_equal(found, expected)
    assert exported.ids == [f"gold-{row}" for row in range(ROWS)]
    assert out.with_suffix(".jsonl").read_text(encoding="utf-8") == (GOLDEN / "batch.jsonl").read_text(encoding="utf-8")
    assert run("verify", store, "--level", "deep").code == 0


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_program_still_writes_them(encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("batch.safetensors", "batch.jsonl"):
        shutil.copy(GOLDEN / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    run("pack", "out.segment", "batch.safetensors", "--encoding", encoding)
    assert Path("out.segment").read_bytes() == (GOLDEN / "encodings" / f"{encoding}.segment").read_bytes()


def test_vectors_that_were_compressed_for_less_are_read(tmp_path: Path) -> None:
    """A segment from when a tenth was worth compression: pages of vectors in zstd frames."""
    segment = Segment(GOLDEN / "compressed" / "bf16.segment")
    segment.verify()
    assert values(segment) == (GOLDEN / "encodings" / "bf16.values").read_bytes()
    store, out, other = tmp_path / "s.lorif", tmp_path / "out.safetensors", tmp_path / "other.safetensors"
    run("attach", store, GOLDEN / "compressed" / "bf16.segment")
    run("export", store, out)
    run("attach", tmp_path / "raw.lorif", GOLDEN / "encodings" / "bf16.segment")
    run("export", tmp_path / "raw.lorif", other)
    for layer in ("factored", "whole"):
        assert np.array_equal(FactorBatch(out).gradients(layer), FactorBatch(other).gradients(layer))


@pytest.mark.parametrize("name", BAD)
def test_broken_ones_are_refused(name: str, tmp_path: Path) -> None:
    path = GOLDEN / "bad" / f"{name}.segment"
    refused("attach", tmp_path / "new.lorif", path, says=[path.name, BAD[name]])
    store = tmp_path / "s.lorif"
    run("attach", store, GOLDEN / "encodings" / "f16.segment")
    refused("attach", store, path, says=[path.name, BAD[name]])
    # In the place of the store's own segment it is damage.
    shutil.copy(path, next(store.glob("segments/*.segment")))
    assert attempt("verify", store).code == 1
    with pytest.raises(ValueError):
        Segment(path).verify()


def test_curvature_and_coordinates_by_the_second_reader() -> None:
    """What the program makes of the same files is in Tests/StoreTests/GoldenCurvatureTests.swift."""
    paths = GOLDEN / "curvature-1.0.curvature", GOLDEN / "coordinates-1.0.coordinates"
    curvature, coordinates = Curvature(paths[0]), Coordinates(paths[1])
    assert paths[0].read_bytes() == make_curvature.curvature()
    assert paths[1].read_bytes() == make_curvature.coordinates(curvature.digest)
    assert [layer.name for layer in curvature.layers] == ["blocks.0/attn", "schicht ü"]
    assert (curvature.scope, curvature.rank, curvature.fitted_row_count) == ("per-layer", 2, 5)
    first, second = curvature.groups
    assert first.eigenvalues.tolist() == [12, 5]
    assert np.array_equal(first.basis, make_curvature.BASIS)
    assert (first.trace, first.spans_rows, first.residual) == (17.5, False, 2**-40)
    assert (second.layers, second.gradient_length, len(second.basis)) == ((1,), 3, 0)
    assert (coordinates.curvature, coordinates.segment) == (curvature.digest, make_curvature.SEGMENT)
    assert (coordinates.values_encoding, coordinates.ranks) == ("int8", (2, 0))
    assert np.allclose(coordinates.values(0), make_curvature.VALUES, rtol=3e-4)
    assert np.array_equal(coordinates.outside_norms(1), make_curvature.OUTSIDE[1])
    # Row 3: c = ±1, n = 2, b = s² + 17.5/4, λ = 1/2.
    b = np.array([12, 5]) + 17.5 / 4
    assert np.isclose(coordinates.self_influence(0, first, 0.5)[3], 8 + (b / np.array([12.5, 5.5])).sum(), rtol=1e-3)


@pytest.mark.parametrize("name", ["curvature-1.0.curvature", "coordinates-1.0.coordinates"])
def test_no_byte_of_them_is_outside_every_check(name: str, tmp_path: Path) -> None:
    whole = (GOLDEN / name).read_bytes()
    reader = Curvature if name.startswith("curvature") else Coordinates
    for place in [*range(0, 128, 5), *range(4096, len(whole), 11)]:
        content = bytearray(whole)
        content[place] ^= 1 << place % 8
        path = tmp_path / name
        path.write_bytes(content)
        # A footer that is damaged is noticed before it is decoded.
        with pytest.raises((SegmentError, struct.error)):
            reader(path)
