"""Ranked lists from pages scored where they lie, against brute force in float64 over the stored values."""

import os
from pathlib import Path

import numpy as np
import oracle
import pytest
from harness import DAMAGED, USAGE, Layers, refused, run, write_batch
from lorif.batch import FactorBatch
from test_oracle import random_layers

ENCODINGS = ("f32", "f16", "bf16", "int8", "q4", "q3", "q2", "q1")
FACTORS = {"a": (24, 16, 3), "b": (7, 33, 2), "c": (5, 3, 1)}
MATRICES = {"a": (12, 9, 0), "b": (33, 1, 0)}
COUNT = 301


def stored_gradients(store: Path, layers: Layers) -> tuple[oracle.Rows, list[str]]:
    """What the store holds, by its own export: float64 matrices by layer, and the ids."""
    path = store.parent / "export.safetensors"
    path.unlink(missing_ok=True)
    run("export", store, path)
    batch = FactorBatch(path)
    parts: dict[str, tuple[np.ndarray, ...]] = {}
    for layer in batch.layers:
        dense = layer.rank is None
        parts[layer.name] = (batch.gradients(layer.name),) if dense else tuple(batch.factors(layer.name))
    return oracle.gradients({name: parts[name] for name in layers}), list(batch.ids or [])


def check_lists(store: Path, queries: Path, wanted: np.ndarray, ids: list[str], kernel: str, *options: object) -> None:
    """Both ends of the order, with ties by id, for every query."""
    question = ("query", store, queries, "--method", "dot", "--top", 12, "--bottom", 12, "--kernel", kernel, *options)
    plan = run(*question, "--explain", "--json").json()
    assert plan["kernel"] == kernel
    lines = run(*question, "--format", "jsonl").json_lines()
    for query, row in enumerate(wanted):
        for direction, sign in (("top", -1), ("bottom", 1)):
            mine = [line for line in lines if line["query"] == f"query {query}" and line["direction"] == direction]
            rounded = row.astype(np.float32)
            order = sorted(range(len(ids)), key=lambda k: (sign * rounded[k], ids[k].encode()))[:12]
            scale = np.abs(row).max()
            got = np.array([line["score"] for line in mine])
            assert np.abs(got - row[order]).max() <= 1e-6 * scale
            # Scores that differ by less than rounding may change places.
            for line, k in zip(mine, order, strict=True):
                assert line["id"] == ids[k] or abs(row[ids.index(line["id"])] - row[k]) <= 1e-6 * scale


def evict(store: Path) -> None:
    """Asks the kernel to forget the store's files."""
    for path in (store / "segments").iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("shape", ["factors, factored queries", "factors, full queries", "matrices"])
def test_lists_are_those_of_brute_force(encoding: str, shape: str, random: np.random.Generator, tmp_path: Path) -> None:
    shapes = MATRICES if shape == "matrices" else FACTORS
    train = random_layers(random, shapes, COUNT)
    for parts in train.values():
        for part in parts:
            # Ties: equal rows, and rows of zeros.
            part[40:60] = part[39]
            part[100:104] = 0
    asked = {name: (d1, d2, min(rank, 1)) for name, (d1, d2, rank) in shapes.items()}
    queries = random_layers(random, asked, 4, full=shape != "factors, factored queries")
    store = tmp_path / "s.lorif"
    ids = [f"example {row}" for row in random.permutation(COUNT)]
    for part, rows in enumerate((slice(0, 200), slice(200, COUNT))):
        batch = write_batch(
            tmp_path / f"{part}.safetensors",
            {name: tuple(values[rows] for values in parts) for name, parts in train.items()},
            ids=ids[rows],
            records=[{"id": name, "number": int(name.split()[1])} for name in ids[rows]],
        )
        run("ingest", store, batch, *(["--encoding", encoding] if part == 0 else []))
    file = write_batch(tmp_path / "query.safetensors", queries, ids=[f"query {k}" for k in range(4)])
    low_bit = encoding.startswith("q")
    kernel = "tables" if low_bit else "pages"
    if shape == "factors, full queries" and not low_bit:
        kernel = "whole-numbers" if encoding == "int8" else "tiles"
    gradients, names = stored_gradients(store, train)
    assert names == ids
    wanted = oracle.dot(oracle.gradients(queries), gradients, list(shapes))
    check_lists(store, file, wanted, ids, kernel)
    check_lists(store, file, wanted, ids, kernel, "--threads", 1)
    check_lists(store, file, wanted, ids, "tiles")
    # Past the page cache, by either way of computing; a file system without such reads is read as always.
    for way in {kernel, "tiles"}:
        evict(store)
        check_lists(store, file, wanted, ids, way, "--read", "direct")

    # Deleted and unselected rows are in the pages but not in the lists.
    doomed = tmp_path / "doomed.txt"
    doomed.write_text("\n".join(ids[::3]) + "\n")
    run("delete", store, "--ids", doomed)
    kept = [row for row in range(COUNT) if row % 3 != 0]
    check_lists(store, file, wanted[:, kept], [ids[row] for row in kept], kernel)
    kept = [row for row in kept if int(ids[row].split()[1]) < 150]
    check_lists(store, file, wanted[:, kept], [ids[row] for row in kept], kernel, "--where", "number < 150")


