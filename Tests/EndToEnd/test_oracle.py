"""Random stores against the naive float64 oracle."""

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import oracle
import pytest
from harness import Layers, assert_close, read_tensors, run, scores, write_batch, write_tensors

TOLERANCE = 1e-5
# name -> (d1, d2, c); c = 0: a dense layer.
MIXED = {"model.0.q/proj": (5, 9, 2), "model.0.dense": (6, 4, 0), "model.10.up": (7, 3, 3), "model.2.down": (8, 8, 1)}
VECTOR = {"trak": (24, 1, 0)}
SINGLE = {"only": (3, 5, 1)}
SMALL = {"a": (4, 3, 2), "b": (2, 5, 1)}


@dataclass
class World:
    """A store, the rows that it holds as float64 matrices, and a file of queries."""

    store: Path
    train: oracle.Rows
    query_file: Path
    queries: oracle.Rows
    layers: list[str]

    def per_layer(self) -> list[list[str]]:
        return [[name] for name in self.layers]


def random_layers(
    random: np.random.Generator, shapes: dict, count: int, full: bool = False, scale: float = 1.0
) -> Layers:
    """Gradients whose spectrum decays, so that truncation means something; float32."""
    layers = {}
    for name, (d1, d2, rank) in shapes.items():
        if full or rank == 0:
            common = random.standard_normal((3, d1 * d2)) * np.array([[4.0], [2.0], [1.0]])
            rows = random.standard_normal((count, 3)) @ common + 0.3 * random.standard_normal((count, d1 * d2))
            layers[name] = ((scale * rows).reshape(count, d1, d2).astype(np.float32),)
        else:
            spread = scale * np.exp(random.standard_normal((count, 1, 1)))
            left = spread * (random.standard_normal((count, d1, rank)) + random.standard_normal((1, d1, 1)))
            right = random.standard_normal((count, d2, rank)) + random.standard_normal((1, d2, 1))
            layers[name] = (left.astype(np.float32), right.astype(np.float32))
    return layers


def rows_of(layers: Layers, start: int, end: int) -> Layers:
    return {name: tuple(part[start:end] for part in parts) for name, parts in layers.items()}


def encoded(layers: Layers, encoding: str) -> Layers:
    """The values as the store keeps them."""
    return {
        name: tuple(
            oracle.stored(part.reshape(len(part), -1, 1), encoding).reshape(part.shape)
            if len(parts) == 1
            else oracle.stored(part, encoding)
            for part in parts
        )
        for name, parts in layers.items()
    }


def make_world(
    random: np.random.Generator,
    folder: Path,
    shapes: dict,
    count: int,
    query_count: int = 3,
    encoding: str = "f32",
    batches: int = 1,
    full_queries: bool = False,
    query_layers: list[str] | None = None,
) -> World:
    train = random_layers(random, shapes, count)
    asked = {name: shapes[name] for name in (query_layers or shapes)}
    queries = random_layers(random, asked, query_count, full=full_queries)
    store = folder / "s.lorif"
    cuts = np.linspace(0, count, batches + 1).astype(int)
    files = [
        write_batch(
            folder / f"train-{part}.safetensors",
            rows_of(train, start, end),
            ids=[f"example {row}" for row in range(start, end)],
        )
        for part, (start, end) in enumerate(itertools.pairwise(cuts))
    ]
    # Some batches in one call, the last in a call of its own.
    if batches > 1:
        run("ingest", store, *files[:-1], "--encoding", encoding)
    run("ingest", store, files[-1], *(["--encoding", encoding] if batches == 1 else []))
    query_file = write_batch(folder / "query.safetensors", queries, ids=[f"query {row}" for row in range(query_count)])
    return World(store, oracle.gradients(encoded(train, encoding)), query_file, oracle.gradients(queries), list(asked))


CASES = {
    "mixed": {"shapes": MIXED, "count": 37},
    "mixed, full queries": {"shapes": MIXED, "count": 37, "full_queries": True},
    "one row": {"shapes": SMALL, "count": 1, "query_count": 1},
    "one layer": {"shapes": SINGLE, "count": 70},
    "vectors": {"shapes": VECTOR, "count": 45},
    "more rows than a block group": {"shapes": SMALL, "count": 8237, "query_count": 2},
    "several batches": {"shapes": MIXED, "count": 101, "batches": 4},
    "fewer layers": {"shapes": MIXED, "count": 33, "query_layers": ["model.10.up", "model.0.dense"]},
    "f16": {"shapes": MIXED, "count": 37, "encoding": "f16"},
    "bf16": {"shapes": MIXED, "count": 37, "encoding": "bf16"},
    "int8": {"shapes": MIXED, "count": 37, "encoding": "int8"},
}


