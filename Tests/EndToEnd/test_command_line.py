"""The command line as scripts rely on it: help, machine-readable output, exit codes, formats of results."""

import csv
import io
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from harness import BINARY, OK, USAGE, attempt, run, write_batch

COMMANDS = [
    "create",
    "ingest",
    "fit",
    "query",
    "report",
    "shell",
    "inspect",
    "doctor",
    "verify",
    "delete",
    "export",
    "pack",
    "attach",
    "compact",
    "snapshot",
    "copy",
    "repair",
    "compare",
    "estimate",
]
LAYERS = {"l.0": (4, 6, 2), "l.1": (5, 3, 2)}
COUNT = 20


def gradients(random: np.random.Generator, count: int) -> dict:
    return {
        name: tuple(random.standard_normal((count, d, c)).astype(np.float32) for d in (d1, d2))
        for name, (d1, d2, c) in LAYERS.items()
    }


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A fitted store and queries with awkward ids and texts."""
    folder = tmp_path_factory.mktemp("line")
    random = np.random.default_rng(3)
    ids = [f'exämple, "{row}"' for row in range(COUNT)]
    records = [
        {"id": identifier, "text": f"line one\nline, two \u2028 {row}", "tags": ["x", row], "score": 0.5, "none": None}
        for row, identifier in enumerate(ids)
    ]
    train = write_batch(folder / "train.safetensors", gradients(random, COUNT), ids=ids, records=records)
    query = write_batch(folder / "query.safetensors", gradients(random, 2), ids=["q/1", "q 2"])
    store = folder / "s.lorif"
    run("ingest", "--encoding", "f32", store, train)
    run("fit", store)
    return store, query


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command: str) -> None:
    outcome = run(command, "--help")
    lines = outcome.stdout.splitlines()
    assert any(line.startswith(f"  lorif {command} ") for line in lines), outcome.stdout
    assert outcome.stderr == ""
    assert max(len(line) for line in lines if not line.startswith("USAGE")) <= 100


@pytest.mark.parametrize("command", COMMANDS)
def test_examples_of_the_help_can_be_copied(command: str) -> None:
    """No example is broken over two lines: what follows one is blank, another example, or indented."""
    lines = run(command, "--help").stdout.split("USAGE")[0].splitlines()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if line.startswith("  lorif "):
            assert following == "" or following.startswith("  ") or line.endswith("\\"), (line, following)


def test_top_level_help() -> None:
    text = run("--help").stdout
    assert all(command in text for command in COMMANDS)
    assert "xit code" in text
    assert run("--version").stdout.strip()


def test_usage_errors() -> None:
    for arguments in (("no-such-command",), ("query", "--no-such-option"), ("ingest",), ("inspect",), ("estimate",)):
        outcome = attempt(*arguments)
        assert outcome.code == USAGE, str(outcome)
        assert outcome.stderr.strip(), str(outcome)
        assert outcome.stdout == "", str(outcome)


def test_machine_readable_reports(files: tuple[Path, Path], tmp_path: Path) -> None:
    store, query = files
    new = tmp_path / "new.lorif"
    for arguments in (
        ("create", "--encoding", "f32", tmp_path / "made.lorif", "--layers", query, "--json"),
        ("ingest", "--encoding", "f32", new, query, "--json"),
        ("fit", new, "--json"),
        ("inspect", store, "--json"),
        ("inspect", store, "--segments", "--json"),
        ("inspect", store, "--layers", "--json"),
        ("inspect", store, "--curvature", "--json"),
        ("inspect", store, "--example", 'exämple, "3"', "--json"),
        ("verify", store, "--json"),
        ("estimate", "--examples", 10**9, "--layers", 32, "--d1", 64, "--d2", 64, "--rank", 4, "--json"),
    ):
        outcome = run(*arguments)
        assert isinstance(outcome.json(), dict | list), str(outcome)


def test_reports_for_people(files: tuple[Path, Path]) -> None:
    store, _ = files
    for option in ((), ("--segments",), ("--layers",), ("--curvature",), ("--example", 'exämple, "3"')):
        assert run("inspect", store, *option).stdout.strip()
    assert "l.0" in run("inspect", store, "--layers").stdout
    assert "line, two" in run("inspect", store, "--example", 'exämple, "3"').stdout
    assert attempt("inspect", store, "--example", "nobody").code == 3


def test_estimate_counts_the_payload() -> None:
    base = ("estimate", "--examples", 1000, "--layers", 8, "--d1", 32, "--d2", 32, "--rank", 4)
    texts = {encoding: run(*base, "--encoding", encoding).stdout for encoding in ("f32", "f16", "int8")}
    assert len(set(texts.values())) == 3


def results(files: tuple[Path, Path], form: str, *options: object) -> str:
    store, query = files
    return run("query", store, query, "--top", 3, "--bottom", 2, "--format", form, *options).stdout


def test_jsonl_results(files: tuple[Path, Path]) -> None:
    lines = [json.loads(line) for line in results(files, "jsonl").split("\n") if line]
    assert len(lines) == 2 * 5
    assert {line["query"] for line in lines} == {"q/1", "q 2"}
    assert [(line["direction"], line["rank"]) for line in lines[:5]] == [
        ("top", 1),
        ("top", 2),
        ("top", 3),
        ("bottom", 1),
        ("bottom", 2),
    ]
    first = lines[0]
    row = int(first["id"].split('"')[1])
    metadata = first["metadata"]
    assert metadata["text"] == f"line one\nline, two \u2028 {row}"
    assert metadata["tags"] == ["x", row]
    assert metadata["none"] is None


def test_csv_results_hold_the_same(files: tuple[Path, Path]) -> None:
    lines = [json.loads(line) for line in results(files, "jsonl").split("\n") if line]
    rows = list(csv.DictReader(io.StringIO(results(files, "csv"), newline="")))
    assert len(rows) == len(lines)
    for row, line in zip(rows, lines, strict=True):
        assert (row["query"], row["direction"], int(row["rank"]), row["id"]) == (
            line["query"],
            line["direction"],
            line["rank"],
            line["id"],
        )
        assert np.float32(row["score"]) == np.float32(line["score"])


def test_the_table_is_for_people(files: tuple[Path, Path]) -> None:
    text = results(files, "text")
    assert "q/1" in text
    assert "exämple" in text
    assert "\x1b" not in text


def test_output_goes_to_a_file(files: tuple[Path, Path], tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    assert results(files, "jsonl", "--output", path) == ""
    assert path.read_text(encoding="utf-8") == results(files, "jsonl")


def test_default_method_is_influence_with_relative_damping(files: tuple[Path, Path]) -> None:
    assert results(files, "jsonl") == results(files, "jsonl", "--method", "influence")


def test_k_larger_than_the_store(files: tuple[Path, Path]) -> None:
    store, query = files
    outcome = run("query", store, query, "--top", 1000, "--bottom", 0, "--format", "jsonl")
    assert len(outcome.stdout.split("\n")) - 1 == 2 * COUNT


def test_create_then_ingest(random: np.random.Generator, tmp_path: Path) -> None:
    batch = write_batch(tmp_path / "b.safetensors", gradients(random, 5))
    for name, options in (("bare", ()), ("layers", ("--layers", batch))):
        store = tmp_path / f"{name}.lorif"
        run("create", "--encoding", "f32", store, *options)
        assert run("verify", store).code == OK
        run("ingest", "--encoding", "f32", store, batch)
        assert len(run("query", store, batch, "--method", "dot", "--format", "jsonl").json_lines()) == 25


def test_metadata_from_a_named_file(random: np.random.Generator, tmp_path: Path) -> None:
    batch = write_batch(tmp_path / "b.safetensors", gradients(random, 2), ids=["a", "b"])
    elsewhere = tmp_path / "elsewhere.txt"
    elsewhere.write_text('{"text": "second", "id": "b"}\n{"id": "a", "text": "first"}\n')
    store = tmp_path / "s.lorif"
    run("ingest", "--encoding", "f32", store, batch, "--metadata", elsewhere)
    assert "first" in run("inspect", store, "--example", "a").stdout
    assert "second" in run("inspect", store, "--example", "b").stdout


def test_a_closed_pipe_is_no_crash(files: tuple[Path, Path]) -> None:
    store, query = files
    process = subprocess.Popen(
        [BINARY, "query", store, query, "--top", "20", "--format", "jsonl"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    errors = process.stderr.read()
    process.wait(timeout=60)
    assert b"Fatal error" not in errors


def test_progress_without_a_terminal(tmp_path: Path) -> None:
    """A line every ten seconds; calibrating is stopped for so long that the next report is due. None with --quiet."""
    command = [BINARY, "calibrate", tmp_path, "--output", tmp_path / "machine.json"]
    loud, quiet = (
        subprocess.Popen([*command, *options], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
        for options in ((), ("--quiet",))
    )
    try:
        time.sleep(0.3)
        for each in (loud, quiet):
            os.kill(each.pid, signal.SIGSTOP)
        time.sleep(10.5)
        for each in (loud, quiet):
            os.kill(each.pid, signal.SIGCONT)
        assert loud.stderr is not None and quiet.stderr is not None
        assert re.fullmatch(rb"lorif: \w+  .*\n", loud.stderr.readline())
    finally:
        loud.kill()
        quiet.kill()
    assert quiet.communicate()[1] == b""


def test_negative_numbers_are_values() -> None:
    for option in ("--top", "--bottom", "--damping", "--threads"):
        said = attempt("query", "store", "q.safetensors", option, "-1")
        assert said.code == USAGE and f"{option} must be" in said.stderr and "-1" in said.stderr, str(said)
