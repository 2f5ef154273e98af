"""Files by URL: local paths as they are, everything else through fsspec."""

import os
import shutil
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import fsspec

_PIECE = 8 << 20
#: File systems whose reads cross a network, as /proc/mounts calls them.
_NETWORK_KINDS = ("nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "lustre", "glusterfs", "beegfs", "fuse.")


def local_path(url: str) -> Path | None:
    """The path of a URL that needs no file system of fsspec's; None for others."""
    if "://" not in url:
        return Path(url)
    parts = urlsplit(url)
    return Path(unquote(parts.path)) if parts.scheme == "file" and parts.netloc in ("", "localhost") else None


def joined(folder: str, name: str) -> str:
    """A name below a folder, or the name itself where it says where it is."""
    if "://" in name or name.startswith("/"):
        return name
    return folder.rstrip("/") + "/" + name if folder else name


def folder_of(url: str) -> str:
    """What a relative URL in a manifest is relative to."""
    path = local_path(url)
    return str(path.absolute().parent) if path is not None else url.rsplit("/", 1)[0]


def absolute(url: str) -> str:
    """A local path from the root on; other URLs as they are."""
    path = local_path(url)
    return str(path.absolute()) if path is not None else url


def relative(url: str, folder: str) -> str:
    """The URL as a manifest in `folder` has it: relative if it is below, so that the folder can be moved."""
    name = absolute(url)
    base = folder.rstrip("/") + "/"
    return name[len(base) :] if name.startswith(base) else name


def last_part(url: str) -> str:
    """The name at the end of a path or URL."""
    return PurePosixPath(url.rstrip("/")).name


def size(url: str) -> int:
    """Bytes of a file; FileNotFoundError if there is none."""
    path = local_path(url)
    if path is not None:
        return path.stat().st_size
    system, name = fsspec.core.url_to_fs(url)
    system.invalidate_cache()
    return int(system.size(name))


def exists(url: str) -> bool:
    """Whether there is such a file or folder."""
    path = local_path(url)
    if path is not None:
        return path.exists()
    system, name = fsspec.core.url_to_fs(url)
    system.invalidate_cache()
    return bool(system.exists(name))


def listed(folder: str) -> list[str]:
    """Names in a folder, sorted; none if there is no such folder."""
    path = local_path(folder)
    if path is not None:
        return sorted(each.name for each in path.iterdir()) if path.is_dir() else []
    system, name = fsspec.core.url_to_fs(folder)
    system.invalidate_cache()
    return sorted(last_part(each) for each in system.ls(name, detail=False)) if system.isdir(name) else []


def read(url: str) -> bytes:
    """A whole file."""
    path = local_path(url)
    if path is not None:
        return path.read_bytes()
    with fsspec.open(url, "rb") as file:
        return bytes(file.read())


def fetch(url: str, target: Path) -> None:
    """Copies a file to a local path, which may exist."""
    path = local_path(url)
    with fsspec.open(url, "rb") if path is None else path.open("rb") as source, target.open("r+b") as sink:
        shutil.copyfileobj(source, sink, _PIECE)
        sink.truncate()


def put(source: Path, url: str) -> None:
    """Copies a local file to a URL; readers see the old one or the new one, and a crash leaves one of them."""
    path = local_path(url)
    if path is None:
        system, name = fsspec.core.url_to_fs(url)
        system.makedirs(name.rsplit("/", 1)[0], exist_ok=True)
        # Object stores put whole objects; other file systems may not, so that a rename is what counts.
        temporary = f"{name}.writing-{os.urandom(6).hex()}"
        system.put_file(str(source), temporary)
        system.mv(temporary, name)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.urandom(6).hex()}.tmp")
    try:
        with source.open("rb") as data, temporary.open("xb") as sink:
            shutil.copyfileobj(data, sink, _PIECE)
            sink.flush()
            os.fsync(sink.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class Ranges:
    """A file at a URL as slices of bytes, each read when it is asked for."""

    def __init__(self, url: str) -> None:
        path = local_path(url)
        self._file: Any = path.open("rb") if path is not None else fsspec.open(url, "rb").open()
        self._size = self._file.seek(0, os.SEEK_END)

    def __len__(self) -> int:
        return int(self._size)

    def __getitem__(self, place: slice) -> bytes:
        start, end, _ = place.indices(self._size)
        self._file.seek(start)
        return bytes(self._file.read(max(0, end - start)))

    def __enter__(self) -> "Ranges":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


@lru_cache(maxsize=4096)
def _network_mounts() -> tuple[str, ...]:
    mounts = Path("/proc/mounts")
    lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines() if mounts.is_file() else []
    parts = [line.split(" ") for line in lines]
    return tuple(part[1].rstrip("/") for part in parts if len(part) > 2 and part[2].startswith(_NETWORK_KINDS))


def is_near(path: Path) -> bool:
    """Whether reading a local path crosses no network, so that a copy would gain nothing."""
    resolved = str(path.resolve())
    return not any(resolved == mount or resolved.startswith(mount + "/") for mount in _network_mounts())
