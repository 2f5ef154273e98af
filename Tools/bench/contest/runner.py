"""Runs entrants in turns, each in a process of its own, within limits of time and memory."""

import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from batches import Shape
from processes import Run, evict, files_below, run

from contest.data import query_file
from contest.entrants import ALL, COLD, TOP, WARM, Entrant, Measurement, Results
from contest.environment import last_words

CONTENDER = Path(__file__).with_name("contender.py")
# Threads of BLAS and the like are left as each program sets them; only a forced kind of processor is undone.
FORCED = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")


@dataclass(frozen=True)
class Limits:
    """What a process, a point and the whole may take.

    Attributes:
        process_seconds: Then a process is stopped.
        point_seconds: No further run of an entrant at a point once it has used so much.
        repeats: Most runs of a point.
        memory: Bytes of private memory of a process.
        deadline: On time.monotonic(); nothing is started after it.
    """

    process_seconds: float
    point_seconds: float
    repeats: int
    memory: int
    deadline: float


def failure(outcome: Run, limit: float) -> str:
    """Why a process failed, from how it ended and what it said; empty if it did not."""
    if outcome.code == 0:
        return ""
    if outcome.code == 124:
        return f"stopped after {limit:.0f} s"
    text = outcome.stderr
    if outcome.code in {-9, 137} or any(word in text for word in ("MemoryError", "allocate memory", "bad_alloc")):
        return f"out of memory ({last_words(text)})"
    return last_words(text)


@dataclass(frozen=True)
class Point:
    """What is asked in turns.

    Attributes:
        group: Of entrants.
        queries: Their number.
        state: `WARM` or `COLD`.
        keep: Whether the answers are kept for comparison.
    """

    group: str
    queries: int
    state: str
    keep: bool = False


