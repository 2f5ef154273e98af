"""The loop: draw an operation, kill it or let it finish, observe, compare, go on."""

import json
import shutil
import sys
from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np

from kill_harness.batches import BatchMaker, random_schema
from kill_harness.model import Comparison, State
from kill_harness.observation import ObservationError, Observer
from kill_harness.operations import GENERATORS, LARGE_ROW_COUNT, Operation, Workbench, create, ingest
from kill_harness.program import Kill, Program, Run

# Share of the kills after which the next start is killed as well, and so on.
NESTED_SHARE = 0.4
NESTED_DEPTH = 3
# A kill comes at a uniform moment up to this multiple of what the command usually takes.
LATEST_KILL = 1.15
LATEST_NESTED_KILL = 0.7
FIRST_GUESS_SECONDS = 0.03
FIRST_GUESS_CHANGES = 20
SWEEP_SHARE = 0.7
NEW_STORE_SHARE = 0.05
PROGRESS_ITERATIONS = 50
COUNTED = ("runs", "kills", "nested", "before", "between", "after", "refused", "violations")


class ViolationError(Exception):
    """The program broke a promise; the text says which."""


@dataclass
class Settings:
    """What the command line asks for."""

    program: Program
    seed: int
    iterations: int
    operations: tuple[str, ...]
    folder: Path
    # Share of the operations that are killed.
    kills: float = 0.85
    # Share of the kills that come at a random change in the directory instead of a random moment.
    aimed: float = 0.5
    keep: bool = False
    violation_limit: int = 20


