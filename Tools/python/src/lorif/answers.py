"""What the store answers, as frozen dataclasses: rankings with scores, and the reports of the other commands."""

import html
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from lorif.batch import Array, Factors
from lorif.tool import EnvironmentFailedError

__all__ = [
    "Answer",
    "Checkpoint",
    "Curvature",
    "CurvatureGroup",
    "CurvatureVersion",
    "Deletion",
    "Example",
    "Examples",
    "Export",
    "Hit",
    "Ingestion",
    "Ranking",
    "StoredLayer",
    "Summary",
    "Verification",
]

_SNIPPET = 160
_SHOWN_QUERIES = 20


class Report:
    """A dataclass whose fields are the keys of the program's JSON, in snake case."""

    @classmethod
    def of(cls, report: Mapping[str, Any], **given: Any) -> Self:
        """The report in JSON; keys that the class does not know are passed over."""
        values = {_snake(key): value for key, value in report.items()} | given
        try:
            return cls(**{field.name: values[field.name] for field in fields(cls) if field.name in values})
        except TypeError:
            missing = [field.name for field in fields(cls) if field.name not in values]
            raise EnvironmentFailedError(f"not a lorif that fits: no {missing[0]} in what it reported", 5) from None


def _snake(key: str) -> str:
    return re.sub(r"(?<=[a-z0-9])([A-Z])", lambda match: f"_{match[1].lower()}", key)


@dataclass(frozen=True)
class Ingestion(Report):
    """What `ingest` added; `rows` counts new rows, `total_rows` those of the store after it."""

    rows: int
    total_rows: int
    replaced_rows: int
    bytes: int
    bytes_per_example: float
    created_store: bool
    generation: int
    seconds: float


@dataclass(frozen=True)
class CurvatureGroup(Report):
    """A layer's eigenbasis of H, or with global scope that of all layers; `captured_energy` is its share of tr(H)."""

    layers: tuple[str, ...]
    rank: int
    gradient_length: int
    trace: float
    captured_energy: float
    largest_eigenvalue: float
    smallest_eigenvalue: float


@dataclass(frozen=True)
class Curvature(Report):
    """A fitted curvature; `curvature` is its id."""

    curvature: str
    scope: str
    rows: int
    bytes: int
    groups: tuple[CurvatureGroup, ...]

    @classmethod
    def of(cls, report: Mapping[str, Any], **given: Any) -> Self:
        """As of Report; the groups are dataclasses, too."""
        groups = tuple(CurvatureGroup.of(each, layers=tuple(each["layers"])) for each in report["groups"])
        return super().of(report, groups=groups, **given)


@dataclass(frozen=True)
class CurvatureVersion(Report):
    """A curvature among those that a store has.

    `active` is the one in use; `current` says that it was fitted on exactly the rows that are live, `seen_share` how
    much of these it has seen, and `deleted_rows` how many of its own are gone.
    """

    curvature: str
    active: bool
    current: bool
    scope: str
    algorithm: str
    rank: int
    captured_energy: float
    fitted_rows: int
    live_rows: int
    seen_share: float
    deleted_rows: int
    bytes: int


@dataclass(frozen=True)
class Checkpoint:
    """Another checkpoint of a model, whose scores are averaged with those of the store that is asked.

    Attributes:
        store: The folder of its store.
        queries: The batch file of the same queries' gradients at that checkpoint.
        weight: Of its scores in the mean; that of the store itself is 1.
        curvature: The id of a curvature, or the first digits of one; None for the one in use.
    """

    store: str | os.PathLike[str]
    queries: str | os.PathLike[str]
    weight: float = 1.0
    curvature: str | None = None


@dataclass(frozen=True)
class Deletion(Report):
    """What `delete` did; `rows` are left, and `missing` are the ids that named no example."""

    rows: int
    deleted_rows: int
    missing: tuple[str, ...]


@dataclass(frozen=True)
class Export(Report):
    """A batch that `export` wrote: its path, that of its metadata or None, and its type (f16, f32 …)."""

    output: str
    metadata: str | None
    rows: int
    bytes: int
    type: str


@dataclass(frozen=True)
class Verification(Report):
    """What `verify` found; true in a condition if the store is sound."""

    sound: bool
    level: str
    bytes: int
    damages: tuple[str, ...]

    def __bool__(self) -> bool:
        return self.sound


@dataclass(frozen=True)
class Summary(Report):
    """What a store holds."""

    rows: int
    deleted_rows: int
    layers: int
    encoding: str
    bytes: int
    bytes_per_example: float
    segments: int
    curvatures: int
    generation: int
    identity: str
    active_curvature: str | None = None


@dataclass(frozen=True)
class StoredLayer(Report):
    """A layer of the store; `rank` is None where full matrices are kept."""

    name: str
    d1: int
    d2: int
    rank: int | None = None