@pytest.mark.parametrize("case", list(CASES))
def test_all_methods(case: str, random: np.random.Generator, tmp_path: Path) -> None:
    world = make_world(random, tmp_path, **CASES[case])
    train, queries, groups = world.train, world.queries, world.per_layer()

    actual = scores(world.store, world.query_file, "--method", "dot")
    assert_close(actual, oracle.dot(queries, train, world.layers), TOLERANCE)
    actual = scores(world.store, world.query_file, "--method", "cosine", form="npy")
    assert_close(actual, oracle.cosine(queries, train, world.layers), TOLERANCE)

    run("fit", world.store, "--exact")
    for option, setting in (("--relative-damping", "relative"), ("--damping", "absolute")):
        value = {setting: 0.25}
        own = oracle.self_influence(train, groups, **value)
        wanted = oracle.influence(train, queries, groups, **value)
        actual = scores(world.store, world.query_file, "--method", "influence", option, 0.25)
        assert_close(actual, wanted, TOLERANCE)
        actual = scores(world.store, world.query_file, "--method", "relatif", option, 0.25)
        assert_close(actual, wanted / np.sqrt(own), TOLERANCE)
        if "query_layers" not in CASES[case]:
            actual = scores(world.store, None, "--method", "self-influence", option, 0.25)
            assert_close(actual, own[None, :], TOLERANCE)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("scope", ["per-layer", "global"])
def test_truncated_influence(scope: str, rank: int, random: np.random.Generator, tmp_path: Path) -> None:
    world = make_world(random, tmp_path, MIXED, 64)
    groups = world.per_layer() if scope == "per-layer" else [world.layers]
    run("fit", world.store, "--rank", rank, "--scope", scope)
    wanted = oracle.influence(world.train, world.queries, groups, rank=rank, relative=0.1)
    assert_close(scores(world.store, world.query_file, "--relative-damping", 0.1), wanted, TOLERANCE)
    own = oracle.self_influence(world.train, groups, rank=rank, relative=0.1)
    assert_close(
        scores(world.store, None, "--method", "self-influence", "--relative-damping", 0.1), own[None, :], TOLERANCE
    )


def test_global_exact(random: np.random.Generator, tmp_path: Path) -> None:
    world = make_world(random, tmp_path, MIXED, 41)
    run("fit", world.store, "--scope", "global", "--exact")
    wanted = oracle.influence(world.train, world.queries, [world.layers], relative=0.1)
    assert_close(scores(world.store, world.query_file, "--relative-damping", 0.1), wanted, TOLERANCE)


def test_rank_above_what_there_is(random: np.random.Generator, tmp_path: Path) -> None:
    world = make_world(random, tmp_path, SMALL, 5)
    run("fit", world.store, "--rank", 100)
    wanted = oracle.influence(world.train, world.queries, world.per_layer(), relative=1.0)
    assert_close(scores(world.store, world.query_file, "--relative-damping", 1), wanted, TOLERANCE)


def test_layer_globs_select_layers(random: np.random.Generator, tmp_path: Path) -> None:
    world = make_world(random, tmp_path, MIXED, 30)
    run("fit", world.store, "--exact")
    for globs, names in (
        (["model.0.*"], ["model.0.q/proj", "model.0.dense"]),
        (["*down", "model.10.*"], ["model.10.up", "model.2.down"]),
        (["model.?.down"], ["model.2.down"]),
    ):
        options = [part for glob in globs for part in ("--layers", glob)]
        actual = scores(world.store, world.query_file, "--method", "cosine", *options)
        assert_close(actual, oracle.cosine(world.queries, world.train, names), TOLERANCE)
        wanted = oracle.influence(world.train, world.queries, [[name] for name in names], relative=0.1)
        actual = scores(world.store, world.query_file, "--relative-damping", 0.1, *options)
        assert_close(actual, wanted, TOLERANCE)


def test_half_precision_batches(random: np.random.Generator, tmp_path: Path) -> None:
    layers = random_layers(random, SMALL, 12)
    queries = write_batch(tmp_path / "q.safetensors", random_layers(random, SMALL, 2))
    halves = {name: tuple(part.astype(np.float16) for part in parts) for name, parts in layers.items()}
    shortened = {
        name: tuple(
            (oracle.bfloat16(part).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16) for part in parts
        )
        for name, parts in layers.items()
    }
    values = {
        "f16": halves,
        "bf16": {name: tuple(oracle.bfloat16(part) for part in parts) for name, parts in layers.items()},
    }
    asked, _ = oracle_rows(queries)
    for name, batch in (("f16", halves), ("bf16", shortened)):
        store = tmp_path / f"{name}.lorif"
        # f16 input is kept without loss by the encoding f16, and bf16 input by bf16.
        run("ingest", store, write_batch(tmp_path / f"{name}.safetensors", batch), "--encoding", name)
        wanted = oracle.dot(asked, oracle.gradients(values[name]), list(SMALL))
        assert_close(scores(store, queries, "--method", "dot"), wanted, TOLERANCE)


