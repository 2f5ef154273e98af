"""`fit --coordinates`: self-influence from stored coordinates, their coverage, and what becomes of damaged ones."""

import json
from pathlib import Path

import numpy as np
import oracle
import pytest
from harness import DAMAGED, NO, USAGE, assert_close, attempt, refused, run, scores, write_batch

SHAPES = {"a": (8, 6, 2), "b": (5, 7, 1), "c": (4, 4, 4)}
DAMPINGS = [0.1, 1.0, 10.0]


def factors(random: np.random.Generator, count: int) -> dict:
    return {
        name: tuple(random.standard_normal((count, d, c)).astype(np.float32) for d in (d1, d2))
        for name, (d1, d2, c) in SHAPES.items()
    }


@pytest.fixture
def world(random: np.random.Generator, tmp_path: Path) -> tuple[Path, dict]:
    """A store of f32 and the gradients in it."""
    train = factors(random, 60)
    store = tmp_path / "s.lorif"
    ids = [f"t{row}" for row in range(60)]
    run("ingest", "--encoding", "f32", store, write_batch(tmp_path / "train.safetensors", train, ids=ids))
    return store, oracle.gradients(train)


def expected(train: dict, rank: int | None, damping: float) -> np.ndarray:
    return oracle.self_influence(train, [[name] for name in SHAPES], rank, relative=damping)


@pytest.mark.parametrize(("encoding", "tolerance"), [("f32", 1e-5), ("f16", 1e-3), ("int8", 0.02)])
@pytest.mark.parametrize("rank", [5, 48])
def test_every_damping_in_one_scan(world: tuple, encoding: str, tolerance: float, rank: int) -> None:
    store, train = world
    done = run("fit", store, "--rank", rank, "--coordinates", encoding, "--json").json()["coordinates"]
    assert (done["encoding"], done["rows"], done["writtenRows"]) == (encoding, 60, 60)
    plan = run(
        "query", store, "--method", "self-influence", "--relative-damping", "0.1,1,10", "--explain", "--json"
    ).json()
    assert (plan["coordinatesRows"], plan["coordinates"], plan["scans"]) == (60, encoding, 1)
    found = scores(store, None, "--method", "self-influence", "--relative-damping", "0.1,1,10")
    assert_close(found, np.stack([expected(train, rank, damping) for damping in DAMPINGS])[:, None], tolerance)
    assert "coordinates" in run("query", store, "--method", "self-influence", "--explain").stdout
    inspected = run("inspect", store, "--curvature", "--json").json()[0]["coordinates"]
    assert inspected["bytesPerExample"] == done["bytes"] / 60
    assert f"60 rows have theirs in {encoding}" in run("inspect", store, "--curvature").stdout


def test_later_rows_are_covered(world: tuple, random: np.random.Generator, tmp_path: Path) -> None:
    store = world[0]
    run("fit", store, "--rank", 5, "--coordinates", "f32")
    more, packed = factors(random, 7), factors(random, 4)
    run("ingest", store, write_batch(tmp_path / "m.safetensors", more, ids=[f"m{row}" for row in range(7)]))
    batch = write_batch(tmp_path / "p.safetensors", packed, ids=[f"p{row}" for row in range(4)])
    run("pack", tmp_path / "p.segment", batch, "--encoding", "f32")
    run("attach", store, tmp_path / "p.segment")
    assert len(list((store / "coordinates").iterdir())) == 3
    options = ("--method", "self-influence", "--relative-damping", 1)
    outcome = run("query", store, *options)
    assert "from their factors" not in outcome.stderr
    with_coordinates = scores(store, None, *options)
    # One segment without: the same answers, and a note of how many rows that were.
    smallest = min((store / "coordinates").iterdir(), key=lambda path: path.stat().st_size)
    smallest.unlink()
    outcome = run("query", store, *options)
    assert "4 of 71 rows" in outcome.stderr or "7 of 71 rows" in outcome.stderr
    assert_close(scores(store, None, *options), with_coordinates, 1e-5)
    # The next ingest fills the gap.
    again = write_batch(tmp_path / "n.safetensors", factors(random, 2), ids=["n0", "n1"])
    run("ingest", store, again)
    assert "from their factors" not in run("query", store, *options).stderr
    assert len(list((store / "coordinates").iterdir())) == 4
    assert run("verify", store, "--level", "deep").code == 0


