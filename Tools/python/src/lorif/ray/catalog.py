"""Catalogs of stores, read and written as Formats/catalog.md has them.

A store's own catalog is only ever read, from a copy of its file. What is written is the catalog of a working store on a
worker: a folder of links to segments and to the curvature of the whole collection, which the program then queries.
"""

import struct
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import lmdb
import xxhash
import zstandard

from lorif.paged_file import Cursor
from lorif.ray import files
from lorif.ray.errors import CollectionDamagedError, CollectionRefusedError

STATE, SCHEMA, SEGMENT, TOMBSTONES, CURVATURE, ROW_IDENTITY = 1, 2, 3, 4, 5, 8
IDENTITY_LENGTH = 128
_META_BYTES = 2 * 4096
_MAP_BYTES = 1 << 30
_ATTEMPTS = 8


@dataclass(frozen=True)
class FileIdentity:
    """What a paged file must be: length, place of its footer, and the footer's digest, which is its name."""

    length: int
    footer_offset: int
    footer_length: int
    digest: str

    def encoded(self) -> bytes:
        """As in catalog records."""
        return struct.pack("<QQQ", self.length, self.footer_offset, self.footer_length) + digest_bytes(self.digest)

    @classmethod
    def read(cls, cursor: Cursor) -> "FileIdentity":
        """From a catalog record."""
        length, offset, footer_length = cursor.fields("QQQ")
        return cls(length, offset, footer_length, digest_text(cursor.take(16)))


@dataclass(frozen=True)
class SegmentRecord:
    """A segment: its file, its rows with deleted ones, and the bitmap of these (empty: none are)."""

    number: int
    rows: int
    first_row: int
    file: FileIdentity
    tombstones: bytes = b""


@dataclass(frozen=True)
class StoreContents:
    """What a store's catalog says about its newest generation."""

    identity: str
    generation: int
    schema: bytes
    segments: tuple[SegmentRecord, ...]
    #: Files and descriptions of the fitted curvatures, by digest.
    curvatures: Mapping[str, tuple[FileIdentity, bytes]]
    active_curvature: str | None


def digest_bytes(text: str) -> bytes:
    """16 bytes of a digest in 32 hexadecimal digits."""
    return int(text, 16).to_bytes(16, "little")


def digest_text(raw: bytes) -> str:
    """32 hexadecimal digits of a digest of 16 bytes."""
    return f"{int.from_bytes(raw, 'little'):032x}"


def digest_of(data: bytes) -> str:
    """The digest of bytes, as text."""
    return f"{xxhash.xxh3_128_intdigest(data):032x}"


def row_digest(segments: Sequence[SegmentRecord]) -> str:
    """What rows are called that nobody has compacted: of the footers' digests and the bitmaps, in order."""
    state = xxhash.xxh3_128()
    for segment in segments:
        state.update(digest_bytes(segment.file.digest) + segment.tombstones)
    return f"{state.intdigest():032x}"


def read_store(url: str) -> StoreContents:
    """The newest generation of a store at a path or URL, each record checked."""
    source = files.joined(url, "catalog/data.mdb")
    for _ in range(_ATTEMPTS):
        try:
            before = _meta_pages(source)
            data = files.read(source)
        except FileNotFoundError:
            raise CollectionRefusedError(f"{url}: expected a store, found no catalog/data.mdb") from None
        # Pages of the newest transaction are only written again after another one has been committed.
        if data[:_META_BYTES] == before == _meta_pages(source):
            return _decode(url, _records(url, data))
    raise CollectionRefusedError(f"{url}: commits follow each other too fast to read the catalog; try again")


def _meta_pages(source: str) -> bytes:
    with files.Ranges(source) as data:
        return data[:_META_BYTES]


def _records(url: str, data: bytes) -> tuple[dict[bytes, bytes], int]:
    with tempfile.TemporaryDirectory(prefix="lorif-catalog-") as folder:
        path = Path(folder) / "data.mdb"
        path.write_bytes(data)
        try:
            with (
                lmdb.open(
                    str(path), subdir=False, readonly=True, lock=False, map_size=max(_MAP_BYTES, len(data))
                ) as env,
                env.begin() as transaction,
            ):
                return {bytes(key): bytes(value) for key, value in transaction.cursor()}, transaction.id()
        except lmdb.Error as error:
            raise CollectionDamagedError(f"{url}/catalog/data.mdb: {error}") from None


