"""Runs a command whose n-th call fails, for every n, and looks at what it says and leaves."""

import re
import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from fault_harness.crash_check import Expectation, Observer, listing, tree_digest
from fault_harness.damage_check import are_close
from fault_harness.error_cases import EIO, Command, Fault
from fault_harness.sample_store import Inputs
from fault_harness.shim import NO, OK, REFUSED, ForkServer, Kind, Outcome

# Where the outcome is unknown the program says so: after a commit that failed, and after a last fsync of a directory,
# when the new store is there under its name and nobody knows whether the name will survive a power failure. A fit with
# coordinates says that its curvature is there.
IN_DOUBT = ("not known", "cannot synchronize", "is kept, and the same command")


SYNCHRONISING = (Kind.FSYNC, Kind.FDATASYNC)
DURABLE = re.compile(r"\.(segment|curvature|basis|mdb|store|safetensors|jsonl|writing)$")


@dataclass
class ErrorTally:
    """What came of the failing calls."""

    points: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    runs: int = 0
    planned: int = 0


@dataclass
class ErrorChecker:
    """Checks one command; `root` has the store, and is made anew from `base` for each run."""

    command: Command
    server: ForkServer
    observer: Observer
    inputs: Inputs
    base: Path
    report: Path

    def __post_init__(self) -> None:
        self.still_open = self.report.with_name("still-open")
        self._recovered: dict[bytes, list[str]] = {}
        self.root = self.observer.root
        self.fresh()
        between = []
        for step in self.command.between:
            self.server.run(*step(self.root, self.inputs))
            between.append(self.observer.state()[1])
            self.fresh()
        before = self.observer.state()[1]
        clean = self._run({})
        problems, after = self.observer.state()
        if clean.code not in (OK, NO) or problems:
            raise RuntimeError(f"a clean run fails: {problems}\n{clean}")
        self.clean = clean
        self.output = self._written()
        self.expected = Expectation(before, after, between, listing(self.root), clean.code)

    def fresh(self) -> None:
        """Puts back what the command begins with."""
        if self.root.exists():
            shutil.rmtree(self.root)
        shutil.copytree(self.base, self.root)

    def _run(self, settings: dict[str, object]) -> Outcome:
        return self.server.run(*self.command.arguments(self.root, self.inputs), settings=settings)

    def _written(self) -> bytes:
        """The file that a reading command writes."""
        path = self.root / "exported.safetensors"
        return path.read_bytes() if path.exists() else b""

    def calls(self, fault: Fault, first: int) -> tuple[Outcome, list[str]]:
        """Runs it with the calls from `first` on failing; gives the lines of the shim's report."""
        self.fresh()
        settings = {"LORIF_SHIM_ROOT": self.root.parent, **fault.settings(first, self.report)}
        settings["LORIF_OPEN_REPORT"] = self.still_open
        self.still_open.unlink(missing_ok=True)
        outcome = self._run(settings)
        return outcome, self.report.read_text("utf-8", "replace").splitlines()

    def check(self, fault: Fault, first: int, tally: ErrorTally) -> None:
        """One point of failure."""
        outcome, lines = self.calls(fault, first)
        struck = lines[first - 1] if len(lines) >= first else "no call"
        problems: list[str] = []
        if not outcome.is_typed:
            problems.append(str(outcome))
        elif self.command.is_reading:
            problems += self._check_reading(outcome, struck, fault)
        else:
            problems += self._check_writing(outcome)
            # Only what is done after a commit, to names that are not needed any more, may go wrong unnoticed.
            parts = struck.split()
            if (
                outcome.code == OK
                and struck[0].isdigit()
                and int(parts[1]) in SYNCHRONISING
                and DURABLE.search(parts[3])
            ):
                problems.append("a file could not be made durable, and nobody was told")
        problems += self._descriptors_left(outcome)
        tally.points[fault.name] += 1
        tally.outcomes[f"exit code {outcome.code}"] += 1
        where = f"{self.command.name}: {fault.name}, call {struck}"
        tally.violations += [f"{where}: {problem}" for problem in problems]

    def _descriptors_left(self, outcome: Outcome) -> list[str]:
        """What a failed operation has not closed by the time that the error has left everything."""
        if not self.still_open.exists():
            return [] if outcome.code < 0 else ["the process has ended without exit handlers"]
        names = self.still_open.read_text("utf-8", "replace").splitlines()
        return [f"descriptors still open: {[Path(name).name for name in names]}"] if names else []

    def _check_reading(self, outcome: Outcome, struck: str, fault: Fault) -> list[str]:
        problems = []
        if outcome.code == OK and self.command.name == "verify":
            # What could not be read must not be called sound.
            kind = Kind(int(struck.split()[1])) if struck[0].isdigit() else None
            if fault.code == EIO and kind == Kind.READ:
                problems.append("sound, although a read has failed")
        elif outcome.code == OK:
            is_same = self._plain(outcome) == self._plain(self.clean)
            # Coordinates that cannot be read are computed anew, from other roundings, with a note.
            is_derived = "coordinates" in outcome.stderr and are_close(outcome.stdout, self.clean.stdout)
            if not is_same and not is_derived:
                problems.append("answers differently and says nothing")
            if self._written() != self.output:
                problems.append("writes another file and says nothing")
        found, state = self.observer.state()
        if found or state != self.expected.before:
            problems.append(f"a reading command has changed the store: {found}")
        return problems

    def _plain(self, outcome: Outcome) -> str:
        return outcome.stdout.replace(str(self.root), "")

    def _check_writing(self, outcome: Outcome) -> list[str]:
        problems: list[str] = []
        expected = self.expected
        if not self.command.is_repair:
            found, state = self.observer.state()
            problems += found
            if outcome.code == expected.code and state != expected.after:
                problems.append(f"it says that it was done, and it was not: {outcome}")
            if outcome.code != expected.code and state not in (expected.before, *expected.between):
                is_done = state == expected.after
                if not (is_done and any(words in outcome.stderr for words in IN_DOUBT)):
                    problems.append(f"it says that it was not done, and {'it was' if is_done else 'damage'}: {outcome}")
        key = tree_digest(self.root)
        if key not in self._recovered:
            self._recovered[key] = self._again()
        return problems + self._recovered[key]

    def _again(self) -> list[str]:
        """The same command without faults, which must bring the state after it and leave nothing over."""
        outcome = self._run({})
        if outcome.code not in (self.expected.code, OK, REFUSED):
            return [f"again: {outcome}"]
        problems, state = self.observer.state()
        if state != self.expected.after and not self.command.is_repair:
            problems.append("again: not the state after it")
        left = listing(self.root) - self.expected.files_after
        return problems + ([f"again: files left over {sorted(left)}"] if left else [])
