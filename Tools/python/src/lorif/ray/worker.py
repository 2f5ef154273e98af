"""What runs on a worker: the program, asked about a working store of the node's cache."""

import ctypes
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import ray
import xxhash
from numpy.typing import NDArray

from lorif.page import bfloat16
from lorif.ray import files
from lorif.ray.cache import Common, NodeCache, Unit
from lorif.ray.catalog import digest_of
from lorif.ray.collection import check_local
from lorif.ray.errors import ClusterError, SegmentsUnreadableError
from lorif.ray.files import Ranges
from lorif.ray.limits import Limits
from lorif.ray.merge import AnswerKey
from lorif.ray.settings import Settings
from lorif.segment import IDENTIFIER_INDEX, NORMS, Segment
from lorif.tool import EnvironmentFailedError, StoreDamagedError, Tool, ToolError

_PR_SET_PDEATHSIG = 1
_prctl = ctypes.CDLL(None).prctl


@dataclass(frozen=True)
class Question:
    """What is asked of every unit: options of `lorif query`, and the files that go with them."""

    options: tuple[str, ...]
    needs_curvature: bool
    uses_coordinates: bool = False
    queries: bytes | None = None
    records: bytes | None = None
    among: tuple[str, ...] | None = None
    #: The folder of score files, and their ending; None without.
    scores: tuple[str, str] | None = None
    #: tr(H) of every layer over all units, for methods that divide by it.
    layer_scales: dict[str, float] | None = None


@dataclass(frozen=True)
class ScoreFile:
    """A score matrix that a unit wrote."""

    name: str
    bytes: int
    digest: str
    examples: int


@dataclass(frozen=True)
class UnitAnswer:
    """What a unit's run gave."""

    output: bytes
    remarks: tuple[str, ...]
    node: str
    fetched_bytes: int
    store_seconds: float
    tool_seconds: float
    #: Ids of `--among` that are live in the unit.
    among: tuple[str, ...] = ()
    nothing_passed: bool = False
    scores: ScoreFile | None = None
    #: Σ |score| by answer, in the order of answers.
    totals: dict[AnswerKey, float] = field(default_factory=dict)
    #: Rows × queries that were scored again, and whether other units' scores cut the lists short.
    scored_again: int = 0
    is_limited: bool = False


@dataclass(frozen=True)
class NodeReport:
    """What a node has: copies in its cache, files on its own disks, and room."""

    node: str
    cached: frozenset[str]
    near: frozenset[str]
    free_bytes: int
    problem: str | None = None


def this_node() -> str:
    """The id of the node that this runs on."""
    return str(ray.get_runtime_context().get_node_id())


def node_cache(settings: Settings) -> NodeCache:
    """The cache of this node."""
    folder = settings.cache.replace("{node}", this_node())
    try:
        return NodeCache(folder, settings.cache_bytes, copies_all=settings.copies_all)
    except OSError as error:
        raise ClusterError(f"{folder}: {error.strerror or error}") from None


def _tool(settings: Settings) -> Tool:
    return Tool(settings.tool)


def report(urls: Sequence[tuple[str, str]], settings: Settings) -> NodeReport:
    """What this node has of some files, given as URL and digest."""
    node = this_node()
    try:
        _tool(settings)
        cache = node_cache(settings)
        cached = cache.digests()
        near = frozenset(digest for url, digest in urls if cache.is_near(url))
        free = shutil.disk_usage(cache.folder).free
        return NodeReport(node, frozenset(cached & {digest for _, digest in urls}), near, free)
    except (ClusterError, EnvironmentFailedError, OSError) as error:
        return NodeReport(node, frozenset(), frozenset(), 0, str(error))