def test_damage_is_told_and_mended(world: tuple) -> None:
    store, train = world
    run("fit", store, "--rank", 5, "--coordinates", "f32")
    (file,) = (store / "coordinates").iterdir()
    content = bytearray(file.read_bytes())
    content[4096 + 200] ^= 1
    file.write_bytes(content)
    outcome = run("query", store, "--method", "self-influence")
    assert "60 of 60 rows" in outcome.stderr
    assert_close(scores(store, None, "--method", "self-influence"), expected(train, 5, 1)[None], 1e-5)
    assert attempt("verify", store).code in (NO, DAMAGED)
    done = run("fit", store, "--rank", 5, "--coordinates", "f32", "--json").json()
    assert done["existed"]
    assert done["coordinates"]["writtenRows"] == 60
    run("verify", store, "--level", "deep")
    assert "from their factors" not in run("query", store, "--method", "self-influence").stderr


def test_they_go_with_the_curvature_and_the_segments(world: tuple, random: np.random.Generator, tmp_path: Path) -> None:
    store = world[0]
    done = run("fit", store, "--rank", 5, "--coordinates", "int8", "--json").json()
    run("copy", store, tmp_path / "copy")
    assert len(list((tmp_path / "copy" / "coordinates").iterdir())) == 1
    (store / "coordinates" / "stray").write_bytes(b"x")
    assert len(run("verify", store, "--json").json()["orphans"]) == 1
    run("ingest", store, write_batch(tmp_path / "m.safetensors", factors(random, 7), ids=list("abcdefg")))
    assert len(list((store / "coordinates").iterdir())) == 2
    assert "coordinates of 67 rows are gone" in run("compact", store).stdout
    assert list((store / "coordinates").iterdir()) == []
    run("fit", tmp_path / "copy", "--drop", done["curvature"])
    assert list((tmp_path / "copy" / "coordinates").iterdir()) == []
    run("verify", tmp_path / "copy")


def test_those_of_a_curvature_that_is_there(world: tuple) -> None:
    """`--use` writes what `fit` would have written, byte for byte, whatever the curvature was fitted with."""
    store, _ = world
    first = run("fit", store, "--rank", 5, "--coordinates", "int8", "--json").json()["curvature"]
    wanted = {path.name: path.read_bytes() for path in (store / "coordinates").iterdir()}
    for path in (store / "coordinates").iterdir():
        path.unlink()
    run("fit", store, "--rank", 3)
    done = run("fit", store, "--use", first[:10], "--coordinates", "int8", "--json").json()
    assert (done["curvature"], done["active"]) == (first, True)
    assert (done["coordinates"]["writtenRows"], done["coordinates"]["rows"]) == (60, 60)
    assert {path.name: path.read_bytes() for path in (store / "coordinates").iterdir()} == wanted
    again = run("fit", store, "--use", first, "--coordinates", "int8").stdout
    assert "in use" in again
    assert "coordinates of 0 rows written; 60 rows have theirs in int8" in again
    refused("fit", store, "--use", "zz", "--coordinates", "int8", says=("zz", first))
    refused("fit", store, "--use", first, "--coordinates", "int8", "--memory", "1MiB", says=("memory",))
    refused("fit", store, "--drop", first, "--coordinates", "int8", code=USAGE, says=("--drop",))


def test_usage(world: tuple) -> None:
    store = world[0]
    assert attempt("fit", store, "--coordinates", "q4").code == USAGE
    assert attempt("fit", store, "--coordinates", "int8", "--list").code == USAGE
    assert "--coordinates" in run("fit", "--help").stdout
    assert json.loads(run("fit", store, "--rank", 5, "--json").stdout).get("coordinates") is None
