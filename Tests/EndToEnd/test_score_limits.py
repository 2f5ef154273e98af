"""Lists that end where scores no longer reach a limit, and progress where there is no terminal."""

import json
from pathlib import Path

import numpy as np
import pytest
from harness import USAGE, refused, run, scores, write_batch
from test_oracle import random_layers

SHAPES = {"a": (24, 16, 3), "b": (7, 33, 2)}
COUNT = 301
TOP = ("--method", "dot", "--top", COUNT, "--bottom", COUNT, "--format", "jsonl")


@pytest.fixture(params=["f32", "int8", "q2"])
def store(request: pytest.FixtureRequest, random: np.random.Generator, tmp_path: Path) -> Path:
    """Rows of which many tie."""
    train = random_layers(random, SHAPES, COUNT)
    for parts in train.values():
        for part in parts:
            part[40:60] = part[39]
    batch = write_batch(tmp_path / "t.safetensors", train, ids=[f"e{row}" for row in range(COUNT)])
    run("ingest", tmp_path / "s.lorif", batch, "--encoding", request.param)
    asked = random_layers(random, {name: (d1, d2, 1) for name, (d1, d2, _) in SHAPES.items()}, 3, full=True)
    write_batch(tmp_path / "q.safetensors", asked, ids=["x", "y", "z"])
    return tmp_path / "s.lorif"


def listed(store: Path, *options: object) -> dict[tuple[str, str], list[tuple[str, float]]]:
    """By query and direction: ids and scores in order."""
    found: dict[tuple[str, str], list[tuple[str, float]]] = {}
    for line in run("query", store, store.parent / "q.safetensors", *TOP, *options).json_lines():
        found.setdefault((line["query"], line["direction"]), []).append((line["id"], line["score"]))
    return found


def test_lists_have_exactly_what_reaches_the_limits(store: Path) -> None:
    every = listed(store)
    # The score of the rows that tie: the limit itself is within it.
    least = dict(every["x", "top"])["e39"]
    found = listed(store, "--at-least", repr(least), "--at-most", repr(-least))
    for query in "xyz":
        for direction in ("top", "bottom"):
            wanted = [
                (name, score)
                for name, score in every[query, direction]
                if (score >= least if direction == "top" else score <= -least)
            ]
            assert found.get((query, direction), []) == wanted
    assert {f"e{row}" for row in range(39, 60)} <= {name for name, _ in found["x", "top"]}


def test_each_query_may_have_its_own_limit(store: Path) -> None:
    every = listed(store)
    tenth = {query: every[query, "top"][9][1] for query in "xz"}
    limits = store.parent / "limits.json"
    limits.write_text(json.dumps(tenth))
    found = listed(store, "--at-least", limits)
    for query in "xz":
        assert found[query, "top"] == [pair for pair in every[query, "top"] if pair[1] >= tenth[query]]
    assert found["y", "top"] == every["y", "top"]
    assert found["x", "bottom"] == every["x", "bottom"]


def test_a_limit_leaves_rows_out_before_they_are_scored_again(store: Path) -> None:
    question = ("query", store, store.parent / "q.safetensors", "--method", "dot", "--explain", "analyze", "--json")
    free = run(*question).json()
    if free["kernel"] not in ("tables", "whole-numbers"):
        return
    fifth = {query: listed(store)[query, "top"][4][1] for query in "xyz"}
    (store.parent / "limits.json").write_text(json.dumps(fifth))
    bound = run(*question, "--at-least", store.parent / "limits.json").json()
    assert bound["analysis"]["refinedRows"] < free["analysis"]["refinedRows"]


def test_averages_over_checkpoints_keep_to_the_limits(store: Path, tmp_path: Path) -> None:
    queries = tmp_path / "q.safetensors"
    common = ("query", store, queries, "--method", "dot", "--checkpoint", f"{store},{queries},dot", "--format", "jsonl")
    every = run(*common, "--top", COUNT).json_lines()
    least = next(line["score"] for line in every if line["query"] == "y" and line["rank"] == 7)
    found = run(*common, "--top", COUNT, "--at-least", repr(least)).json_lines()
    assert found == [line for line in every if line["score"] >= least]


def test_limits_that_are_none_are_refused(store: Path, tmp_path: Path) -> None:
    queries = tmp_path / "q.safetensors"
    for value in ("nan", "inf", "much", "1e999"):
        refused("query", store, queries, "--method", "dot", f"--at-least={value}", code=USAGE, says=["--at-least"])
    wrong = tmp_path / "wrong.json"
    for text, says in (("[1, 2]", "for each query"), ('{"x": "high"}', "'x'"), ('{"x": 1', "for each query")):
        wrong.write_text(text)
        refused("query", store, queries, "--method", "dot", "--at-most", wrong, says=[wrong, says])
    refused("query", store, queries, "--method", "dot", "--at-least", tmp_path / "no.json", says=["no.json"])


def test_all_scores_are_written_whatever_the_limit(store: Path, tmp_path: Path) -> None:
    queries = tmp_path / "q.safetensors"
    assert np.array_equal(
        scores(store, queries, "--method", "dot", "--at-least", "1e30"), scores(store, queries, "--method", "dot")
    )


def test_a_summary_shows_that_lists_are_complete(store: Path, tmp_path: Path) -> None:
    queries, file = tmp_path / "q.safetensors", tmp_path / "summary.json"
    common = ("query", store, queries, "--method", "dot")
    lists = ("--top", 9, "--bottom", 4, "--format", "jsonl", "--summary", file)
    for guarantee in ("exact", "none"):
        kernel = ("--guarantee", "none", "--kernel", "leading-pairs") if guarantee == "none" else ()
        lines = run(*common, *lists, *kernel).json_lines()
        summary = json.loads(file.read_text())
        assert (summary["method"], summary["guarantee"], summary["rows"]) == ("dot", guarantee, COUNT)
        assert summary["layers"] == list(SHAPES)
        every = scores(store, queries, "--method", "dot")
        for place, query in enumerate(summary["queries"]):
            assert query["query"] == "xyz"[place]
            if guarantee == "exact":
                assert query["total"] == pytest.approx(np.abs(every[place].astype(np.float64)).sum(), rel=0.02)
            for direction, count in (("top", 9), ("bottom", 4)):
                mine = [line for line in lines if (line["query"], line["direction"]) == (query["query"], direction)]
                said = query[direction]
                assert (said["count"], said["last"]) == (count, mine[-1]["score"])
                sign = 1 if direction == "top" else -1
                ranked = {line["id"] for line in mine}
                rest = max(sign * every[place][row] for row in range(COUNT) if f"e{row}" not in ranked)
                # Absent where every row was scored exactly, as by products of decoded rows.
                assert ("unrankedBound" in said) <= (summary["scoredAgain"] > 0)
                assert "unrankedBound" in said or summary["kernel"] not in ("tables", "whole-numbers")
                assert sign * said.get("unrankedBound", said["last"]) <= sign * said["last"]
                if guarantee == "exact":
                    assert rest <= sign * said["last"] * (1 + sign * np.sign(said["last"]) * 1e-6)


def test_every_command_that_may_take_long_can_be_quiet() -> None:
    long = ("attach", "calibrate", "compact", "compare", "copy", "create", "export", "fit", "ingest", "pack", "query")
    for command in (*long, "repair", "report", "shell", "verify"):
        assert "--quiet" in run(command, "--help").stdout, command
