"""A folder in which an experiment grows step by step, and goes on after an interruption where it was."""

import dataclasses
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retraining.plans import Plan

__all__ = ["OutOfTime", "Workshop"]


class OutOfTime(Exception):  # noqa: N818 - not an error: what is done is kept
    """The seconds given to this run are over."""


class Workshop:
    """The folder, the time given, and a file that others put there to have the machine to themselves.

    Attributes:
        folder: Where everything is kept.
        plan: What the folder is of; another plan is refused.
        spent: Processor seconds of each kind of step, in all runs.
    """

    def __init__(self, folder: Path, plan: Plan, *, seconds: float | None = None, wait_for: Path | None = None) -> None:
        self.folder = folder
        self.plan = plan
        self._end = None if seconds is None else time.monotonic() + seconds
        self._wait_for = wait_for
        folder.mkdir(parents=True, exist_ok=True)
        settings = folder / "plan.json"
        text = json.dumps(dataclasses.asdict(plan), indent=1) + "\n"
        if not settings.exists():
            settings.write_text(text, encoding="utf-8")
        elif settings.read_text(encoding="utf-8") != text:
            raise ValueError(f"{settings}: expected the plan asked for, found another; give another --work folder")
        times = folder / "seconds.json"
        self.spent: dict[str, float] = json.loads(times.read_text()) if times.exists() else {}
        self._since = self._processor()

    @staticmethod
    def _processor() -> float:
        """Seconds of this process and of the programs that it waited for."""
        used = os.times()
        return used.user + used.system + used.children_user + used.children_system

    def pause(self) -> None:
        """Waits while the file is there."""
        while self._wait_for is not None and self._wait_for.exists():
            time.sleep(5)

    def begin(self) -> None:
        """Before a piece of work: waits, and gives up if the time is over."""
        self.pause()
        if self._end is not None and time.monotonic() > self._end:
            raise OutOfTime
        self._since = self._processor()

    def done(self, kind: str) -> None:
        """After a piece of work: notes what it took."""
        now = self._processor()
        self.spent[kind] = self.spent.get(kind, 0.0) + now - self._since
        self._since = now
        self._replace(self.folder / "seconds.json", json.dumps(self.spent, indent=1).encode())

    def path(self, name: str) -> Path:
        """A path in the folder, whose own folder exists."""
        result = self.folder / name
        result.parent.mkdir(parents=True, exist_ok=True)
        return result

    @staticmethod
    def _replace(path: Path, content: bytes) -> None:
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_bytes(content)
        temporary.replace(path)

    def has(self, name: str) -> bool:
        """Whether a result is there, whole."""
        return (self.folder / f"{name}.npz").exists()

    def save(self, name: str, arrays: Mapping[str, NDArray]) -> None:
        """Keeps arrays under a name; whole or not at all."""
        path = self.path(f"{name}.npz")
        temporary = path.with_name(f".{path.name}.tmp")
        with temporary.open("wb") as file:
            np.savez(file, **arrays)
        temporary.replace(path)

    def load(self, name: str) -> dict[str, NDArray]:
        """The arrays kept under a name."""
        with np.load(self.folder / f"{name}.npz", allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
