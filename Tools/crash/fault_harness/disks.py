"""Full and read-only disks, and a limit of the size of files."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from fault_harness.place import Place, expect, typed
from fault_harness.sample_store import copy_store, files_of, make_store
from fault_harness.shim import ENVIRONMENT, NO, OK

PAGE = 4096


@contextlib.contextmanager
def mounted(folder: Path, byte_count: int) -> Iterator[Path]:
    """A file system of its own in memory, of that size; needs a mount name space of its own (`unshare -rm`)."""
    folder.mkdir()
    options = f"size={byte_count},mode=0700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def full_disk(place: Place) -> int:
    """Every number of free pages: the command works or says that there is no space, and works when there is some."""
    commands = {
        "ingest": lambda store: ("ingest", store, place.inputs.path("batch-3")),
        "delete": lambda store: ("delete", store, "--where", "source = 'b'"),
        "compact": lambda store: ("compact", store),
        "fit": lambda store: ("fit", store, "--rank", "1", "--coordinates", "int8"),
        "snapshot": lambda store: ("snapshot", store, "second"),
        "copy": lambda store: ("copy", store, store.parent / "copy", "--full"),
        "create": lambda store: ("ingest", store.parent / "new", place.inputs.path("batch-0")),
        "repair": lambda store: ("repair", store),
    }
    base = place.new_store("base")
    cases = 0
    with mounted(place.folder / "disk", 4 << 20) as disk:
        for name, command in commands.items():
            successes = 0
            for free_pages in range(0, 200, 9 if place.short else 1):
                for left in disk.iterdir():
                    shutil.rmtree(left) if left.is_dir() else left.unlink()
                store = disk / "store"
                copy_store(base, store)
                if name == "repair":
                    with (store / "curvature").joinpath(next((store / "curvature").iterdir()).name).open("r+b") as file:
                        file.seek(4100)
                        file.write(b"\x55")
                ballast = disk / "ballast"
                status = os.statvfs(disk)
                size = status.f_bavail * status.f_bsize - free_pages * PAGE
                ballast.write_bytes(bytes(max(0, size)))
                outcome = place.server.run(*command(store))
                cases += 1
                typed(outcome, OK, NO, ENVIRONMENT)
                if name != "repair":
                    typed(place.server.run("verify", store), OK)
                    typed(place.server.run("query", store, place.inputs.path("queries"), "--method", "dot"), OK)
                ballast.unlink()
                if outcome.code == ENVIRONMENT:
                    typed(place.server.run(*command(store)), OK, NO)
                    typed(place.server.run("verify", store), OK)
                    successes = 0
                else:
                    successes += 1
                if successes > 3:
                    break
    return cases


def file_size_limit(place: Place) -> int:
    """RLIMIT_FSIZE at every step: a write beyond it fails, and the store stays as it was."""
    base, store = place.new_store("base"), place.folder / "store"
    cases = 0
    for limit in range(4096, 44 << 10, 4096 if place.short else 256):
        copy_store(base, store)
        # Not below a page: the message has to go to a file.
        outcome = place.server.run("ingest", store, place.inputs.path("batch-3"), settings={"LIMIT_FILE_SIZE": limit})
        cases += 1
        typed(outcome, OK, ENVIRONMENT)
        typed(place.server.run("verify", store), OK)
        typed(place.server.run("ingest", store, place.inputs.path("batch-3")), OK)
    return cases


def read_only_disk(place: Place) -> int:
    """Readers work, writers say what is the matter, nothing changes."""
    with mounted(place.folder / "disk", 4 << 20) as disk:
        store = disk / "store"
        make_store(place.server, store, place.inputs, whitened=False)
        before = files_of(store)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        readers = [("verify",), ("inspect", "--json"), ("query", place.inputs.path("queries")), ("snapshot", "--list")]
        for name, *rest in readers:
            typed(place.server.run(name, store, *rest), OK)
        writers = [("delete", "--where", "source = 'b'"), ("compact",), ("fit", "--rank", "1"), ("snapshot", "new")]
        writers += [("ingest", place.inputs.path("batch-3")), ("repair",)]
        for name, *rest in writers:
            typed(place.server.run(name, store, *rest), ENVIRONMENT)
        expect(files_of(store) == before, "a file has changed on a read-only disk")
    return len(readers) + len(writers)
