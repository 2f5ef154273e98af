"""The model of the machine: measured, kept, used, and of no harm when it is damaged."""

import json
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from harness import BINARY, ENVIRONMENT, refused, run, write_batch
from test_oracle import random_layers


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict:
    folder = tmp_path_factory.mktemp("machine")
    said = run("calibrate", folder, "--output", folder / "machine.json")
    assert "memory" in said.stdout and str(folder / "machine.json") in said.stdout
    assert [path.name for path in folder.iterdir()] == ["machine.json"]
    return json.loads((folder / "machine.json").read_text())


def test_rates_are_plausible(measured: dict) -> None:
    assert measured["machine"]["coreCount"] == os.cpu_count()
    # An abacus is slower, and no machine of this decade is faster.
    assert 1e8 < measured["memoryBytesPerSecond"] < 1e13
    assert 1e9 < measured["productFlopsPerSecond"] < 1e15
    assert 1e6 < measured["cachedDiskBytesPerSecond"] < 1e12
    for points in measured["costs"].values():
        assert all(point["nanoseconds"] >= 0 for point in points)
    # 256 queries cost more than one.
    one, many = measured["costs"]["pairs.int8"][0], measured["costs"]["pairs.int8"][-1]
    assert one["nanoseconds"] < many["nanoseconds"]


def test_the_page_of_the_format_names_every_cost(measured: dict) -> None:
    page = (ROOT / "Formats/machine.md").read_text(encoding="utf-8").split("| cost | unit |")[1]
    documented = {name for row in page.splitlines() for name in re.findall(r"`([A-Za-z.]+)`", row.partition("|")[2])}
    names = {re.sub(r"\.(f32|f16|bf16|int8|q[1-4])$", ".E", name) for name in measured["costs"]}
    assert names == documented


@pytest.fixture
def question(random: np.random.Generator, tmp_path: Path) -> tuple[object, ...]:
    store = tmp_path / "s.lorif"
    batch = write_batch(tmp_path / "t.safetensors", random_layers(random, {"a": (24, 16, 2)}, 300))
    run("ingest", store, batch)
    return ("query", store, "--by-id", "7", "--method", "dot")


def asked(cache: Path, *arguments: object) -> str:
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    words = [BINARY, *map(str, arguments)]
    return subprocess.run(words, capture_output=True, check=True, text=True, env=environment).stdout


def test_a_kept_model_is_used(measured: dict, question: tuple[object, ...], tmp_path: Path) -> None:
    path = tmp_path / "cache/lorif/machine.json"
    path.parent.mkdir(parents=True)

    def ranked(cache: Path) -> list[tuple[str, float]]:
        """To four digits: another kernel may round otherwise."""
        lines = map(json.loads, asked(cache, *question, "--format", "jsonl").splitlines())
        return [(line["id"], float(f"{line['score']:.4g}")) for line in lines]

    answer = ranked(tmp_path / "none")

    def is_calibrated(model: object) -> bool:
        path.write_text(model if isinstance(model, str) else json.dumps(model))
        assert ranked(tmp_path / "cache") == answer
        return json.loads(asked(tmp_path / "cache", *question, "--explain", "--json"))["isCalibrated"]

    assert "lorif calibrate" in asked(tmp_path / "none", *question, "--explain")
    assert is_calibrated(measured)
    assert not is_calibrated({**measured, "machine": {**measured["machine"], "processor": "another"}})
    assert not is_calibrated({**measured, "machine": {**measured["machine"], "version": "0.0.1"}})
    assert not is_calibrated({**measured, "memoryBytesPerSecond": 0})
    assert not is_calibrated({**measured, "costs": {"ranking": [{"count": 1, "nanoseconds": -1}]}})
    assert not is_calibrated({**measured, "costs": {"ranking": [{"count": 0, "nanoseconds": 1}]}})
    assert not is_calibrated(json.dumps(measured)[:-20])
    assert not is_calibrated("")


def test_the_cache_is_made(tmp_path: Path) -> None:
    said = asked(tmp_path / "deep/cache", "calibrate", tmp_path, "--json")
    kept = json.loads((tmp_path / "deep/cache/lorif/machine.json").read_text())
    assert json.loads(said)["machine"] == kept["machine"]


def test_refused(tmp_path: Path) -> None:
    refused("calibrate", tmp_path / "missing", code=ENVIRONMENT, says=["missing"])
    (tmp_path / "file").write_text("")
    refused("calibrate", tmp_path, "--output", tmp_path / "file/machine.json", code=ENVIRONMENT, says=["machine.json"])
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
