"""What every end-to-end test needs: the program, the reference data, a place to work."""

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


def pytest_configure(config: pytest.Config) -> None:
    binary = os.environ.get("LORIF_BIN", "")
    if not binary or not os.access(binary, os.X_OK):
        raise pytest.UsageError("set LORIF_BIN to the built program (Tools/test does)")
    # Plans must not depend on what was measured on this machine.
    cache = tempfile.mkdtemp(prefix="lorif-cache-")
    config.add_cleanup(lambda: shutil.rmtree(cache, ignore_errors=True))
    os.environ["XDG_CACHE_HOME"] = cache


@pytest.fixture(scope="session")
def reference() -> Path:
    return ROOT / "Tests" / "Data" / "reference"


@pytest.fixture
def random(request: pytest.FixtureRequest) -> np.random.Generator:
    """Random numbers that are the same in every run and differ between tests."""
    return np.random.default_rng(list(request.node.name.encode()))
