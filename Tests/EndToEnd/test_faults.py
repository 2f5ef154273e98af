"""The short forms of the fault harnesses in Tools/crash: a random part of what each tries in its long form."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from harness import BINARY

HARNESSES = ROOT / "Tools" / "crash"
HAS_COMPILER = shutil.which("cc") is not None


def run_harness(name: str, *arguments: object, folder: Path) -> str:
    command = [sys.executable, HARNESSES / name, "--lorif", Path(BINARY).resolve(), "--directory", folder, *arguments]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


pytestmark = pytest.mark.skipif(not HAS_COMPILER, reason="the library that breaks file operations needs a C compiler")


def test_a_crash_at_any_moment_leaves_the_state_before_or_after(tmp_path: Path) -> None:
    assert "'violations': 0" in run_harness("crash_points.py", "--short", "--jobs", 2, folder=tmp_path)


def test_damage_is_found_or_harmless(tmp_path: Path) -> None:
    assert "'violations': 0" in run_harness("damage.py", "--short", "--jobs", 2, folder=tmp_path)


def test_failing_calls_are_errors_and_leave_the_store_whole(tmp_path: Path) -> None:
    assert "'violations': 0" in run_harness("errors.py", "--short", "--jobs", 2, folder=tmp_path)


def test_surroundings(tmp_path: Path) -> None:
    assert "'failures': 0" in run_harness("surroundings.py", "--short", "--unshare", folder=tmp_path)


def test_planted_bugs_are_found(tmp_path: Path) -> None:
    names = ("before the commit", "an export is taken for done", "header's zeros", "not closed")
    chosen = [("--only", name) for name in names]
    output = run_harness("mutation_check.py", *(word for pair in chosen for word in pair), folder=tmp_path)
    assert "'bugs': 5, 'found': 5" in output


def test_the_recorder_sees_every_change(tmp_path: Path) -> None:
    """What strace counts of an ingest, a compaction, a fit and a copy is what the recorder counts."""
    if shutil.which("strace") is None:
        pytest.skip("needs strace")
    output = run_harness("recorder_check.py", folder=tmp_path)
    assert "the same" in output
