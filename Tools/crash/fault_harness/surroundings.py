"""Full and read-only disks, files that shrink under a scan, readers that are killed, foreign paths and permissions.

Each check is a function of a `Place`; it returns how many cases it tried, and raises `Failed` for the first that goes wrong.
"""

import contextlib
import json
import os
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from fault_harness.sample_store import (
    Inputs,
    batch,
    copy_store,
    files_of,
    identifiers,
    make_store,
    must,
)
from fault_harness.shim import DAMAGED, ENVIRONMENT, NO, OK, ForkServer, Outcome

NOBODY = 65534
PAGE = 4096
SCANNED_ROWS = 30_000
READER_ROUNDS = 12


class FailedError(Exception):
    """Something is not as promised."""


@dataclass(frozen=True)
class Place:
    """The program, a folder to work in, and inputs."""

    binary: Path
    folder: Path
    server: ForkServer
    inputs: Inputs
    short: bool
    # Bugs for the processes that `start` starts.
    plant: Mapping[str, str] = field(default_factory=dict)

    def new_store(self, name: str) -> Path:
        """A small store."""
        store = self.folder / name
        make_store(self.server, store, self.inputs, whitened=False)
        return store

    def start(self, *arguments: object) -> subprocess.Popen[bytes]:
        """The program as a process of its own."""
        command = [str(self.binary), *map(str, arguments)]
        return subprocess.Popen(
            command,
            env={**os.environ, **self.plant},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )


def expect(condition: object, *facts: object) -> None:
    """Raises unless the condition holds."""
    if not condition:
        raise FailedError("; ".join(map(str, facts)))


def typed(outcome: Outcome, *codes: int) -> None:
    """Raises unless it ended with one of these exit codes and, if that is an error, with words."""
    expect(outcome.is_typed and outcome.code in codes, f"expected exit code {codes}", outcome)


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


# MARK: T9: disks


def full_disk(place: Place) -> int:
    """Every number of free pages from 0 on: the command works or says that there is no space, and works when there is some."""
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
                    with (store / "curvature").joinpath(os.listdir(store / "curvature")[0]).open("r+b") as file:
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
    for limit in range(0, 40 << 10, 4096 if place.short else 256):
        copy_store(base, store)
        # Not limited: the table of readers, which is as large as ever.
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


# MARK: T10, T11, T14: readers


def _large_store(place: Place) -> Path:
    store = place.folder / "large"
    random = np.random.default_rng(5)
    tensors = {
        f"h.{layer}/{side}": random.standard_normal((SCANNED_ROWS, 24, 2), dtype=np.float32)
        for layer in range(2)
        for side in ("left", "right")
    }
    path = place.folder / "large.safetensors"
    names = json.dumps(identifiers(0, SCANNED_ROWS))
    save_file(tensors, path, {"lorif.batch": "1", "ids": names, "layers": json.dumps(["h.0", "h.1"])})
    must(place.server, "ingest", store, path, "--encoding", "f32")
    queries = {f"h.{layer}/full": random.standard_normal((4, 24, 24), dtype=np.float32) for layer in range(2)}
    save_file(queries, place.folder / "large-queries.safetensors", {"lorif.batch": "1", "layers": '["h.0", "h.1"]'})
    return store


def shrinking_files(place: Place) -> int:
    """A segment that is cut or replaced while it is scanned: an error or the whole answer, and never a signal."""
    store = _large_store(place)
    segment = next((store / "segments").iterdir())
    content = segment.read_bytes()
    arguments = ("query", store, place.folder / "large-queries.safetensors", "--method", "dot", "--format", "jsonl")
    expected = must(place.server, *arguments).stdout
    random = np.random.default_rng(6)
    began = time.monotonic()
    must(place.server, *arguments)
    whole = time.monotonic() - began
    codes = []
    rounds = 8 if place.short else 150
    for number in range(rounds):
        query = place.start(*arguments)
        time.sleep(random.uniform(0, whole * 1.2))
        if number % 2 == 0:
            os.truncate(segment, int(random.integers(0, len(content))))
        else:
            # Other bytes in the same file: what is mapped changes under the scan.
            with segment.open("r+b") as file:
                file.seek(int(random.integers(4096, len(content) - 8192)))
                file.write(bytes(4096))
        stdout, stderr = query.communicate(timeout=60)
        outcome = Outcome(query.returncode, stdout.decode(), stderr.decode(), "query under truncation")
        typed(outcome, OK, DAMAGED)
        expect(outcome.code != OK or outcome.stdout == expected, "a wrong answer from a file that has shrunk")
        codes.append(outcome.code)
        segment.write_bytes(content)
    expect(DAMAGED in codes, "no scan met the damage", codes)
    return rounds