def _die_with_parent() -> None:
    """A killed worker must not leave its program behind, which would keep processors and disks busy."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def run_tool(tool: Tool, *arguments: str) -> tuple[bytes, tuple[str, ...]]:
    """What the program prints, and its remarks, without lines of progress; it ends when this process does."""
    with subprocess.Popen(
        [tool.path, *arguments, "--quiet"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=_die_with_parent,  # noqa: PLW1509 - one call of a function that is loaded already
    ) as process:  # fmt: skip
        try:
            output, complaint = process.communicate()
        except BaseException:
            process.kill()
            raise
    message = complaint.decode("utf-8", "replace").strip()
    if process.returncode:
        code = process.returncode if process.returncode > 0 else 5
        raise ToolError.of(
            message.removeprefix("lorif: ") or f"lorif {arguments[0]} ended with {process.returncode}", code
        )
    return output, tuple(line.removeprefix("lorif: ") for line in message.splitlines() if line)


def ask(unit: Unit, common: Common, question: Question, settings: Settings, limits: Limits | None = None) -> UnitAnswer:
    """Runs `lorif query` on a unit; what is beyond `limits` is not listed.

    Raises SegmentsUnreadableError with the segments that are missing or damaged here, and ToolError.
    """
    tool, cache = _tool(settings), node_cache(settings)
    found = among_unit(unit, question.among) if question.among is not None else ()
    if question.among is not None and not found:
        return UnitAnswer(b"", (), this_node(), 0, 0.0, 0.0, nothing_passed=True)
    with (
        cache.holding(
            unit, common, with_curvature=question.needs_curvature, with_coordinates=question.uses_coordinates
        ) as held,
        tempfile.TemporaryDirectory(prefix="asking-", dir=cache.folder) as folder,
    ):
        arguments = ["query", str(held.path), *_given(question, Path(folder), found)]
        scores = None
        if question.scores is not None:
            scores = Path(folder) / f"rows-{unit.first_row:012}.{question.scores[1]}"
            arguments.append(f"--output={scores}")
        arguments += [f"--output={folder}/answer.jsonl", "--format=jsonl", f"--summary={folder}/summary.json"]
        given = {"at-least": limits.least, "at-most": limits.greatest} if limits is not None else {}
        for name, numbers in given.items():
            if numbers:
                (Path(folder) / f"{name}.json").write_text(json.dumps(numbers), encoding="utf-8")
                arguments.append(f"--{name}={folder}/{name}.json")
        started = time.monotonic()
        try:
            _, remarks = run_tool(tool, *arguments, *thread_options(settings))
        except StoreDamagedError as error:
            raise blame(unit, held.path, cache, error) from None
        except ToolError as error:
            if _says_nothing_passes(error):
                return UnitAnswer(b"", (), this_node(), held.fetched_bytes, held.seconds, 0.0, nothing_passed=True)
            raise
        seconds = time.monotonic() - started
        output = (Path(folder) / "answer.jsonl").read_bytes()
        summary = json.loads((Path(folder) / "summary.json").read_text(encoding="utf-8"))
        written = _deliver(scores, question, unit) if scores is not None else None
    return UnitAnswer(
        output, (*held.remarks, *remarks), this_node(), held.fetched_bytes, held.seconds, seconds, found,
        scores=written, totals=_totals(summary), scored_again=summary["scoredAgain"], is_limited=any(given.values()),
    )  # fmt: skip


def _totals(summary: dict[str, Any]) -> dict[AnswerKey, float]:
    """Σ |score| by answer, as the program's summary has it."""
    dampings = summary["dampings"]
    name = "relative_damping" if dampings and "relative" in dampings[0] else "damping"
    return {
        ((name, each["damping"]) if "damping" in each else None, each["query"]): each["total"]
        for each in summary["queries"]
    }


def explain(unit: Unit, common: Common, question: Question, settings: Settings) -> tuple[bytes, str, int]:
    """The plan of a unit as JSON, the node, and bytes copied; no plan where no row of the unit is asked about."""
    tool, cache = _tool(settings), node_cache(settings)
    found = among_unit(unit, question.among) if question.among is not None else ()
    if question.among is not None and not found:
        return b"", this_node(), 0
    with (
        cache.holding(
            unit, common, with_curvature=question.needs_curvature, with_coordinates=question.uses_coordinates
        ) as held,
        tempfile.TemporaryDirectory(prefix="asking-", dir=cache.folder) as folder,
    ):
        given = _given(question, Path(folder), found)
        if question.scores is not None:
            given.append(f"--output={folder}/scores.{question.scores[1]}")
        arguments = ["query", str(held.path), *given, "--explain=plan", "--json", *thread_options(settings)]
        try:
            return run_tool(tool, *arguments)[0], this_node(), held.fetched_bytes
        except StoreDamagedError as error:
            raise blame(unit, held.path, cache, error) from None
        except ToolError as error:
            if _says_nothing_passes(error):
                return b"", this_node(), held.fetched_bytes
            raise


def _says_nothing_passes(error: ToolError) -> bool:
    """Whether a condition leaves no row of a unit, which is an answer as long as others have some."""
    return error.code == 3 and str(error).endswith("no example passes the condition")


def thread_options(settings: Settings) -> list[str]:
    """How many threads the program gets."""
    return [f"--threads={max(1, int(settings.cpus))}"] if settings.cpus else []


def _given(question: Question, folder: Path, among: Sequence[str]) -> list[str]:
    """The query's file and options, with files written to a folder."""
    given = []
    if question.queries is not None:
        path = folder / "queries.safetensors"
        path.write_bytes(question.queries)
        given.append(str(path))
        if question.records is not None:
            path.with_suffix(".jsonl").write_bytes(question.records)
    if question.among is not None:
        listed = folder / "among.json"
        listed.write_text(_json_ids(among), encoding="utf-8")
        given.append(f"--among={listed}")
    if question.layer_scales is not None:
        scales = folder / "scales.json"
        scales.write_text(json.dumps(question.layer_scales), encoding="utf-8")
        given.append(f"--layer-scales={scales}")
    return [*given, *question.options]


