"""Short forms of Tools/crash/model_test.py: random operations, many of them killed, compared with a model."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from harness import BINARY


def model_test(folder: Path, *options: object) -> subprocess.CompletedProcess[str]:
    harness = ROOT / "Tools" / "crash" / "model_test.py"
    command = [sys.executable, harness, "--lorif", Path(BINARY).resolve(), "--short", "--directory", folder, *options]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=1800, check=False)


needs_forks = pytest.mark.skipif(shutil.which("cc") is None, reason="kills at chosen calls need a C compiler")


@needs_forks
def test_every_operation_does_what_the_model_does(tmp_path: Path) -> None:
    done = model_test(tmp_path, "--seed", 1)
    assert done.returncode == 0, done.stdout + done.stderr
    # A run that killed nothing would show little.
    assert "\n0 kills" not in done.stdout, done.stdout


@needs_forks
def test_a_failing_sequence_is_made_short(tmp_path: Path) -> None:
    """A bug is planted in what a filtered export is asked for: a few steps must be left, and fail alone as well."""
    bug = ("--seed", 3, "--planted", "a filter is forgotten")
    done = model_test(tmp_path, *bug, "--kinds", "ingest,export", "--max-violations", 1)
    assert done.returncode == 1, done.stdout + done.stderr
    words = done.stderr.split("--steps '")[1].split("'")[0]
    number = done.stderr.split("--sequence ")[1].split()[0]
    assert len(words.split(",")) <= 3, done.stderr
    again = model_test(tmp_path, *bug, "--sequence", number, "--steps", words)
    assert again.returncode == 1, again.stdout
    assert "rows, expected" in again.stdout


def test_processes_are_killed_at_any_moment(tmp_path: Path) -> None:
    done = model_test(tmp_path, "--processes")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\n0 kills" not in done.stdout, done.stdout
