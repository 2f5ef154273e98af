"""The program `lorif`: where it is, whether it fits, how it is run, and what its exit codes mean."""

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from lorif.version import VERSION

__all__ = [
    "EnvironmentFailedError",
    "InputRefusedError",
    "NegativeAnswerError",
    "StoreDamagedError",
    "Tool",
    "ToolError",
    "ToolInterruptedError",
    "WrongUsageError",
]

#: How long a program that was told to stop may take to remove what it has begun, in seconds.
_PATIENCE = 20.0


class ToolError(RuntimeError):
    """The program `lorif` refused or failed; its own message, and its exit code. One subclass per exit code."""

    _by_code: ClassVar[dict[int, type["ToolError"]]] = {}

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code

    def __init_subclass__(cls, code: int) -> None:
        cls._by_code[code] = cls

    @classmethod
    def of(cls, message: str, code: int) -> "ToolError":
        """The error of an exit code; one that is not documented, as of a crash, stays a plain ToolError."""
        return cls._by_code.get(code, ToolError)(message, code)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.code)


class NegativeAnswerError(ToolError, code=1):
    """Exit code 1: the answer is no, as when `verify` found damage."""


class WrongUsageError(ToolError, code=2):
    """Exit code 2: options that do not exist or do not go together."""


class InputRefusedError(ToolError, code=3):
    """Exit code 3: input was refused, and nothing was changed."""


class StoreDamagedError(ToolError, code=4):
    """Exit code 4: the store is damaged."""


class EnvironmentFailedError(ToolError, code=5):
    """Exit code 5: disk, permission, memory, another writer; or there is no program `lorif` that fits."""


class ToolInterruptedError(ToolError, code=130):
    """Exit code 130: somebody else stopped the program; the store is at its last commit."""


@dataclass(frozen=True)
class Printed:
    """What a run that ended well printed: its answer, and its remarks on standard error, one per line."""

    output: bytes
    remarks: tuple[str, ...]


class Tool:
    """The program at `path`, else LORIF_BIN, else on the search path, else built beside an editable checkout.

    Raises EnvironmentFailedError if there is none, or one of another version.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        named = os.environ.get("LORIF_BIN") if path is None else os.fspath(path)
        found = named or shutil.which("lorif") or _built()
        if not found or not os.access(found, os.X_OK) or not Path(found).is_file():
            raise EnvironmentFailedError(
                f"no program lorif{f' at {found}' if found else ''}: put it on PATH or name it with LORIF_BIN", 5
            )
        self.path = str(Path(found).resolve())
        self.version = self._fitting_version()

    def __repr__(self) -> str:
        return f"Tool({self.path!r}, version {self.version})"

    def _fitting_version(self) -> str:
        try:
            found = self.call("--version").output.decode("utf-8", "replace").strip()
        except (ToolError, OSError) as error:
            raise EnvironmentFailedError(f"{self.path} is not the program lorif: {error}", 5) from None
        if not re.fullmatch(r"\d+\.\d+\.\d+\S*", found):
            raise EnvironmentFailedError(f"{self.path} is not the program lorif: its --version is {found[:60]!r}", 5)
        if found.split(".")[:2] != VERSION.split(".")[:2]:
            raise EnvironmentFailedError(
                f"{self.path}: expected lorif {'.'.join(VERSION.split('.')[:2])}, which this package is made for, "
                f"found {found}",
                5,
            )
        return found

    def run(self, *arguments: str, folder: Path | None = None, held: tuple[int, ...] = ()) -> Any:
        """What a command prints as JSON."""
        return self.decoded(self.call(*arguments, "--json", folder=folder, held=held).output, arguments[0])

    def decoded(self, output: bytes, command: str) -> Any:
        """JSON that a command printed."""
        try:
            return json.loads(output)
        except ValueError:
            raise EnvironmentFailedError(
                f"{self.path} is not a lorif that fits: '{command} --json' printed no JSON", 5
            ) from None

    def call(
        self, *arguments: str, folder: Path | None = None, held: tuple[int, ...] = (), good: tuple[int, ...] = (0,)
    ) -> Printed:
        """Runs a command that ends with one of the `good` exit codes, or raises the ToolError of its code.

        It keeps `held` descriptors open, so that their locks last as long as it. When this is interrupted (Ctrl-C,
        or the stop button of a notebook), the program is told to stop, waited for, and the exception goes on.
        """
        with subprocess.Popen(
            [self.path, *arguments],
            cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=held,
        ) as process:  # fmt: skip
            try:
                output, complaint = process.communicate()
            except BaseException:
                _stop(process)
                raise
        message = complaint.decode("utf-8", "replace").strip()
        if process.returncode not in good:
            # A signal that nobody here sent: a crash, or the kernel's out-of-memory killer.
            code = process.returncode if process.returncode > 0 else 5
            raise ToolError.of(
                message.removeprefix("lorif: ") or f"lorif {arguments[0]} ended with {process.returncode}", code
            )
        return Printed(output, tuple(line.removeprefix("lorif: ") for line in message.splitlines() if line))


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """Ends a program that removes what it has begun; by force if it takes too long, or at a second interruption."""
    try:
        process.terminate()
        process.communicate(timeout=_PATIENCE)
    except BaseException:
        process.kill()
        process.wait()


def _built() -> str | None:
    """A release build in the checkout that this package was installed from with --editable, if it is one."""
    root = Path(__file__).resolve().parents[4]
    program = root / ".build" / "release" / "lorif"
    return str(program) if (root / "Package.swift").is_file() and program.is_file() else None
