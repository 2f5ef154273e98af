"""Where the checks of the surroundings work, and how they complain.

Each check is a function of a `Place`; it returns how many cases it tried, and raises for the first that goes wrong.
"""

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fault_harness.sample_store import Inputs, make_store
from fault_harness.shim import ForkServer, Outcome


class FailedError(Exception):
    """Something is not as promised."""


@dataclass(frozen=True)
class Place:
    """The program, a folder to work in, and inputs."""

    binary: Path
    folder: Path
    server: ForkServer
    inputs: Inputs
    short: bool
    # Bugs for the processes that `start` starts.
    plant: Mapping[str, str] = field(default_factory=dict)

    def new_store(self, name: str) -> Path:
        """A small store."""
        store = self.folder / name
        make_store(self.server, store, self.inputs, whitened=False)
        return store

    def start(self, *arguments: object) -> subprocess.Popen[bytes]:
        """The program as a process of its own."""
        command = [str(self.binary), *map(str, arguments)]
        return subprocess.Popen(
            command,
            env={**os.environ, **self.plant},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )


def expect(condition: object, *facts: object) -> None:
    """Raises unless the condition holds."""
    if not condition:
        raise FailedError("; ".join(map(str, facts)))


def typed(outcome: Outcome, *codes: int) -> None:
    """Raises unless it ended with one of these exit codes and, if that is an error, with words."""
    expect(outcome.is_typed and outcome.code in codes, f"expected exit code {codes}", outcome)
