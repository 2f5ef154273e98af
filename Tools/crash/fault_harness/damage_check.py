"""Decides whether a damaged store is found out, harmless, or answers wrongly."""

import contextlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from fault_harness.damage_cases import CATALOG_FILE, LOCK_FILE, Case
from fault_harness.sample_store import Inputs, copy_store
from fault_harness.shim import DAMAGED, NO, OK, ForkServer, Outcome

# Coordinates are derived data: rows whose coordinates cannot be used are computed anew, from other roundings.
DERIVED_TOLERANCE = 1e-4


@dataclass
class Tally:
    """What came of the cases."""

    planned: Counter[str] = field(default_factory=Counter)
    cases: Counter[str] = field(default_factory=Counter)
    verdicts: Counter[tuple[str, str]] = field(default_factory=Counter)
    commands: int = 0
    violations: list[str] = field(default_factory=list)

    def add(self, case: Case, verdict: str) -> None:
        """Counts a case."""
        self.cases[case.kind] += 1
        self.verdicts[case.kind, verdict] += 1

    def merge(self, other: "Tally") -> None:
        """Adds another one's counts."""
        self.planned.update(other.planned)
        self.cases.update(other.cases)
        self.verdicts.update(other.verdicts)
        self.commands += other.commands
        self.violations += other.violations


class DamageChecker(contextlib.AbstractContextManager["DamageChecker"]):
    """Asks one store, at one path, the same questions again and again."""

    def __init__(
        self, binary: Path, store: Path, inputs: Inputs, scratch: Path, plant: Mapping[str, object] | None = None
    ) -> None:
        self.store = store
        self._exported = scratch / "exported.safetensors"
        queries = inputs.path("queries")
        listing = ("--top", "100", "--format", "jsonl")
        commands: dict[str, tuple[object, ...]] = {
            "influence": ("query", store, queries, *listing),
            "cosine": ("query", store, queries, "--method", "cosine", *listing),
            "self-influence": ("query", store, "--method", "self-influence", *listing),
            "snapshot": ("query", store, queries, "--snapshot", "named", "--method", "dot", *listing),
            "export": ("export", store, self._exported),
            "inspect": ("inspect", store, "--json"),
            "snapshots": ("snapshot", store, "--list", "--json"),
            "curvatures": ("fit", store, "--list", "--json"),
        }
        self._servers = {
            name: ForkServer(binary, scratch, *command, root=store, plant=plant) for name, command in commands.items()
        }
        self._verify = ForkServer(binary, scratch, "verify", store, root=store, plant=plant)
        self._any = ForkServer(binary, scratch, plant=plant)
        self._copy = scratch / "written"
        self._number = 0
        outcome = self._verify.run()
        if outcome.code != OK:
            raise RuntimeError(f"the store is damaged before anything was done to it\n{outcome}")
        self.answers = {name: self._answer(name) for name in commands}
        for first, _ in self.answers.values():
            # An answer that is an error would make every later one look wrong.
            if first.code != OK:
                raise RuntimeError(f"a question fails before anything was done to the store\n{first}")

    def _answer(self, name: str) -> tuple[Outcome, bytes]:
        self._exported.unlink(missing_ok=True)
        outcome = self._servers[name].run()
        exported = self._exported.read_bytes() if self._exported.exists() else b""
        return outcome, exported

    def all_answers(self) -> dict[str, tuple[str, bytes]]:
        """What every reading command says, as the store is now."""
        return {name: (outcome.stdout, data) for name, (outcome, data) in ((n, self._answer(n)) for n in self._servers)}

    def _wrong(self, name: str, case: Case) -> str | None:
        """What is wrong with an answer: it must be the pristine one, or a typed error."""
        outcome, exported = self._answer(name)
        expected, expected_export = self.answers[name]
        if not outcome.is_typed:
            return f"{case.name}: {name} ends with {outcome}"
        if outcome.code != OK or (outcome.stdout == expected.stdout and exported == expected_export):
            return None
        is_derived = all(path.startswith("coordinates/") for path in case.paths)
        if is_derived and name == "self-influence" and are_close(outcome.stdout, expected.stdout):
            return None
        return f"{case.name}: {name} answers differently and says nothing\n{_difference(outcome, expected)}"

    def _wrong_after_a_write(self, case: Case) -> str | None:
        """What is wrong after a writer has trusted what verify has not found fault with."""
        copy_store(self.store, self._copy)
        outcome = self._any.run("snapshot", self._copy, "written")
        if not outcome.is_typed:
            return f"{case.name}: a writer ends with {outcome}"
        if outcome.code != OK:
            return None
        self._exported.unlink(missing_ok=True)
        checks = [self._any.run("verify", self._copy), self._any.run("export", self._copy, self._exported)]
        for check in checks:
            if check.code != OK:
                return f"{case.name}: after a write {check}"
        same = self._exported.read_bytes() == self.answers["export"][1]
        return None if same else f"{case.name}: a write has changed the rows"

    def check(self, case: Case, tally: Tally, every: int = 16) -> None:
        """Verifies, and asks.

        If the damage was not seen, everything; of a flipped bit that was not seen one question, each in its turn; of
        damage that was seen one for each `every`-th case. After each `every`-th that was not seen, a writer works
        on a copy.
        """
        self._number += 1
        outcome = self._verify.run()
        seen = outcome.code in (NO, DAMAGED) or (outcome.code != OK and outcome.is_typed)
        names = list(self._servers)
        if seen:
            asked = [names[self._number // every % len(names)]] if self._number % every == 0 else []
        else:
            asked = [names[self._number % len(names)]] if case.kind == "flip" else names
        problems = [problem for problem in (self._wrong(name, case) for name in asked) if problem]
        if not outcome.is_typed:
            problems.append(f"{case.name}: verify ends with {outcome}")
        if not seen and self._number % every == 0:
            problems += filter(None, [self._wrong_after_a_write(case)])
        is_catalog = all(path in (CATALOG_FILE, LOCK_FILE) for path in case.paths)
        # Coordinates that are not there are rows that nobody asked coordinates for.
        is_absent = all(path.startswith("coordinates/") and content is None for path, content in case.contents)
        if not seen and not is_catalog and not (case.contents and is_absent):
            problems.append(f"{case.name}: verify sees nothing")
        tally.violations += problems
        tally.add(case, "violation" if problems else "found" if seen else "harmless")
        tally.commands += 1 + len(asked)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in (*self._servers.values(), self._verify, self._any):
            server.__exit__(kind, error, trace)


def _difference(found: Outcome, expected: Outcome) -> str:
    """Both answers, and what each said on standard error; of equal texts that the export differs."""
    if found.stdout == expected.stdout:
        return "  the exported rows differ"
    parts = [("expected", expected), ("found", found)]
    return "\n".join(f"  {name}: {part.stdout!r}\n    and said {part.stderr!r}" for name, part in parts)


def are_close(found: str, expected: str) -> bool:
    """Whether two rankings have the same scores, nearly."""

    def scores(text: str) -> dict[tuple[str, str], float]:
        rows = (json.loads(line) for line in text.splitlines())
        return {(row["query"], row["id"]): row["score"] for row in rows}

    a, b = scores(found), scores(expected)
    return a.keys() == b.keys() and all(abs(a[key] - b[key]) <= DERIVED_TOLERANCE * abs(b[key]) for key in a)
