"""The shapes of question: other metrics, aggregates, groups, layers, examples as queries, time limits."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import oracle
import pytest
from harness import REFUSED, USAGE, assert_close, read_tensors, refused, run, scores, write_batch
from test_oracle import MIXED, TOLERANCE, World, random_layers

COUNT = 61
SOURCES = ("book", "forum", "news")
PARTIES = ("left", "right")


@dataclass
class Asked(World):
    """A world whose examples and queries have metadata."""

    sources: np.ndarray
    parties: np.ndarray
    ids: list[str]


@pytest.fixture
def world(random: np.random.Generator, tmp_path: Path) -> Asked:
    train = random_layers(random, MIXED, COUNT)
    queries = random_layers(random, MIXED, 5)
    sources = random.choice([*SOURCES, ""], COUNT)
    parties = np.array([PARTIES[k % 2] for k in range(5)])
    ids = [f"example {row}" for row in range(COUNT)]
    records = [
        {"id": name, "length": row} | ({"source": str(source)} if source else {})
        for row, (name, source) in enumerate(zip(ids, sources, strict=True))
    ]
    batch = write_batch(tmp_path / "train.safetensors", train, ids=ids, records=records)
    asked = write_batch(
        tmp_path / "query.safetensors",
        queries,
        ids=[f"query {k}" for k in range(5)],
        records=[{"id": f"query {k}", "party": str(party)} for k, party in enumerate(parties)],
    )
    store = tmp_path / "s.lorif"
    run("ingest", store, batch, "--encoding", "f32")
    return Asked(store, oracle.gradients(train), asked, oracle.gradients(queries), list(MIXED), sources, parties, ids)


def answers(world: Asked, *options: object) -> list[dict]:
    return run("query", world.store, world.query_file, *options, "--format", "jsonl").json_lines()


def test_other_metrics(world: Asked) -> None:
    products = oracle.dot(world.queries, world.train, world.layers)
    norms = np.linalg.norm(oracle.flat(world.train, world.layers), axis=1)
    actual = scores(world.store, world.query_file, "--method", "normalized-dot")
    assert_close(actual, products / norms, TOLERANCE)
    distances = np.linalg.norm(
        oracle.flat(world.queries, world.layers)[:, None] - oracle.flat(world.train, world.layers)[None], axis=2
    )
    assert_close(scores(world.store, world.query_file, "--method", "l2"), -distances, TOLERANCE)


def test_influence_cosine(world: Asked) -> None:
    run("fit", world.store, "--exact")
    groups = world.per_layer()
    own = oracle.self_influence(world.train, groups, relative=0.5)
    asked = np.zeros(len(world.parties))
    for group in groups:
        rows = oracle.flat(world.queries, group)
        inverted = oracle.inverse(oracle.flat(world.train, group), None, None, 0.5)
        asked += ((rows @ inverted) * rows).sum(axis=1)
    wanted = oracle.influence(world.train, world.queries, groups, relative=0.5) / np.sqrt(np.outer(asked, own))
    actual = scores(world.store, world.query_file, "--method", "influence-cosine", "--relative-damping", 0.5)
    assert_close(actual, wanted, TOLERANCE)
    assert np.abs(actual).max() <= 1 + TOLERANCE
    found = scores(world.store, None, "--by-id", world.ids[7], "--method", "influence-cosine")
    assert found[0, 7] == pytest.approx(1, abs=1e-5)


METRICS = ("dot", "cosine", "normalized-dot", "l2", "influence", "influence-cosine", "relatif")
REDUCTIONS = {"sum": np.sum, "mean": np.mean, "max": np.max}


@pytest.mark.parametrize("kind", list(REDUCTIONS))
@pytest.mark.parametrize(
    "method", ["dot", "cosine", "normalized-dot", "l2", "influence", "influence-cosine", "relatif"]
)
def test_aggregates(world: Asked, method: str, kind: str) -> None:
    # The single scores are compared with the oracle elsewhere.
    if method in ("influence", "influence-cosine", "relatif"):
        run("fit", world.store, "--exact")
    single = scores(world.store, world.query_file, "--method", method).astype(np.float64)
    actual = scores(world.store, world.query_file, "--method", method, "--aggregate", kind)
    assert_close(actual, REDUCTIONS[kind](single, axis=0)[None], TOLERANCE)
    actual = scores(world.store, world.query_file, "--method", method, "--aggregate", kind, "--aggregate-by", "party")
    wanted = np.stack([REDUCTIONS[kind](single[world.parties == party], axis=0) for party in PARTIES])
    assert_close(actual, wanted, TOLERANCE)


def test_aggregate_of_a_sweep(world: Asked) -> None:
    run("fit", world.store, "--exact")
    path = world.store.parent / "sweep.safetensors"
    for kind in ("mean", "max"):
        run(
            *("query", world.store, world.query_file, "--aggregate", kind, "--aggregate-by", "party"),
            *("--relative-damping", "0.1,10", "--output", path),
        )
        swept = read_tensors(path)[0]["scores"]
        assert swept.shape == (2, 2, COUNT)
        for place, damping in enumerate((0.1, 10)):
            single = scores(world.store, world.query_file, "--relative-damping", damping).astype(np.float64)
            wanted = np.stack([REDUCTIONS[kind](single[world.parties == party], axis=0) for party in PARTIES])
            assert_close(swept[place], wanted, TOLERANCE)


def test_names_of_aggregates(world: Asked) -> None:
    assert {line["query"] for line in answers(world, "--method", "dot", "--aggregate", "mean")} == {"mean of 5 queries"}
    lines = answers(world, "--method", "dot", "--aggregate", "sum", "--aggregate-by", "party", "--top", "1")
    assert [line["query"] for line in lines] == list(PARTIES)


def test_stored_examples_as_queries(world: Asked) -> None:
    chosen = [40, 3, 17]
    options = [word for row in chosen for word in ("--by-id", world.ids[row])]
    gradients = {name: rows[chosen] for name, rows in world.train.items()}
    actual = scores(world.store, None, *options, "--method", "dot")
    assert_close(actual, oracle.dot(gradients, world.train, world.layers), TOLERANCE)
    first = run("query", world.store, *options, "--method", "cosine", "--top", 1, "--format", "jsonl").json_lines()
    assert [line["id"] for line in first] == [line["query"] for line in first] == [world.ids[row] for row in chosen]
    refused("query", world.store, "--by-id", "nobody", "--method", "dot", says=["nobody"])
    refused(
        "query",
        world.store,
        world.query_file,
        "--by-id",
        world.ids[0],
        "--method",
        "dot",
        code=USAGE,
        says=["not both"],
    )


def test_groups_of_examples(world: Asked) -> None:
    wanted = oracle.dot(world.queries, world.train, world.layers)
    lines = answers(world, "--method", "dot", "--group-by", "source", "--top", 7)
    for query in range(len(world.parties)):
        mine = [line for line in lines if line["query"] == f"query {query}"]
        top = {line["id"] for line in mine if line["direction"] == "top"}
        groups = [line for line in mine if line["direction"] == "group"]
        assert [line["sum"] for line in groups] == sorted((line["sum"] for line in groups), reverse=True)
        assert {line["group"] for line in groups} == {str(source) or "(none)" for source in world.sources}
        for line in groups:
            members = np.flatnonzero(world.sources == line["group"].replace("(none)", ""))
            own = wanted[query, members]
            assert line["examples"] == len(members)
            scale = np.abs(wanted[query]).max()
            assert line["sum"] == pytest.approx(own.sum(), abs=1e-5 * scale * len(members))
            assert line["mean"] == pytest.approx(own.mean(), abs=1e-5 * scale)
            assert line["highest"] == pytest.approx(own.max(), abs=1e-5 * scale)
            assert line["top"] == sum(world.ids[row] in top for row in members)
    table = run("query", world.store, world.query_file, "--method", "dot", "--group-by", "source").stdout
    assert "in top" in table and "(none)" in table


def test_contributions_of_layers(world: Asked) -> None:
    lines = answers(world, "--method", "dot", "--per-layer", "--bottom", 3)
    for line in lines:
        query, row = int(line["query"].split()[1]), world.ids.index(line["id"])
        scale = abs(line["score"])
        assert list(line["layers"]) == world.layers
        for name in world.layers:
            wanted = oracle.dot(world.queries, world.train, [name])[query, row]
            assert line["layers"][name] == pytest.approx(wanted, abs=1e-4 * scale)
    run("fit", world.store)
    for method in ("cosine", "relatif", "influence-cosine", "normalized-dot"):
        for line in answers(world, "--method", method, "--per-layer"):
            assert sum(line["layers"].values()) == pytest.approx(line["score"], rel=1e-4)


def test_named_groups_of_layers(world: Asked) -> None:
    options = ("--layers", "first=model.0.*", "--layers", "rest=*", "--per-layer")
    for line in answers(world, "--method", "dot", *options):
        query, row = int(line["query"].split()[1]), world.ids.index(line["id"])
        assert list(line["layers"]) == ["first", "rest"]
        first = [name for name in world.layers if name.startswith("model.0.")]
        wanted = oracle.dot(world.queries, world.train, first)[query, row]
        assert line["layers"]["first"] == pytest.approx(wanted, abs=1e-4 * abs(line["score"]))
        assert sum(line["layers"].values()) == pytest.approx(line["score"], rel=1e-4)


def test_among(world: Asked, tmp_path: Path) -> None:
    chosen = [50, 2, 30, 9]
    file = tmp_path / "ids.txt"
    file.write_text("".join(f"{world.ids[row]}\n" for row in chosen))
    wanted = oracle.dot(world.queries, world.train, world.layers)
    actual = scores(world.store, world.query_file, "--method", "dot", "--among", file)
    assert_close(actual, wanted[:, sorted(chosen)], TOLERANCE)
    actual = scores(world.store, world.query_file, "--method", "dot", "--among", file, "--where", "length >= 10")
    assert_close(actual, wanted[:, [30, 50]], TOLERANCE)


def test_any_number_of_threads_gives_the_same_bits(world: Asked) -> None:
    run("fit", world.store)
    options = ("--group-by", "source", "--per-layer", "--relative-damping", "0.5,5", "--format", "jsonl")
    one = run("query", world.store, world.query_file, *options, "--threads", 1).stdout
    for threads in (2, 7):
        assert run("query", world.store, world.query_file, *options, "--threads", threads).stdout == one


def test_deadline(world: Asked) -> None:
    plenty = run("query", world.store, world.query_file, "--method", "dot", "--deadline", "5min", "--format", "jsonl")
    assert plenty.stdout == run("query", world.store, world.query_file, "--method", "dot", "--format", "jsonl").stdout
    assert "deadline" not in plenty.stderr
    none = run(
        "query", world.store, world.query_file, "--method", "dot", "--deadline", "0.000001ms", "--format", "jsonl"
    )
    assert none.stdout == ""
    assert f"{COUNT} of {COUNT} examples unread" in none.stderr
    refused("query", world.store, world.query_file, "--deadline", "soon", code=USAGE)
    refused(
        *("query", world.store, world.query_file, "--method", "dot", "--deadline", "1s", "--output", "x.npy"),
        code=USAGE,
        says=["--deadline"],
    )


def test_little_memory_takes_several_scans(world: Asked) -> None:
    whole = scores(world.store, world.query_file, "--method", "dot")
    plan = run("query", world.store, world.query_file, "--method", "dot", "--memory", "32KiB", "--explain", "--json")
    assert plan.json()["scans"] > 1
    assert_close(scores(world.store, world.query_file, "--method", "dot", "--memory", "32KiB"), whole, TOLERANCE)
    refused(
        *("query", world.store, world.query_file, "--method", "dot", "--memory", "32KiB", "--aggregate", "max"),
        says=["--memory"],
    )


def test_analysis_agrees_with_the_plan(world: Asked) -> None:
    plan = run("query", world.store, world.query_file, "--method", "dot", "--explain", "--json").json()
    done = run("query", world.store, world.query_file, "--method", "dot", "--explain", "analyze", "--json").json()
    assert done["analysis"]["factorBytes"] == plan["bytes"] > 0
    assert "analysis" not in plan
    outcome = run("query", world.store, world.query_file, "--method", "dot", "--explain", "analyze", "--format", "csv")
    assert outcome.stdout.startswith("query,direction") and "to scan" in outcome.stderr


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (("--group-by", "sorce"), REFUSED, "did you mean 'source'"),
        (("--aggregate", "sum", "--aggregate-by", "praty"), REFUSED, "did you mean 'party'"),
        (("--aggregate-by", "party"), USAGE, "--aggregate"),
        (("--per-layer", "--method", "l2"), USAGE, "not a sum over layers"),
        (("--per-layer", "--aggregate", "max"), USAGE, "not a sum over layers"),
    ],
)
def test_refused(world: Asked, options: tuple[str, ...], code: int, says: str) -> None:
    method = () if "--method" in options else ("--method", "dot")
    refused("query", world.store, world.query_file, *method, *options, code=code, says=[says])
