"""Golden segments of every encoding, and broken ones (Tests/Golden/make.py wrote them once)."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from harness import attempt, refused, run
from lorif.batch import FactorBatch

sys.path.insert(0, str(ROOT / "Tests" / "Golden"))
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
