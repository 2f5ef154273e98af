"""Random stores, random questions: every answer against brute force in float64 over the stored values."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import oracle
import pytest
from harness import OK, REFUSED, Layers, attempt, run, write_batch
from test_oracle import random_layers
from test_page_scans import ENCODINGS, evict, stored_gradients

KERNELS = ("tiles", "pages", "whole-numbers", "tables")
METHODS = ("dot", "cosine", "normalized-dot", "l2", "influence")


@dataclass
class World:
    """A store with what it holds, and queries."""

    store: Path
    rows: oracle.Rows
    ids: list[str]
    numbers: np.ndarray
    query_file: Path
    queries: oracle.Rows


def ranks(random: np.random.Generator, d1: int, d2: int) -> int:
    """0 is a layer of matrices."""
    return 0 if random.random() < 0.25 else int(random.integers(1, min(4, d1, d2) + 1))


def make(random: np.random.Generator, folder: Path, largest: int) -> World:
    """A store of one to three segments in a random encoding, with rows deleted or not."""
    shapes = {}
    for layer in range(random.integers(1, 4)):
        d1, d2 = (int(side) for side in random.integers(1, largest, 2))
        shapes[f"layer.{layer}"] = (d1, d2, ranks(random, d1, d2))
    count = int(random.choice([1, 31, 33, 257, 600]))
    train = random_layers(random, shapes, count)
    if count > 40:
        for parts in train.values():
            for part in parts:
                part[5:12] = part[4]
                part[20:22] = 0
    ids = [f"example {row}" for row in random.permutation(count)]
    numbers = random.integers(0, 100, count)
    encoding = str(random.choice(ENCODINGS))
    store = folder / "s.lorif"
    cuts = [0, *sorted(random.integers(0, count, int(random.integers(0, 3)))), count]
    for part, (start, end) in enumerate(pairwise(cuts)):
        if start == end:
            continue
        batch = write_batch(
            folder / f"{part}.safetensors",
            {name: tuple(values[start:end] for values in parts) for name, parts in train.items()},
            ids=ids[start:end],
            records=[{"id": ids[row], "number": int(numbers[row])} for row in range(start, end)],
        )
        run("ingest", store, batch, *(() if (store / "segments").exists() else ("--encoding", encoding)))
    if count > 2 and random.random() < 0.5:
        doomed = folder / "doomed.txt"
        doomed.write_text("".join(f"{name}\n" for name in ids if random.random() < 0.3) or f"{ids[0]}\n")
        run("delete", store, "--ids", doomed)
    rows, kept = stored_gradients(store, train)
    number_of = dict(zip(ids, numbers, strict=True))
    query_count = int(random.integers(1, 7))
    full = bool(random.random() < 0.5)
    asked = {name: (d1, d2, int(random.integers(1, min(d1, d2) + 1))) for name, (d1, d2, _) in shapes.items()}
    queries: Layers = random_layers(random, asked, query_count, full=full)
    file = write_batch(folder / "query.safetensors", queries, ids=[f"query {k}" for k in range(query_count)])
    return World(store, rows, kept, np.array([number_of[name] for name in kept]), file, oracle.gradients(queries))


def expected(method: str, world: World, names: list[str]) -> np.ndarray:
    """Scores [queries, rows] by the definitions."""
    queries, rows = world.queries, world.rows
    if method == "influence":
        return oracle.influence(rows, queries, [[name] for name in names], relative=1.0)
    product = oracle.dot(queries, rows, names)
    norms = [np.linalg.norm(oracle.flat(part, names), axis=1) for part in (queries, rows)]
    divisor = {"cosine": np.outer(*norms), "normalized-dot": norms[1][None, :]}.get(method)
    if divisor is not None:
        divides = np.broadcast_to(divisor, product.shape) > 0
        return np.divide(product, divisor, out=np.zeros_like(product), where=divides)
    if method == "l2":
        squared = norms[0][:, None] ** 2 + norms[1][None, :] ** 2 - 2 * product
        return -np.sqrt(np.maximum(squared, 0))
    return product


def check(lines: list[dict], wanted: np.ndarray, ids: list[str], top: int, bottom: int, tolerance: np.ndarray) -> None:
    """Every list is the best of its end, each score that of its example; equal scores by id."""
    for query, row in enumerate(wanted):
        score_of = dict(zip(ids, row, strict=True))
        for direction, length, sign in (("top", top, -1), ("bottom", bottom, 1)):
            mine = [line for line in lines if line["query"] == f"query {query}" and line["direction"] == direction]
            assert len(mine) == min(length, len(ids))
            best = np.sort(sign * row)[: len(mine)] * sign
            got = np.array([line["score"] for line in mine])
            assert np.abs(got - best).max(initial=0) <= tolerance[query]
            assert all(abs(score_of[line["id"]] - line["score"]) <= tolerance[query] for line in mine)
            order = [(sign * line["score"], line["id"].encode()) for line in mine]
            assert order == sorted(order) and len({line["id"] for line in mine}) == len(mine)


@pytest.mark.parametrize("seed", range(24))
def test_brute_force(seed: int, tmp_path: Path) -> None:
    random = np.random.default_rng([77, seed])
    method = METHODS[seed % len(METHODS)]
    world = make(random, tmp_path, largest=9 if method == "influence" else 70)
    names = list(world.rows)
    options: list[object] = ["--method", method]
    if method == "influence":
        run("fit", world.store, "--exact")
    if len(names) > 1 and random.random() < 0.5:
        names = names[1:]
        options += [part for name in names for part in ("--layers", name)]
    kept = np.arange(len(world.ids))
    if random.random() < 0.5 and (world.numbers < 50).any():
        kept = np.flatnonzero(world.numbers < 50)
        options += ["--where", "number < 50"]
    wanted = expected(method, world, names)[:, kept]
    ids = [world.ids[row] for row in kept]
    # What cancels in a score is as large as the products of norms.
    norms = [np.linalg.norm(oracle.flat(part, names), axis=1) for part in (world.queries, world.rows)]
    sizes = {"dot": norms[0] * norms[1].max(), "normalized-dot": norms[0], "cosine": np.ones(len(wanted))}
    magnitude = sizes.get(method, np.abs(wanted).max(axis=1))
    tolerance = 2e-5 * magnitude if method in ("influence", "l2") else 2e-6 * magnitude + 1e-30
    top, bottom = int(random.integers(0, 20)), int(random.integers(0, 20))
    question = ["query", world.store, world.query_file, *options, "--top", top, "--bottom", bottom]
    answered = 0
    for kernel in (None, *KERNELS):
        variant = [*question, "--threads", int(random.choice([1, 2, 7])), "--format", "jsonl"]
        variant += ["--read", str(random.choice(["auto", "cache", "direct"]))]
        variant += ["--memory", str(random.choice(["64MiB", "4GiB"]))]
        if kernel is not None:
            variant += ["--kernel", kernel]
        if random.random() < 0.5:
            evict(world.store)
        outcome = attempt(*variant)
        if outcome.code == REFUSED and kernel is not None:
            assert "cannot answer this query" in outcome.stderr
            continue
        assert outcome.code == OK, str(outcome)
        answered += 1
        check(outcome.json_lines(), wanted, ids, top, bottom, tolerance)
    assert answered >= 2
