"""Collections: made, added to, verified and described."""

import base64
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorif.curvature import DESCRIPTION, Curvature
from lorif.page import SegmentError
from lorif.paged_file import Cursor, PagedFile
from lorif.ray import files
from lorif.ray.catalog import digest_text, read_store
from lorif.ray.errors import CollectionDamagedError, CollectionRefusedError
from lorif.ray.manifest import (
    CoordinatesEntry,
    CurvatureEntry,
    Manifest,
    NamedFile,
    SegmentEntry,
    Shard,
    commit,
    load,
    read_schema,
)
from lorif.segment import FIELD, Segment


class _AnyFile(PagedFile):
    magic = b"LORIFBAS"


class _CurvatureHead(PagedFile):
    """A curvature file whose basis is not read."""

    magic = b"LORIFCRV"


class _CoordinatesHead(PagedFile):
    """A file of coordinates whose numbers are not read; it has no schema."""

    magic = b"LORIFCOO"

    def _read_schema(self, cursor: Cursor) -> None:
        cursor.finish()
        self.layers = []


@dataclass(frozen=True)
class Damage:
    """What is wrong with a file that the manifest names."""

    shard: str
    url: str
    reason: str


class Collection:
    """A collection by the path or URL of its manifest; it need not exist yet.

    Its state is the manifest, read anew by each call; nothing else is ever written but files with names of their own.
    """

    def __init__(self, url: str | Path) -> None:
        self.url = str(url)

    def create(self) -> Manifest:
        """A new empty collection; the first `add` decides layers and encoding."""
        if files.exists(self.url):
            raise CollectionRefusedError(f"{self.url}: there is something already")
        return commit(self.url, Manifest(files.folder_of(self.url)), replacing=None)

    def manifest(self) -> Manifest:
        """What it is now."""
        return load(self.url)

    def add(self, *sources: str | Path, shards: int | None = None) -> Manifest:
        """Adds stores and segments, each a shard, and the `.basis` of whitened segments.

        With `shards`, each store and all segments together are cut into so many shards of about equal size.

        One commit adds all or nothing. What is there already adds nothing, so that a call can be repeated.
        """
        manifest = self.manifest()
        schema: bytes | None = None
        basis: NamedFile | None = None
        found: list[Shard] = []
        loose: list[SegmentEntry] = []
        for source in map(str, sources):
            if source.endswith(".basis"):
                basis = NamedFile(**_named(source, _open(source, _AnyFile)))
                continue
            if source.endswith(".segment"):
                entry, given = read_segment(source)
                loose.append(entry)
            else:
                shard, given, basis_file = _read_shard(source)
                basis = basis or basis_file
                found += _parts(shard.name, shard.segments, shards or 1)
                if not given:
                    continue
            if schema is not None and given != schema:
                raise CollectionRefusedError(f"{source}: other layers, encoding or basis than what comes before it")
            schema = given
        if loose and shards:
            found += _parts(files.last_part(loose[0].url).removesuffix(".segment"), tuple(loose), shards)
        else:
            found += [Shard(files.last_part(each.url).removesuffix(".segment"), (each,)) for each in loose]
        schema = schema or manifest.schema
        if schema is None:
            raise CollectionRefusedError("the first that is added must have layers; these stores are empty")
        digest = read_schema(schema)[2]
        if basis is not None and basis.digest != digest:
            raise CollectionRefusedError(
                f"{basis.url}: expected the basis {digest} of the segments, found {basis.digest}"
            )
        if digest and basis is None and manifest.basis is None:
            raise CollectionRefusedError(
                f"the segments are in the basis {digest}: name its .basis file as well, or a store of theirs"
            )
        return commit(self.url, manifest.adding(found, schema, basis), replacing=manifest)

    def use_curvature(self, source: str | Path) -> Manifest:
        """Takes a curvature file, or the active one of a store, as that of all shards: everywhere or nowhere."""
        manifest = self.manifest()
        url = str(source)
        if not url.endswith(".curvature"):
            contents = read_store(url)
            if contents.active_curvature is None:
                raise CollectionRefusedError(f"{url}: the store has no curvature")
            url = files.joined(url, f"curvature/{contents.active_curvature}.curvature")
        entry, schema = read_curvature(url)
        if schema != manifest.schema:
            raise CollectionRefusedError(f"{url}: expected the collection's layers and encoding, found others")
        return commit(self.url, manifest.with_curvature(entry), replacing=manifest)

    def verify(self, *, full: bool = False) -> list[Damage]:
        """Checks that every file is there and is the one that is meant: length and footer; `full`: every byte."""
        manifest = self.manifest()
        found: list[Damage] = []
        for shard in manifest.shards:
            for segment in shard.segments:
                for file, kind in ((segment, Segment), (segment.coordinates, _CoordinatesHead)):
                    reason = file and damage_of(manifest.url(file.url), file, kind, full=full)
                    if file and reason:
                        found.append(Damage(shard.name, file.url, reason))
        for file, kind in ((manifest.basis, _AnyFile), (manifest.curvature, _CurvatureHead)):
            if file is not None:
                reason = damage_of(manifest.url(file.url), file, kind, full=full)
                if reason:
                    found.append(Damage("", file.url, reason))
        return found

    def inspect(self) -> dict[str, Any]:
        """What it holds, as plain data."""
        manifest = self.manifest()
        return {
            "collection": self.url,
            "generation": manifest.generation,
            "rows": manifest.live_rows,
            "deletedRows": manifest.rows - manifest.live_rows,
            "bytes": manifest.bytes,
            "layers": len(manifest.layers),
            "encoding": manifest.encoding,
            "basis": manifest.basis.digest if manifest.basis else None,
            "curvature": manifest.curvature.digest if manifest.curvature else None,
            "curvatureIsCurrent": manifest.curvature_is_current,
            "fittedRows": manifest.curvature.fitted_rows if manifest.curvature else None,
            "rowsWithCoordinates": sum(each.live_rows for each in manifest.segments if each.coordinates),
            "shards": [
                {
                    "name": shard.name,
                    "segments": len(shard.segments),
                    "rows": shard.live_rows,
                    "bytes": shard.bytes,
                    "firstRow": shard.segments[0].first_row if shard.segments else None,
                }
                for shard in manifest.shards
            ],
        }


