"""The state that a store should be in, and the scores that follow from it."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from model_harness.batches import Row, Schema

RELATIVE_DAMPING = 0.1
# Eigenvalues closer than this part of the largest are not told apart.
CLEAR_GAP = 1e-4
# Curvature is stored in float32 and may be fitted by any method, so these scores are not exact.
INFLUENCE_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Fit:
    """A curvature: how it was asked for and the rows that were live then."""

    # None for exact curvature.
    rank: int | None
    whole: bool
    rows: tuple[int, ...]


@dataclass(frozen=True)
class Named:
    """A named snapshot: the rows and the curvature of when it got its name."""

    name: str
    rows: tuple[int, ...]
    fit: Fit | None


@dataclass(frozen=True)
class State:
    """The logical content of a store; rows are serial numbers in store order."""

    exists: bool = False
    rows: tuple[int, ...] = ()
    # Batch files and segments whose rows the store has taken in.
    taken: frozenset[str] = frozenset()
    snapshots: tuple["Named", ...] = ()
    fit: Fit | None = None

    def with_rows(self, added: tuple[int, ...], sources: tuple[str, ...]) -> "State":
        """The state after appending rows from these files."""
        return replace(self, exists=True, rows=self.rows + added, taken=self.taken | set(sources))

    def without_rows(self, gone: set[int]) -> "State":
        """The state after deleting rows."""
        return replace(self, rows=tuple(row for row in self.rows if row not in gone))

    def snapshot_names(self) -> list[str]:
        """Names of the snapshots."""
        return [snapshot.name for snapshot in self.snapshots]

    def describe(self) -> str:
        """One line for a report."""
        if not self.exists:
            return "no store"
        return (
            f"{len(self.rows)} rows, {len(self.taken)} files taken in, snapshots {self.snapshot_names()}, "
            f"{'no curvature' if self.fit is None else f'curvature of {len(self.fit.rows)} rows'}"
        )


# What one command may make of a state: the states that a kill may leave, the last of which is the only one allowed
# after exit code 0. An empty list means that the command must be refused.
Outcomes = Callable[[State], list[State]]


def damped_inverse_scores(
    queries: np.ndarray, rows: np.ndarray, fitted: np.ndarray, rank: int | None
) -> np.ndarray | None:
    """Scores g_q (H + λI)⁻¹ g_i; H is the sum over the fitted rows, of which the leading `rank` eigenpairs are kept.

    λ is the relative damping times the mean eigenvalue. Shapes: [q, D], [n, D], [N, D] give [q, n]. None where the
    cut is between eigenvalues that are too close to say which of them are kept.
    """
    hessian = fitted.T @ fitted
    values, vectors = np.linalg.eigh(hessian)
    values, vectors = np.clip(values[::-1], 0, None), vectors[:, ::-1]
    kept = len(values) if rank is None else min(rank, len(values))
    if kept < len(values) and values[kept - 1] - values[kept] < CLEAR_GAP * values[0] and values[kept] > 0:
        return None
    damping = RELATIVE_DAMPING * np.trace(hessian) / len(hessian)
    if damping == 0:
        return np.zeros((len(queries), len(rows)))
    values, vectors = values[:kept], vectors[:, :kept]
    weights = values / (values + damping)
    return (queries @ rows.T - (queries @ vectors * weights) @ (rows @ vectors).T) / damping


def influence_scores(
    schema: Schema, fit: Fit, gradients: Callable[[tuple[int, ...]], np.ndarray], queries: np.ndarray, rows: np.ndarray
) -> np.ndarray | None:
    """Influence by definition, per layer or over all layers at once; None where rounding decides about the basis."""
    fitted = gradients(fit.rows)
    if fit.whole:
        return damped_inverse_scores(queries, rows, fitted, fit.rank)
    total = np.zeros((len(queries), len(rows)))
    start = 0
    for layer in schema:
        part = slice(start, start + layer.gradient_length)
        scores = damped_inverse_scores(queries[:, part], rows[:, part], fitted[:, part], fit.rank)
        if scores is None:
            return None
        total += scores
        start = part.stop
    return total


@dataclass
class ObservedRow:
    """One row as the program reports it; None for what was not asked."""

    identifier: str
    fingerprint: bytes | None = None
    metadata: dict[str, object] | None = None


@dataclass
class ScoreTable:
    """Inner products with the probes, and the ids of the columns."""

    identifiers: list[str]
    scores: np.ndarray


@dataclass
class Observation:
    """What the program says is in the store; None for what it was not asked."""

    rows: list[ObservedRow]
    dot: ScoreTable | None = None
    # Only looked at when the program has the commands: None means that there was no curvature to use.
    influence: ScoreTable | None = None
    influence_seen: bool = False
    # Name to scores, None for a snapshot that the program does not have.
    snapshots: dict[str, ScoreTable | None] | None = None


@dataclass
class Comparison:
    """Compares observations with states of one store."""

    schema: Schema
    known: dict[int, Row]
    queries: np.ndarray

    def gradients(self, rows: tuple[int, ...]) -> np.ndarray:
        """The gradients of rows, [n, D]."""
        if not rows:
            return np.zeros((0, self.queries.shape[1]))
        return np.stack([self.known[row].gradient for row in rows])

    def difference(self, state: State, seen: Observation) -> str | None:
        """The first difference, for people; None if there is none."""
        return (
            self.rows_differ(state.rows, seen.rows)
            or self.dot_differs("query", state.rows, seen.dot)
            or self._snapshots_differ(state, seen)
            or (self.influence_differs(state.rows, state.fit, seen.influence) if seen.influence_seen else None)
        )

    def learn_identifiers(self, rows: tuple[int, ...], seen: list[ObservedRow]) -> None:
        """Notes the ids that the program gave to rows without one."""
        for serial, row in zip(rows, seen, strict=True):
            self.known[serial].identifier = row.identifier

    def rows_differ(self, rows: tuple[int, ...], seen: list[ObservedRow]) -> str | None:
        """The first difference of exported rows, in store order."""
        if len(seen) != len(rows):
            return f"{len(seen)} rows, expected {len(rows)}"
        if len({row.identifier for row in seen}) != len(seen):
            return "an id occurs twice"
        for index, (row, serial) in enumerate(zip(seen, rows, strict=True)):
            expected = self.known[serial]
            if not self._same_identifier(row.identifier, expected):
                return f"row {index} is {row.identifier!r}, expected {expected.identifier!r}"
            if row.fingerprint is not None and row.fingerprint != expected.fingerprint:
                return f"row {index} ({row.identifier!r}) has other numbers"
            if row.metadata is not None and row.metadata != expected.metadata:
                return f"row {index} ({row.identifier!r}) has metadata {row.metadata}, expected {expected.metadata}"
        return None

    @staticmethod
    def _same_identifier(seen: str, expected: Row) -> bool:
        return seen.isdecimal() if expected.identifier is None else seen == expected.identifier

    def columns_differ(self, what: str, rows: tuple[int, ...], seen: ScoreTable, row_count: int) -> str | None:
        """Whether a table of scores is not of these rows, or not of so many queries."""
        if len(seen.identifiers) != len(rows):
            return f"{what}: {len(seen.identifiers)} rows, expected {len(rows)}"
        for index, (identifier, serial) in enumerate(zip(seen.identifiers, rows, strict=True)):
            if not self._same_identifier(identifier, self.known[serial]):
                return f"{what}: row {index} is {identifier!r}, expected {self.known[serial].identifier!r}"
        shape = (row_count, len(rows))
        return f"{what}: scores of shape {seen.scores.shape}, expected {shape}" if seen.scores.shape != shape else None

    def dot_differs(self, what: str, rows: tuple[int, ...], seen: ScoreTable | None) -> str | None:
        """The first inner product that is not exact."""
        if seen is None:
            return None
        if difference := self.columns_differ(what, rows, seen, len(self.queries)):
            return difference
        expected = self.queries @ self.gradients(rows).T
        wrong = np.argwhere(seen.scores != expected)
        if len(wrong):
            query, row = wrong[0]
            return f"{what}: score [{query}, {row}] is {seen.scores[query, row]}, expected {expected[query, row]}"
        return None

    def _snapshots_differ(self, state: State, seen: Observation) -> str | None:
        if seen.snapshots is None:
            return None
        expected = {snapshot.name: snapshot for snapshot in state.snapshots}
        for name, table in seen.snapshots.items():
            if (table is None) != (name not in expected):
                return f"snapshot {name!r} is {'missing' if table is None else 'there, but should not be'}"
            if table is not None and (difference := self.dot_differs(f"snapshot {name!r}", expected[name].rows, table)):
                return difference
        return None

    def influence_differs(self, rows: tuple[int, ...], fit: Fit | None, seen: ScoreTable | None) -> str | None:
        """Whether there is influence where there should be none, or the other way round, or it is other numbers."""
        if not rows:
            return None
        if (seen is None) != (fit is None):
            return f"curvature is {'missing' if seen is None else 'there, but should not be'}"
        if seen is None or fit is None:
            return None
        if difference := self.columns_differ("influence", rows, seen, len(self.queries)):
            return difference
        expected = influence_scores(self.schema, fit, self.gradients, self.queries, self.gradients(rows))
        return None if expected is None else off_by("influence", seen.scores, expected)


def off_by(what: str, found: np.ndarray, expected: np.ndarray) -> str | None:
    """How far scores are off, in parts of each query's largest, if it is too far."""
    scale = np.abs(expected).max(axis=1, keepdims=True)
    error = np.abs(found - expected) / np.where(scale > 0, scale, 1)
    return None if error.max() <= INFLUENCE_TOLERANCE else f"{what}: scores are off by {error.max():.3g}"
