"""The short form of Tools/crash/kill_loop.py: random operations killed at random moments, compared with a model."""

import subprocess
import sys
from pathlib import Path

from conftest import ROOT
from harness import BINARY


def test_nothing_is_lost_or_half_there(tmp_path: Path) -> None:
    loop = ROOT / "Tools" / "crash" / "kill_loop.py"
    command = [sys.executable, loop, "--lorif", Path(BINARY).resolve(), "--short", "--directory", tmp_path]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    # A run that killed nothing would show nothing.
    assert " 0 kills" not in done.stdout, done.stdout