def killed_readers(place: Place) -> int:
    """Readers killed in a scan or stopped for good block no writer, and what they kept from reuse is collected."""
    store = _large_store(place)
    arguments = ("query", store, place.folder / "large-queries.safetensors", "--method", "dot", "--top", "1")
    random = np.random.default_rng(7)
    rounds = 6 if place.short else 100
    catalog_sizes = []
    for number in range(rounds):
        readers = [place.start(*arguments) for _ in range(2)]
        time.sleep(random.uniform(0, 0.12))
        readers[1].send_signal(signal.SIGSTOP)
        readers[0].kill()
        doomed = place.folder / "doomed.txt"
        doomed.write_text(f"row-{number}\n")
        must(place.server, "delete", store, "--ids", doomed)
        before = sorted(path.name for path in (store / "segments").iterdir())
        must(place.server, "compact", store)
        after = sorted(path.name for path in (store / "segments").iterdir())
        expect(not set(before) & set(after), "an old segment is still there", before, after)
        readers[1].kill()
        for reader in readers:
            reader.communicate(timeout=60)
        catalog_sizes.append((store / "catalog" / "data.mdb").stat().st_size)
    typed(place.server.run("verify", store), OK)
    settled = max(catalog_sizes[: max(3, rounds // 4)])
    expect(catalog_sizes[-1] <= 4 * settled, "the catalog grows without end", catalog_sizes)
    return 2 * rounds


def readers_beside_writers(place: Place) -> int:
    """Reading processes during ingest, delete, compaction and collection: each answer is that of one generation."""
    store = place.folder / "store"
    must(place.server, "ingest", store, place.inputs.path("batch-0"), "--encoding", "f32")
    arguments = ("query", store, place.inputs.path("queries"), "--method", "dot", "--top", "100", "--format", "jsonl")
    answers = {must(place.server, *arguments).stdout}
    rounds = 2 if place.short else READER_ROUNDS
    script = f'while [ ! -e {place.folder}/stop ]; do "$@" || echo "exit $?"; echo end; done'
    command = ["sh", "-c", script, "sh", str(place.binary), *map(str, arguments)]
    readers = []
    for number in range(3):
        with (place.folder / f"answers-{number}").open("wb") as output:
            readers.append(subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT))
    for number in range(rounds):
        names = [f"round-{number}-{row}" for row in range(5)]
        fresh = batch(place.folder / f"round-{number}.safetensors", 100 + number, names)
        newer = batch(place.folder / f"newer-{number}.safetensors", 500 + number, names[3:])
        for step in (
            ("ingest", store, fresh),
            ("delete", store, "--where", f"id like 'round-{number - 1}-%'"),
            ("compact", store),
            ("ingest", store, newer, "--on-duplicate", "replace"),
            ("compact", store),
        ):
            must(place.server, *step)
            answers.add(must(place.server, *arguments).stdout)
    (place.folder / "stop").touch()
    for reader in readers:
        reader.wait(timeout=60)
    seen = [
        answer
        for number in range(3)
        for answer in (place.folder / f"answers-{number}").read_text().split("end\n")
        if answer
    ]
    for answer in seen:
        expect(answer in answers, "an answer that no generation gives", answer[:500])
    expect(len(set(seen)) > 1, "the readers have seen only one generation")
    return len(seen)


# MARK: T15: paths and permissions


def paths_and_permissions(place: Place) -> int:
    """Modes whatever the umask, foreign names, links out of the store, users without rights."""
    previous = os.umask(0)
    try:
        store = place.folder / "open-umask"
        run = place.start("ingest", store, place.inputs.path("batch-0"), "--encoding", "f32")
        expect(run.wait(timeout=60) == OK, run.communicate())
        for arguments in (("fit", store, "--rank", "1", "--coordinates", "f32"), ("snapshot", store, "a")):
            run = place.start(*arguments)
            expect(run.wait(timeout=60) == OK, run.communicate())
    finally:
        os.umask(previous)
    for path in [store, *store.rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        expect(mode == (0o700 if path.is_dir() else 0o600), f"{path} has mode {mode:o}")
    names = ["../escape", "a/b", "x" * 129, "new\nline", "semi;colon", "sp ace", "ä", "/tmp/absolute"]
    cases = len(list(store.rglob("*")))
    before = files_of(store)
    for name in names:
        typed(place.server.run("snapshot", store, name), 3)
        cases += 1
    expect(files_of(store) == before, "a refused name has changed the store")
    for path in ("x" * 300, "missing/deeper", "\n"):
        typed(place.server.run("create", place.folder / path / "store"), 3, ENVIRONMENT)
        cases += 1
    cases += _links(place)
    cases += _foreign_users(place, store)
    return cases


def _links(place: Place) -> int:
    """A store through a link is the store; a link in the store leads no writer out of it."""
    store = place.new_store("linked-to")
    link = place.folder / "link"
    link.symlink_to(store)
    typed(place.server.run("verify", link), OK)
    typed(place.server.run("snapshot", link, "through-a-link"), OK)
    outside = place.folder / "outside"
    outside.write_bytes(b"not to be touched")
    # What a hostile owner of the folder could prepare: names that the next writer will use.
    numbers = sorted(int(path.stem, 16) for path in (store / "segments").iterdir())
    for number in range(numbers[-1] + 1, numbers[-1] + 4):
        (store / "tmp" / f"{number:016x}.segment").symlink_to(outside)
    typed(place.server.run("ingest", store, place.inputs.path("batch-3")), OK)
    expect(outside.read_bytes() == b"not to be touched", "a writer has followed a link out of the store")
    lock = store / "writer.lock"
    lock.unlink()
    lock.symlink_to(place.folder / "created-elsewhere")
    typed(place.server.run("snapshot", store, "locked"), ENVIRONMENT)
    expect(not (place.folder / "created-elsewhere").exists(), "a lock was made through a link")
    return 5


def _foreign_users(place: Place, store: Path) -> int:
    """Somebody without rights gets an error; somebody who may only read can read."""
    if os.getuid() != 0:
        return 0
    place.folder.chmod(0o755)

    def as_nobody(*arguments: object) -> Outcome:
        command = [str(place.binary), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, user=NOBODY, group=NOBODY, check=False)
        return Outcome(done.returncode, done.stdout, done.stderr, shutil_join(command))

    for arguments in (("verify", store), ("inspect", store), ("snapshot", store, "b"), ("repair", store)):
        typed(as_nobody(*arguments), 3, ENVIRONMENT)
    readable = place.folder / "readable"
    copy_store(store, readable)
    for path in [readable, *readable.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    before = files_of(readable)
    # The table of readers is not writable for them: they must be told so, or read without it.
    typed(as_nobody("verify", readable), OK, ENVIRONMENT)
    for arguments in (("snapshot", readable, "b"), ("compact", readable), ("repair", readable)):
        typed(as_nobody(*arguments), ENVIRONMENT)
    expect(files_of(readable) == before, "a user without rights has changed the store")
    return 8


# MARK: T17: determinism


def determinism(place: Place) -> int:
    """The same commands give the same bytes, whatever the number of threads."""
    digests = []
    for number, threads in enumerate((1, 1, 2, 5)):
        store = place.folder / f"store-{number}"
        must(place.server, "ingest", store, place.inputs.path("batch-0"), "--encoding", "q4")
        must(place.server, "ingest", store, place.inputs.path("batch-1"))
        must(place.server, "delete", store, "--ids", place.inputs.path("doomed"))
        must(place.server, "fit", store, "--rank", "2", "--threads", threads, "--coordinates", "int8")
        must(place.server, "compact", store)
        must(place.server, "fit", store, "--rank", "2", "--threads", threads, "--coordinates", "int8")
        files = {path: content for path, content in files_of(store).items() if "segment" in path or "c" in path[:1]}
        # The catalog has the store's own random identity.
        digests.append({path: content for path, content in files.items() if not path.startswith("catalog/")})
        asked = ("query", store, place.inputs.path("queries"), "--format", "jsonl", "--threads", threads)
        ranked = must(place.server, *asked).stdout
        expect(number == 0 or ranked == first_ranked, "another ranking with other threads")
        first_ranked = ranked
        expect(digests[number] == digests[0], "other bytes", sorted(digests[number].keys() ^ digests[0].keys()))
    return len(digests)


def shutil_join(command: list[str]) -> str:
    """A command as one line."""
    return " ".join(command)


CHECKS = {
    check.__name__.replace("_", " "): check
    for check in (
        full_disk, file_size_limit, read_only_disk, shrinking_files, killed_readers, readers_beside_writers,
        paths_and_permissions, determinism,
    )
}  # fmt: skip
NEEDS_MOUNT = ("full disk", "read only disk")