@dataclass(frozen=True)
class Example:
    """One example: its metadata and the norm of its gradient at each layer."""

    id: str
    metadata: Mapping[str, Any]
    norms: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class Examples:
    """Rows as they are stored: ids, per layer `Factors` or full matrices [n, d1, d2] in float32, and metadata.

    `basis` is the digest of the whitening basis that the numbers are in; None if they are as the model gave them.
    """

    ids: tuple[str, ...]
    layers: Mapping[str, Factors | Array]
    metadata: tuple[Mapping[str, Any], ...]
    basis: str | None = None

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Hit:
    """One training example in a ranking; `rank` counts from 1, from the top or from the bottom.

    `share` is its part of all influence on the query: |score| over the sum of it over all examples scored.
    """

    id: str
    score: float
    rank: int
    metadata: Mapping[str, Any] = field(default_factory=dict)
    share: float = math.nan

    @property
    def text(self) -> str:
        """What tells a reader which example it is: the field `text`, or else the first that holds a string."""
        return _text(self.metadata)


@dataclass(frozen=True)
class Ranking:
    """The answer to one query: `top` helped most, best first; `bottom` harmed most, worst first."""

    query: str
    top: tuple[Hit, ...]
    bottom: tuple[Hit, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """As of Hit, for the query."""
        return _text(self.metadata)

    def _repr_html_(self) -> str:
        return _table([self])


@dataclass(frozen=True, eq=False)
class Answer:
    """Rankings, one per query in the order of the queries; with `scores=True` also the whole score matrix.

    `scores` is [queries, examples] in float32; its rows are `query_ids` and its columns `example_ids`. Otherwise it is
    None, and so is `example_ids`. Positive scores mean that training on the example lowers the query's loss.
    `relative_damping` or `damping` is what was asked for; both are None where the default was.
    """

    method: str
    rankings: tuple[Ranking, ...]
    scores: NDArray[np.float32] | None = None
    example_ids: tuple[str, ...] | None = None
    relative_damping: float | None = None
    damping: float | None = None

    @property
    def query_ids(self) -> tuple[str, ...]:
        """The ids of the queries."""
        return tuple(ranking.query for ranking in self.rankings)

    def __len__(self) -> int:
        return len(self.rankings)

    def __iter__(self) -> Iterator[Ranking]:
        return iter(self.rankings)

    def __getitem__(self, query: int | str) -> Ranking:
        """The ranking of a query, by place or by id."""
        if isinstance(query, int):
            return self.rankings[query]
        for ranking in self.rankings:
            if ranking.query == query:
                return ranking
        raise KeyError(query)

    def __repr__(self) -> str:
        shape = "" if self.scores is None else f", scores {self.scores.shape[0]} x {self.scores.shape[1]}"
        lines = [f"Answer({self.method}, {len(self)} queries{shape})"]
        for ranking in self.rankings[:_SHOWN_QUERIES]:
            best = ", ".join(f"{hit.id} {hit.score:.4g}" for hit in ranking.top[:3])
            lines.append(f"  {ranking.query}: {best}{', …' if len(ranking.top) > 3 else ''}")
        if len(self) > _SHOWN_QUERIES:
            lines.append("  …")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        more = len(self) - _SHOWN_QUERIES
        return _table(self.rankings[:_SHOWN_QUERIES]) + (f"<p>… and {more} more queries</p>" if more > 0 else "")

    def to_pandas(self) -> Any:
        """A DataFrame with a row per hit: query, direction, rank, id, score, and a column per metadata field.

        A field whose name is taken becomes "metadata.<name>". Raises ImportError without pandas.
        """
        try:
            import pandas  # noqa: PLC0415 - an optional package
        except ImportError as error:
            raise ImportError("to_pandas needs pandas: pip install 'lorif[pandas]'") from error
        columns = ("query", "direction", "rank", "id", "score")
        rows = []
        for ranking in self.rankings:
            for direction, hits in (("top", ranking.top), ("bottom", ranking.bottom)):
                for hit in hits:
                    named = {f"metadata.{key}" if key in columns else key: value for key, value in hit.metadata.items()}
                    rows.append(
                        dict(zip(columns, (ranking.query, direction, hit.rank, hit.id, hit.score), strict=True)) | named
                    )
        return pandas.DataFrame(rows, columns=None if rows else list(columns))


def _text(metadata: Mapping[str, Any]) -> str:
    chosen = metadata.get("text")
    if not isinstance(chosen, str):
        chosen = next((value for value in metadata.values() if isinstance(value, str)), "")
    return chosen


def _snippet(text: str) -> str:
    flat = " ".join(text.split())
    return html.escape(flat if len(flat) <= _SNIPPET else flat[: _SNIPPET - 1] + "…")


def _table(rankings: Sequence[Ranking]) -> str:
    lines = ["<table><thead><tr><th></th><th>score</th><th>example</th><th>text</th></tr></thead><tbody>"]
    for ranking in rankings:
        lines.append(
            f'<tr><th colspan="3" style="text-align:left">{html.escape(ranking.query)}</th>'
            f'<td style="text-align:left"><i>{_snippet(ranking.text)}</i></td></tr>'
        )
        for sign, hits in (("+", ranking.top), ("−", ranking.bottom)):
            for hit in hits:
                lines.append(
                    f"<tr><td>{sign}{hit.rank}</td><td>{hit.score:.4g}</td><td>{html.escape(hit.id)}</td>"
                    f'<td style="text-align:left">{_snippet(hit.text)}</td></tr>'
                )
    return "".join([*lines, "</tbody></table>"])
