"""The operations that only read: a killed one changes nothing, any other one says what the model says."""

from collections.abc import Callable

import numpy as np

from model_harness.batches import KINDS as METADATA_KINDS
from model_harness.model import RELATIVE_DAMPING, Comparison, Fit, State, damped_inverse_scores, off_by
from model_harness.observation import INFLUENCE, Observer
from model_harness.operations import Operation, Workbench

Check = Callable[[State], str | None]
MOST_RANKED = 12


def _reading(
    kind: str, arguments: tuple[object, ...], check: Check, may_refuse: Callable[[State], bool] = lambda _: False
) -> Operation:
    return Operation(kind, arguments, lambda before: [before], reads_only=True, check=check, may_refuse=may_refuse)


def verify(bench: Workbench, state: State) -> Operation | None:
    """The store is sound, at every level of looking."""
    if not state.exists:
        return None
    level: tuple[object, ...] = ()
    if bench.program.has_option("verify", "--level"):
        level = ("--level", ("quick", "full", "deep")[int(bench.random.integers(3))])
    arguments = ("verify", bench.store, *level)

    def check(_: State) -> str | None:
        run = bench.program.ask(*arguments, fixed=True)
        return None if run.code == 0 else f"verify finds fault\n{run}"

    return _reading("verify", arguments, check)


def export(bench: Workbench, state: State) -> Operation | None:
    """Every number, id and metadata of all rows, or of those of one kind."""
    if not state.rows:
        return None
    kind = _some_kind(bench, "export")
    condition = () if kind is None else ("--where", f"kind = '{kind}'")
    path = bench.folder / "exported.safetensors"

    def check(present: State) -> str | None:
        rows = _of_kind(bench, present.rows, kind)
        seen = bench.observer.exported(bench.store, *condition)
        difference = bench.comparison.rows_differ(rows, seen)
        if difference is None:
            bench.comparison.learn_identifiers(rows, seen)
        return difference

    def has_none(present: State) -> bool:
        return not _of_kind(bench, present.rows, kind)

    # A command that was to be killed and came to its end before that is judged by its exit code.
    return _reading("export", ("export", bench.store, path, *condition), check, may_refuse=has_none)


def query(bench: Workbench, state: State) -> Operation | None:
    """Scores by one of the methods, of the store or of a named snapshot, or a ranking."""
    if not state.rows:
        return None
    choices = [_dot]
    if bench.program.has_option("query", "--where"):
        choices += [_cosine, _ranking, _dot_of_a_kind]
    if state.fit is not None:
        choices.append(_influence)
        choices += [_self_influence] if bench.program.has_option("query", "--where") else []
    if state.snapshots and bench.program.has_option("query", "--snapshot"):
        choices += [_snapshot_dot, _snapshot_influence]
    check = choices[int(bench.random.integers(len(choices)))](bench, state)
    probes = bench.folder / "probes.safetensors"
    # What is killed is a plain query: where it is killed matters, and what it asks does not.
    scores = ("--output", bench.folder / "killed-scores.npy")
    return _reading("query", ("query", bench.store, probes, "--method", "dot", *scores), check)


def _tools(bench: Workbench) -> tuple[Observer, Comparison]:
    return bench.observer, bench.comparison


def _dot(bench: Workbench, _: State) -> Check:
    observer, comparison = _tools(bench)
    return lambda state: comparison.dot_differs("query", state.rows, observer.scores(bench.store, "--method", "dot"))


def _dot_of_a_kind(bench: Workbench, _: State) -> Check:
    observer, comparison = _tools(bench)
    kind = _some_kind(bench, "query") or METADATA_KINDS[0]

    def check(state: State) -> str | None:
        rows = _of_kind(bench, state.rows, kind)
        seen = observer.scores(bench.store, "--method", "dot", "--where", f"kind = '{kind}'")
        if (seen is None) != (not rows):
            return f"a query of the rows of kind {kind!r} is {'refused' if seen is None else 'not refused'}"
        return comparison.dot_differs(f"query of kind {kind!r}", rows, seen)

    return check


def _cosine(bench: Workbench, _: State) -> Check:
    observer, comparison = _tools(bench)

    def check(state: State) -> str | None:
        seen = observer.scores(bench.store, "--method", "cosine")
        if seen is None:
            return "a query by cosine is refused"
        rows, queries = comparison.gradients(state.rows), comparison.queries
        if difference := comparison.columns_differ("cosine", state.rows, seen, len(queries)):
            return difference
        norms = np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(rows, axis=1)[None]
        expected = np.divide(queries @ rows.T, norms, out=np.zeros_like(norms), where=norms > 0)
        return off_by("cosine", seen.scores, expected)

    return check


