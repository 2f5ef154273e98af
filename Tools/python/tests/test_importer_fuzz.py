"""The importers on stores that were changed at random: the short form of Tools/fuzz/importers.py."""

import sys
import tokenize
from pathlib import Path

import pytest
from lorif.importers import npy

sys.path.insert(0, str(Path(__file__).parents[3] / "Tools" / "fuzz"))
import importers


def test_changed_stores_are_refused_or_read(tmp_path: Path) -> None:
    outcomes = importers.run_cases(list(importers.SEEDS), 7, range(150), tmp_path)
    assert outcomes.found == []
    refused, read = (sum(outcomes.counts[name, kind] for name in importers.SEEDS) for kind in ("refused", "accepted"))
    assert refused > 30
    assert read > 30


def test_a_planted_bug_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    errors = tuple(error for error in npy._HEADER_ERRORS if error is not tokenize.TokenError)
    monkeypatch.setattr(npy, "_HEADER_ERRORS", errors)
    assert importers.run_cases(["npy", "npy-vectors"], 7, range(100), tmp_path).found
