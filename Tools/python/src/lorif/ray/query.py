"""A query over a collection: planned here, scored by the program on the nodes that have the bytes, merged here."""

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import ray

from lorif.answers import Answer, Hit, Ranking
from lorif.ray.cache import Common, Unit
from lorif.ray.collection import Collection
from lorif.ray.errors import ClusterError, CollectionRefusedError, IncompleteError
from lorif.ray.layer_scales import layer_scales
from lorif.ray.limits import BestScores
from lorif.ray.manifest import Manifest
from lorif.ray.merge import added_totals, merged
from lorif.ray.placement import common_of, located, plan_units, split
from lorif.ray.scheduler import Failed, Job, Node, Scheduler, alive_nodes, on_every_node
from lorif.ray.scores import write_index
from lorif.ray.settings import Settings
from lorif.ray.stored_queries import gather_examples
from lorif.ray.worker import NodeReport, Question, UnitAnswer, ask, explain, report
from lorif.tool import InputRefusedError

_SELF_INFLUENCE_METHODS = ("self-influence", "relatif", "influence-cosine")
_CURVATURE_METHODS = ("influence", *_SELF_INFLUENCE_METHODS)
_SCALED_METHODS = ("whitened-dot", "whitened-cosine")
#: Units that are asked for a plan until one has rows that the question is about.
_PROBES = 16


@dataclass(frozen=True)
class Query:
    """What is asked; names and meanings are those of `lorif query`.

    `scores` is a folder or URL for score matrices, one file a shard; `deadline` counts in seconds.
    """

    queries: str | Path | None = None
    method: str = "influence"
    top: int = 10
    bottom: int = 0
    relative_dampings: Sequence[float] = ()
    dampings: Sequence[float] = ()
    layers: Sequence[str] = ()
    per_layer: bool = False
    aggregate: str | None = None
    aggregate_by: str | None = None
    group_by: str | None = None
    where: str | None = None
    among: Sequence[str] | None = None
    by_id: Sequence[str] = ()
    metadata: str | Path | None = None
    scores: str | None = None
    scores_format: str = "safetensors"
    guarantee: str | None = None
    kernel: str | None = None
    read: str | None = None
    memory: str | None = None
    deadline: float | None = None

    def options(self) -> tuple[str, ...]:
        """As the program has them, without those whose files are written on the workers."""
        named = {
            "method": self.method, "top": self.top, "bottom": self.bottom, "aggregate": self.aggregate,
            "aggregate-by": self.aggregate_by, "group-by": self.group_by, "where": self.where,
            "guarantee": self.guarantee, "kernel": self.kernel, "read": self.read, "memory": self.memory,
            "relative-damping": ",".join(map(repr, self.relative_dampings)) or None,
            "damping": ",".join(map(repr, self.dampings)) or None,
        }  # fmt: skip
        options = [f"--{name}={value}" for name, value in named.items() if value is not None]
        options += [f"--layers={glob}" for glob in self.layers]
        return (*options, *(["--per-layer"] if self.per_layer else []))


@dataclass(frozen=True)
class UnreadRows:
    """Rows that an answer does not count: `first_row` and `rows` as in the manifest, deleted ones included."""

    shard: str
    segment: str
    first_row: int
    rows: int
    live_rows: int
    reason: str

    def __str__(self) -> str:
        last = self.first_row + self.rows - 1
        return f"shard {self.shard}: rows {self.first_row} to {last} ({self.live_rows} live): {self.reason}"


@dataclass(frozen=True)
class UnitReport:
    """What a unit's run took."""

    shards: tuple[str, ...]
    node: str
    rows: int
    bytes: int
    fetched_bytes: int
    store_seconds: float
    tool_seconds: float
    scored_again: int = 0
    #: Whether the scores of units before it cut its lists short.
    is_limited: bool = False


@dataclass(frozen=True)
class Totals:
    """What a query took: bytes of segments asked about, bytes copied to workers, seconds, and the slowest unit."""

    units: tuple[UnitReport, ...]
    planning_seconds: float
    elapsed_seconds: float
    kernel: str | None
    #: Bytes copied to workers before, to plan.
    probed_bytes: int = 0

    @property
    def slowest(self) -> UnitReport | None:
        """The unit that took longest."""
        return max(self.units, key=lambda unit: unit.store_seconds + unit.tool_seconds, default=None)

    def report(self) -> dict[str, Any]:
        """As plain data."""
        slowest = self.slowest
        return {
            "units": len(self.units),
            "nodes": len({unit.node for unit in self.units}),
            "rows": sum(unit.rows for unit in self.units),
            "bytes": sum(unit.bytes for unit in self.units),
            "fetchedBytes": self.probed_bytes + sum(unit.fetched_bytes for unit in self.units),
            "kernel": self.kernel,
            "scoredAgain": sum(unit.scored_again for unit in self.units),
            "limitedUnits": sum(unit.is_limited for unit in self.units),
            "planningSeconds": self.planning_seconds,
            "workerSeconds": sum(unit.store_seconds + unit.tool_seconds for unit in self.units),
            "elapsedSeconds": self.elapsed_seconds,
            "slowest": None if slowest is None else {
                "shards": list(slowest.shards), "node": slowest.node,
                "seconds": slowest.store_seconds + slowest.tool_seconds, "bytes": slowest.bytes,
            },
        }  # fmt: skip


