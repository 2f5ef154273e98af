"""Runs the program, kills it, and finds out what it can do."""

import os
import re
import shlex
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from kill_harness.changes import ChangeCounter

TIMEOUT_SECONDS = 120.0
REFUSED_CODES = (1, 2, 3)

COMMANDS = (
    "create", "ingest", "fit", "query", "inspect", "verify", "estimate",
    "pack", "attach", "delete", "compact", "snapshot", "copy", "repair", "export",
)  # fmt: skip


@dataclass(frozen=True)
class Kill:
    """When to kill: after so many seconds, or at the n-th change below some directories."""

    seconds: float = TIMEOUT_SECONDS
    change: int = 0
    folders: tuple[Path, ...] = ()

    def __str__(self) -> str:
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
    """The program under test."""

    path: Path
    history: list[Run] = field(default_factory=list)
    _help_texts: dict[str, str] = field(default_factory=dict)

    def run(self, *arguments: object, kill: Kill | None = None) -> Run:
        """Runs it to its end, or kills it and all that it started at that moment."""
        command = [str(self.path), *map(str, arguments)]
        counter = ChangeCounter(list(kill.folders)) if kill is not None and kill.change else None
        began = time.monotonic()
        # A session of its own, so that the kill reaches a wrapper's children at the same moment.
        process = subprocess.Popen(
            command,
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
