# ruff: noqa: D103, S101
"""The other ways to keep a gradient, against what can be worked out: errors that must be least, sizes by hand."""

from pathlib import Path

import ideas
import numpy as np
import pytest
from codes import stored
from experiment import Experiment, load, save


@pytest.fixture
def experiment() -> Experiment:
    random = np.random.default_rng(3)
    shapes = {"a": (8, 16), "b": (16, 8)}
    rows = {name: (random.standard_normal((60, *shape)) ** 3).astype(np.float32) for name, shape in shapes.items()}
    queries = {name: random.standard_normal((6, *shape)).astype(np.float32) for name, shape in shapes.items()}
    subsets = (random.random((10, 60)) < 0.5).astype(np.float64)
    names = [f"t-{row}" for row in range(60)], [f"q-{row}" for row in range(6)]
    return Experiment(list(shapes), rows, queries, *names, subsets, random.standard_normal((10, 6)))


def lost(vectors: np.ndarray, coder: ideas.Coder) -> float:
    return float(((coder(vectors) - vectors) ** 2).sum() / (vectors**2).sum())


def test_learned_levels_fit_numbers_that_are_not_normal() -> None:
    random = np.random.default_rng(5)
    # Two magnitudes and two signs: four levels hold them exactly, whatever a vector's length.
    vectors = random.choice([-3.0, -1.0, 1.0, 3.0], (400, 16)).astype(np.float32)
    vectors *= random.uniform(0.5, 2, (400, 1)).astype(np.float32)
    fixed, own = lost(vectors, lambda each: stored(each, "q2")), lost(vectors, ideas.learned(1, 2))
    assert own < 0.5 * fixed
    # Pairs that are equal need half of the bits.
    pairs = np.repeat(random.standard_normal((2000, 8)).astype(np.float32), 2, axis=1)
    assert lost(pairs, ideas.learned(2, 4)) < 0.35 * lost(pairs, lambda each: stored(each, "q2"))


def test_a_rotation_helps_vectors_with_one_large_number_and_is_undone() -> None:
    vectors = np.full((50, 32), 0.01, np.float32)
    vectors[:, 3] = 1
    assert lost(vectors, ideas.rotated("q4")) < 0.1
    assert lost(vectors, ideas.rotated("f32")) < 1e-10


def test_enough_coordinates_are_everything(experiment: Experiment) -> None:
    kept = ideas.with_coordinates(experiment, 60, 1)
    for layer, rows in experiment.train.items():
        # 60 rows span no more; int8 of 60 coordinates is what is lost.
        assert ((kept[layer] - rows) ** 2).sum() < 1e-3 * (rows**2).sum()


def test_sizes(experiment: Experiment) -> None:
    # Two layers of 8 + 16 numbers: 2 bits each, two scales of two bytes a pair, four bytes of norms.
    assert ideas.payload(experiment, 3, 2) == 2 * (3 * (24 * 2 / 8 + 4) + 4)
    assert ideas.payload(experiment, 3, 2, 16) == 2 * (3 * (24 * 2 / 8 + 4) + 4 + 18)


def test_every_idea_is_weighed(experiment: Experiment) -> None:
    rows = ideas.compared(experiment, [2])
    assert [row[0] for row in rows if not row[0].startswith("…")] == ["c = 2, q2", "c = 2, q1"]
    assert len(rows) == 2 + 3 + 3 + 3
    assert {row[4] for row in rows} <= {"", "helps", "harms", "no difference seen"}


def test_an_experiment_is_what_was_saved(experiment: Experiment, tmp_path: Path) -> None:
    save(tmp_path / "data", experiment)
    found = load(tmp_path / "data")
    assert (found.layers, found.train_ids, found.query_ids) == (
        experiment.layers, experiment.train_ids, experiment.query_ids,
    )  # fmt: skip
    assert all((found.train[layer] == experiment.train[layer]).all() for layer in found.layers)
    assert all((found.query[layer] == experiment.query[layer]).all() for layer in found.layers)
    assert (found.subsets == experiment.subsets).all()
    assert np.allclose(found.losses, experiment.losses, rtol=1e-6)