def _parts(name: str, segments: tuple[SegmentEntry, ...], count: int) -> list[Shard]:
    """Consecutive segments in at most `count` shards of about the same bytes; one empty shard of none."""
    if not segments or count <= 1:
        return [Shard(name, segments)]
    total = sum(segment.bytes for segment in segments)
    parts: list[list[SegmentEntry]] = [[] for _ in range(count)]
    passed = 0
    for segment in segments:
        parts[min(count - 1, (passed + segment.bytes // 2) * count // max(1, total))].append(segment)
        passed += segment.bytes
    return [Shard(f"{name}.{number:04}", tuple(part)) for number, part in enumerate(parts) if part]


def _read_shard(url: str) -> tuple[Shard, bytes, NamedFile | None]:
    """A store as a shard, its schema (empty if it has no layers), and the file of its basis."""
    contents = read_store(url)
    entries = []
    for record in contents.segments:
        place = files.joined(url, f"segments/{record.number:016x}.segment")
        entry, _ = read_segment(place)
        if entry.identity != record.file:
            raise CollectionDamagedError(f"{place}: not the segment that the catalog names")
        deleted = base64.b64encode(record.tombstones).decode()
        entries.append(SegmentEntry(**{**entry.__dict__, "deleted": deleted}))
    encoding, layers, digest = read_schema(contents.schema)
    basis = None
    if digest:
        place = files.joined(url, f"basis/{digest}.basis")
        basis = NamedFile(**_named(place, _open(place, _AnyFile)))
    return Shard(files.last_part(url), tuple(entries)), contents.schema if encoding and layers else b"", basis


def _open(url: str, kind: type[PagedFile]) -> PagedFile:
    """A paged file of which only header, footer and tail are read."""
    try:
        with files.Ranges(url) as data:
            return kind(url, data)
    except FileNotFoundError:
        raise CollectionRefusedError(f"{url}: there is no such file") from None
    except SegmentError as error:
        raise CollectionDamagedError(f"{url}: {error}") from None


def _named(url: str, file: PagedFile) -> dict[str, Any]:
    return {
        "url": files.absolute(url),
        "digest": file.digest,
        "bytes": len(file.data),
        "footer_offset": file.footer_offset,
        "footer_length": file.footer_length,
    }


def read_segment(url: str) -> tuple[SegmentEntry, bytes]:
    """A segment's entry, its place still 0, and its schema."""
    file = _open(url, Segment)
    fields = tuple(column.name for column in file.columns if column.kind == FIELD)
    largest = min(file.rows_per_block, file.row_count)
    entry = SegmentEntry(
        **_named(url, file), rows=file.row_count, first_row=0, largest_block_rows=largest, fields=fields
    )
    return entry, file.schema


def read_curvature(url: str) -> tuple[CurvatureEntry, bytes]:
    """A curvature's entry and its schema; every byte of the file is checked."""
    try:
        file = Curvature(url, files.read(url))
    except FileNotFoundError:
        raise CollectionRefusedError(f"{url}: there is no such file") from None
    except SegmentError as error:
        raise CollectionDamagedError(f"{url}: {error}") from None
    description = b"".join(raw for _, raw in file.blocks(DESCRIPTION))
    rank, _, _, rows = struct.unpack_from("<QdQQ", description)
    entry = CurvatureEntry(
        **_named(url, file), description=base64.b64encode(description).decode(), scope=file.scope, rank=rank,
        fitted_rows=rows, row_digest=digest_text(description[32:48]),
    )  # fmt: skip
    return entry, file.schema


def read_coordinates(url: str, encoding: str) -> CoordinatesEntry:
    """The entry of a file of coordinates in this encoding."""
    return CoordinatesEntry(**_named(url, _open(url, _CoordinatesHead)), encoding=encoding)


def damage_of(url: str, entry: NamedFile, kind: type[PagedFile], *, full: bool) -> str | None:
    """What is wrong with a file; None if it is the one that is meant. With `full` every byte is checked."""
    try:
        with files.Ranges(url) as ranges:
            if len(ranges) != entry.bytes:
                return f"expected {entry.bytes} bytes, found {len(ranges)}"
            file = kind(url, ranges)
            if file.digest != entry.digest:
                return f"expected the digest {entry.digest}, found {file.digest}"
            if full:
                file.verify_bytes()
    except FileNotFoundError:
        return "there is no such file"
    except OSError as error:
        return str(error)
    except (SegmentError, struct.error) as error:
        return str(error)
    return None


def check_local(path: Path, entry: NamedFile) -> str | None:
    """What is wrong with a local copy, every byte checked; None if nothing is."""
    kinds: dict[bytes, type[PagedFile]] = {
        kind.magic: kind for kind in (Segment, _AnyFile, _CurvatureHead, _CoordinatesHead)
    }
    try:
        with path.open("rb") as handle:
            data = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
        with data:
            kind = kinds.get(data[:8])
            if kind is None:
                return "not a file of lorif's"
            file = kind(path, data)
            if (len(data), file.digest) != (entry.bytes, entry.digest):
                return f"expected {entry.bytes} bytes of the digest {entry.digest}, found {len(data)} of {file.digest}"
            file.verify_bytes()
    except (OSError, ValueError, SegmentError, struct.error) as error:
        return str(error)
    return None