@pytest.mark.parametrize("encoding", ["int8", "q4", "q2", "q1"])
def test_several_blocks_and_workers(encoding: str, random: np.random.Generator, tmp_path: Path) -> None:
    shapes = {"a": (3, 2, 1)}
    train = random_layers(random, shapes, 20_001)
    queries = random_layers(random, shapes, 2)
    ids = [f"{row:05}" for row in range(20_001)]
    store = tmp_path / "s.lorif"
    run("ingest", store, write_batch(tmp_path / "t.safetensors", train, ids=ids), "--encoding", encoding)
    file = write_batch(tmp_path / "query.safetensors", queries, ids=["query 0", "query 1"])
    gradients, _ = stored_gradients(store, train)
    wanted = oracle.dot(oracle.gradients(queries), gradients, ["a"])
    kernel = "pages" if encoding == "int8" else "tables"
    question = ("query", store, file, "--method", "dot", "--bottom", 5, "--kernel", kernel, "--format", "jsonl")
    answers = {run(*question, "--threads", threads).stdout for threads in (1, 2, 7)}
    evict(store)
    answers.add(run(*question, "--read", "direct").stdout)
    assert len(answers) == 1
    check_lists(store, file, wanted, ids, kernel)


def test_reading_past_the_page_cache(random: np.random.Generator, tmp_path: Path) -> None:
    """The plan says how many bytes go which way, and they do; what is in memory is used there."""
    train = random_layers(random, {"a": (64, 48, 2), "b": (40, 40, 2)}, 4000)
    store = tmp_path / "s.lorif"
    ids = [f"{row:05}" for row in range(4000)]
    run("ingest", store, write_batch(tmp_path / "t.safetensors", train, ids=ids), "--encoding", "int8")
    file = write_batch(tmp_path / "query.safetensors", random_layers(random, {"a": (64, 48, 1), "b": (40, 40, 1)}, 1))
    question = ("query", store, file, "--method", "dot", "--explain", "analyze", "--json")
    warm = run(*question, "--read", "direct").json()
    assert warm["directBytes"] == 0 and warm["analysis"]["directBytes"] == 0
    evict(store)
    plan = run(*question[:-2], "plan", "--json", "--read", "direct").json()
    if plan["diskBytes"] == 0:
        pytest.skip("this file system forgets nothing, or the kernel cannot say what it has")
    evict(store)
    cold = run(*question, "--read", "direct").json()
    assert cold["directBytes"] == cold["diskBytes"] > 0.9 * cold["bytes"]
    done = cold["analysis"]["directBytes"]
    # Zero where the file system refuses such reads: then the pages come the other way.
    assert done == 0 or cold["bytes"] <= done <= 1.02 * cold["bytes"] + 4096 * len(plan)
    assert cold["analysis"]["factorBytes"] == cold["bytes"]
    # Some layers only: what lies between their pages is not read.
    evict(store)
    part = run(*question, "--read", "direct", "--layers", "b").json()
    assert part["analysis"]["directBytes"] < 0.6 * cold["bytes"]


