"""Many sequences: drawn and played one after the other, counted, and shrunk when they fail."""

import shutil
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

from fault_harness.table import Table
from model_harness.kinds import KINDS
from model_harness.observation import ObservationError
from model_harness.sequence import END, Sequence, Settings, ViolationError, play
from model_harness.shrinking import shrink
from model_harness.steps import Step

COUNTED = ("runs", "kills", "nested", "before", "between", "after", "refused", "violations")
PROGRESS_SECONDS = 60.0


@dataclass
class Tally:
    """What came of the sequences."""

    counts: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    violations: list[str] = field(default_factory=list)
    operations: int = 0
    sequences: int = 0
    # The first sequence that was not begun, of the part that has come least far.
    next_sequence: int | None = None

    def add(self, counts: dict[str, Counter[str]]) -> None:
        """Adds the counts of a sequence."""
        for kind, of_kind in counts.items():
            self.counts[kind].update(of_kind)

    def merge(self, other: "Tally") -> None:
        """Adds another one's counts."""
        self.add(other.counts)
        self.violations += other.violations
        self.operations += other.operations
        self.sequences += other.sequences
        known = [number for number in (self.next_sequence, other.next_sequence) if number is not None]
        self.next_sequence = min(known, default=None)

    @property
    def kills(self) -> int:
        """All runs that were killed."""
        return sum(counts["kills"] for counts in self.counts.values())

    def table(self) -> Table:
        """The counts, a line for each kind of operation."""
        total: Counter[str] = sum(self.counts.values(), Counter())
        lines = [(kind, self.counts[kind]) for kind in KINDS if kind in self.counts] + [("all", total)]
        rows = [[kind, *(str(counts[name]) for name in COUNTED)] for kind, counts in lines]
        return Table("Random operations against the model", ["operation", *COUNTED], rows)


@dataclass
class Session:
    """Plays sequences until there were enough operations."""

    settings: Settings
    # Every how manieth sequence is this session's, from which on.
    sequences: range
    operations: int
    deadline: float
    violation_limit: int
    # Where a failing sequence's folder is kept.
    keep: Path | None
    repeat: str
    # Set when no further sequence is to begin.
    stop: Event = field(default_factory=Event)
    tally: Tally = field(default_factory=Tally)

    def run(self) -> Tally:
        """All sequences that there are operations and time for."""
        said = time.monotonic()
        for number in self.sequences:
            self.tally.next_sequence = number
            if self.tally.operations >= self.operations or time.monotonic() > self.deadline or self.stop.is_set():
                break
            self._run_sequence(number)
            if len(self.tally.violations) >= self.violation_limit:
                break
            if time.monotonic() - said > PROGRESS_SECONDS:
                said = time.monotonic()
                facts = (self.tally.operations, self.tally.kills, len(self.tally.violations))
                print("{} operations, {} kills, {} violations".format(*facts), file=sys.stderr, flush=True)
        return self.tally

    def _run_sequence(self, number: int) -> None:
        sequence = Sequence(self.settings, number)
        steps: list[Step] = []
        began = len(self.settings.program.history)
        try:
            for place in range(min(sequence.length, self.operations - self.tally.operations)):
                step = sequence.draw(place)
                steps.append(step)
                self.tally.operations += 1
                sequence.apply(step)
            steps.append(Step(sequence.length, END))
            sequence.finish()
        except (ViolationError, ObservationError) as problem:
            self._report(number, steps, str(problem), began)
        self.tally.add(sequence.counts)
        self.tally.sequences += 1
        del self.settings.program.history[began:]

    def _report(self, number: int, steps: list[Step], text: str, began: int) -> None:
        """Says what was violated, by the shortest sequence that does it."""
        self.tally.counts[steps[-1].kind]["violations"] += 1
        history = self.settings.program.history
        tried = 0
        if self.settings.clock is None:

            def again(candidate: list[Step]) -> tuple[str | None, list[Step]]:
                del history[began:]
                return play(self.settings, number, candidate)

            steps, text, tried = shrink(steps, text, again)
            # The last one that was tried may have been none that fails: once more, for its commands and files.
            text = again(steps)[0] or f"{text}\n(not when it was played once more)"
        commands = "\n".join(map(str, history[began:]))
        words = ",".join(map(str, steps))
        full = f"VIOLATION in sequence {number} of seed {self.settings.seed}, {steps[-1].kind}: {text}\n{commands}\n"
        how = f", the shortest of {tried} that were tried" if tried else ""
        full += f"{len(steps)} steps{how}: {words}\n"
        full += f"repeat: {self.repeat} --sequence {number}" + (f" --steps '{words}'" if tried else "")
        if self.keep is not None:
            kept = self.keep / f"sequence-{number}"
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(self.settings.folder, kept)
            (kept / "violation.txt").write_text(full + "\n", encoding="utf-8")
            full += f"\nkept: {kept}"
        self.tally.violations.append(full)
        print(full, file=sys.stderr, flush=True)