def oracle_rows(path: Path) -> tuple[oracle.Rows, list[str]]:
    """The gradients of a batch file, read back."""
    tensors, _ = read_tensors(path)
    names = sorted({name.rsplit("/", 1)[0] for name in tensors})
    layers = {
        name: tuple(tensors[f"{name}/{part}"] for part in ("left", "right", "full") if f"{name}/{part}" in tensors)
        for name in names
    }
    return oracle.gradients(layers), names


def test_tiny_and_huge_gradients_keep_their_precision(random: np.random.Generator, tmp_path: Path) -> None:
    for scale in (1e-12, 1e12):
        folder = tmp_path / f"{scale:g}"
        folder.mkdir()
        layers = random_layers(random, SMALL, 9, scale=scale)
        queries = random_layers(random, SMALL, 2)
        query_file = write_batch(folder / "q.safetensors", queries)
        for encoding in ("f32", "f16"):
            store = folder / f"{encoding}.lorif"
            run("ingest", store, write_batch(folder / f"{encoding}.safetensors", layers), "--encoding", encoding)
            wanted = oracle.dot(oracle.gradients(queries), oracle.gradients(encoded(layers, encoding)), list(SMALL))
            assert_close(scores(store, query_file, "--method", "dot"), wanted, TOLERANCE)


def test_layers_without_an_order_are_taken_in_natural_order(random: np.random.Generator, tmp_path: Path) -> None:
    shapes = {"block.10": (2, 3, 1), "block.2": (3, 2, 1), "block.1": (2, 2, 1)}
    tensors = {}
    for name, (left, right) in random_layers(random, shapes, 4).items():
        tensors |= {f"{name}/right": right, f"{name}/left": left}
    store = tmp_path / "s.lorif"
    run("ingest", "--encoding", "f32", store, write_tensors(tmp_path / "t.safetensors", tensors))
    report = run("inspect", store, "--layers").stdout
    positions = [report.index(name) for name in ("block.1 ", "block.2 ", "block.10 ")]
    assert positions == sorted(positions)


def test_ties_are_broken_by_id(tmp_path: Path) -> None:
    ids = ["b", "ä", "a", "10", "9", "Z", "c"]
    values = np.array([1, 2, 1, 2, 2, 1, -3], dtype=np.float32)
    train = {"l": (values[:, None, None], np.ones((7, 1, 1), dtype=np.float32))}
    query = {"l": (np.ones((1, 1, 1), dtype=np.float32), np.ones((1, 1, 1), dtype=np.float32))}
    store = tmp_path / "s.lorif"
    run("ingest", "--encoding", "f32", store, write_batch(tmp_path / "t.safetensors", train, ids=ids))
    query_file = write_batch(tmp_path / "q.safetensors", query, ids=["q"])
    options = ["--method", "dot", "--top", 20, "--bottom", 4, "--format", "jsonl"]
    results = run("query", store, query_file, *options).json_lines()
    top = [r["id"] for r in results if r["direction"] == "top"]
    bottom = [r["id"] for r in results if r["direction"] == "bottom"]
    assert top == ["10", "9", "ä", "Z", "a", "b", "c"]
    assert bottom == ["c", "Z", "a", "b"]


def test_rows_without_ids_are_numbered_through_the_store(random: np.random.Generator, tmp_path: Path) -> None:
    store = tmp_path / "s.lorif"
    for part, count in enumerate((3, 4)):
        run(
            "ingest",
            "--encoding",
            "f32",
            store,
            write_batch(tmp_path / f"{part}.safetensors", random_layers(random, SMALL, count)),
        )
    query_file = write_batch(tmp_path / "q.safetensors", random_layers(random, SMALL, 1))
    results = run("query", store, query_file, "--method", "dot", "--top", 9, "--format", "jsonl").json_lines()
    assert sorted(int(r["id"]) for r in results) == list(range(7))


def test_results_do_not_depend_on_how_rows_came_in(random: np.random.Generator, tmp_path: Path) -> None:
    layers = random_layers(random, SMALL, 90)
    query_file = write_batch(tmp_path / "q.safetensors", random_layers(random, SMALL, 2))
    matrices = []
    for cuts in ([0, 90], [0, 1, 33, 90]):
        store = tmp_path / f"{len(cuts)}.lorif"
        for number, (start, end) in enumerate(itertools.pairwise(cuts)):
            name = tmp_path / f"{len(cuts)}-{number}.safetensors"
            run("ingest", "--encoding", "f32", store, write_batch(name, rows_of(layers, start, end)))
        matrices.append(scores(store, query_file, "--method", "dot"))
    assert_close(matrices[1], matrices[0].astype(np.float64), 1e-6)
