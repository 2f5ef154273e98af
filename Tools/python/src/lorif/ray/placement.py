"""Units of work: which segments are asked about together, and where their bytes are."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from lorif.ray import files
from lorif.ray.cache import Common, Unit
from lorif.ray.errors import SegmentsUnreadableError
from lorif.ray.manifest import Manifest, SegmentEntry
from lorif.ray.scheduler import Job, Node
from lorif.ray.settings import Settings
from lorif.ray.worker import NodeReport

#: Smaller units would spend more on starting the program than on reading.
_SMALLEST_UNIT = 4 << 30
_UNITS_PER_NODE = 4


def common_of(manifest: Manifest) -> Common:
    """What all units share, with whole URLs."""
    assert manifest.schema is not None  # noqa: S101 - the caller has rows
    return Common(
        manifest.schema,
        replace(manifest.basis, url=manifest.url(manifest.basis.url)) if manifest.basis else None,
        replace(manifest.curvature, url=manifest.url(manifest.curvature.url)) if manifest.curvature else None,
        manifest.curvature_is_current,
    )


def located(manifest: Manifest) -> list[tuple[str, SegmentEntry]]:
    """Shard and segment of everything that has live rows, with whole URLs."""
    return [
        (shard.name, _with_whole_urls(manifest, segment))
        for shard in manifest.shards
        for segment in shard.segments
        if segment.live_rows
    ]


def _with_whole_urls(manifest: Manifest, segment: SegmentEntry) -> SegmentEntry:
    coordinates = segment.coordinates
    if coordinates is not None:
        coordinates = replace(coordinates, url=manifest.url(coordinates.url))
    return replace(segment, url=manifest.url(segment.url), coordinates=coordinates)


def plan_units(
    manifest: Manifest,
    nodes: Mapping[str, Node],
    reports: Mapping[str, NodeReport],
    settings: Settings,
    *,
    one_per_shard: bool = False,
    fields: frozenset[str] = frozenset(),
) -> list[Job]:
    """Segments grouped by the node where they should be read, in jobs of about equal bytes.

    A segment goes to a node that has it; if none or all have it, to one that a hash of its digest chooses, the same in
    every query, with room for an equal share of all bytes. `fields` are metadata fields that every unit must have.
    """
    entries = located(manifest)
    names = sorted(nodes)
    total = sum(segment.bytes for _, segment in entries)
    share = max(total / max(1, len(names)) * 1.05, max((segment.bytes for _, segment in entries), default=0))
    load = dict.fromkeys(names, 0)
    homes: dict[str, list[tuple[str, SegmentEntry]]] = {name: [] for name in names}
    for group in _inseparable(entries, by_shard=one_per_shard):
        first, size = group[0][1].digest, sum(segment.bytes for _, segment in group)
        ranked = sorted(names, key=lambda name: _rank(name, first))
        digests = {segment.digest for _, segment in group}
        having = [name for name in ranked if name in reports and digests <= reports[name].cached | reports[name].near]
        order = [*having, *(name for name in ranked if name not in having)]
        # Where only some have it, the bytes matter more than an equal share.
        chosen = next((name for name in order if load[name] + size <= share), order[0])
        if having and len(having) < len(names):
            chosen = min(having, key=lambda name: load[name])
        load[chosen] += size
        homes[chosen] += group
    jobs = []
    for name in names:
        limit = settings.unit_bytes or max(_SMALLEST_UNIT, load[name] // _UNITS_PER_NODE + 1)
        jobs += [
            _job(unit, reports, wanted=frozenset([name]))
            for unit in _units(homes[name], limit, one_per_shard=one_per_shard)
        ]
    return _with_fields(jobs, fields, reports) if fields else jobs


def _inseparable(
    entries: Sequence[tuple[str, SegmentEntry]], *, by_shard: bool
) -> Iterator[list[tuple[str, SegmentEntry]]]:
    """What has to be on one node: a segment, or a shard."""
    if not by_shard:
        yield from ([entry] for entry in entries)
        return
    for _, members in groupby(entries, key=lambda entry: entry[0]):
        yield list(members)


def _rank(node: str, digest: str) -> bytes:
    return hashlib.blake2b(f"{node} {digest}".encode(), digest_size=8).digest()


def _units(entries: Sequence[tuple[str, SegmentEntry]], limit: int, *, one_per_shard: bool) -> list[Unit]:
    units: list[Unit] = []
    for shard, segment in entries:
        last = units[-1] if units else None
        joins = last is not None and (
            last.shards[-1] == shard if one_per_shard else last.bytes + segment.bytes <= limit
        )
        if last is not None and joins:
            shards = last.shards if last.shards[-1] == shard else (*last.shards, shard)
            units[-1] = Unit(shards, (*last.segments, segment))
        else:
            units.append(Unit((shard,), (segment,)))
    return units


def _job(unit: Unit, reports: Mapping[str, NodeReport], *, wanted: frozenset[str]) -> Job:
    able: frozenset[str] | None = None
    local = [segment.digest for segment in unit.segments if files.local_path(segment.url) is not None]
    if local:
        # A local path that only some nodes see must be read there.
        able = frozenset(
            name for name, report in reports.items() if all(each in report.near | report.cached for each in local)
        )
        able = None if not able or len(able) == len(reports) else able
    return Job(unit, unit.bytes, wanted, able)


def _with_fields(jobs: list[Job], fields: frozenset[str], reports: Mapping[str, NodeReport]) -> list[Job]:
    """Joins units until each has the fields: the program refuses a name that none of the rows that it sees has."""

    def has(unit: Unit) -> bool:
        return fields <= {name for segment in unit.segments for name in segment.fields}

    whole = [job for job in jobs if has(job.argument)]
    rest = [job for job in jobs if not has(job.argument)]
    if not rest:
        return jobs
    if not whole:
        # Together they may have them all; if not, the program says what is missing.
        return [as_one(jobs, reports)]
    for place, job in enumerate(rest):
        taker = place % len(whole)
        unit = _joined([whole[taker].argument, job.argument])
        whole[taker] = _job(unit, reports, wanted=whole[taker].wanted)
    return whole


def as_one(jobs: Sequence[Job], reports: Mapping[str, NodeReport]) -> Job:
    """All units as one, on the node that has most of the bytes."""
    homes: dict[frozenset[str], int] = {}
    for job in jobs:
        homes[job.wanted] = homes.get(job.wanted, 0) + job.bytes
    return _job(_joined([job.argument for job in jobs]), reports, wanted=max(homes, key=lambda home: homes[home]))


def _joined(units: Sequence[Unit]) -> Unit:
    """One unit, its segments in the order of the collection."""
    segments = sorted((segment for unit in units for segment in unit.segments), key=lambda each: each.first_row)
    return Unit(tuple(dict.fromkeys(name for unit in units for name in unit.shards)), tuple(segments))


def split(job: Job, error: SegmentsUnreadableError) -> tuple[list[Job], list[Job]]:
    """A job without the segments that could not be read, and one for each of these."""
    unit: Unit = job.argument
    good = tuple(segment for segment in unit.segments if segment.digest not in error.reasons)
    whole = [Job(Unit(unit.shards, good), sum(each.bytes for each in good), job.wanted, job.able)] if good else []
    bad = [
        Job(Unit(unit.shards, (segment,)), segment.bytes, frozenset(), job.able, list(job.failures))
        for segment in unit.segments
        if segment.digest in error.reasons
    ]
    return whole, bad
