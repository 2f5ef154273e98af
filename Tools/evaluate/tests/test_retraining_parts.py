# ruff: noqa: D103, E402, S101
"""The parts of a retraining experiment, against PyTorch's own optimizer and numbers worked out by hand."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from lorif.batch import FactorBatch

torch = pytest.importorskip("torch", reason="torch is not installed; retraining stays UNTESTED")
pytest.importorskip("sklearn", reason="scikit-learn is not installed; retraining stays UNTESTED")

from retraining import training
from retraining.changes import Change, changes, pairs
from retraining.detection import area, precision
from retraining.judging import agreement, best_within, jackknife
from retraining.models import random_halves
from retraining.patches import PatchTransformer, patches
from retraining.plans import PLANS
from retraining.recording import recorded, recorded_for_adam
from retraining.scoring import Outcome
from retraining.tasks import open_task
from retraining.ways import logra, ways
from retraining.workshop import OutOfTime, Workshop

RECIPE = training.Recipe(epochs=2, batch=3, peak=1e-2, decay=0.1)


@pytest.fixture
def problem() -> tuple:
    torch.manual_seed(0)
    model = PatchTransformer(4, 6, 3, width=8, heads=2, depth=1).double()
    data = torch.randn(12, 6, 4, dtype=torch.float64), torch.randint(3, (12,))
    start = {name: value.detach().clone() for name, value in model.named_parameters()}
    return model, start, data


def test_stacked_training_is_adamw(problem: tuple) -> None:
    model, start, data = problem
    rows, seeds = torch.tensor([[0, 2, 4, 6, 8, 10], [1, 3, 5, 7, 9, 11]]), [5, 6]
    seen: list[tuple[int, dict, dict]] = []
    found = training.train(
        model, start, data, rows=rows, seeds=seeds, recipe=RECIPE,
        after=lambda epochs, weights, squares: seen.append((epochs, dict(weights), dict(squares))),
    )  # fmt: skip
    assert [epochs for epochs, *_ in seen] == [1, 2]
    for place in range(2):
        model.load_state_dict(start)
        betas = (training.BETA_1, training.BETA_2)
        optimizer = torch.optim.AdamW(model.parameters(), 1e-2, betas, eps=training.TINY, weight_decay=0.1)
        step = 0
        for epoch in range(2):
            for chosen in training._orders(rows, seeds, epoch, 3)[:, place]:
                step += 1
                # Four steps: the tenth of them that warms up is none.
                optimizer.param_groups[0]["lr"] = 1e-2 * 0.5 * (1 + np.cos(np.pi * step / 4))
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(model(data[0][chosen]), data[1][chosen]).backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
        for name, value in model.named_parameters():
            assert torch.allclose(found[name][place], value, rtol=1e-5, atol=1e-6), name
            assert torch.equal(seen[1][1][name], found[name])
            squares = optimizer.state[value]["exp_avg_sq"] / (1 - training.BETA_2**step)
            assert torch.allclose(seen[1][2][name][place], squares, rtol=1e-4, atol=1e-12), name
        own = training.losses_of(model, found, data)[place]
        alone = torch.nn.functional.cross_entropy(model(data[0]), data[1], reduction="none")
        assert torch.allclose(own, alone, rtol=1e-4, atol=1e-5)


def test_every_model_has_its_own_rows_in_its_own_order() -> None:
    rows = torch.tensor([[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]])
    first, second = (training._orders(rows, [1, 2], epoch, 2) for epoch in (0, 1))
    assert first.shape == (2, 2, 2)
    assert set(first[:, 0].flatten().tolist()) < set(range(5))
    assert set(first[:, 1].flatten().tolist()) < set(range(5, 10))
    assert first.tolist() != second.tolist()
    assert first.tolist() == training._orders(rows, [1, 2], 0, 2).tolist()
    large = training.Recipe(1, 9, 1)
    with pytest.raises(ValueError, match="expected at least 9 rows"):
        training.train(torch.nn.Linear(1, 1), {}, (rows, rows), rows=rows, seeds=[1, 2], recipe=large)


def test_losses_of_texts_are_means_over_places() -> None:
    logits = torch.randn(2, 5, 7)
    targets = torch.randint(7, (2, 5))
    expected = [torch.nn.functional.cross_entropy(logits[row], targets[row]) for row in range(2)]
    assert torch.allclose(training.losses(logits, targets), torch.stack(expected))


def test_patches_are_squares() -> None:
    image = torch.arange(16.0).view(1, 4, 4)
    assert patches(image, 2)[0].tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]


def test_digits_are_planted_as_said(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits  # noqa: PLC0415

    plan = PLANS["digits", "short"]
    workshop = Workshop(tmp_path, plan)
    task = open_task(workshop, None)
    known = {tuple(np.round(image.flatten())): label for image, label in zip(*_images(load_digits()), strict=True)}
    # Patches back to pixels; the scale is that of the data.
    inputs = task.train[0].numpy().reshape(-1, 4, 4, 2, 2).transpose(0, 1, 3, 2, 4).reshape(-1, 64)
    low, high = inputs.min(), inputs.max()
    truth = np.array([known[tuple(np.round(16 * (row - low) / (high - low)))] for row in inputs])
    assert ((task.train[1].numpy() != truth) == task.spoiled).all()
    assert task.spoiled.sum() == round(plan.spoiled * plan.train)
    assert not task.spoiled[task.copied].any()
    distance = np.linalg.norm((task.copy[0] - task.train[0][torch.from_numpy(task.copied)]).flatten(1), axis=1)
    assert (distance > 0).all()
    others = torch.cdist(task.copy[0].flatten(1), task.train[0].flatten(1)).argmin(1)
    assert others.tolist() == task.copied.tolist()
    # Read in another run, it is the same.
    assert torch.equal(open_task(Workshop(tmp_path, plan), None).query[0], task.query[0])


def _images(found: object) -> tuple:
    return found.images, found.target


def test_gradients_for_adam_are_the_recorders_where_all_weights_are_alike(tmp_path: Path) -> None:
    """With v = 16 everywhere they are half of what the recorder gives, by a path of its own."""
    workshop = Workshop(tmp_path / "w", dataclasses.replace(PLANS["digits", "short"], train=60, queries=20))
    task = open_task(workshop, None)
    torch.manual_seed(1)
    model = task.model()
    squares = {name: torch.full_like(value, 16.0) for name, value in model.named_parameters()}
    plain = recorded(workshop, task, model, "plain-24", full=True, d=24)
    halved = recorded_for_adam(workshop, task, model, squares, (24, plain))
    for part in ("train", "query", "copy"):
        one, other = FactorBatch(plain[part]), FactorBatch(halved[part])
        assert one.ids == other.ids
        for layer in one.layers:
            wanted = one.gradients(layer.name) / 2
            assert np.abs(other.gradients(layer.name) - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_halves_are_halves(tmp_path: Path) -> None:
    halves = random_halves(Workshop(tmp_path, PLANS["digits", "short"]))
    assert (halves.sum(axis=1) == 200).all()
    assert len({row.tobytes() for row in halves}) == len(halves)


def test_precision_and_area_by_hand() -> None:
    wrong = np.array([True, False, True, False, False])
    suspicion = np.array([0.9, 0.8, 0.3, 0.2, 0.3])
    # The two most suspicious: one of them is wrong.
    assert precision(suspicion, wrong) == (0.5, pytest.approx(np.sqrt(0.125)))
    # 0.9 beats all three right ones; 0.3 beats one and ties with one.
    assert area(suspicion, wrong) == pytest.approx(4.5 / 6)


def test_agreement_by_hand() -> None:
    reference = np.arange(20.0)[None]
    assert agreement(reference, reference) == (1, 10)
    assert agreement(-reference, reference) == (-1, 0)


def test_jackknife_of_what_is_alike_is_nothing() -> None:
    random = np.random.default_rng(1)
    sums, losses = random.standard_normal((6, 40)), random.standard_normal((40, 6))
    assert jackknife(sums, sums, losses) == 0
    assert jackknife(sums, -losses.T, losses) > 0


def test_ways_differ_in_their_keys() -> None:
    for plan in PLANS.values():
        keys = [way.key for way in ways(plan)]
        assert len(set(keys)) == len(keys)
        assert all(logra(d).key in keys for d in plan.dimensions)


def test_changes_are_between_ways_that_are_measured() -> None:
    for name in ("digits", "text"):
        plan = PLANS[name, "long"]
        titles = {way.title for way in ways(plan)}
        for title, before, after in pairs(plan):
            assert {before, after} <= titles, title


def test_a_change_is_a_difference_on_the_queries_that_chose_nothing() -> None:
    plan = PLANS["digits", "short"]
    random = np.random.default_rng(4)
    losses = random.standard_normal((40, 8))
    by_title = {way.title: way for way in ways(plan)}
    _, before, after = next(pair for pair in pairs(plan) if pair[0] == "whitening before truncation")
    lds = {before: np.arange(8.0), after: np.arange(8.0) + np.array([9, 0.1, 9, 0.2, 9, 0.3, 9, 0.4])}
    outcomes = [
        Outcome(by_title[title], 7, 7, 0, np.array([1.0]), lds[title][None], 0, -losses.T, np.zeros((8, 2), np.float32))
        for title in (before, after)
    ]
    (found,) = changes(outcomes, losses, plan)
    assert found.gain[0] == pytest.approx(0.25)
    assert found.subset_error == 0
    assert found.verdict == "helps"
    assert Change("", "", "", (1, 1), (0.25, 0.01), 0.2).verdict == "no difference seen"
    assert Change("", "", "", (1, 1), (-0.25, 0.1), 0.01).verdict == "harms"


def test_the_best_within_a_budget() -> None:
    @dataclasses.dataclass
    class Stub:
        outcome: object
        chosen: float
        fewer: float

    by_rank = {way.rank: way for way in ways(PLANS["text", "long"]) if way.d == 16 and way.family == "LoRIF whitened"}
    found = [
        Stub(dataclasses.make_dataclass("O", ["way"])(way), chosen, fewer)
        for way, chosen, fewer in (
            (by_rank[1], 0.3, 64),
            (by_rank[2], 0.4, 32),
            (by_rank[4], 0.5, 16),
            (logra(16), 0.9, 99),
        )
    ]
    assert best_within(found, 16, 30) is found[1]
    assert best_within(found, 16, 100) is None
    assert best_within(found, 32, 1) is None


def test_a_workshop_ends_when_its_time_is_over(tmp_path: Path) -> None:
    workshop = Workshop(tmp_path, PLANS["digits", "short"], seconds=0)
    with pytest.raises(OutOfTime):
        workshop.begin()
    workshop.save("deep/result", {"a": np.arange(3)})
    assert workshop.has("deep/result")
    assert workshop.load("deep/result")["a"].tolist() == [0, 1, 2]
    workshop.done("something")
    assert "something" in Workshop(tmp_path, PLANS["digits", "short"]).spent
