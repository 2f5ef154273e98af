"""What tests of collections share: one cluster of nodes on the loopback, and one store, for the whole session."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
import ray_environment

if TYPE_CHECKING:
    from ray_support import Library


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """A cluster of three nodes that work, in a network that has nothing but a loopback where that is permitted."""
    from ray_support import started  # noqa: PLC0415 - Ray may not be installed

    with ray_environment.loopback_only() as isolated, started(3) as found:
        found.has_only_a_loopback = isolated
        yield found


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> "Library":
    """A small store of seven segments."""
    from ray_support import make_library  # noqa: PLC0415 - Ray may not be installed

    return make_library(tmp_path_factory.mktemp("library") / "f16", ["--encoding=f16"])
