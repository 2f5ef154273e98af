# ruff: noqa: D103, S101
"""The simulated query against what can be said of it by hand."""

from dataclasses import replace

import cluster_simulation
import numpy as np
import pytest
from cluster_simulation import UNITS_PER_NODE, Scenario, quantiles, simulate, spread

CALM = Scenario(
    nodes=8, scan_seconds=100.0, query_bytes=1e9, answer_bytes=1e6, answer_lines=1000, link_rate=1e9,
    lines_per_second=1e5, units_per_second=1e6,
)  # fmt: skip


@pytest.fixture
def even(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes and links that are all alike, and none that dies."""
    for name in ("SIGMA", "SLOW_SHARE", "DEATH_SHARE", "LINK_SIGMA"):
        monkeypatch.setattr(cluster_simulation, name, 0.0)


def test_alike_nodes_take_what_arithmetic_says(even: None) -> None:
    found = simulate(CALM, np.random.default_rng(0))
    # One has it after a second, two more after another, then four: eight after the fourth.
    assert sorted(spread(CALM, np.random.default_rng(0))) == pytest.approx([1, 2, 2, 3, 3, 3, 3, 4], abs=1e-5)
    assert (found.sent, found.scanned) == (pytest.approx(4), pytest.approx(104))
    assert found.merged - found.received == pytest.approx(8 * UNITS_PER_NODE * 1000 / 1e5)
    assert found.done_twice == 0


def test_answers_wait_for_the_one_link(even: None) -> None:
    narrow = replace(CALM, query_bytes=0.0, answer_bytes=10e9)
    found = simulate(narrow, np.random.default_rng(0))
    # The first eight come after a quarter of the scan; from then on the link is never free.
    assert found.received == pytest.approx(25 + 8 * UNITS_PER_NODE * 10, abs=1e-4)


def test_slow_and_dead_nodes_cost_little_with_backups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_simulation, "DEATH_SHARE", 0.1)
    monkeypatch.setattr(cluster_simulation, "SLOW_SHARE", 0.05)
    monkeypatch.setattr(cluster_simulation, "SLOWNESS", 50.0)
    alone, _ = quantiles(replace(CALM, nodes=100, backups=False))
    helped, _ = quantiles(replace(CALM, nodes=100))
    # A unit takes a slow node 50 × 25 seconds.
    assert alone.scanned > 1000
    assert 100 < helped.scanned < 300
