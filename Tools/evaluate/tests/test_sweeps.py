# ruff: noqa: D103, S101
"""The sweep that drives a program, with a stand-in that scores by textbook formulae, in an order of its own."""

import sys
from pathlib import Path

import experiment as experiments
import numpy as np
import pytest
from experiment import Experiment, write_full_gradients
from safetensors.numpy import save_file
from sweeps import Program, Sweep, by_program, in_numpy, inputs

STAND_IN = """\
import json, sys
from pathlib import Path
from shutil import copyfile
import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

command, store, *rest = sys.argv[1:]
store = Path(store)
if command == "ingest":
    assert rest[1:] == ["--encoding", "f32"], rest
    store.mkdir()
    copyfile(rest[0], store / "rows")
elif command == "fit":
    (store / "fit").write_text(json.dumps(rest))
else:
    files = [safe_open(path, "np") for path in (store / "rows", rest[0])]
    names = sorted(files[0].keys())
    option = lambda name: rest[rest.index(name) + 1]
    total = 0
    for name in names:
        g, q = (file.get_tensor(name).astype(np.float64).reshape(len(file.get_tensor(name)), -1) for file in files)
        if option("--method") == "influence":
            assert json.loads((store / "fit").read_text()) == ["--scope", "per-layer", "--exact"]
            h = g.T @ g
            damping = float(option("--relative-damping")) * np.trace(h) / len(h)
            q = np.linalg.solve(h + damping * np.eye(len(h)), q.T).T
        total = total + q @ g.T
    ids = [json.loads(file.metadata()["ids"])[::-1] for file in files]
    metadata = {"example_ids": json.dumps(ids[0]), "query_ids": json.dumps(ids[1])}
    scores = np.ascontiguousarray(total[::-1, ::-1].astype(np.float32))
    save_file({"scores": scores}, option("--output"), metadata)
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    random = np.random.default_rng(9)
    folder = tmp_path / "data"
    folder.mkdir()
    layers = ["b", "a"]
    for name, count in (("train", 20), ("query", 3)):
        gradients = {layer: random.standard_normal((count, 2, 3)).astype(np.float32) for layer in layers}
        ids = [f"{name} {row}" for row in range(count)]
        write_full_gradients(folder / f"{name}_full.safetensors", layers, gradients, ids)
    subsets = random.integers(2, size=(12, 20)).astype(np.uint8)
    losses = random.standard_normal((12, 3)).astype(np.float32)
    save_file({"subsets": subsets, "query_losses": losses}, folder / "retraining.safetensors")
    return folder


def test_both_ways_agree(data: Path, tmp_path: Path) -> None:
    stand_in = tmp_path / "lorif"
    stand_in.write_text(f"#!{sys.executable}\n{STAND_IN}")
    stand_in.chmod(0o755)
    experiment = experiments.load(data)
    sweep = Sweep([None], ["f32"], ["exact"], [0.1, 10.0])
    folder = tmp_path / "work"
    folder.mkdir()
    batches = inputs(experiment, data, folder, transformed=False)
    (_, size, measured), *more = by_program(experiment, sweep, Program(stand_in, folder), *batches)
    ((_, modelled, expected),) = in_numpy(experiment, sweep)
    assert not more
    assert [(m.curvature, m.rho) for m in measured] == [("dot", None), ("exact", 0.1), ("exact", 10.0)]
    for one, other in zip(measured, expected, strict=True):
        assert (one.store, one.curvature, one.rho) == (other.store, other.curvature, other.rho)
        assert one.scores == pytest.approx(other.scores)
    assert not np.allclose(expected[0].scores, expected[1].scores)
    assert size.directory == (data / "train_full.safetensors").stat().st_size / 20
    assert size.fitted is not None
    assert size.fitted > size.directory
    assert modelled.directory is None
    assert size.modelled == modelled.modelled


def test_a_failing_program_ends_the_sweep_with_its_message(data: Path, tmp_path: Path) -> None:
    stand_in = tmp_path / "lorif"
    stand_in.write_text("#!/bin/sh\necho no room >&2\nexit 5\n")
    stand_in.chmod(0o755)
    with pytest.raises(SystemExit, match=r"exit code 5 of: .*lorif fit s\nno room"):
        Program(stand_in, tmp_path).run("fit", "s")


def test_an_experiment_must_fit_together(data: Path) -> None:
    assert experiments.load(data).layers == ["b", "a"]
    save_file(
        {"subsets": np.ones((2, 19), np.uint8), "query_losses": np.ones((2, 3), np.float32)},
        data / "retraining.safetensors",
    )
    with pytest.raises(ValueError, match=r"subsets \(2, 19\)"):
        experiments.load(data)


def test_transformed_inputs_are_written_anew(data: Path, tmp_path: Path) -> None:
    experiment: Experiment = experiments.whitened(experiments.load(data), 0.1)
    train, _ = inputs(experiment, data, tmp_path, transformed=True)
    layers, gradients, ids = experiments.read_full_gradients(train)
    assert layers == experiment.layers
    assert ids == experiment.train_ids
    assert all(np.array_equal(gradients[layer], experiment.train[layer]) for layer in layers)
