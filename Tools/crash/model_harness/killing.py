"""When to kill: before a call that a step names, or from outside, at a random moment or change."""

from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Protocol

import numpy as np

from model_harness.operations import Operation
from model_harness.program import Kill, Run
from model_harness.steps import Step

# Share of the kills after which the next start is killed as well, and so on.
NESTED_SHARE = 0.4
NESTED_DEPTH = 3
# A kill comes at a uniform moment up to this multiple of what the command usually takes.
LATEST_KILL = 1.15
LATEST_NESTED_KILL = 0.7
FIRST_GUESS_SECONDS = 0.03
FIRST_GUESS_CHANGES = 20
# A kill comes before a uniformly random call below one of these: most commands make 30 to 150.
CALL_LIMITS = (8, 32, 64, 128, 256)
# Of readers so small a part is killed: nothing can change, but a killed reader could be in a writer's way.
READER_SHARE = 0.1


def draw_kills(random: np.random.Generator, share: float, reads_only: bool) -> tuple[int, ...]:
    """The calls before which the runs of a step are killed."""
    kills: list[int] = []
    while random.random() < (NESTED_SHARE if kills else share * (READER_SHARE if reads_only else 1)):
        if len(kills) > NESTED_DEPTH:
            break
        kills.append(int(random.integers(1, CALL_LIMITS[int(random.integers(len(CALL_LIMITS)))])))
    # Half of the last runs come to their end.
    return (*kills, 0) if kills and random.random() < 0.5 else tuple(kills)


class Killer(Protocol):
    """Decides about the runs of one step."""

    def next(self, operation: Operation, nested: int) -> Kill | None:
        """When to kill the run after `nested` killed ones."""

    def goes_on(self, nested: int) -> bool:
        """Whether the command is started again after so many killed runs."""

    def note(self, operation: Operation, run: Run) -> None:
        """Takes note of a run that came to its end."""


@dataclass
class CallKiller:
    """Kills as a step says."""

    step: Step

    def next(self, operation: Operation, nested: int) -> Kill | None:
        """Before the call that the step names."""
        call = self.step.kills[nested] if nested < len(self.step.kills) else 0
        return Kill(call=call) if call else None

    def goes_on(self, nested: int) -> bool:
        """As long as the step names calls."""
        return nested < len(self.step.kills)

    def note(self, operation: Operation, run: Run) -> None:
        """Nothing is learned."""


@dataclass
class ClockKiller:
    """Kills from outside, after a random part of what such an operation takes."""

    # Share of the operations that are killed.
    kills: float
    # Share of the kills that come at a random change in the directory instead of a random moment.
    aimed: float
    folder: Path
    random: np.random.Generator = field(default_factory=np.random.default_rng)
    # Seconds of runs that ended by themselves, by size of the operation.
    durations: dict[tuple[str, int, bool], deque[float]] = field(default_factory=dict)
    # Changes in the directory during such runs, alike.
    changes: dict[tuple[str, int, bool], deque[int]] = field(default_factory=dict)

    def next(self, operation: Operation, nested: int) -> Kill | None:
        """At a uniform moment or change, or not at all."""
        if self.random.random() >= (NESTED_SHARE if nested else self.kills):
            return None
        latest = LATEST_NESTED_KILL if nested else LATEST_KILL
        if self.random.random() >= self.aimed:
            return Kill(float(self.random.uniform(0, latest * self._usual_seconds(operation))))
        usual = median(self.changes.get(operation.size, [FIRST_GUESS_CHANGES]))
        change = int(self.random.integers(1, int(latest * usual) + 2))
        return Kill(change=change, folders=(self.folder, *(path for path in self.folder.rglob("*") if path.is_dir())))

    def goes_on(self, nested: int) -> bool:
        """By chance."""
        return nested <= NESTED_DEPTH and bool(self.random.random() < NESTED_SHARE)

    def note(self, operation: Operation, run: Run) -> None:
        """Learns how long it takes."""
        if run.code == 0:
            self.durations.setdefault(operation.size, deque(maxlen=9)).append(run.seconds)
            if run.changes:
                self.changes.setdefault(operation.size, deque(maxlen=9)).append(run.changes)

    def _usual_seconds(self, operation: Operation) -> float:
        """What an operation of this size takes, or one of this kind, or a guess."""
        if operation.size in self.durations:
            return median(self.durations[operation.size])
        alike = [
            median(seconds) / max(1, size[1]) for size, seconds in self.durations.items() if size[0] == operation.kind
        ]
        return max(alike, default=FIRST_GUESS_SECONDS) * max(1, operation.file_count)
