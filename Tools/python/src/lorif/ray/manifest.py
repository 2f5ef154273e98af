"""The manifest of a collection: Formats/collection.md."""

import base64
import binascii
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import xxhash

from lorif.page import SegmentError
from lorif.paged_file import ENCODINGS, Cursor, StoredLayer
from lorif.ray import files
from lorif.ray.catalog import FileIdentity, SegmentRecord, deleted_count, digest_of, row_digest
from lorif.ray.errors import CollectionDamagedError, CollectionRefusedError

FORMAT, MAJOR, MINOR = "lorif-collection", 1, 0


@dataclass(frozen=True)
class NamedFile:
    """A paged file at a URL, as the manifest names it."""

    url: str
    digest: str
    bytes: int
    footer_offset: int
    footer_length: int

    @property
    def identity(self) -> FileIdentity:
        """As catalogs have it."""
        return FileIdentity(self.bytes, self.footer_offset, self.footer_length, self.digest)


@dataclass(frozen=True)
class CoordinatesEntry(NamedFile):
    """The rows of a segment in the eigenbases of the collection's curvature."""

    encoding: str


@dataclass(frozen=True)
class SegmentEntry(NamedFile):
    """A segment: `first_row` counts all rows of the collection before it, deleted ones included."""

    rows: int
    first_row: int
    largest_block_rows: int
    fields: tuple[str, ...] = ()
    #: The bitmap of deleted rows, base64; empty where none are.
    deleted: str = ""
    coordinates: CoordinatesEntry | None = None

    @property
    def tombstones(self) -> bytes:
        """The bitmap of deleted rows."""
        return base64.b64decode(self.deleted)

    @property
    def live_rows(self) -> int:
        """Rows that are not deleted."""
        return self.rows - deleted_count(self.tombstones)

    def record(self, number: int) -> SegmentRecord:
        """As a catalog has it, under a number."""
        return SegmentRecord(number, self.rows, self.first_row, self.identity, self.tombstones)


@dataclass(frozen=True)
class Shard:
    """Segments that belong together: those of a store, or a set. May be empty."""

    name: str
    segments: tuple[SegmentEntry, ...]

    @property
    def live_rows(self) -> int:
        """Rows that a query scores."""
        return sum(segment.live_rows for segment in self.segments)

    @property
    def bytes(self) -> int:
        """Of the segment files."""
        return sum(segment.bytes for segment in self.segments)


@dataclass(frozen=True)
class CurvatureEntry(NamedFile):
    """The one curvature of the collection; `description` is that of the file, base64 (Formats/curvature.md)."""

    description: str
    scope: str
    rank: int
    fitted_rows: int
    row_digest: str

    @property
    def description_bytes(self) -> bytes:
        """The description as catalogs repeat it."""
        return base64.b64decode(self.description)


@dataclass(frozen=True)
class Manifest:
    """What a collection is; `folder` is what relative URLs are relative to."""

    folder: str
    schema: bytes | None = None
    generation: int = 0
    shards: tuple[Shard, ...] = ()
    basis: NamedFile | None = None
    curvature: CurvatureEntry | None = None

    @property
    def segments(self) -> Iterator[SegmentEntry]:
        """All segments, in the order of the rows."""
        return (segment for shard in self.shards for segment in shard.segments)

    @property
    def rows(self) -> int:
        """Rows, deleted ones included."""
        return sum(segment.rows for segment in self.segments)

    @property
    def live_rows(self) -> int:
        """Rows that queries score."""
        return sum(shard.live_rows for shard in self.shards)

    @property
    def bytes(self) -> int:
        """Of all segment files."""
        return sum(shard.bytes for shard in self.shards)

    @property
    def layers(self) -> list[StoredLayer]:
        """The layers, in the order of the global vectorisation."""
        return read_schema(self.schema)[1] if self.schema else []

    @property
    def encoding(self) -> str | None:
        """The encoding of numbers; None before there are any."""
        return read_schema(self.schema)[0] if self.schema else None

    @property
    def row_digest(self) -> str:
        """What one store with these segments would call its live rows."""
        return row_digest([segment.record(0) for segment in self.segments])

    @property
    def curvature_is_current(self) -> bool:
        """Whether the curvature was fitted on exactly the rows that are live."""
        return self.curvature is not None and self.curvature.row_digest == self.row_digest

    def url(self, name: str) -> str:
        """Where a file that the manifest names is."""
        return files.joined(self.folder, name)

    def adding(self, shards: Sequence[Shard], schema: bytes, basis: NamedFile | None) -> "Manifest":
        """With more shards behind; segments that are there already are left out, and shards without a new one, too."""
        if self.schema is not None and schema != self.schema:
            mine, given = (read_schema(each) for each in (self.schema, schema))
            raise CollectionRefusedError(
                f"expected {len(mine[1])} layers in {mine[0]} in {_basis_text(mine[2])} as in the collection, found "
                f"{len(given[1])} in {given[0]} in {_basis_text(given[2])}, or others by name, shape or rank"
            )
        known = {segment.digest for segment in self.segments}
        names = {shard.name for shard in self.shards}
        row = self.rows
        added = []
        for shard in shards:
            kept = []
            for segment in shard.segments:
                if segment.digest in known:
                    continue
                known.add(segment.digest)
                kept.append(replace(segment, first_row=row, url=files.relative(segment.url, self.folder)))
                row += segment.rows
            if not kept and shard.segments:
                continue
            if shard.name in names:
                raise CollectionRefusedError(
                    f"shard {shard.name!r}: the collection has one of that name with other segments"
                )
            names.add(shard.name)
            added.append(Shard(shard.name, tuple(kept)))
        if basis is not None:
            basis = replace(basis, url=files.relative(basis.url, self.folder))
        return replace(self, schema=schema, shards=(*self.shards, *added), basis=self.basis or basis)

    def with_curvature(self, entry: CurvatureEntry) -> "Manifest":
        """With another curvature in use; coordinates in the one before are no longer named."""
        entry = replace(entry, url=files.relative(entry.url, self.folder))
        if self.curvature is not None and self.curvature.digest == entry.digest:
            return replace(self, curvature=entry)
        return replace(self._mapping(lambda segment: replace(segment, coordinates=None)), curvature=entry)

    def with_coordinates(self, found: Mapping[str, CoordinatesEntry]) -> "Manifest":
        """With coordinates of some segments, by their digests."""
        placed = {digest: replace(entry, url=files.relative(entry.url, self.folder)) for digest, entry in found.items()}
        return self._mapping(
            lambda segment: replace(segment, coordinates=placed.get(segment.digest, segment.coordinates))
        )

    def _mapping(self, change: Callable[[SegmentEntry], SegmentEntry]) -> "Manifest":
        return replace(
            self,
            shards=tuple(replace(shard, segments=tuple(map(change, shard.segments))) for shard in self.shards),
        )

    def encoded(self) -> bytes:
        """The manifest's file."""
        content = {
            "format": FORMAT,
            "version": [MAJOR, MINOR],
            "generation": self.generation,
            "rows": self.live_rows,
            "schema": base64.b64encode(self.schema).decode() if self.schema else None,
            "basis": asdict(self.basis) if self.basis else None,
            "curvature": asdict(self.curvature) if self.curvature else None,
            "shards": [asdict(shard) for shard in self.shards],
        }
        content["checksum"] = digest_of(_canonical(content))
        return json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n"


