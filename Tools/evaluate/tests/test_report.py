# ruff: noqa: D103, S101
"""Choosing and reporting on measurements whose outcome is known."""

import json

import numpy as np
import pytest
from command import parse
from measurement import Measurement, Size, Store, at_budget, choose, choosing_half, flat_range, frontier, paired_loss
from report import as_json, markdown

EXACT_STORE = Store(4, "f32")
SMALL_STORE = Store(4, "q2")
DENSE_STORE = Store(None, "f32")
SIZES = {EXACT_STORE: Size(1000), SMALL_STORE: Size(100), DENSE_STORE: Size(900)}


def scores(choosing: float, confirming: float) -> np.ndarray:
    return np.where(choosing_half(6), choosing, confirming)


@pytest.fixture
def measurements() -> list[Measurement]:
    return [
        Measurement(EXACT_STORE, "exact", 0.1, scores(0.5, 0.1)),
        Measurement(EXACT_STORE, "exact", 1.0, scores(0.4, 0.9)),
        Measurement(EXACT_STORE, "dot", None, scores(0.2, 0.2)),
        Measurement(SMALL_STORE, "exact", 0.1, scores(0.3, 0.3)),
        Measurement(SMALL_STORE, "exact", 1.0, scores(0.35, 0.0)),
        Measurement(SMALL_STORE, "dot", None, scores(0.1, 0.1)),
        Measurement(DENSE_STORE, "exact", 0.1, scores(0.33, 0.5)),
        Measurement(DENSE_STORE, "exact", 1.0, scores(0.32, 0.5)),
        Measurement(DENSE_STORE, "dot", None, scores(0.1, 0.1)),
    ]


def test_damping_is_chosen_on_one_half_and_judged_on_the_other(measurements: list[Measurement]) -> None:
    exact = [choice for choice in choose(measurements) if choice.curvature == "exact"]
    assert [choice.rho for choice in exact] == [0.1, 1.0, 0.1]
    assert [choice.chosen for choice in exact] == pytest.approx([0.5, 0.35, 0.33])
    assert exact[0].confirming.tolist() == [0.1] * 3
    assert exact[1].confirming.tolist() == [0.0] * 3
    assert paired_loss(exact[1], exact[0]) == pytest.approx((0.1, 0))


def test_what_is_larger_and_worse_is_off_the_frontier(measurements: list[Measurement]) -> None:
    exact = [choice for choice in choose(measurements) if choice.curvature == "exact"]
    assert [choice.store for choice in frontier(exact, SIZES)] == [SMALL_STORE, EXACT_STORE]


def test_flat_range() -> None:
    items = [
        Measurement(EXACT_STORE, "exact", rho, np.full(4, value))
        for rho, value in ((0.1, 0.3), (1.0, 0.4), (10.0, 0.395), (100.0, 0.38))
    ]
    assert flat_range(items) == (1, 10)


def test_equal_size_is_interpolated_in_the_logarithm() -> None:
    stores = [Store(1, "q2"), Store(4, "q2"), Store(1, "q4"), Store(None, "q4")]
    sizes = dict(zip(stores, (Size(100), Size(400), Size(200), Size(900)), strict=True))
    measured = [Measurement(store, "exact", 1.0, np.full(4, 0.1 * (i + 1))) for i, store in enumerate(stores)]
    found = at_budget(choose(measured), sizes, 200)
    # Halfway between 100 and 400 in the logarithm; q4 has one rank only, and dense rows do not count.
    assert list(found) == ["q2"]
    assert found["q2"] == pytest.approx(np.full(4, 0.15))
    assert at_budget(choose(measured), sizes, 401) == {}


def test_reports_hold_the_numbers(measurements: list[Measurement]) -> None:
    text = markdown("T", {"basis": "as given"}, measurements, SIZES)
    assert "| c = 4, f32 | – | – | 1,000 | 0.300 ± 0.089 (ρ 0.1) | 0.200 ± 0.000 |" in text
    assert "| c = 4, q2 | 100 | 1 | 0.350 | 0.000 ± 0.000 | 0.100 ± 0.000 |" in text
    content = json.loads(as_json({}, measurements, SIZES))
    assert len(content["measurements"]) == 9
    assert content["measurements"][0]["lds"] == pytest.approx(0.3)
    assert content["measurements"][6]["rank"] is None
    assert content["chosen"][0]["lds_confirming"] == pytest.approx(0.1)


def test_command_line() -> None:
    options = parse(["data", "--numpy", "--ranks", "2", "full", "--curvatures", "exact", "16"])
    assert options.ranks == [2, None]
    assert options.curvatures == ["exact", "16"]
    for wrong in (["--ranks", "0"], ["--curvatures", "none"], ["--output", "x.txt"], ["--encodings", "q5"]):
        with pytest.raises(SystemExit) as refusal:
            parse(["data", "--numpy", *wrong])
        assert refusal.value.code == 2