class Runner:
    """Asks entrants; results go into `results`."""

    def __init__(
        self, lorif: Path, python: Path, folder: Path, *, shape: Shape, limits: Limits, results: Results
    ) -> None:
        self.lorif = lorif
        self.python = python
        self.folder = folder
        self.shape = shape
        self.limits = limits
        self.results = results
        self.unusable: dict[str, str] = {}
        self.kept: dict[tuple[str, str], Path] = {}
        self.kept_files = 0
        for name in FORCED:
            os.environ.pop(name, None)

    @property
    def late(self) -> bool:
        """Whether the time is up."""
        return self.left < 0

    @property
    def left(self) -> float:
        """Seconds until the time is up."""
        return self.limits.deadline - time.monotonic()

    def bounded(self, *words: object, seconds: float | None = None) -> Run:
        """Runs a program within the limits."""
        limit = f"{seconds or self.limits.process_seconds:.0f}"
        return run("timeout", "--kill-after=5", limit, "prlimit", f"--data={self.limits.memory}", "--", *words)

    def contend(self, contender: str, task: str, seconds: float | None = None, **more: object) -> tuple[Run, dict]:
        """Runs a contender of the peers' environment; its report, empty if it failed."""
        report = self.folder / "report.json"
        report.unlink(missing_ok=True)
        specification = {
            "contender": contender, "task": task, "layers": self.shape.layer_names, "d1": self.shape.d1,
            "d2": self.shape.d2, "report": str(report),
            **{key: str(value) if isinstance(value, Path) else value for key, value in more.items()},
        }  # fmt: skip
        path = self.folder / "specification.json"
        path.write_text(json.dumps(specification), encoding="utf-8")
        outcome = self.bounded(self.python, CONTENDER, path, seconds=seconds)
        return outcome, json.loads(report.read_text(encoding="utf-8")) if outcome.code == 0 else {}

    def point(self, entrants: Sequence[Entrant], point: Point) -> None:
        """All entrants in turns with the same number of queries."""
        spent = dict.fromkeys(entrants, 0.0)
        out: set[Entrant] = set()
        for turn in range(self.limits.repeats):
            now = replace(point, keep=point.keep and turn == 0)
            for entrant in entrants:
                if entrant in out or (entrant.only and point.queries not in entrant.only):
                    continue
                if turn and (self.late or spent[entrant] > self.limits.point_seconds):
                    continue
                start = time.monotonic()
                if problem := self._refusal(entrant, point) or self._ask(entrant, now):
                    out.add(entrant)
                    self._note(entrant, point, TOP).failure = problem
                spent[entrant] += time.monotonic() - start

    def absent(self, entrant: Entrant, point: Point, reason: str) -> None:
        """Notes one that could not be measured."""
        self._note(entrant, point, TOP).failure = reason

    def _note(self, entrant: Entrant, point: Point, answer: str) -> Measurement:
        """The measurement of a point, made if need be."""
        new = Measurement(
            entrant.name, point.group, entrant.kind, point.queries, answer, point.state, rows=entrant.rows
        )
        for known in self.results.measurements:
            if known.key == new.key:
                return known
        self.results.measurements.append(new)
        return new

    def _refusal(self, entrant: Entrant, point: Point) -> str:
        """Why not even to try."""
        if entrant.package in self.unusable:
            return self.unusable[entrant.package]
        if not entrant.store.exists():
            return self.unusable.get(str(entrant.store), "its store could not be made")
        if self.late:
            return "no time left"
        for known in self.results.measurements:
            same = (known.name, known.kind, known.rows) == (entrant.name, entrant.kind, entrant.rows)
            if same and known.failure and known.queries <= point.queries:
                reason = known.failure
                return reason if reason.startswith("not tried") else f"not tried: with {known.queries} {reason}"
        return ""

    def _ask(self, entrant: Entrant, point: Point) -> str:
        """Once; the reason if it failed."""
        text = f"{point.group}: {entrant.name}, {point.queries} {entrant.kind}, {point.state}"
        print(text, file=sys.stderr, flush=True)
        file = query_file(self.folder / "queries", entrant.kind, point.queries)
        ask = self._ask_lorif if entrant.program == "lorif" else self._ask_peer
        return ask(entrant, point, file)

    def _kept(self, entrant: Entrant, end: str) -> Path:
        """Where an answer is kept for comparison."""
        self.kept_files += 1
        path = self.folder / "kept" / f"{self.kept_files:03d}{end}"
        path.parent.mkdir(exist_ok=True)
        self.kept[(entrant.label, end)] = path
        return path

    def _cool(self, entrant: Entrant, point: Point) -> None:
        """Evicts the entrant's files if they are to be cold."""
        if point.state == COLD:
            evict(files_below(entrant.store) if entrant.store.is_dir() else [entrant.store])

    def _ask_lorif(self, entrant: Entrant, point: Point, file: Path) -> str:
        """The list and then all scores, each in a process of its own."""
        words = ["query", entrant.store, file, "--method", "dot", *entrant.options]
        scores = self._kept(entrant, ".npy") if point.keep and entrant.gives_all else self.folder / "scores.npy"
        for answer, options in ((TOP, ["--top", 10]), (ALL, ["--top", 0, "--output", scores])):
            if answer == ALL and not entrant.gives_all:
                continue
            self._cool(entrant, point)
            outcome = self.bounded(self.lorif, *words, *options, "--explain", "analyze", "--json")
            if outcome.code:
                return failure(outcome, self.limits.process_seconds)
            took = json.loads(outcome.stdout)["analysis"]
            # What is made of the queries before the scan is arithmetic that the others do in theirs.
            scan = took["elapsedSeconds"] + took.get("preparationSeconds", 0.0)
            self._note(entrant, point, answer).add(outcome.seconds, scan, outcome.peak_bytes)
        if point.keep:
            path = self._kept(entrant, ".jsonl")
            self.bounded(self.lorif, *words, "--top", 10, "--format", "jsonl", "--output", path)
        return ""

    def _ask_peer(self, entrant: Entrant, point: Point, file: Path) -> str:
        """Both answers in one process: they differ in what is done once the scores are there."""
        scores = self._kept(entrant, ".npy") if point.keep and entrant.gives_all else self.folder / "scores.npy"
        answer = self._kept(entrant, ".npz") if point.keep else None
        self._cool(entrant, point)
        outcome, took = self.contend(
            entrant.program, "ask", store=entrant.store, rows=entrant.rows, queries=file, top=10,
            again=point.state == WARM, scores=scores if entrant.gives_all else None, answer=answer,
        )  # fmt: skip
        if outcome.code:
            return failure(outcome, self.limits.process_seconds)
        steps = ("select", "save", "scan of all", "scan again")
        select, save, everything, again = (took.get(name, 0.0) for name in steps)
        first, best = took["scan"], min(took["scan"], again or took["scan"])
        note = self._note(entrant, point, TOP)
        note.add(outcome.seconds - save - everything - again, best + select, outcome.peak_bytes)
        note.opening.append(took["open"])
        note.imports.append(took["import"])
        if entrant.gives_all:
            spared = select + again + (first if everything else 0)
            self._note(entrant, point, ALL).add(outcome.seconds - spared, everything or best, outcome.peak_bytes)
        return ""