def _decode(url: str, found: tuple[dict[bytes, bytes], int]) -> StoreContents:
    records, transaction = found
    payloads = {}
    for key, value in records.items():
        if len(value) < 8 or struct.pack("<Q", xxhash.xxh3_64_intdigest(key + value[:-8])) != value[-8:]:
            raise CollectionDamagedError(f"{url}: the catalog's record {key.hex()} does not have its checksum")
        payloads[key] = value[:-8]
    state = Cursor(payloads.get(_key(STATE, 0), b""), f"{url}: state")
    identity = state.take(16)
    generation, written_by, _, _, count, low, high, has_curvature = state.fields("8Q")
    active = digest_text(state.take(16)) if has_curvature else None
    others = [key + value for key, value in records.items() if key != _key(STATE, 0)]
    expected = (transaction, len(others), sum(xxhash.xxh3_128_intdigest(each) for each in others) % (1 << 128))
    if (written_by, count, high << 64 | low) != expected:
        raise CollectionDamagedError(f"{url}: the catalog's records are not those of its state")
    segments, curvatures = [], {}
    for key, payload in sorted(payloads.items()):
        if key[0] == SEGMENT:
            cursor = Cursor(payload, f"{url}: segment record")
            rows, first_row, _ = cursor.fields("QQQ")
            number = int.from_bytes(key[1:], "big")
            bitmap = _bitmap(payloads.get(_key(TOMBSTONES, number)), rows)
            segments.append(SegmentRecord(number, rows, first_row, FileIdentity.read(cursor), bitmap))
        elif key[0] == CURVATURE:
            cursor = Cursor(payload, f"{url}: curvature record")
            file = FileIdentity.read(cursor)
            cursor.take(8)
            curvatures[file.digest] = (file, payload[cursor.offset :])
    return StoreContents(
        f"{int.from_bytes(identity[:8], 'little'):016x}{int.from_bytes(identity[8:], 'little'):016x}",
        generation, payloads[_key(SCHEMA, 0)], tuple(segments), curvatures, active,
    )  # fmt: skip


def _bitmap(payload: bytes | None, rows: int) -> bytes:
    if payload is None:
        return b""
    cursor = Cursor(payload, "tombstones")
    _, _, codec = cursor.fields("QQQ")
    stored = payload[cursor.offset :]
    return zstandard.ZstdDecompressor().decompress(stored, max_output_size=(rows + 7) // 8) if codec else stored


def deleted_count(bitmap: bytes) -> int:
    """Rows that a bitmap marks."""
    return int.from_bytes(bitmap, "little").bit_count()


def _key(kind: int, number: int) -> bytes:
    return bytes([kind]) + number.to_bytes(8, "big")


def write_catalog(
    folder: Path,
    *,
    identity: str,
    schema: bytes,
    segments: Sequence[SegmentRecord],
    curvature: tuple[FileIdentity, bytes] | None = None,
    rows_are_fitted: bool = False,
) -> None:
    """Writes the catalog of generation 1 of a working store into an empty folder.

    `curvature` is a file and its description. With `rows_are_fitted` the rows bear the name of those that it was fitted
    on: they are a part of them, which is what the program has to know.
    """
    records = {_key(SCHEMA, 0): schema}
    for segment in segments:
        fields = struct.pack("<QQQ", segment.rows, segment.first_row, 1)
        records[_key(SEGMENT, segment.number)] = fields + segment.file.encoded()
        if segment.tombstones:
            fields = struct.pack("<QQQ", segment.rows, deleted_count(segment.tombstones), 0)
            records[_key(TOMBSTONES, segment.number)] = fields + segment.tombstones
    active = struct.pack("<Q16x", 0)
    if curvature is not None:
        file, description = curvature
        digest = int(file.digest, 16).to_bytes(16, "big")
        records[bytes([CURVATURE]) + digest] = file.encoded() + struct.pack("<Q", 1) + description
        active = struct.pack("<Q", 1) + digest_bytes(file.digest)
        if rows_are_fitted:
            named = digest_bytes(row_digest(segments)) + fitted_rows(description)
            records[_key(ROW_IDENTITY, 0)] = named
    sealed = {
        key: payload + struct.pack("<Q", xxhash.xxh3_64_intdigest(key + payload)) for key, payload in records.items()
    }
    total = sum(xxhash.xxh3_128_intdigest(key + value) for key, value in sealed.items()) % (1 << 128)
    numbers = [segment.number for segment in segments]
    rows = max((segment.first_row + segment.rows for segment in segments), default=0)
    with lmdb.open(str(folder), map_size=_MAP_BYTES, mode=0o600) as env, env.begin(write=True) as transaction:
        for key, value in sealed.items():
            transaction.put(key, value)
        words = identity_words(identity)
        state = words + struct.pack(
            "<7Q", 1, transaction.id(), max(numbers, default=-1) + 1, rows, len(sealed), total % (1 << 64), total >> 64
        )
        key = _key(STATE, 0)
        payload = state + active
        transaction.put(key, payload + struct.pack("<Q", xxhash.xxh3_64_intdigest(key + payload)))
    (folder / "lock.mdb").unlink(missing_ok=True)


def identity_words(identity: str) -> bytes:
    """A store's identity, 32 hexadecimal digits, as its two words in files."""
    return struct.pack("<QQ", int(identity[:16], 16), int(identity[16:], 16))


def identity_file(identity: str) -> bytes:
    """The 128 bytes of lorif.store."""
    head = struct.pack("<8sHHIQQQ", b"LORIFSTO", 1, 0, IDENTITY_LENGTH, 0, 0, 0) + identity_words(identity) + bytes(64)
    return head + struct.pack("<Q", xxhash.xxh3_64_intdigest(head))


def fitted_rows(description: bytes) -> bytes:
    """The digest of the rows in a curvature's description, as bytes."""
    return description[32:48]
