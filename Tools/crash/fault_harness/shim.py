"""Builds the library that records and breaks the program's file operations, and starts programs under it."""

import contextlib
import hashlib
import os
import socket
import struct
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from types import TracebackType

SOURCES = Path(__file__).resolve().parents[1] / "shim"
OK, NO, USAGE, REFUSED, DAMAGED, ENVIRONMENT, INTERRUPTED = 0, 1, 2, 3, 4, 5, 130
TYPED_CODES = (OK, NO, USAGE, REFUSED, DAMAGED, ENVIRONMENT, INTERRUPTED)


class Kind(IntEnum):
    """The kinds of calls, as in shim.h."""

    OPEN = 1
    CLOSE = 2
    READ = 3
    WRITE = 4
    TRUNCATE = 5
    ALLOCATE = 6
    RENAME = 7
    LINK = 8
    UNLINK = 9
    MKDIR = 10
    RMDIR = 11
    FSYNC = 12
    FDATASYNC = 13
    WRITEBACK = 14
    MSYNC = 15
    MAP = 16
    STAT = 17
    LIST = 18
    CONTROL = 19
    OUTPUT = 20
    UNKNOWN = 21


def build_shim() -> Path:
    """The library, compiled once for each content of its sources."""
    sources = sorted(SOURCES.glob("*.[ch]"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    library = Path(tempfile.gettempdir()) / f"lorif-shim-{os.getuid()}-{digest}.so"
    if not library.exists():
        new = library.with_suffix(f".{os.getpid()}")
        command = ["cc", "-std=gnu17", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", str(new)]
        subprocess.run([*command, *map(str, SOURCES.glob("*.c")), "-ldl", "-lpthread"], check=True)
        new.replace(library)
    return library


@dataclass(frozen=True)
class Outcome:
    """How a run ended; the code is negative for a signal."""

    code: int
    stdout: str
    stderr: str
    command: str

    @property
    def is_typed(self) -> bool:
        """Whether it ended as documented: with one of the exit codes, and with words if not with 0."""
        said = self.code == OK or bool(self.stderr.strip() or self.stdout.strip())
        return self.code in TYPED_CODES and said and "Fatal error" not in self.stderr

    def __str__(self) -> str:
        return f"$ {self.command}\n  exit code {self.code}: {(self.stderr + self.stdout).strip()[:600]}"


class ForkServer(contextlib.AbstractContextManager["ForkServer"]):
    """The program, loaded once: each run is a forked child.

    Without arguments it begins at main(); with arguments, which are then those of every run, at its first access to
    something below `root`. `plant` are bugs for all of them (shim/plant.c).
    """

    def __init__(
        self,
        binary: Path,
        scratch: Path,
        *arguments: object,
        root: Path | None = None,
        time_limit: int = 60,
        plant: Mapping[str, object] | None = None,
    ) -> None:
        self.time_limit = time_limit
        self.run_count = 0
        self._arguments = tuple(map(str, arguments))
        self._stdout, self._stderr = scratch / f"stdout-{id(self)}", scratch / f"stderr-{id(self)}"
        ours, theirs = socket.socketpair()
        settings = {
            "LD_PRELOAD": str(build_shim()),
            "LORIF_FORK_SERVER": str(theirs.fileno()),
            # Symbols are then looked up once, and not by every child.
            "LD_BIND_NOW": "1",
        } | ({"LORIF_SHIM_ROOT": str(root)} if root is not None else {})
        self._process = subprocess.Popen(
            [str(binary), *self._arguments],
            env={**os.environ, **settings, **{name: str(value) for name, value in (plant or {}).items()}},
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            # A signal to the harness is not for its servers, which end when their channel does.
            start_new_session=True,
        )
        theirs.close()
        self._channel = ours

    def run(self, *arguments: object, settings: Mapping[str, object] | None = None) -> Outcome:
        """Runs the program to its end."""
        given = [f"{name}={value}" for name, value in (settings or {}).items()]
        strings = [str(self.time_limit), str(self._stdout), str(self._stderr), *given, "", *map(str, arguments)]
        request = b"".join(text.encode() + b"\0" for text in strings)
        self._channel.sendall(struct.pack("<I", len(request)) + request)
        answer = self._channel.recv(4, socket.MSG_WAITALL)
        if len(answer) != 4:
            raise RuntimeError("the fork server has died")
        self.run_count += 1
        code = os.waitstatus_to_exitcode(struct.unpack("<i", answer)[0])
        texts = (path.read_text("utf-8", "replace") for path in (self._stdout, self._stderr))
        return Outcome(code, *texts, " ".join(["lorif", *self._arguments, *map(str, arguments)]))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()
        self._process.wait(timeout=60)
        for path in (self._stdout, self._stderr):
            path.unlink(missing_ok=True)