def _json_ids(ids: Sequence[str]) -> str:
    return json.dumps(list(ids))


def _deliver(path: Path, question: Question, unit: Unit) -> ScoreFile:
    assert question.scores is not None  # noqa: S101 - the caller has asked for scores
    data = path.read_bytes()
    files.put(path, files.joined(question.scores[0], path.name))
    return ScoreFile(path.name, len(data), digest_of(data), unit.live_rows)


def blame(unit: Unit, store: Path, cache: NodeCache, error: ToolError) -> Exception:
    """Which segments of a working store are damaged; the next attempt gets new copies of them."""
    reasons = {}
    for number, segment in enumerate(unit.segments):
        reason = check_local(store / "segments" / f"{number:016x}.segment", segment)
        if reason:
            reasons[segment.digest] = f"{segment.url}: {reason}"
            cache.drop(segment.digest)
    cache.forget(store)
    return SegmentsUnreadableError(reasons) if reasons else ClusterError(f"node {this_node()}: {error}")


def open_segment(url: str) -> Segment:
    """A segment by URL, of which only header and footer are read."""
    return Segment(url, Ranges(url))


def among_unit(unit: Unit, ids: Sequence[str]) -> tuple[str, ...]:
    """Those of the ids that name live rows of the unit, by the segments' indices."""
    hashes = np.array([xxhash.xxh3_64_intdigest(each.encode()) for each in ids], np.uint64)
    found: set[int] = set()
    reasons = {}
    for entry in unit.segments:
        try:
            segment = open_segment(entry.url)
            deleted = np.unpackbits(np.frombuffer(entry.tombstones, np.uint8), bitorder="little")
            for _, raw in segment.blocks(IDENTIFIER_INDEX):
                count = len(raw) // 12
                index, rows = np.frombuffer(raw, "<u8", count), np.frombuffer(raw, "<u4", count, 8 * count)
                if not count:
                    continue
                places = np.minimum(np.searchsorted(index, hashes), count - 1)
                hits = np.flatnonzero(index[places] == hashes)
                live = [hit for hit in hits if not (len(deleted) and deleted[rows[places[hit]]])]
                found.update(map(int, live))
        except (OSError, ValueError) as error:
            reasons[entry.digest] = f"{entry.url}: {error}"
    if reasons:
        raise SegmentsUnreadableError(reasons)
    return tuple(ids[place] for place in sorted(found))


def squared_norms(unit: Unit) -> dict[int, NDArray[np.float64]]:
    """By the first row of each segment: Σ norm² of the live rows of each of its blocks, [blocks, layers].

    In the order in which the program adds them up, so that sums over all blocks are the same to the last bit.
    """
    sums = {}
    reasons = {}
    for entry in unit.segments:
        try:
            segment = open_segment(entry.url)
            deleted = np.unpackbits(np.frombuffer(entry.tombstones, np.uint8), bitorder="little").astype(bool)
            parts = []
            for block, raw in segment.blocks(NORMS):
                rows = segment.rows(block)
                norms = bfloat16(raw).reshape(len(segment.layers), len(rows)).astype(np.float64)
                if len(deleted):
                    norms = norms[:, ~deleted[rows.start : rows.stop]]
                if norms.shape[1]:
                    # A running sum adds in order; NumPy's own sum does not.
                    parts.append(np.cumsum(norms * norms, axis=1)[:, -1])
            sums[entry.first_row] = np.array(parts).reshape(-1, len(segment.layers))
        except (OSError, ValueError) as error:
            reasons[entry.digest] = f"{entry.url}: {error}"
    if reasons:
        raise SegmentsUnreadableError(reasons)
    return sums


def export(unit: Unit, common: Common, ids: Sequence[str], settings: Settings) -> bytes:
    """Stored examples of a unit as a batch file."""
    tool, cache = _tool(settings), node_cache(settings)
    with (
        cache.holding(unit, common, with_curvature=False) as held,
        tempfile.TemporaryDirectory(prefix="asking-", dir=cache.folder) as folder,
    ):
        listed, out = Path(folder) / "ids.json", Path(folder) / "rows.safetensors"
        listed.write_text(_json_ids(ids), encoding="utf-8")
        try:
            run_tool(tool, "export", str(held.path), str(out), f"--ids={listed}")
        except StoreDamagedError as error:
            raise blame(unit, held.path, cache, error) from None
        return out.read_bytes()


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0))