@dataclass
class Session:
    """Runs all iterations; a violation ends the store it happened in, not the session."""

    settings: Settings
    counts: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    violations: list[str] = field(default_factory=list)
    # Seconds of runs that ended by themselves, by size of the operation.
    durations: dict[tuple[str, int, bool], deque[float]] = field(default_factory=dict)
    # Changes in the directory during such runs, alike.
    changes: dict[tuple[str, int, bool], deque[int]] = field(default_factory=dict)
    store_number: int = 0
    bench: Workbench = field(init=False)
    observer: Observer = field(init=False)
    comparison: Comparison = field(init=False)
    state: State = field(default_factory=State)
    # Set when a creating command was killed and left something that is no store yet.
    unfinished: Operation | None = None
    # Ids of snapshots that have ever been asked for in this store.
    snapshot_names: set[str] = field(default_factory=set)

    def run(self) -> None:
        """All iterations, or as many as it takes to reach the limit of violations."""
        for iteration in range(self.settings.iterations):
            # Each iteration has its own random numbers, so that what a kill changes does not shift the later ones.
            self.random = np.random.default_rng([self.settings.seed, iteration])
            if iteration == 0 or (self.state.exists and self.random.random() < NEW_STORE_SHARE):
                self._new_store()
            self.bench.random = self.bench.maker.random = self.random
            started = len(self.settings.program.history)
            operation = None
            try:
                operation = self._draw()
                self._iterate(operation)
            except (ViolationError, ObservationError) as problem:
                self._report(iteration, operation, str(problem), started)
                if len(self.violations) >= self.settings.violation_limit:
                    return
                self._new_store()
            del self.settings.program.history[:started]
            if (iteration + 1) % PROGRESS_ITERATIONS == 0:
                kills = sum(counts["kills"] for counts in self.counts.values())
                print(f"{iteration + 1} iterations, {kills} kills, {len(self.violations)} violations", file=sys.stderr)

    def _new_store(self) -> None:
        if self.store_number and not self.settings.keep:
            shutil.rmtree(self.bench.folder)
        self.store_number += 1
        folder = self.settings.folder / f"{self.store_number:04}"
        folder.mkdir(parents=True)
        schema = random_schema(self.random)
        maker = BatchMaker(folder, schema, self.random)
        probes, queries = maker.make_probes()
        self.bench = Workbench(self.settings.program, folder / "s.lorif", folder, maker, self.random)
        self.observer = Observer(self.settings.program, folder, schema, probes, len(queries))
        self.comparison = Comparison(schema, maker.rows, queries)
        self.state = State()
        self.unfinished = None
        self.snapshot_names = set()

    def _draw(self) -> Operation:
        if self.unfinished is not None:
            return self.unfinished
        if not self.state.exists:
            by_command = "create" in self.settings.operations and self.bench.chance(0.4)
            operation = (create if by_command else ingest)(self.bench, self.state)
            if operation is not None:
                return operation
        names = [name for name in self.settings.operations if GENERATORS[name][1] > 0]
        weights = {name: GENERATORS[name][1] for name in names}
        if len(self.state.rows) > LARGE_ROW_COUNT:
            weights = {name: weight * (6 if name == "delete" else 1) for name, weight in weights.items()}
        while weights:
            shares = np.array(list(weights.values()))
            name = list(weights)[int(self.random.choice(len(weights), p=shares / shares.sum()))]
            operation = GENERATORS[name][0](self.bench, self.state)
            if operation is not None:
                return operation
            del weights[name]
        raise ViolationError(f"none of {names} can be run on: {self.state.describe()}")

    def _iterate(self, operation: Operation) -> None:
        counts = self.counts[operation.kind]
        before = self.state
        if operation.snapshot is not None:
            self.snapshot_names.add(operation.snapshot)
        if self.settings.keep:
            self._keep_state_before()
        possible = [before]
        nested = 0
        share = self.settings.kills
        while True:
            run = self._start(operation, share, nested)
            counts["nested" if nested else "runs"] += 1
            possible = self._possible_after(operation, possible, run)
            counts["kills"] += run.killed
            share = NESTED_SHARE
            if not run.killed or nested == NESTED_DEPTH or not self.bench.chance(NESTED_SHARE):
                break
            nested += 1
        counts["refused"] += run.code > 0
        if self._is_unfinished(operation, possible, run):
            counts["before"] += 1
            return
        self.unfinished = None
        self.state = self._settle(possible)
        self._count_outcome(counts, operation, before)
        self._check_product(operation, run)
        acknowledged_writer = run.code == 0 and not operation.reads_only and operation.kind not in ("pack", "copy")
        if self.state.exists and (self._sweep() if run.killed else acknowledged_writer):
            self._check_files()

    def _start(self, operation: Operation, share: float, nested: int) -> Run:
        kill = self._kill(operation, nested) if nested or self.bench.chance(share) else None
        run = self.settings.program.run(*operation.arguments, kill=kill)
        if run.crashed:
            raise ViolationError(f"ended by signal {-run.code}")
        if run.code == 0:
            self.durations.setdefault(operation.size, deque(maxlen=9)).append(run.seconds)
            if run.changes:
                self.changes.setdefault(operation.size, deque(maxlen=9)).append(run.changes)
        return run

    def _kill(self, operation: Operation, nested: int) -> Kill:
        latest = LATEST_NESTED_KILL if nested else LATEST_KILL
        if not self.bench.chance(self.settings.aimed):
            return Kill(float(self.random.uniform(0, latest * self._usual_seconds(operation))))
        usual = median(self.changes.get(operation.size, [FIRST_GUESS_CHANGES]))
        store = self.bench.store
        folders = [store.parent, store, *(path for path in store.rglob("*") if path.is_dir())]
        if operation.product is not None:
            folders.append(operation.product.parent)
        change = int(self.random.integers(1, int(latest * usual) + 2))
        return Kill(change=change, folders=tuple(path for path in folders if path.is_dir()))

    def _usual_seconds(self, operation: Operation) -> float:
        """What an operation of this size takes, or one of this kind, or a guess."""
        if operation.size in self.durations:
            return median(self.durations[operation.size])
        alike = [
            median(seconds) / max(1, size[1]) for size, seconds in self.durations.items() if size[0] == operation.kind
        ]
        return max(alike, default=FIRST_GUESS_SECONDS) * max(1, operation.file_count)

    def _possible_after(self, operation: Operation, possible: list[State], run: Run) -> list[State]:
        """The states that the store may be in, given those it may have been in."""
        after: list[State] = []
        for state in possible:
            outcomes = operation.outcomes(state)
            if run.killed:
                after += operation.after_kill(state)
            elif run.code == 0:
                after += outcomes[-1:]
            elif not outcomes or operation.may_refuse(state):
                after.append(state)
        unique = list(dict.fromkeys(after))
        if not unique:
            wanted = "succeeded, but had to be refused" if run.code == 0 else "was refused, but had to succeed"
            raise ViolationError(f"{operation.kind} {wanted}; store before: {possible[0].describe()}")
        if run.code > 3 and not run.killed:
            raise ViolationError(f"exit code {run.code} on a store that was left by a kill or whole")
        return unique

    def _is_unfinished(self, operation: Operation, possible: list[State], run: Run) -> bool:
        """Whether a killed creation left no store yet; then the same command must succeed later."""
        if State() not in possible:
            return False
        if not self.bench.store.exists():
            self.state = State()
            self.unfinished = None
            return True
        if self.settings.program.run("verify", self.bench.store).code == 0:
            return False
        if not run.killed:
            raise ViolationError("the store is not there after a creating command that was not killed")
        self.unfinished = operation
        return True

    def _settle(self, possible: list[State]) -> State:
        """The one state that the store is in."""
        verify = self.settings.program.run("verify", self.bench.store)
        if verify.code != 0:
            raise ViolationError(f"verify says {verify.code}")
        names = self.snapshot_names
        seen = self.observer.observe(self.bench.store, names)
        differences = []
        for state in reversed(possible):
            difference = self.comparison.difference(state, seen) if state.exists else "there is a store"
            if difference is None:
                self.comparison.learn_identifiers(state, seen)
                return state
            differences.append(f"not [{state.describe()}]: {difference}")
        raise ViolationError("content is none of the allowed states\n  " + "\n  ".join(differences))

    def _count_outcome(self, counts: Counter[str], operation: Operation, before: State) -> None:
        outcomes = operation.outcomes(before) or [before]
        if self.state == outcomes[-1]:
            counts["after" if outcomes[-1] != before else "before"] += 1
        else:
            counts["before" if self.state == before else "between"] += 1

    def _check_product(self, operation: Operation, run: Run) -> None:
        """A copy or a packed segment is whole or not there, and a second try leaves nothing else beside it."""
        product = operation.product
        if product is None:
            return
        if run.code == 0 and not product.exists():
            raise ViolationError(f"{product.name} is not there after exit code 0")
        if not product.exists():
            again = self.settings.program.run(*operation.arguments)
            if again.code != 0 or not product.exists():
                raise ViolationError(f"cannot be run again after a kill\n{again}")
        if operation.kind == "pack":
            self.bench.segments.append((product, operation.packed))
            return
        beside = sorted(path.name for path in product.parent.iterdir() if path != product)
        if beside:
            raise ViolationError(f"left beside the copy: {beside}")
        verify = self.settings.program.run("verify", product)
        if verify.code != 0:
            raise ViolationError(f"verify of the copy says {verify.code}")
        seen = self.observer.observe(product, set())
        if difference := self.comparison.difference(self.state, seen):
            raise ViolationError(f"the copy differs: {difference}")
        shutil.rmtree(product.parent)

    def _sweep(self) -> bool:
        """Runs a writer that changes nothing; False if there is none for this state, or by chance."""
        operation = GENERATORS["rerun"][0](self.bench, self.state) if self.bench.chance(SWEEP_SHARE) else None
        if operation is None:
            return False
        run = self.settings.program.run(*operation.arguments)
        if run.code != 0:
            raise ViolationError(f"the next writer fails\n{run}")
        self._settle([self.state])
        return True

    def _check_files(self) -> None:
        unknown = self.observer.unaccounted_files(self.bench.store, set(self.state.snapshot_names()))
        if unknown:
            raise ViolationError(f"files that nothing accounts for: {unknown}")

    def _keep_state_before(self) -> None:
        kept = self.bench.folder / "before.lorif"
        shutil.rmtree(kept, ignore_errors=True)
        if self.bench.store.exists():
            shutil.copytree(self.bench.store, kept)

    def _report(self, iteration: int, operation: Operation | None, text: str, started: int) -> None:
        kind = operation.kind if operation else "none"
        self.counts[kind]["violations"] += 1
        commands = "\n".join(map(str, self.settings.program.history[started:]))
        full = f"VIOLATION in iteration {iteration}, seed {self.settings.seed}, {kind}: {text}\n{commands}"
        self.violations.append(full)
        print(full, file=sys.stderr, flush=True)
        if self.settings.keep:
            record = {"seed": self.settings.seed, "iteration": iteration, "operation": kind, "violation": full}
            (self.bench.folder / "violation.json").write_text(json.dumps(record, indent=2, ensure_ascii=False))
            print(f"kept: {self.bench.folder} (the store before the command: before.lorif)", file=sys.stderr)

    def summary(self) -> str:
        """The table of operations and outcomes."""
        widths = [max(10, len(name)) for name in COUNTED]
        lines = ["operation " + "".join(f"{name:>{width + 1}}" for name, width in zip(COUNTED, widths, strict=True))]
        total: Counter[str] = Counter()
        for kind in [*GENERATORS, "none"]:
            if kind in self.counts:
                total.update(self.counts[kind])
                lines.append(self._line(kind, self.counts[kind], widths))
        lines.append(self._line("all", total, widths))
        lines.append(f"{total['kills']} kills, {self.store_number} stores, {len(self.violations)} violations")
        return "\n".join(lines)

    @staticmethod
    def _line(name: str, counts: Counter[str], widths: list[int]) -> str:
        return f"{name:<10}" + "".join(
            f"{counts[key]:>{width + 1}}" for key, width in zip(COUNTED, widths, strict=True)
        )
