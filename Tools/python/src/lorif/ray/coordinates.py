"""Coordinates of all shards' rows in the collection's curvature: written where the rows are, by the program."""

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lorif.ray import files
from lorif.ray.cache import Common, Unit
from lorif.ray.collection import Collection, read_coordinates
from lorif.ray.errors import CollectionRefusedError, IncompleteError
from lorif.ray.manifest import CoordinatesEntry, commit
from lorif.ray.placement import common_of, plan_units, split
from lorif.ray.query import open_session
from lorif.ray.scheduler import Job, Scheduler
from lorif.ray.settings import Settings
from lorif.ray.worker import blame, node_cache, run_tool, thread_options
from lorif.tool import StoreDamagedError, Tool

ENCODINGS = ("int8", "f16", "f32")


@dataclass(frozen=True)
class WrittenCoordinates:
    """What writing coordinates did: `rows` got theirs, `covered_rows` have them now, in `bytes` of files."""

    encoding: str
    rows: int
    covered_rows: int
    bytes: int
    generation: int
    seconds: float
    remarks: tuple[str, ...]


def write_coordinates(
    collection: Collection | str | Path,
    encoding: str,
    *,
    settings: Settings | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> WrittenCoordinates:
    """Writes the coordinates of all rows where they are missing, damaged or kept in another encoding.

    Files that are there are read whole. One commit names the new ones.
    They go to `coordinates/` beside the manifest. If rows cannot be read, IncompleteError, and nothing has changed;
    if somebody has fitted another curvature meanwhile, CollectionRefusedError.
    """
    collection = collection if isinstance(collection, Collection) else Collection(collection)
    settings, started = settings or Settings(), time.monotonic()
    if encoding not in ENCODINGS:
        raise CollectionRefusedError(f"coordinates are kept in {', '.join(ENCODINGS)}, not in {encoding}")
    manifest = collection.manifest()
    if manifest.curvature is None:
        raise CollectionRefusedError("coordinates are those of a curvature and the collection has none; run 'fit'")
    session = open_session(manifest, settings, started, None)
    jobs = plan_units(manifest, session.nodes, session.reports, settings)
    total = sum(job.argument.live_rows for job in jobs)
    found: dict[str, CoordinatesEntry] = {}
    said: dict[str, None] = {}
    rows = done = 0

    def collect(job: Job, result: tuple[dict[str, CoordinatesEntry], tuple[str, ...]]) -> None:
        nonlocal rows, done
        found.update(result[0])
        said.update(dict.fromkeys(result[1]))
        rows += sum(each.live_rows for each in job.argument.segments if each.digest in result[0])
        done += job.argument.live_rows
        if progress is not None:
            progress(done, total)

    folder = files.joined(manifest.folder, "coordinates")
    scheduler = Scheduler(_write, (common_of(manifest), encoding, folder, settings), settings, split=split)
    failed = scheduler.run(jobs, collect)
    if failed:
        texts = [f"rows {each.job.argument.first_row} and on: {each.reason}" for each in failed]
        raise IncompleteError("coordinates are written of all rows; " + "; ".join(texts))
    if found:
        # Rows that were added meanwhile stay without, and lose nothing.
        newest = collection.manifest()
        if newest.curvature is None or newest.curvature.digest != manifest.curvature.digest:
            raise CollectionRefusedError(f"{collection.url}: somebody else has changed the curvature meanwhile")
        manifest = newest.with_coordinates(found)
        if manifest != newest:
            manifest = commit(collection.url, manifest, replacing=newest)
    covered = [segment for segment in manifest.segments if segment.coordinates is not None]
    return WrittenCoordinates(
        encoding, rows, sum(each.live_rows for each in covered),
        sum(each.coordinates.bytes for each in covered if each.coordinates is not None), manifest.generation,
        time.monotonic() - started, tuple(said),
    )  # fmt: skip


def _write(
    unit: Unit, common: Common, encoding: str, folder: str, settings: Settings
) -> tuple[dict[str, CoordinatesEntry], tuple[str, ...]]:
    """The files that were written, by the digests of their segments, and what there is to remark."""
    tool, cache = Tool(settings.tool), node_cache(settings)
    assert common.curvature is not None  # noqa: S101 - the caller has looked
    curvature = common.curvature.digest
    with (
        cache.holding(unit, common, with_curvature=True, with_coordinates=True) as held,
        tempfile.TemporaryDirectory(prefix="writing-", dir=cache.folder) as private,
    ):
        # A working store is never written to: this is another one, of links to the same files.
        store = Path(private) / "store"
        shutil.copytree(held.path, store, symlinks=True, copy_function=_linked)
        arguments = ["fit", str(store), f"--use={curvature}", f"--coordinates={encoding}"]
        try:
            _, remarks = run_tool(tool, *arguments, *thread_options(settings))
        except StoreDamagedError as error:
            raise blame(unit, held.path, cache, error) from None
        entries = {}
        for segment in unit.segments:
            name = f"{curvature}-{segment.digest}.coordinates"
            path, before = (each / "coordinates" / name for each in (store, held.path))
            # One that was sound is still the same file.
            if path.exists() and not (before.exists() and path.samefile(before)):
                url = files.joined(folder, name)
                files.put(path, url)
                entries[segment.digest] = replace(read_coordinates(str(path), encoding), url=url)
        return entries, remarks


def _linked(source: Any, target: Any) -> None:
    """A link to a file that is only ever replaced, a copy of any other."""
    if Path(source).suffix in (".segment", ".curvature", ".basis", ".coordinates"):
        os.link(source, target, follow_symlinks=False)
    else:
        shutil.copy2(source, target)
