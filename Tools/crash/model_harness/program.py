"""Runs the program, as processes or as forks of one that is loaded, kills it, and finds out what it can do."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fault_harness.shim import ForkServer, Kind
from model_harness.changes import ChangeCounter
from model_harness.planted import Bug

TIMEOUT_SECONDS = 120.0
REFUSED_CODES = (1, 2, 3)

KILL = -2
CHANGING = (
    Kind.OPEN, Kind.WRITE, Kind.TRUNCATE, Kind.ALLOCATE, Kind.RENAME, Kind.LINK, Kind.UNLINK, Kind.MKDIR, Kind.RMDIR,
    Kind.FSYNC, Kind.FDATASYNC, Kind.OUTPUT,
)  # fmt: skip
# Beyond them the servers of fixed commands that were used least are ended.
FIXED_SERVERS = 24


@dataclass(frozen=True)
class Kill:
    """When to kill: after some seconds, at the n-th change below some directories, or before the n-th changing call."""

    seconds: float = TIMEOUT_SECONDS
    change: int = 0
    folders: tuple[Path, ...] = ()
    call: int = 0

    def __str__(self) -> str:
        if self.call:
            return f"before call {self.call}"
        return f"at change {self.change}" if self.change else f"after {self.seconds:.4f} s"


@dataclass(frozen=True)
class Run:
    """How one run of the program ended; the code is negative for a signal, as subprocess has it."""

    command: str
    code: int
    seconds: float
    kill: Kill | None
    stdout: str
    stderr: str
    # Changes below the watched directories, if a kill was aimed at one.
    changes: int = 0

    @property
    def killed(self) -> bool:
        """Whether our kill came before the end."""
        return self.kill is not None and self.code == -signal.SIGKILL

    @property
    def crashed(self) -> bool:
        """Whether a signal that we did not send ended it, or it ran into the time limit."""
        return self.code < 0 and not self.killed

    def __str__(self) -> str:
        end = f"killed {self.kill}" if self.killed else f"exit code {self.code}"
        said = (self.stderr or self.stdout).strip()
        return f"$ {self.command}\n  {end} ({self.seconds:.3f} s)" + (f": {said[:600]}" if said else "")


@dataclass
class Program:
    """The program under test; with a folder to work in, runs are forks of loaded processes where that is possible."""

    path: Path
    # What it works on is below this; calls elsewhere are not counted.
    folder: Path | None = None
    # Whether operations are processes of their own all the same, to be killed from outside at any moment.
    operations_are_processes: bool = True
    # A planted bug.
    bug: Bug | None = None
    history: list[Run] = field(default_factory=list)
    _help_texts: dict[str, str] = field(default_factory=dict)
    _server: ForkServer | None = None
    # Servers of one command each, which save its parsing as well: the most recently used last.
    _fixed: dict[tuple[str, ...], ForkServer] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.can_fork = self.folder is not None and shutil.which("cc") is not None and _is_binary(self.path)

    def ask(self, *arguments: object, fixed: bool = False) -> Run:
        """Runs a command that is not to be killed; a fixed one will be asked for again with the same arguments."""
        if not self.can_fork:
            return self.run(*arguments)
        words = self._words(arguments)
        if not fixed:
            return self._fork(self._general_server(), words, words, None)
        if words in self._fixed:
            self._fixed[words] = self._fixed.pop(words)
        else:
            if len(self._fixed) >= FIXED_SERVERS:
                self._end(self._fixed.pop(next(iter(self._fixed))))
            self._fixed[words] = self._new_server(*words)
        return self._fork(self._fixed[words], words, (), None)

    def operate(self, *arguments: object, kill: Kill | None = None) -> Run:
        """Runs a command to its end, or until it is killed."""
        if self.operations_are_processes or not self.can_fork:
            return self.run(*arguments, kill=kill)
        words = self._words(arguments)
        return self._fork(self._general_server(), words, words, kill)

    def _words(self, arguments: tuple[object, ...]) -> tuple[str, ...]:
        words = tuple(map(str, arguments))
        return self.bug.change(words) if self.bug is not None else words

    @property
    def _settings(self) -> Mapping[str, object]:
        return self.bug.settings if self.bug is not None else {}

    def close(self) -> None:
        """Ends all servers."""
        for server in [*self._fixed.values(), *([self._server] if self._server else [])]:
            self._end(server)
        self._fixed.clear()
        self._server = None

    @staticmethod
    def _end(server: ForkServer) -> None:
        server.__exit__(None, None, None)

    def _new_server(self, *words: str) -> ForkServer:
        if self.folder is None:
            raise ValueError("a program without a folder cannot be forked")
        return ForkServer(
            self.path, self.folder.parent, *words, root=self.folder if words else None, plant=self._settings
        )

    def _general_server(self) -> ForkServer:
        self._server = self._server or self._new_server()
        return self._server

    def _fork(self, server: ForkServer, words: tuple[str, ...], given: tuple[str, ...], kill: Kill | None) -> Run:
        settings: dict[str, object] = {}
        if kill is not None:
            kinds = sum(1 << kind for kind in CHANGING)
            settings = {"LORIF_FAIL_KINDS": kinds, "LORIF_FAIL_AT": kill.call, "LORIF_FAIL_COUNT": 1}
            settings |= {"LORIF_FAIL_CODE": KILL}
        if not given or kill is not None or self._settings:
            settings |= {"LORIF_SHIM_ROOT": self.folder}
        began = time.monotonic()
        outcome = server.run(*given, settings=settings)
        seconds = time.monotonic() - began
        run = Run(shlex.join(["lorif", *words]), outcome.code, seconds, kill, outcome.stdout, outcome.stderr)
        self.history.append(run)
        return run

    def run(self, *arguments: object, kill: Kill | None = None) -> Run:
        """Runs it as a process to its end, or kills it and all that it started at that moment."""
        command = [str(self.path), *self._words(arguments)]
        counter = ChangeCounter(list(kill.folders)) if kill is not None and kill.change else None
        began = time.monotonic()
        # A session of its own, so that the kill reaches a wrapper's children at the same moment.
        process = subprocess.Popen(
            command,
            env={**os.environ, **{name: str(value) for name, value in self._settings.items()}},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            if counter is not None and kill is not None:
                if counter.wait(process, kill.change, kill.seconds):
                    os.killpg(process.pid, signal.SIGKILL)
                counter.close()
            stdout, stderr = process.communicate(timeout=TIMEOUT_SECONDS if kill is None else kill.seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            stdout, stderr = process.communicate()
        finished = Run(
            shlex.join(["lorif", *command[1:]]),
            process.returncode,
            time.monotonic() - began,
            kill,
            stdout.decode("utf-8", "replace"),
            stderr.decode("utf-8", "replace"),
            counter.count if counter is not None else 0,
        )
        self.history.append(finished)
        return finished

    def help_text(self, command: str = "") -> str:
        """What --help prints; asked once per command."""
        if command not in self._help_texts:
            run = self.run(*([command] if command else []), "--help")
            self._help_texts[command] = run.stdout + run.stderr
        return self._help_texts[command]

    def has_command(self, command: str) -> bool:
        """Whether the program's help lists the command."""
        return re.search(rf"^\s+{re.escape(command)}\b", self.help_text(), re.MULTILINE) is not None

    def has_option(self, command: str, option: str) -> bool:
        """Whether the command's help names the option."""
        return self.has_command(command) and re.search(rf"{option}\b", self.help_text(command)) is not None


def _is_binary(path: Path) -> bool:
    """Whether it is a program that a library can be loaded into, and not a script."""
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"
