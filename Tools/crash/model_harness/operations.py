"""The operations: a command line each, and what it may make of a state."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from model_harness.batches import Batch, BatchMaker
from model_harness.model import Comparison, Fit, Named, Outcomes, State
from model_harness.observation import Observer
from model_harness.program import Program

# A store that has grown past this is thinned out or left for a new one.
LARGE_ROW_COUNT = 400
SNAPSHOT_LIMIT = 3
SNAPSHOT_NAMES = tuple(f"snapshot-{number}" for number in range(5))
MANY_ROWS = 50


@dataclass(frozen=True)
class Operation:
    """One command, ready to run on a state."""

    kind: str
    arguments: tuple[object, ...]
    outcomes: Outcomes
    # Whether the command may be refused on a state where it would also be right to succeed.
    may_refuse: Callable[[State], bool] = lambda _: False
    # A file or directory outside the store that the command makes.
    product: Path | None = None
    # For pack: the rows of the product.
    packed: tuple[int, ...] = ()
    snapshot: str | None = None
    reads_only: bool = False
    # For readers: what is wrong with what the run has said, given the state.
    check: Callable[[State], str | None] | None = None
    # Files and rows that go in, because a kill must come at a moment that suits the work.
    file_count: int = 0
    row_count: int = 0

    @property
    def size(self) -> tuple[str, int, bool]:
        """Operations of equal size take about equally long."""
        return (self.kind, self.file_count, self.row_count > MANY_ROWS)

    def after_kill(self, state: State) -> list[State]:
        """Every state that a kill at any moment may leave."""
        return [state, *self.outcomes(state)]


@dataclass
class Workbench:
    """What generators need: one store, its batches so far, and randomness."""

    program: Program
    store: Path
    folder: Path
    maker: BatchMaker
    random: np.random.Generator
    observer: Observer
    comparison: Comparison
    batches: list[tuple[Batch, tuple[object, ...]]] = field(default_factory=list)
    segments: list[tuple[Path, tuple[int, ...]]] = field(default_factory=list)
    number: int = 0
    # Whether operations are to be as small as they can, because a failing sequence is being made simpler.
    small: bool = False

    def chance(self, probability: float) -> bool:
        """True with that probability."""
        return bool(self.random.random() < probability)

    def some(self, count: int, limit: int) -> list[int]:
        """Up to `limit` distinct numbers below `count`, at least one."""
        wanted = int(self.random.integers(1, min(limit, count) + 1))
        return sorted(self.random.choice(count, wanted, replace=False).tolist())

    def new_path(self, name: str) -> Path:
        """A path that was not used before, in the working folder."""
        self.number += 1
        return self.folder / name.format(self.number)

    def row_count(self) -> int:
        """Mostly few rows, now and then many, so that a command takes a while."""
        if self.small:
            return 1
        return int(self.random.integers(60, 160) if self.chance(0.1) else self.random.integers(1, 13))

    def identifiers_of(self, rows: tuple[int, ...]) -> list[str]:
        """Identifiers of rows that have one."""
        known = (self.maker.rows[row].identifier for row in rows)
        return [identifier for identifier in known if identifier is not None]


Generator = Callable[[Workbench, State], Operation | None]


def encoding_options(bench: Workbench, command: str) -> tuple[object, ...]:
    """The option that makes numbers come back exactly."""
    return ("--encoding", "f32") if bench.program.has_option(command, "--encoding") else ()


def create(bench: Workbench, state: State) -> Operation | None:
    """Makes an empty store, with or without layers."""
    if state.exists:
        return None
    # Only a store with layers can be told its encoding here; otherwise the first ingest says it.
    options: tuple[object, ...] = ()
    if bench.program.has_option("create", "--encoding"):
        pattern = bench.maker.make(None, 1, with_metadata=False)
        options = ("--layers", pattern.path, "--encoding", "f32")

    def outcomes(before: State) -> list[State]:
        return [replace(before, exists=True)]

    return Operation("create", ("create", bench.store, *options), outcomes, may_refuse=lambda before: before.exists)


def _fresh_batch(bench: Workbench, state: State) -> Batch:
    count = bench.row_count()
    with_metadata = bench.chance(0.6)
    if bench.chance(0.2):
        return bench.maker.make(None, count, with_metadata)
    identifiers = bench.maker.new_identifiers(count)
    # Ids of deleted rows may be used again.
    gone = sorted(set(bench.identifiers_of(tuple(bench.maker.rows))) - set(bench.identifiers_of(state.rows)))
    if gone and bench.chance(0.3):
        identifiers[0] = gone[int(bench.random.integers(len(gone)))]
    return bench.maker.make(identifiers, count, with_metadata)


def _ingest_options(bench: Workbench) -> tuple[object, ...]:
    # A store that already has an encoding must accept its own name.
    return encoding_options(bench, "ingest")


def ingest(bench: Workbench, state: State) -> Operation | None:
    """Appends one new file, or several in one command."""
    has_identifiers = bool(bench.identifiers_of(state.rows))
    if has_identifiers and bench.chance(0.25) and bench.program.has_option("ingest", "--on-duplicate"):
        return _ingest_duplicates(bench, state)
    batches = [_fresh_batch(bench, state)]
    reused = set(bench.identifiers_of(batches[0].rows))
    while not bench.small and bench.chance(0.35) and len(batches) < 4:
        extra = _fresh_batch(bench, state)
        identifiers = set(bench.identifiers_of(extra.rows))
        if identifiers & reused:
            continue
        reused |= identifiers
        batches.append(extra)
    options = _ingest_options(bench)
    per_file = len(batches) > 1 and bench.program.has_option("ingest", "--atomic") and bench.chance(0.5)
    if bench.program.has_option("ingest", "--atomic") and (per_file or bench.chance(0.3)):
        options += ("--atomic", "file" if per_file else "command")

    def outcomes(before: State) -> list[State]:
        states = [replace(before, exists=True)]
        for batch in batches:
            last = states[-1]
            new = str(batch.path) not in last.taken
            states.append(last.with_rows(batch.rows, (str(batch.path),)) if new else last)
        # The first ingest may commit the store's layers before its rows.
        allowed = states if per_file else [states[0], states[-1]]
        return allowed if not before.exists else allowed[1:]

    bench.batches.extend((batch, _ingest_options(bench)) for batch in batches)
    return Operation(
        "ingest",
        ("ingest", bench.store, *(batch.path for batch in batches), *options),
        outcomes,
        file_count=len(batches),
        row_count=sum(len(batch.rows) for batch in batches),
    )


def _ingest_duplicates(bench: Workbench, state: State) -> Operation | None:
    """Appends a file some of whose ids are in the store, under each policy."""
    live = bench.identifiers_of(state.rows)
    identifiers = bench.maker.new_identifiers(bench.row_count())
    taken = [live[index] for index in bench.some(len(live), len(identifiers))]
    for position, identifier in zip(bench.random.permutation(len(identifiers)), taken, strict=False):
        identifiers[int(position)] = identifier
    batch = bench.maker.make(identifiers, len(identifiers), bench.chance(0.6))
    policy = ("error", "skip", "replace")[int(bench.random.integers(3))]
    source = str(batch.path)

    def outcomes(before: State) -> list[State]:
        if source in before.taken:
            return [before]
        present = {bench.maker.rows[row].identifier: row for row in before.rows}
        clashing = {present[name] for name in bench.identifiers_of(batch.rows) if name in present}
        if policy == "error" and clashing:
            return []
        if policy == "skip":
            added = tuple(row for row in batch.rows if bench.maker.rows[row].identifier not in present)
            return [before.with_rows(added, (source,))]
        return [before.without_rows(clashing).with_rows(batch.rows, (source,))]

    options = ("--on-duplicate", policy, *_ingest_options(bench))
    if policy != "error":
        bench.batches.append((batch, options))
    arguments = ("ingest", bench.store, batch.path, *options)
    return Operation("ingest", arguments, outcomes, file_count=1, row_count=len(batch.rows))


def rerun(bench: Workbench, state: State) -> Operation | None:
    """Repeats an ingest or an attach whose rows are all there: nothing may change."""
    live = set(state.rows)
    candidates = [
        ("ingest", bench.store, batch.path, *options)
        for batch, options in bench.batches
        if str(batch.path) in state.taken and live.issuperset(batch.rows)
    ]
    candidates += [
        ("attach", bench.store, path)
        for path, rows in bench.segments
        if str(path) in state.taken and live.issuperset(rows)
    ]
    if not candidates:
        return None
    arguments = candidates[int(bench.random.integers(len(candidates)))]
    return Operation("rerun", arguments, lambda before: [before])


def delete(bench: Workbench, state: State) -> Operation | None:
    """Deletes by ids or by a condition on user metadata."""
    if not state.rows:
        return None
    if bench.chance(0.3) and (operation := _delete_where(bench, state)):
        return operation
    identifiers = bench.identifiers_of(state.rows)
    if not identifiers:
        return None
    limit = len(identifiers) if bench.chance(0.15) or len(identifiers) > LARGE_ROW_COUNT else 6
    chosen = [identifiers[index] for index in bench.some(len(identifiers), limit)]
    path = bench.new_path("ids-{}.txt")
    path.write_text(json.dumps(chosen) if bench.chance(0.5) else "\n".join(chosen) + "\n", encoding="utf-8")

    def outcomes(before: State) -> list[State]:
        present = {bench.maker.rows[row].identifier: row for row in before.rows}
        if any(identifier not in present for identifier in chosen):
            return []
        return [before.without_rows({present[identifier] for identifier in chosen})]

    return Operation("delete", ("delete", bench.store, "--ids", path), outcomes)


def _delete_where(bench: Workbench, state: State) -> Operation | None:
    known = bench.maker.rows
    described = [row for row in state.rows if known[row].metadata]
    if not described:
        return None
    pattern = known[described[int(bench.random.integers(len(described)))]].metadata
    kind, number = pattern["kind"], pattern["number"]
    expression = f"kind = '{kind}' and number >= {number} and number < {int(str(number)) + 20}"

    def gone(row: int) -> bool:
        metadata = known[row].metadata
        return metadata.get("kind") == kind and int(str(number)) <= int(str(metadata["number"])) < int(str(number)) + 20

    def outcomes(before: State) -> list[State]:
        return [before.without_rows({row for row in before.rows if gone(row)})]

    def nothing_left(before: State) -> bool:
        return not any(gone(row) for row in before.rows)

    return Operation("delete", ("delete", bench.store, "--where", expression), outcomes, may_refuse=nothing_left)


def compact(bench: Workbench, state: State) -> Operation | None:
    """Merges segments and drops deleted rows; the content stays."""
    return Operation("compact", ("compact", bench.store), lambda before: [before]) if state.exists else None


def fit(bench: Workbench, state: State) -> Operation | None:
    """Fits curvature on the live rows."""
    if not state.rows:
        return None
    whole = bench.chance(0.4)
    rank = None if bench.chance(0.3) else int(bench.random.integers(1, 9))
    arguments = ("--exact",) if rank is None else ("--rank", rank)
    scope = ("--scope", "global" if whole else "per-layer")

    def outcomes(before: State) -> list[State]:
        return [replace(before, fit=Fit(rank, whole, before.rows))]

    return Operation("fit", ("fit", bench.store, *arguments, *scope), outcomes)


def snapshot(bench: Workbench, state: State) -> Operation | None:
    """Names the present content, or forgets a name."""
    # A snapshot without rows can be seen only in a list.
    if not state.exists or not (state.rows or bench.program.has_option("snapshot", "--list")):
        return None
    names = state.snapshot_names()
    if names and (len(names) >= SNAPSHOT_LIMIT or bench.chance(0.3)):
        name = names[int(bench.random.integers(len(names)))]

        def dropped(before: State) -> list[State]:
            return [replace(before, snapshots=tuple(entry for entry in before.snapshots if entry.name != name))]

        return Operation(
            "snapshot",
            ("snapshot", bench.store, "--drop", name),
            dropped,
            may_refuse=lambda before: name not in before.snapshot_names(),
            snapshot=name,
        )
    # Names of dropped snapshots are given again.
    unused = [name for name in SNAPSHOT_NAMES if name not in names]
    name = unused[int(bench.random.integers(len(unused)))]

    def named(before: State) -> list[State]:
        if name in before.snapshot_names():
            return [before]
        return [replace(before, snapshots=(*before.snapshots, Named(name, before.rows, before.fit)))]

    return Operation(
        "snapshot",
        ("snapshot", bench.store, name),
        named,
        may_refuse=lambda before: name in before.snapshot_names(),
        snapshot=name,
    )


def copy(bench: Workbench, state: State) -> Operation | None:
    """Copies the store; whether the copy is whole is checked by the session."""
    if not state.exists:
        return None
    destination = bench.new_path("copies-{}/copy.lorif")
    destination.parent.mkdir()
    full = bench.program.has_option("copy", "--full") and bench.chance(0.3)
    return Operation(
        "copy",
        ("copy", bench.store, destination, *(("--full",) if full else ())),
        lambda before: [before],
        may_refuse=lambda _: destination.exists(),
        product=destination,
    )


def repair(bench: Workbench, state: State) -> Operation | None:
    """Repairs a store that needs none; the content stays."""
    return Operation("repair", ("repair", bench.store), lambda before: [before]) if state.exists else None


def pack(bench: Workbench, state: State) -> Operation | None:
    """Makes a segment file outside the store."""
    # The segment must have the store's layers, and a bare store has none before its first rows.
    if not state.taken:
        return None
    batches = []
    for _ in range(int(bench.random.integers(1, 4))):
        count = bench.row_count()
        batches.append(bench.maker.make(bench.maker.new_identifiers(count), count, bench.chance(0.6)))
    out = bench.new_path("packed-{}/out.segment")
    out.parent.mkdir()
    options = encoding_options(bench, "pack")
    if bench.program.has_option("pack", "--layers-of"):
        options += ("--layers-of", bench.store)
    return Operation(
        "pack",
        ("pack", out, *(batch.path for batch in batches), *options),
        lambda before: [before],
        may_refuse=lambda _: out.exists(),
        product=out,
        packed=tuple(row for batch in batches for row in batch.rows),
        file_count=len(batches),
        row_count=sum(len(batch.rows) for batch in batches),
    )


def attach(bench: Workbench, state: State) -> Operation | None:
    """Commits packed segments."""
    waiting = [(path, rows) for path, rows in bench.segments if str(path) not in state.taken]
    if not waiting or not state.exists:
        return None
    chosen = [waiting[index] for index in bench.some(len(waiting), 3)]

    def outcomes(before: State) -> list[State]:
        after = before
        for path, rows in chosen:
            if str(path) not in after.taken:
                # An ingest may have used the id of a row that was packed before.
                if set(bench.identifiers_of(rows)) & set(bench.identifiers_of(after.rows)):
                    return []
                after = after.with_rows(rows, (str(path),))
        return [after]

    return Operation(
        "attach",
        ("attach", bench.store, *(path for path, _ in chosen)),
        outcomes,
        file_count=len(chosen),
        row_count=sum(len(rows) for _, rows in chosen),
    )
