# ruff: noqa: D103, S101
"""Scores and correlations against their definitions, written out."""

import numpy as np
import pytest
from experiment import Experiment, average_ranks, mean_and_error, rank_correlations, whitened
from influence import LayerInfluence, total_dot, total_influence


@pytest.fixture
def layers() -> list[tuple[np.ndarray, np.ndarray]]:
    random = np.random.default_rng(6)
    shapes = [(3, 4), (2, 5)]
    return [
        (
            random.standard_normal((30, *shape)).astype(np.float32),
            random.standard_normal((4, *shape)).astype(np.float32),
        )
        for shape in shapes
    ]


@pytest.fixture
def subsets() -> np.ndarray:
    return np.random.default_rng(7).integers(2, size=(6, 30)).astype(np.float64)


@pytest.mark.parametrize("rank", [None, 1, 4])
def test_influence_is_the_damped_inverse(layers: list, subsets: np.ndarray, rank: int | None) -> None:
    expected = np.zeros((4, 6))
    for rows, queries in layers:
        g, q = rows.reshape(30, -1).astype(np.float64), queries.reshape(4, -1).astype(np.float64)
        left, values, right = np.linalg.svd(g, full_matrices=False)
        damping = 0.3 * np.trace(g.T @ g) / g.shape[1]
        values[rank if rank is not None else len(values) :] = 0
        kept = left * values @ right
        scores = q @ np.linalg.solve(kept.T @ kept + damping * np.eye(g.shape[1]), g.T)
        expected += scores @ subsets.T
    parts = [LayerInfluence(rows, queries, subsets) for rows, queries in layers]
    assert np.allclose(total_influence(parts, 0.3, rank), expected, rtol=1e-9, atol=1e-9)


def test_dot_is_the_inner_product(layers: list, subsets: np.ndarray) -> None:
    expected = sum(np.einsum("qab,nab,sn->qs", q, g, subsets) for g, q in layers)
    parts = [LayerInfluence(rows, queries, subsets) for rows, queries in layers]
    assert np.allclose(total_dot(parts), expected, rtol=1e-5, atol=1e-4)


def test_an_empty_layer_adds_nothing(subsets: np.ndarray) -> None:
    part = LayerInfluence(np.zeros((30, 2, 2), np.float32), np.ones((3, 2, 2), np.float32), subsets)
    assert not part.influence(0.1).any()


def test_ties_share_their_rank() -> None:
    values = np.array([[3.0, 1.0, 3.0, 2.0, 3.0], [1.0, 1.0, 1.0, 1.0, 1.0]])
    assert average_ranks(values).tolist() == [[3, 0, 3, 1, 3], [2, 2, 2, 2, 2]]


def test_rank_correlation_by_hand() -> None:
    first = np.array([[1.0, 2.0, 3.0, 4.0, 5.0], [1.0, 2.0, 3.0, 4.0, 5.0], [1.0, 1.0, 1.0, 1.0, 1.0]])
    # 1 - 6 Σ d² / (n (n² - 1)) with d = (1, 1, 1, 1, 0): 1 - 24 / 120.
    second = np.array([[20.0, 10.0, 40.0, 30.0, 50.0], [5.0, 4.0, 3.0, 2.0, 1.0], [1.0, 2.0, 3.0, 4.0, 5.0]])
    assert rank_correlations(first, second).tolist() == pytest.approx([0.8, -1, 0])


def test_standard_error_by_hand() -> None:
    mean, error = mean_and_error(np.array([1.0, 2.0, 3.0, 6.0]))
    assert mean == 3
    assert error == pytest.approx(np.sqrt(14 / 3 / 4))


def test_whitened_moments_are_one() -> None:
    random = np.random.default_rng(8)
    mixing = random.standard_normal((3, 3)), random.standard_normal((4, 4))
    rows = (mixing[0] @ random.standard_normal((20_000, 3, 4)) @ mixing[1]).astype(np.float32)
    query = random.standard_normal((2, 3, 4)).astype(np.float32)
    nothing = np.zeros((1, 1))
    result = whitened(Experiment(["l"], {"l": rows}, {"l": query}, [], [], nothing, nothing), 0)
    moment = np.einsum("nab,ncb->ac", result.train["l"], result.train["l"]) / len(rows)
    # A Kronecker-structured covariance comes out as a multiple of one on either side.
    assert np.allclose(moment / np.trace(moment) * 3, np.eye(3), atol=0.05)
    # Queries go through the same map as training rows.
    again = whitened(Experiment(["l"], {"l": rows}, {"l": rows[:5]}, [], [], nothing, nothing), 0)
    assert np.allclose(again.query["l"], result.train["l"][:5], rtol=1e-4, atol=1e-5)
