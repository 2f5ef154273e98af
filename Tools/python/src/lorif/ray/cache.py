"""A node's bounded cache of segments and curvatures, and the working stores made of them.

    CACHE/objects/DIGEST      a copy of a file, every byte checked before it got this name
    CACHE/stores/KEY/         a working store: links to objects, or to files that are near already, and a catalog
    CACHE/arriving/           copies being made; their size is reserved when they begin
    CACHE/lock                held while room is made

What was used last goes last. A working store is in use while somebody holds a shared lock on its `writer.lock`.
"""

import errno
import fcntl
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lorif.ray import files
from lorif.ray.catalog import identity_file, write_catalog
from lorif.ray.collection import check_local
from lorif.ray.errors import CacheFullError, ClusterError, SegmentsUnreadableError
from lorif.ray.manifest import CoordinatesEntry, CurvatureEntry, NamedFile, SegmentEntry, key_of

_ABANDONED_SECONDS = 3600.0


@dataclass(frozen=True)
class Unit:
    """Segments that one run of the program is asked about, with URLs that need no folder."""

    shards: tuple[str, ...]
    segments: tuple[SegmentEntry, ...]

    @property
    def live_rows(self) -> int:
        """Rows that it scores."""
        return sum(segment.live_rows for segment in self.segments)

    @property
    def bytes(self) -> int:
        """Of its segment files."""
        return sum(segment.bytes for segment in self.segments)

    @property
    def first_row(self) -> int:
        """Where its rows begin in the collection."""
        return self.segments[0].first_row


@dataclass(frozen=True)
class Common:
    """What all units share: schema, basis and curvature of the collection."""

    schema: bytes
    basis: NamedFile | None
    curvature: CurvatureEntry | None
    curvature_is_current: bool


@dataclass(frozen=True)
class Held:
    """A working store that stays while it is held, and what getting it took."""

    path: Path
    fetched_bytes: int
    seconds: float
    #: What the reader of an answer should know.
    remarks: tuple[str, ...] = ()