def _influence(bench: Workbench, _: State) -> Check:
    observer, comparison = _tools(bench)

    def check(state: State) -> str | None:
        return comparison.influence_differs(state.rows, state.fit, observer.scores(bench.store, *INFLUENCE))

    return check


def _self_influence(bench: Workbench, _: State) -> Check:
    observer, comparison = _tools(bench)

    def check(state: State) -> str | None:
        seen = observer.self_scores(bench.store, "--relative-damping", RELATIVE_DAMPING)
        if seen is None or state.fit is None:
            return "self-influence is refused"
        if difference := comparison.columns_differ("self-influence", state.rows, seen, 1):
            return difference
        expected = self_influence(comparison, state.fit, comparison.gradients(state.rows))
        return None if expected is None else off_by("self-influence", seen.scores, expected)

    return check


def self_influence(comparison: Comparison, fit: Fit, rows: np.ndarray) -> np.ndarray | None:
    """g (H + λI)⁻¹ g of every row, [1, n]."""
    fitted = comparison.gradients(fit.rows)
    lengths = [rows.shape[1]] if fit.whole else [layer.gradient_length for layer in comparison.schema]
    total, start = np.zeros(len(rows)), 0
    for length in lengths:
        part = slice(start, start + length)
        scores = damped_inverse_scores(rows[:, part], rows[:, part], fitted[:, part], fit.rank)
        if scores is None:
            return None
        total += np.diag(scores)
        start += length
    return total[None]


def _ranking(bench: Workbench, _: State) -> Check:
    observer, comparison = _tools(bench)
    top, bottom = (int(n) for n in bench.random.integers(1, MOST_RANKED, 2))

    def check(state: State) -> str | None:
        names = [comparison.known[row].identifier for row in state.rows]
        if None in names:
            # The program has numbered rows since the last export: that says how.
            seen = observer.exported(bench.store)
            if difference := comparison.rows_differ(state.rows, seen):
                return difference
            comparison.learn_identifiers(state.rows, seen)
            names = [row.identifier for row in seen]
        scores = comparison.queries @ comparison.gradients(state.rows).T
        expected = []
        for number, of_query in enumerate(scores):
            for direction, count, sign in (("top", top, -1), ("bottom", bottom, 1)):
                # Equal scores are ordered by id.
                order = sorted(range(len(names)), key=lambda row: (sign * of_query[row], str(names[row]).encode()))
                for rank, row in enumerate(order[:count], 1):
                    expected.append((f"probe-{number}", direction, rank, names[row], float(of_query[row])))
        found = observer.ranked(bench.store, top, bottom)
        wrong = [(f, e) for f, e in zip(found, expected, strict=False) if f != e]
        if wrong or len(found) != len(expected):
            return f"ranking of {len(found)} results, expected {len(expected)}; (found, expected): {wrong[:1]}"
        return None

    return check


def _snapshot_dot(bench: Workbench, state: State) -> Check:
    observer, comparison = _tools(bench)
    chosen = state.snapshots[int(bench.random.integers(len(state.snapshots)))]

    def check(_: State) -> str | None:
        seen = observer.scores(bench.store, "--method", "dot", "--snapshot", chosen.name)
        if (seen is None) != (not chosen.rows):
            return f"a query of snapshot {chosen.name!r} is {'refused' if seen is None else 'not refused'}"
        return comparison.dot_differs(f"snapshot {chosen.name!r}", chosen.rows, seen)

    return check


def _snapshot_influence(bench: Workbench, state: State) -> Check:
    observer, comparison = _tools(bench)
    chosen = state.snapshots[int(bench.random.integers(len(state.snapshots)))]

    def check(_: State) -> str | None:
        seen = observer.scores(bench.store, *INFLUENCE, "--snapshot", chosen.name)
        difference = comparison.influence_differs(chosen.rows, chosen.fit, seen)
        return f"snapshot {chosen.name!r}: {difference}" if difference else None

    return check


def _some_kind(bench: Workbench, command: str) -> str | None:
    if not bench.program.has_option(command, "--where") or bench.chance(0.6):
        return None
    return METADATA_KINDS[int(bench.random.integers(len(METADATA_KINDS)))]


def _of_kind(bench: Workbench, rows: tuple[int, ...], kind: str | None) -> tuple[int, ...]:
    known = bench.maker.rows
    return rows if kind is None else tuple(row for row in rows if known[row].metadata.get("kind") == kind)