@dataclass(frozen=True)
class CollectionAnswer:
    """An answer: `text` are the lines that `lorif query --format jsonl` prints of one store with all the rows."""

    text: str
    method: str
    remarks: tuple[str, ...]
    unread: tuple[UnreadRows, ...]
    totals: Totals
    index: str | None = None
    lines: tuple[dict[str, Any], ...] = field(default=(), repr=False)

    @property
    def is_complete(self) -> bool:
        """Whether every row was read."""
        return not self.unread

    def rankings(self) -> Answer:
        """The ranked lists as `lorif.Store.query` gives them; for one damping."""
        lists: dict[str, dict[str, list[Hit]]] = {}
        for line in self.lines:
            if line["direction"] in ("top", "bottom"):
                hit = Hit(line["id"], line["score"], line["rank"], line["metadata"] or {})
                lists.setdefault(line["query"], {}).setdefault(line["direction"], []).append(hit)
        found = tuple(
            Ranking(name, *(tuple(each.get(way, ())) for way in ("top", "bottom"))) for name, each in lists.items()
        )
        return Answer(self.method, found, None, None)


Progress = Callable[[int, int], None]


@dataclass
class _Session:
    """A collection as it was when the query began, and the cluster."""

    manifest: Manifest
    common: Common
    nodes: Mapping[str, Node]
    reports: Mapping[str, NodeReport]
    settings: Settings
    started: float
    deadline: float | None

    def run(
        self,
        function: Callable[..., Any],
        jobs: Sequence[Job],
        *shared: Any,
        on_result: Callable[[Job, Any], None],
        latest: Callable[[], Any] | None = None,
    ) -> list[Failed]:
        scheduler = Scheduler(function, shared, self.settings, split=split, latest=latest)
        return scheduler.run(jobs, on_result, deadline=self.deadline)


def query(
    collection: Collection | str | Path,
    request: Query,
    *,
    settings: Settings | None = None,
    progress: Progress | None = None,
    require_complete: bool = False,
) -> CollectionAnswer:
    """Answers a query over all shards; connect to the cluster with `ray.init` first.

    Rows that could not be read after all attempts are named in the answer, or IncompleteError is raised with
    `require_complete`. What the program refuses is raised as its ToolError.
    """
    session, request, jobs, question = _prepared(collection, request, settings or Settings())
    kernel, probed = request.kernel, 0
    if not kernel and len(jobs) > 1:
        # The choice depends on the number of rows; all units must make the same.
        kernel, probed = _kernel(session, jobs, question)
        question = replace(question, options=(*question.options, f"--kernel={kernel}"))
    planned = time.monotonic() - session.started
    answers: list[tuple[Unit, UnitAnswer]] = []
    total, done = sum(job.argument.live_rows for job in jobs), 0
    best = BestScores(request.top, request.bottom) if _shares_limits(request, jobs) else None

    def collect(job: Job, answer: UnitAnswer) -> None:
        nonlocal done
        answers.append((job.argument, answer))
        if best is not None:
            best.add(answer.output)
        done += job.argument.live_rows
        if progress is not None:
            progress(done, total)

    failed = session.run(
        ask, jobs, session.common, question, session.settings, on_result=collect,
        latest=best.limits if best is not None else None,
    )  # fmt: skip
    answers.sort(key=lambda pair: pair[0].first_row)
    unread = _unread(session.manifest, failed)
    if unread and require_complete:
        raise IncompleteError("; ".join(map(str, unread)))
    _check_among(request, answers, unread)
    outputs = [answer.output for _, answer in answers]
    if answers and all(answer.nothing_passed for _, answer in answers) and not unread:
        raise InputRefusedError("no example passes the condition", 3)
    text = (
        outputs[0].decode()
        if len(outputs) == 1
        else merged(
            outputs,
            added_totals(answer.totals for _, answer in answers),
            top=request.top,
            bottom=request.bottom,
            group_by=request.group_by,
        )
    )
    index = None
    if request.scores is not None:
        index = write_index(request.scores, session.manifest, request.method, answers, unread)
    units = tuple(
        UnitReport(
            unit.shards, answer.node, unit.live_rows, unit.bytes, answer.fetched_bytes, answer.store_seconds,
            answer.tool_seconds, answer.scored_again, answer.is_limited,
        )
        for unit, answer in answers
    )  # fmt: skip
    totals = Totals(units, planned, time.monotonic() - session.started, kernel, probed)
    lines = tuple(json.loads(line) for line in text.split("\n") if line)
    return CollectionAnswer(
        text, request.method, _remarks(session.manifest, answers, question), unread, totals, index, lines
    )


