"""The model-based test finds every planted bug, and nothing in a program without one.

The bugs are planted in the stand-in, and, if LORIF_BIN names a built lorif, around that as well.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent
OPERATIONS = 60
BINARY = os.environ.get("LORIF_BIN", "")
BASES = ["stand-in", pytest.param("lorif", marks=pytest.mark.skipif(not BINARY, reason="LORIF_BIN is not set"))]

# Mutation, the operations that may show it, and the share of kills: those that need a kill, and those that need an end.
MANY, FEW = 0.9, 0.3
WRAPPED = {
    "acknowledge-early": ("ingest,delete", FEW),
    "acknowledge-nothing": ("ingest,delete", FEW),
    "drop-segment": ("ingest,delete", FEW),
    "forget-digests": ("ingest,rerun", FEW),
    "forgiving-verify": ("ingest", FEW),
    "half-ingest": ("ingest", FEW),
    "litter": ("ingest,delete", FEW),
    "one-commit-per-file": ("ingest", MANY),
    "stale-lock": ("ingest", MANY),
    "truncate-segment": ("ingest", FEW),
}
PLANTED = {"catalog-first": "ingest", "no-sweep": "ingest,compact"}


def script(path: Path, *command: object) -> Path:
    """A program that starts this command with its arguments."""
    words = " ".join(f"'{word}'" for word in command)
    path.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
    path.chmod(0o700)
    return path


def stand_in(folder: Path, *options: str) -> Path:
    return script(folder / "stand-in", sys.executable, "-I", FOLDER / "stand_in.py", *options)


def wrapped(folder: Path, mutation: str, base: str) -> Path:
    program = Path(BINARY).resolve() if base == "lorif" else stand_in(folder)
    return script(folder / "wrapped", sys.executable, "-I", FOLDER / "wrapper.py", mutation, program)


def model_test(program: Path, folder: Path, *options: object, seed: int = 7) -> subprocess.CompletedProcess[str]:
    harness = FOLDER.parent / "model_test.py"
    command = [sys.executable, harness, "--processes", "--lorif", program]
    command += ["--directory", folder, "--seed", seed, *options]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=600, check=False)


def assert_found(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 1, done.stdout + done.stderr
    assert "VIOLATION in sequence" in done.stderr
    assert "'seed': 7" in done.stdout


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("mutation", WRAPPED)
def test_a_mutation_is_found(mutation: str, base: str, tmp_path: Path) -> None:
    program = wrapped(tmp_path, mutation, base)
    operations, kills = WRAPPED[mutation]
    limits = ("--operations", OPERATIONS, "--kinds", operations, "--kills", kills, "--max-violations", 1)
    assert_found(model_test(program, tmp_path, *limits))


@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_found(bug: str, tmp_path: Path) -> None:
    program = stand_in(tmp_path, "--planted", bug)
    limits = ("--operations", OPERATIONS, "--kinds", PLANTED[bug], "--max-violations", 1)
    assert_found(model_test(program, tmp_path, *limits))


def test_a_program_without_bugs_passes(tmp_path: Path) -> None:
    done = model_test(stand_in(tmp_path), tmp_path, "--operations", 25)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ", 0 violations" in done.stdout
    assert "\n0 kills" not in done.stdout
    assert not [path for path in tmp_path.iterdir() if path.is_dir()], "the working folder is removed"


def test_a_wrapper_that_breaks_nothing_passes(tmp_path: Path) -> None:
    program = wrapped(tmp_path, "none", "stand-in")
    done = model_test(program, tmp_path, "--operations", 6, "--kinds", "create,ingest,rerun,delete")
    assert done.returncode == 0, done.stdout + done.stderr


def test_missing_commands_are_named(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\nprintf '  %s\\n' ingest query verify\n")
    program.chmod(0o700)
    done = model_test(program, tmp_path, "--operations", 0)
    for operation in ("create", "delete", "compact", "fit", "snapshot", "copy", "repair", "pack", "attach"):
        assert f"LEFT OUT: {operation}:" in done.stderr


def test_a_program_that_can_do_nothing_is_refused(tmp_path: Path) -> None:
    done = model_test(script(tmp_path / "program", "true"), tmp_path)
    assert done.returncode == 2
    assert "ingest, query, verify" in done.stderr


def test_a_failing_store_is_kept(tmp_path: Path) -> None:
    program = wrapped(tmp_path, "half-ingest", "stand-in")
    limits = ("--operations", OPERATIONS, "--kinds", "ingest", "--max-violations", 1, "--keep")
    done = model_test(program, tmp_path, *limits)
    assert_found(done)
    (record,) = tmp_path.rglob("violation.txt")
    assert "lorif ingest" in record.read_text()
    assert (record.parent / "s.lorif" / "segments").is_dir()
    assert "--seed 7" in done.stderr