@pytest.mark.parametrize("way", ["cache", "direct"])
def test_damage_is_found_however_it_is_read(way: str, random: np.random.Generator, tmp_path: Path) -> None:
    train = random_layers(random, {"a": (64, 48, 2)}, 500)
    store = tmp_path / "s.lorif"
    batch = write_batch(tmp_path / "t.safetensors", train, ids=[f"{row:03}" for row in range(500)])
    run("ingest", store, batch, "--encoding", "int8")
    (segment,) = (store / "segments").iterdir()
    sound = segment.read_bytes()
    question = ("query", store, "--by-id", "007", "--method", "dot", "--read", way)
    segment.write_bytes(sound[:20_000] + bytes([sound[20_000] ^ 1]) + sound[20_001:])
    evict(store)
    refused(*question, code=DAMAGED, says=["checksum"])
    segment.write_bytes(sound)
    evict(store)
    assert run(*question).stdout


@pytest.mark.parametrize("encoding", ["int8", "q2"])
def test_scores_beyond_single_precision_are_an_error(
    encoding: str, random: np.random.Generator, tmp_path: Path
) -> None:
    layers = {"a": tuple(np.full((5, 3, 1), 1e18, dtype=np.float32) for _ in range(2))}
    store = tmp_path / "s.lorif"
    run("ingest", store, write_batch(tmp_path / "t.safetensors", layers, ids=list("abcde")), "--encoding", encoding)
    query = {"a": tuple(np.full((1, 3, 1), 1e18, dtype=np.float32) for _ in range(2))}
    file = write_batch(tmp_path / "query.safetensors", query, ids=["query 0"])
    refused("query", store, file, "--method", "dot", says=["not a finite number"])


@pytest.mark.parametrize("encoding", ["f16", "int8", "q4", "q2"])
def test_leading_pairs_find_the_same_examples(encoding: str, random: np.random.Generator, tmp_path: Path) -> None:
    # Queries of full rank whose tail is small, as those of a model are; the errors are measured, so that any would do.
    shapes = {"a": (24, 20, 2), "b": (18, 30, 3)}
    train = random_layers(random, shapes, 9_000)
    queries = {}
    for name, (d1, d2, _) in shapes.items():
        values = random.standard_normal((2, d1, d2))
        left, sizes, right = np.linalg.svd(values, full_matrices=False)
        queries[name] = (((left * (sizes * 0.7 ** np.arange(sizes.shape[1]))[:, None]) @ right).astype(np.float32),)
    store = tmp_path / "s.lorif"
    ids = [f"{row:04}" for row in range(9_000)]
    run("ingest", store, write_batch(tmp_path / "t.safetensors", train, ids=ids), "--encoding", encoding)
    file = write_batch(tmp_path / "query.safetensors", queries, ids=["query 0", "query 1"])
    gradients, _ = stored_gradients(store, train)
    wanted = oracle.dot(oracle.gradients(queries), gradients, list(shapes))
    check_lists(store, file, wanted, ids, "leading-pairs", "--guarantee", "none")
    question = ("query", store, file, "--method", "dot", "--guarantee", "none", "--kernel", "leading-pairs")
    question += ("--format", "jsonl")
    assert len({run(*question, "--threads", threads).stdout for threads in (1, 2, 7)}) == 1
    done = run(*question, "--explain", "analyze", "--json").json()["analysis"]
    assert 20 <= done["refinedRows"] < 9_000


def test_a_kernel_that_cannot_do_it(random: np.random.Generator, tmp_path: Path) -> None:
    train = random_layers(random, {"a": (6, 5, 2)}, 20)
    store = tmp_path / "s.lorif"
    run("ingest", store, write_batch(tmp_path / "t.safetensors", train), "--encoding", "int8")
    question = ("query", store, "--by-id", "0", "--method", "dot")
    refused(*question, "--kernel", "tables", says=["--kernel tables", "possible: tiles, pages"])
    refused(*question, "--kernel", "leading-pairs", says=["possible: tiles, pages"])
    refused(*question, "--kernel", "fast", code=USAGE, says=["leading-pairs"])


def test_memory_below_one_query_is_refused(random: np.random.Generator, tmp_path: Path) -> None:
    train = random_layers(random, {"a": (64, 64, 2)}, 300)
    store = tmp_path / "s.lorif"
    run("ingest", store, write_batch(tmp_path / "t.safetensors", train), "--encoding", "int8")
    refused("query", store, "--by-id", "0", "--method", "cosine", "--memory", "4KiB", says=["--memory", "at least"])