def explain_query(
    collection: Collection | str | Path, request: Query, *, settings: Settings | None = None
) -> dict[str, Any]:
    """What a query would do: the units' plans, added up. Nothing is scored."""
    session, request, jobs, question = _prepared(collection, request, settings or Settings())
    plans: list[tuple[Unit, dict[str, Any], str]] = []

    def collect(job: Job, answer: tuple[bytes, str, int]) -> None:
        if answer[0]:
            plans.append((job.argument, json.loads(answer[0]), answer[1]))

    failed = session.run(explain, jobs, session.common, question, session.settings, on_result=collect)
    plans.sort(key=lambda each: each[0].first_row)
    slowest = max(plans, key=lambda each: each[1]["preparationSeconds"] + each[1]["scanSeconds"], default=None)
    return {
        "units": len(jobs),
        "nodes": len({node for *_, node in plans}),
        "kernels": sorted({plan["kernel"] for _, plan, _ in plans}),
        "rows": sum(plan["rows"] for _, plan, _ in plans),
        "bytes": sum(plan["bytes"] for _, plan, _ in plans),
        "diskBytes": sum(plan["diskBytes"] for _, plan, _ in plans),
        "flops": sum(plan["flops"] for _, plan, _ in plans),
        "workerSeconds": sum(plan["preparationSeconds"] + plan["scanSeconds"] for _, plan, _ in plans),
        "slowest": None if slowest is None else {
            "shards": list(slowest[0].shards), "node": slowest[2],
            "seconds": slowest[1]["preparationSeconds"] + slowest[1]["scanSeconds"],
        },
        "unread": [str(each) for each in _unread(session.manifest, failed)],
        "planningSeconds": time.monotonic() - session.started,
    }  # fmt: skip


def _prepared(
    collection: Collection | str | Path, request: Query, settings: Settings
) -> tuple[_Session, Query, list[Job], Question]:
    started = time.monotonic()
    manifest = (collection if isinstance(collection, Collection) else Collection(collection)).manifest()
    session = open_session(manifest, settings, started, request.deadline)
    needs_curvature = request.method in _CURVATURE_METHODS
    if needs_curvature and manifest.curvature is None:
        raise CollectionRefusedError(
            f"method '{request.method}' needs curvature and the collection has none; run 'fit' or 'use-curvature'"
        )
    if request.scores is not None and request.deadline is not None:
        raise CollectionRefusedError("--deadline may leave examples unread, and --scores must have them all")
    jobs = plan_units(
        manifest, session.nodes, session.reports, settings, one_per_shard=request.scores is not None,
        fields=_fields(manifest, request),
    )  # fmt: skip
    queries, records = _query_bytes(request)
    if request.by_id:
        if queries is not None:
            raise CollectionRefusedError("give a file of queries or --by-id, not both")
        queries = gather_examples(
            session, plan_units(manifest, session.nodes, session.reports, settings), request.by_id
        )
    scales = layer_scales(session, jobs) if request.method in _SCALED_METHODS and len(jobs) > 1 else None
    question = Question(
        request.options(), needs_curvature, request.method in _SELF_INFLUENCE_METHODS, queries, records,
        tuple(dict.fromkeys(request.among)) if request.among is not None else None,
        (request.scores, request.scores_format) if request.scores is not None else None, scales,
    )  # fmt: skip
    return session, request, jobs, question


def open_session(manifest: Manifest, settings: Settings, started: float, deadline: float | None) -> _Session:
    """Asks every node what it has; raises where there are no rows, or no node can work."""
    entries = located(manifest)
    if not entries:
        raise CollectionRefusedError("the collection has no rows; add some with 'collection add'")
    files = [(segment.url, segment.digest) for _, segment in entries]
    reports = on_every_node(report, files, settings, seconds=settings.node_seconds)
    usable = {name: each for name, each in reports.items() if each.problem is None}
    if not usable:
        problems = sorted({each.problem for each in reports.values() if each.problem})
        raise ClusterError("no node can work: " + ("; ".join(problems) or "none has answered"))
    nodes = {name: node for name, node in alive_nodes().items() if name in usable}
    end = None if deadline is None else started + deadline
    return _Session(manifest, common_of(manifest), nodes, usable, settings, started, end)


