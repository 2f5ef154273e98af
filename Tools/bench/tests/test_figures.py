# ruff: noqa: D103, S101
"""Processes are measured and figures shown as they are."""

import json
import sys
from pathlib import Path

import pytest
from processes import evict, files_below, flush, machine, run, total_bytes
from storage import parse
from summary import Figure, Summary


def test_a_run_tells_code_output_time_and_memory() -> None:
    size = 64 << 20
    outcome = run(
        sys.executable, "-c", f"import sys; print(len(bytearray({size}))); sys.stderr.write('e'); sys.exit(7)"
    )
    assert outcome.code == 7
    assert outcome.stdout == f"{size}\n"
    assert outcome.stderr == "e"
    assert outcome.peak_bytes >= size
    assert outcome.processor_seconds > 0
    assert outcome.seconds > 0


def test_memory_of_the_measuring_process_does_not_count() -> None:
    ballast = bytearray(b"x" * (200 << 20))
    assert run("true").peak_bytes < len(ballast) // 4


def test_output_can_be_thrown_away() -> None:
    assert run("echo", "x", discard=True).stdout == ""


def test_a_program_that_is_not_there_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="could not run /nonexistent"):
        run("/nonexistent")


def test_a_signal_is_a_negative_code() -> None:
    assert run(sys.executable, "-c", "import os; os.kill(os.getpid(), 9)").code == -9


def test_files_are_counted_and_survive_eviction(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_bytes(b"12345")
    (tmp_path / "y").write_bytes(b"678")
    files = files_below(tmp_path)
    assert [path.name for path in files] == ["x", "y"]
    flush(files)
    evict(files)
    assert total_bytes(files) == 8
    assert files[0].read_bytes() == b"12345"


def test_the_machine_is_named(tmp_path: Path) -> None:
    assert all(machine(tmp_path).values())


def test_the_report_shows_medians_and_what_is_missing() -> None:
    summary = Summary("T", {"commit": "abc"})
    summary.add(Figure("ingest", [3.0, 1.0, 2.0], "s", wanted="≤ 4 s"))
    summary.add(Figure("compact", [], "", note="the program refused"))
    text = summary.markdown()
    assert "- commit: abc" in text
    assert "| ingest | 2 s | 1–3 | 3 | ≤ 4 s |  |" in text
    assert "| compact | not measured |  | 0 |  | the program refused |" in text
    figures = json.loads(summary.json())["figures"]
    assert figures[0]["median"] == 2
    assert figures[0]["values"] == [3, 1, 2]
    assert figures[1]["median"] is None


@pytest.mark.parametrize("wrong", [["--rows", "0"], ["--output", "x.txt"], ["--lorif", "/nonexistent"]])
def test_wrong_arguments_are_refused(wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as refusal:
        parse(["--lorif", sys.executable, *wrong])
    assert refusal.value.code == 2
