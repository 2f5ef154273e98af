"""The life of one store: steps are applied to it and to its model, and the two are compared."""

import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model_harness.batches import BatchMaker, random_schema
from model_harness.killing import CallKiller, ClockKiller, Killer, draw_kills
from model_harness.kinds import KINDS
from model_harness.model import Comparison, State
from model_harness.observation import STORE_NAME, ObservationError, Observer
from model_harness.operations import LARGE_ROW_COUNT, Operation, Workbench
from model_harness.program import Program, Run
from model_harness.steps import Step

SWEEP_SHARE = 0.7
# Without it a wrong state would often come to light only much later; with it always, ten times as much would be asked.
FILE_CHECK_SHARE = 0.1
# What random numbers are for, after seed, sequence and step.
DRAWING, GENERATING, KILLING, CHECKING = range(4)


class ViolationError(Exception):
    """The program broke a promise; the text says which."""


@dataclass(frozen=True)
class Settings:
    """What the command line asks for."""

    program: Program
    seed: int
    kinds: tuple[str, ...]
    # Emptied for every sequence.
    folder: Path
    # Share of the operations that are killed.
    kills: float
    # Kills from outside, at moments that cannot be repeated, and everything is looked at after every operation.
    clock: ClockKiller | None = None


class Sequence:
    """One store, its model, and what is needed to change both."""

    def __init__(self, settings: Settings, number: int) -> None:
        self.settings, self.number = settings, number
        self.counts: dict[str, Counter[str]] = {}
        folder = settings.folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        random = np.random.default_rng([settings.seed, number])
        # How many steps a drawn sequence has.
        self.length = int(random.integers(4, 60))
        schema = random_schema(random)
        maker = BatchMaker(folder, schema, random)
        probes, queries = maker.make_probes()
        observer = Observer(settings.program, folder, schema, probes, len(queries))
        comparison = Comparison(schema, maker.rows, queries)
        self.bench = Workbench(
            settings.program, folder / STORE_NAME, folder, maker, random, observer=observer, comparison=comparison
        )
        self.state = State()
        # Set when a creating command was killed and left something that is no store yet.
        self._unfinished: Operation | None = None
        # Names of snapshots that have ever been asked for.
        self._snapshot_names: set[str] = set()

    def _random(self, step: int, purpose: int) -> np.random.Generator:
        """Each step has its own random numbers, so that what happens in one does not shift the later ones."""
        return np.random.default_rng([self.settings.seed, self.number, step, purpose])

    def draw(self, number: int) -> Step:
        """A random step that the state allows."""
        random = self._random(number, DRAWING)
        kills = draw_kills(self._random(number, KILLING), self.settings.kills, reads_only=False)
        if self._unfinished is not None:
            return Step(number, self._unfinished.kind, kills)
        if not self.state.exists:
            by_command = "create" in self.settings.kinds and random.random() < 0.4
            return Step(number, "create" if by_command else "ingest", kills)
        weights = {name: KINDS[name][1] for name in self.settings.kinds if KINDS[name][1] > 0}
        if len(self.state.rows) > LARGE_ROW_COUNT and "delete" in weights:
            weights["delete"] *= 6
        while weights:
            shares = np.array(list(weights.values()))
            kind = list(weights)[int(random.choice(len(weights), p=shares / shares.sum()))]
            operation = self._generate(Step(number, kind))
            if operation is not None:
                return Step(
                    number, kind, draw_kills(self._random(number, KILLING), self.settings.kills, operation.reads_only)
                )
            del weights[kind]
        raise ViolationError(f"none of {self.settings.kinds} can be run on: {self.state.describe()}")

    def _generate(self, step: Step) -> Operation | None:
        self.bench.random = self.bench.maker.random = self._random(step.number, GENERATING)
        self.bench.small = step.is_small
        if self._unfinished is not None:
            return self._unfinished
        return KINDS[step.kind][0](self.bench, self.state)

    def apply(self, step: Step) -> bool:
        """Does what the step says, and compares; False if the state does not allow it."""
        operation = self._generate(step)
        if operation is None:
            return False
        self.bench.random = self._random(step.number, CHECKING)
        counts = self.counts.setdefault(operation.kind, Counter())
        before = self.state
        if operation.snapshot is not None:
            self._snapshot_names.add(operation.snapshot)
        killer: Killer = self.settings.clock or CallKiller(step)
        if operation.check is not None and not (self.settings.clock or any(step.kills)):
            counts["runs"] += 1
            if problem := operation.check(self.state):
                raise ViolationError(problem)
            counts["before"] += 1
            return True
        possible, kills, nested = [before], 0, 0
        while True:
            run = self.settings.program.operate(*operation.arguments, kill=killer.next(operation, nested))
            if run.crashed:
                raise ViolationError(f"ended by signal {-run.code}")
            killer.note(operation, run)
            counts["nested" if nested else "runs"] += 1
            possible = self._possible_after(operation, possible, run)
            kills += run.killed
            nested += 1
            if not run.killed or not killer.goes_on(nested):
                break
        counts["kills"] += kills
        counts["refused"] += run.code > 0
        if self._is_unfinished(operation, possible, run):
            counts["before"] += 1
            return True
        self._unfinished = None
        if kills or self.settings.clock or len(possible) > 1:
            self.state = self._settle(possible)
        else:
            self.state = possible[0]
        self._count_outcome(counts, operation, before)
        self._check_product(operation, run)
        self._check_sometimes(operation, run)
        return True

    def _check_sometimes(self, operation: Operation, run: Run) -> None:
        """Files that nothing accounts for, after a writer that came to its end."""
        wrote = run.code == 0 and not operation.reads_only and operation.kind not in ("pack", "copy")
        if not self.state.exists:
            return
        if run.killed:
            if self._sweep():
                self._check_files()
        elif wrote and (self.settings.clock or self.bench.chance(FILE_CHECK_SHARE)):
            self._check_files()

    def finish(self) -> None:
        """Looks at everything."""
        if not self.state.exists:
            return
        self.state = self._settle([self.state], everything=True)
        if self._sweep(always=True):
            self._check_files()

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
            self._unfinished = None
            return True
        if self.settings.program.ask("verify", self.bench.store, fixed=True).code == 0:
            return False
        if not run.killed:
            raise ViolationError("the store is not there after a creating command that was not killed")
        self._unfinished = operation
        return True

    def _settle(self, possible: list[State], everything: bool = False) -> State:
        """The one state that the store is in."""
        verify = self.settings.program.ask("verify", self.bench.store, fixed=True)
        if verify.code != 0:
            raise ViolationError(f"verify says {verify.code}\n{verify}")
        observer = self.bench.observer
        if everything or self.settings.clock:
            seen = observer.observe(self.bench.store, self._snapshot_names)
        else:
            seen = observer.observe_difference(self.bench.store, possible, self._snapshot_names)
        differences = []
        for state in reversed(possible):
            difference = self.bench.comparison.difference(state, seen) if state.exists else "there is a store"
            if difference is None:
                self.bench.comparison.learn_identifiers(state.rows, seen.rows)
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
            again = self.settings.program.ask(*operation.arguments)
            if again.code != 0 or not product.exists():
                raise ViolationError(f"cannot be run again after a kill\n{again}")
        if operation.kind == "pack":
            self.bench.segments.append((product, operation.packed))
            return
        beside = sorted(path.name for path in product.parent.iterdir() if path != product)
        if beside:
            raise ViolationError(f"left beside the copy: {beside}")
        verify = self.settings.program.ask("verify", product)
        if verify.code != 0:
            raise ViolationError(f"verify of the copy says {verify.code}\n{verify}")
        seen = self.bench.observer.observe(product, set())
        if difference := self.bench.comparison.difference(self.state, seen):
            raise ViolationError(f"the copy differs: {difference}")
        shutil.rmtree(product.parent)

    def _sweep(self, always: bool = False) -> bool:
        """Runs a writer that changes nothing; False if there is none for this state, or by chance."""
        operation = KINDS["rerun"][0](self.bench, self.state) if always or self.bench.chance(SWEEP_SHARE) else None
        if operation is None:
            return False
        run = self.settings.program.ask(*operation.arguments)
        if run.code != 0:
            raise ViolationError(f"the next writer fails\n{run}")
        self._settle([self.state])
        return True

    def _check_files(self) -> None:
        unknown = self.bench.observer.unaccounted_files(self.bench.store, set(self.state.snapshot_names()))
        if unknown:
            raise ViolationError(f"files that nothing accounts for: {unknown}")


def play(settings: Settings, number: int, steps: list[Step]) -> tuple[str | None, list[Step]]:
    """Applies steps to a new store: what was violated, and the steps until then that the state allowed."""
    sequence = Sequence(settings, number)
    done: list[Step] = []
    try:
        for step in steps:
            if step.kind == END:
                sequence.finish()
                done.append(step)
            elif sequence.apply(step):
                done.append(step)
    except (ViolationError, ObservationError) as problem:
        return str(problem), [*done, step]
    return None, done


# A step of that kind looks at everything.
END = "end"