def _canonical(content: dict[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _basis_text(basis: str | None) -> str:
    return f"the basis {basis}" if basis else "no basis"


def read_schema(schema: bytes) -> tuple[str, list[StoredLayer], str | None]:
    """Encoding, layers and the digest of the basis of a schema's bytes (Formats/segment.md)."""
    cursor = Cursor(schema, "schema")
    code, has_basis, _, count = cursor.fields("BB2sI")
    layers = []
    for _ in range(count):
        name = cursor.blob().decode()
        d1, d2, form, rank = cursor.fields("IIBI")
        layers.append(StoredLayer(name, d1, d2, rank if form == 1 else None))
    basis = f"{int.from_bytes(cursor.take(16), 'little'):032x}" if has_basis else None
    cursor.finish()
    return ENCODINGS[code], layers, basis


def _segment(given: dict[str, Any]) -> SegmentEntry:
    coordinates = CoordinatesEntry(**given["coordinates"]) if given["coordinates"] else None
    return SegmentEntry(**{**given, "fields": tuple(given["fields"]), "coordinates": coordinates})


def decode(data: bytes, where: str) -> Manifest:
    """A manifest from its file's bytes; raises CollectionDamagedError, or CollectionRefusedError for another format."""
    try:
        content = json.loads(data)
        kind, version = content["format"], content["version"]
    except (ValueError, KeyError, TypeError):
        raise CollectionRefusedError(f"{where}: expected the manifest of a collection, found other contents") from None
    if kind != FORMAT or version[0] != MAJOR:
        raise CollectionRefusedError(f"{where}: expected {FORMAT} {MAJOR}, found {kind} {version}")
    checksum = content.pop("checksum", None)
    if checksum != digest_of(_canonical(content)):
        raise CollectionDamagedError(f"{where}: checksum: expected {checksum}, found {digest_of(_canonical(content))}")
    try:
        shards = tuple(
            Shard(
                shard["name"],
                tuple(map(_segment, shard["segments"])),
            )
            for shard in content["shards"]
        )
        manifest = Manifest(
            files.folder_of(where),
            base64.b64decode(content["schema"]) if content["schema"] else None,
            int(content["generation"]),
            shards,
            NamedFile(**content["basis"]) if content["basis"] else None,
            CurvatureEntry(**content["curvature"]) if content["curvature"] else None,
        )
        if manifest.schema is not None:
            read_schema(manifest.schema)
        place = 0
        for segment in manifest.segments:
            if segment.first_row != place or segment.rows < 1:
                raise CollectionDamagedError(
                    f"{where}: {segment.url}: expected first row {place}, found {segment.first_row}"
                )
            place += segment.rows
    except (KeyError, TypeError, ValueError, SegmentError, binascii.Error) as error:
        raise CollectionDamagedError(f"{where}: not a manifest of version {MAJOR}: {error!r}") from None
    return manifest


def load(url: str) -> Manifest:
    """The manifest at a path or URL."""
    try:
        return decode(files.read(url), url)
    except FileNotFoundError:
        raise CollectionRefusedError(f"{url}: there is no such collection; make one with 'collection create'") from None


def commit(url: str, manifest: Manifest, *, replacing: Manifest | None) -> Manifest:
    """Replaces the manifest by its next generation in one step; the one that it was made from must still be there."""
    found = load(url) if files.exists(url) else None
    if (found and found.generation) != (replacing and replacing.generation):
        raise CollectionRefusedError(f"{url}: somebody else has changed the collection meanwhile; nothing was changed")
    manifest = replace(manifest, generation=replacing.generation + 1 if replacing else 0)
    with tempfile.TemporaryDirectory(prefix="lorif-collection-") as folder:
        path = Path(folder) / "manifest.json"
        path.write_bytes(manifest.encoded())
        files.put(path, url)
    return manifest


def key_of(*parts: object) -> str:
    """A digest of what JSON says of some parts: names for derived files."""
    return f"{xxhash.xxh3_128_intdigest(json.dumps(parts, sort_keys=True).encode()):032x}"
