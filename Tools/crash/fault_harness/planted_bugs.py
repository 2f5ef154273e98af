"""Bugs that are planted: changes to what a command is recorded to do, as if the program did that."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace

from fault_harness.shim import Kind
from fault_harness.trace import Event

Trace = list[Event]
CATALOG = "store/catalog/data.mdb"
META_PAGE_BYTES = 120


@dataclass(frozen=True)
class PlantedOrder:
    """A program that does the same things in a wrong order, or leaves one out."""

    name: str
    operation: str
    change: Callable[[Trace], Trace]


def _without(*kinds: Kind, path: Callable[[str], bool]) -> Callable[[Trace], Trace]:
    return lambda events: [event for event in events if not (event.kind in kinds and path(event.path))]


def _is_commit(event: Event) -> bool:
    return event.kind == Kind.WRITE and event.path == CATALOG


def _moved(events: Trace, chosen: Callable[[Event], bool], after: bool) -> Trace:
    """The chosen events before or after all writes to the catalog."""
    moving = [event for event in events if chosen(event)]
    staying = [event for event in events if not chosen(event)]
    commits = [place for place, event in enumerate(staying) if _is_commit(event)]
    place = commits[-1] + 1 if after else commits[0]
    return staying[:place] + moving + staying[place:]


def _names_of_segments(event: Event) -> bool:
    is_new = event.kind in (Kind.LINK, Kind.RENAME) and "/segments/" in event.second_path
    return is_new or (event.kind == Kind.UNLINK and "/tmp/" in event.path)


def _catalog_unsynchronised(events: Trace) -> Trace:
    kept = _without(Kind.FSYNC, Kind.FDATASYNC, path=lambda path: path == CATALOG)(events)
    return [
        replace(event, flags=event.flags & ~(os.O_DSYNC | os.O_SYNC)) if event.path == CATALOG else event
        for event in kept
    ]


def _meta_page_first(events: Trace) -> Trace:
    def is_meta(event: Event) -> bool:
        return _is_commit(event) and len(event.data) == META_PAGE_BYTES

    return _moved(events, is_meta, after=False)


def _done_too_early(events: Trace) -> Trace:
    return _moved(events, lambda event: event.kind == Kind.OUTPUT, after=False)


def _one_write_lost(events: Trace) -> Trace:
    lost = next(event for event in events if event.kind == Kind.WRITE and ".segment" in event.path)
    return [event for event in events if event is not lost]


PLANTED_ORDERS = (
    PlantedOrder(
        "a segment is not synchronised", "ingest", _without(Kind.FSYNC, path=lambda p: p.endswith(".segment"))
    ),
    PlantedOrder(
        "its directory is not synchronised", "ingest", _without(Kind.FSYNC, path=lambda p: p.endswith("segments"))
    ),
    PlantedOrder(
        "a segment gets its name after the commit", "attach", lambda e: _moved(e, _names_of_segments, after=True)
    ),
    PlantedOrder("a write to a segment is forgotten", "replace", _one_write_lost),
    PlantedOrder("the catalog is not synchronised", "ingest", _catalog_unsynchronised),
    PlantedOrder(
        "the catalog's pages are not, its meta page is",
        "delete",
        _without(Kind.FDATASYNC, Kind.FSYNC, path=lambda p: p == CATALOG),
    ),
    PlantedOrder("the meta page is written before the pages", "snapshot", _meta_page_first),
    PlantedOrder("success is reported before the commit", "delete", _done_too_early),
    PlantedOrder(
        "old segments are removed before the commit",
        "compact",
        lambda e: _moved(e, lambda event: event.kind == Kind.UNLINK and "/segments/" in event.path, after=False),
    ),
    PlantedOrder(
        "a curvature is not synchronised", "fit", _without(Kind.FSYNC, path=lambda p: p.endswith(".curvature"))
    ),
    PlantedOrder("a new store's name is not synchronised", "create", _without(Kind.FSYNC, path=lambda p: p == "")),
    PlantedOrder(
        "a new store is named before it is whole", "create", _without(Kind.FSYNC, path=lambda p: ".creating-" in p)
    ),
    PlantedOrder("a copy's files are not synchronised", "full copy", _without(Kind.FSYNC, path=lambda p: "/tmp/" in p)),
)