class NodeCache:
    """The cache in a folder of this node; any number of processes use it together."""

    def __init__(self, folder: str | Path, limit: int, *, copies_all: bool = False) -> None:
        self.folder = Path(folder)
        self.limit = limit
        self.copies_all = copies_all
        self.objects, self.stores, self.arriving = (self.folder / name for name in ("objects", "stores", "arriving"))
        for each in (self.objects, self.stores, self.arriving):
            each.mkdir(parents=True, exist_ok=True, mode=0o700)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        with (self.folder / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def digests(self) -> set[str]:
        """The files that are here."""
        return {each.name for each in self.objects.iterdir()}

    def used(self) -> int:
        """Bytes of copies, those being made included."""
        return sum(_length(each) for folder in (self.objects, self.arriving) for each in folder.iterdir())

    def is_near(self, url: str) -> bool:
        """Whether a file is on this node's own disks, so that it is linked and not copied."""
        path = files.local_path(url)
        return path is not None and not self.copies_all and path.is_file() and files.is_near(path)

    def _near(self, url: str) -> str:
        """The URL of a file that is linked, which a working store depends on; nothing for copies."""
        return url if self.is_near(url) else ""

    def _file_number(self, url: str) -> int:
        """The number of a file that is linked: one that was mended has the same name and another number."""
        path = files.local_path(url) if self.is_near(url) else None
        return path.stat().st_ino if path is not None else 0

    # MARK: Files

    def get(self, entry: NamedFile) -> tuple[Path, int]:
        """A local path of a file, and how many bytes had to be copied.

        Raises OSError where the source cannot be read, ValueError where it is another file, CacheFullError.
        """
        if self.is_near(entry.url):
            path = files.local_path(entry.url)
            assert path is not None  # noqa: S101 - is_near says so
            if path.stat().st_size != entry.bytes:
                raise ValueError(f"expected {entry.bytes} bytes, found {path.stat().st_size}")
            return path.absolute(), 0
        target = self.objects / entry.digest
        if target.exists():
            os.utime(target)
            return target, 0
        arriving = self.arriving / f"{entry.digest}.{os.getpid()}.{os.urandom(4).hex()}"
        try:
            self._reserve(arriving, entry.bytes)
            files.fetch(entry.url, arriving)
            reason = check_local(arriving, entry)
            if reason:
                raise ValueError(reason)
            arriving.replace(target)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise CacheFullError(f"{self.folder}: {error.strerror}; {entry.bytes} bytes are needed") from None
            raise
        finally:
            arriving.unlink(missing_ok=True)
        return target, entry.bytes

    def drop(self, digest: str) -> None:
        """Forgets a copy, as when it turned out to be damaged."""
        (self.objects / digest).unlink(missing_ok=True)

    def _reserve(self, path: Path, count: int) -> None:
        """Makes room for a file, and the file at its full length."""
        with self._lock():
            self._evict(count)
            with path.open("xb") as file:
                os.posix_fallocate(file.fileno(), 0, max(1, count))

    def _evict(self, count: int) -> None:
        """Removes what was not used for longest until there is room; holds the lock."""
        missing = self.used() + count - self.limit
        if missing <= 0:
            return
        now = time.time()
        for each in self.arriving.iterdir():
            if now - each.stat().st_mtime > _ABANDONED_SECONDS:
                missing -= _length(each)
                each.unlink(missing_ok=True)
        # A store's links keep the bytes of its objects: idle stores go first, the oldest first.
        for store in sorted(self.stores.iterdir(), key=_age):
            if missing > 0 and self._remove_idle(store):
                missing -= self._remove_unlinked(missing)
        missing -= self._remove_unlinked(missing)
        if missing > 0:
            raise CacheFullError(
                f"{self.folder}: {count} bytes are needed and {self.limit} allowed, of which {self.used()} are in use"
            )

    def _remove_unlinked(self, wanted: int) -> int:
        """Removes objects that no working store links to, the oldest first; gives the bytes that this frees."""
        freed = 0
        for each in sorted(self.objects.iterdir(), key=_age):
            if freed >= wanted:
                break
            status = each.stat()
            if status.st_nlink == 1:
                each.unlink()
                freed += status.st_size
        return freed

    def _remove_idle(self, store: Path) -> bool:
        try:
            with (store / "writer.lock").open("r") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # A rename first: nobody opens what is being removed.
                gone = self.arriving / f"gone-{store.name}-{os.urandom(4).hex()}"
                store.rename(gone)
        except OSError:
            return False
        shutil.rmtree(gone, ignore_errors=True)
        return True

    # MARK: Working stores

    @contextmanager
    def holding(
        self, unit: Unit, common: Common, *, with_curvature: bool, with_coordinates: bool = False
    ) -> Iterator[Held]:
        """A store of the unit's segments that the program can be asked about, for as long as the block lasts.

        Coordinates that cannot be had are left out, with a remark: the program computes what they say.

        Raises SegmentsUnreadableError with all segments that cannot be had, ClusterError and CacheFullError.
        """
        started = time.monotonic()
        curvature = common.curvature if with_curvature else None
        coordinates, remarks, fetched = self._coordinates(unit) if curvature and with_coordinates else ({}, (), 0)
        key = key_of(
            [(each.digest, each.first_row, each.deleted, self._near(each.url)) for each in unit.segments],
            curvature.digest if curvature else None, common.curvature_is_current, common.basis and common.basis.digest,
            sorted((each.digest, self._file_number(each.url)) for each in coordinates.values()),
        )  # fmt: skip
        path = self.stores / key
        while True:
            try:
                lock = (path / "writer.lock").open("r")
            except FileNotFoundError:
                fetched += self._build(path, unit, common, curvature, coordinates)
                continue
            fcntl.flock(lock, fcntl.LOCK_SH)
            if _is_still(path / "writer.lock", lock.fileno()):
                break
            lock.close()
        with lock:
            os.utime(path)
            yield Held(path, fetched, time.monotonic() - started, remarks)

    def forget(self, path: Path) -> None:
        """Removes a working store that nobody can use."""
        gone = self.arriving / f"gone-{path.name}-{os.urandom(4).hex()}"
        try:
            path.rename(gone)
        except OSError:
            return
        shutil.rmtree(gone, ignore_errors=True)

    def _coordinates(self, unit: Unit) -> tuple[dict[str, CoordinatesEntry], tuple[str, ...], int]:
        """Coordinates that can be had, by the digests of their segments, remarks about others, and bytes copied."""
        found, remarks, fetched = {}, [], 0
        for segment in unit.segments:
            if segment.coordinates is not None:
                try:
                    fetched += self.get(segment.coordinates)[1]
                    found[segment.digest] = segment.coordinates
                except (OSError, ValueError, CacheFullError) as error:
                    remarks.append(f"coordinates are left out: {segment.coordinates.url}: {_text(error)}")
        return found, tuple(remarks), fetched

    def _build(
        self, path: Path, unit: Unit, common: Common, curvature: CurvatureEntry | None,
        coordinates: Mapping[str, CoordinatesEntry],
    ) -> int:  # fmt: skip
        building = self.arriving / f"store-{path.name}-{os.getpid()}-{os.urandom(4).hex()}"
        fetched = 0
        try:
            for name in ("catalog", "segments", "curvature", "basis", "tmp"):
                (building / name).mkdir(parents=True, mode=0o700)
            fetched += self._link_segments(unit, building / "segments")
            for file, name in ((curvature, "curvature"), (common.basis, "basis")):
                if file is not None:
                    try:
                        fetched += self._link(file, building / name / f"{file.digest}.{name}")
                    except (OSError, ValueError) as error:
                        raise ClusterError(f"{file.url}: {_text(error)}") from None
            if curvature is not None and coordinates:
                (building / "coordinates").mkdir(mode=0o700)
                for segment, entry in coordinates.items():
                    name = f"{curvature.digest}-{segment}.coordinates"
                    fetched += self._link(entry, building / "coordinates" / name)
            write_catalog(
                building / "catalog", identity=path.name, schema=common.schema,
                segments=[segment.record(number) for number, segment in enumerate(unit.segments)],
                curvature=(curvature.identity, curvature.description_bytes) if curvature else None,
                rows_are_fitted=common.curvature_is_current,
            )  # fmt: skip
            (building / "lorif.store").write_bytes(identity_file(path.name))
            (building / "writer.lock").touch(mode=0o600)
            try:
                building.rename(path)
            except OSError as error:
                # Somebody else was faster; theirs is the same.
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise CacheFullError(f"{self.folder}: {error.strerror}") from None
            raise
        finally:
            shutil.rmtree(building, ignore_errors=True)
        return fetched

    def _link_segments(self, unit: Unit, folder: Path) -> int:
        """Links to all segments; raises SegmentsUnreadableError with all that cannot be had."""
        fetched = 0
        reasons: dict[str, str] = {}
        for number, segment in enumerate(unit.segments):
            try:
                fetched += self._link(segment, folder / f"{number:016x}.segment")
            except (OSError, ValueError) as error:
                reasons[segment.digest] = f"{segment.url}: {_text(error)}"
        if reasons:
            raise SegmentsUnreadableError(reasons)
        return fetched

    def _link(self, entry: NamedFile, place: Path) -> int:
        """A link to a file that is near or has been copied; gives the bytes copied."""
        for _ in range(3):
            source, fetched = self.get(entry)
            try:
                os.link(source, place)
            except FileNotFoundError:
                # Evicted between the copy and the link.
                continue
            except OSError:
                # Another disk, or a file system without hard links.
                place.symlink_to(source)
            return fetched
        raise CacheFullError(f"{self.folder}: too small for what is asked of it at the same time")


def _is_still(path: Path, descriptor: int) -> bool:
    """Whether a path names the file that was opened: it may have been removed, and made again, meanwhile."""
    try:
        return path.stat().st_ino == os.fstat(descriptor).st_ino
    except FileNotFoundError:
        return False


def _age(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _length(path: Path) -> int:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return 0
    return status.st_size if path.is_file() else 0


def _text(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