def _query_bytes(request: Query) -> tuple[bytes | None, bytes | None]:
    if request.queries is None:
        return None, None
    path = Path(request.queries)
    try:
        beside = path.with_suffix(".jsonl") if request.metadata is None else Path(request.metadata)
        records = beside.read_bytes() if request.metadata is not None or beside.is_file() else None
        return path.read_bytes(), records
    except OSError as error:
        raise CollectionRefusedError(f"{error.filename}: {error.strerror}") from None


def _fields(manifest: Manifest, request: Query) -> frozenset[str]:
    """Metadata fields that the request may name: a unit without one of them would refuse it."""
    known = {name for segment in manifest.segments for name in segment.fields}
    named = {name for name in known if request.where is not None and name in request.where}
    return frozenset(named | ({request.group_by} & known))


def _shares_limits(request: Query, jobs: Sequence[Job]) -> bool:
    """Whether units are told what the lists of those before them end with.

    Not where every row is scored exactly anyway, for sums by group, nor where a query has a list for each damping.
    """
    one_damping = len(request.dampings) + len(request.relative_dampings) <= 1
    return len(jobs) > 1 and one_damping and request.group_by is None and request.top + request.bottom > 0


def _kernel(session: _Session, jobs: Sequence[Job], question: Question) -> tuple[str, int]:
    """What the program plans for the largest unit that can be read, and bytes copied for that."""
    fetched = 0
    for job in sorted(jobs, key=lambda job: -job.bytes)[:_PROBES]:
        plans: list[tuple[bytes, str, int]] = []
        probe = Job(job.argument, job.bytes, job.wanted, job.able)
        session.run(
            explain, [probe], session.common, question, session.settings,
            on_result=lambda _, answer, plans=plans: plans.append(answer),
        )  # fmt: skip
        fetched += sum(each for *_, each in plans)
        if plans and plans[0][0]:
            return str(json.loads(plans[0][0])["kernel"]), fetched
    return "tiles", fetched


def _unread(manifest: Manifest, failed: Sequence[Failed]) -> tuple[UnreadRows, ...]:
    shard_of = {segment.digest: shard.name for shard in manifest.shards for segment in shard.segments}
    rows = [
        UnreadRows(
            shard_of[segment.digest], segment.url, segment.first_row, segment.rows, segment.live_rows, each.reason
        )
        for each in failed
        for segment in each.job.argument.segments
    ]
    return tuple(sorted(rows, key=lambda each: each.first_row))


def _check_among(request: Query, answers: Sequence[tuple[Unit, UnitAnswer]], unread: Sequence[UnreadRows]) -> None:
    """An id that no row has is refused as by the program; unless it may be among the rows that were not read."""
    if request.among is None or unread:
        return
    found = {name for _, answer in answers for name in answer.among}
    missing = [name for name in dict.fromkeys(request.among) if name not in found]
    if missing:
        first = ", ".join(f"'{name}'" for name in missing[:5]) + (", …" if len(missing) > 5 else "")
        raise InputRefusedError(f"{len(missing)} ids name no example: {first}", 3)


def _remarks(manifest: Manifest, answers: Sequence[tuple[Unit, UnitAnswer]], question: Question) -> tuple[str, ...]:
    """The units' remarks, each once; how much a curvature has seen is said of all rows and not of a unit's."""
    said = dict.fromkeys(
        remark.removeprefix("note: ") for _, answer in answers for remark in answer.remarks if "fitted" not in remark
    )
    if question.needs_curvature and manifest.curvature and not manifest.curvature_is_current:
        said[
            f"the curvature was fitted on {manifest.curvature.fitted_rows} rows, the collection has "
            f"{manifest.live_rows}: fit again to count them all"
        ] = None
    return tuple(said)


def connect(address: str | None) -> None:
    """Connects to a cluster by its address or RAY_ADDRESS; without either, starts one on this machine alone."""
    if ray.is_initialized():
        return
    if address is None and "RAY_ADDRESS" not in os.environ:
        # Said plainly: left to itself, Ray would look for a cluster that somebody else has started here.
        ray.init(address="local", log_to_driver=False, include_dashboard=False)
    else:
        ray.init(address=address, log_to_driver=False)
