"""The program `lorif`, as the importers call it."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

__all__ = ["Tool", "ToolError"]


class ToolError(RuntimeError):
    """The program `lorif` refused or failed; its message, and its exit code (3 refused, 5 environment, …)."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Tool:
    """The program at `path`, or else LORIF_BIN, or else what the search path has."""

    def __init__(self, path: str | None = None) -> None:
        found = path or os.environ.get("LORIF_BIN") or shutil.which("lorif")
        if not found or not os.access(found, os.X_OK):
            raise ToolError(
                f"no program lorif{f' at {found}' if found else ''}: put it on PATH or name it with LORIF_BIN",
                5,
            )
        self.path = str(Path(found).resolve())

    def run(self, *arguments: str, folder: Path | None = None, held: tuple[int, ...] = ()) -> Any:
        """What a command prints as JSON. It keeps `held` descriptors open, so that their locks last as long as it."""
        command = [self.path, *arguments, "--json"]
        with subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=held
        ) as process:
            try:
                output, complaint = process.communicate()
            except BaseException:
                process.terminate()  # it removes what it has begun
                process.communicate()
                raise
        if process.returncode != 0:
            message = complaint.decode("utf-8", "replace").strip().removeprefix("lorif: ")
            code = process.returncode if process.returncode > 0 else 5
            raise ToolError(message or f"lorif {arguments[0]} ended with {process.returncode}", code)
        try:
            return json.loads(output)
        except ValueError:
            raise ToolError(
                f"{self.path} is not a lorif that fits: '{arguments[0]} --json' printed no JSON", 5
            ) from None
