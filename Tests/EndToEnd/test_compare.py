"""lorif compare, and queries averaged over checkpoints and curvatures, against NumPy."""

import json
from pathlib import Path

import numpy as np
import pytest
from harness import USAGE, attempt, read_tensors, refused, run, scores, write_batch

SHAPES = {"a": (5, 4), "b": (3, 6)}
COUNT, QUERIES, TOP = 40, 6, 5


def full(random: np.random.Generator, count: int) -> dict[str, np.ndarray]:
    return {name: random.standard_normal((count, *shape)).astype(np.float32) for name, shape in SHAPES.items()}


def flat(layers: dict[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([part.reshape(len(part), -1) for part in layers.values()], axis=1).astype(np.float64)


def batch(path: Path, layers: dict[str, np.ndarray], ids: list[str]) -> Path:
    return write_batch(path, {name: (part,) for name, part in layers.items()}, ids=ids)


def ranks(values: np.ndarray) -> np.ndarray:
    return np.argsort(np.argsort(values)).astype(float)


def agreement(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Mean Spearman correlation and mean number of shared best, of rows without ties."""
    correlations = [np.corrcoef(ranks(x), ranks(y))[0, 1] for x, y in zip(a, b, strict=True)]
    shared = [len(set(np.argsort(-x)[:TOP]) & set(np.argsort(-y)[:TOP])) for x, y in zip(a, b, strict=True)]
    return float(np.mean(correlations)), float(np.mean(shared))


class Checkpoints:
    """Two stores of the same examples with their own gradients; the second has them in another order, and one more."""

    def __init__(self, folder: Path, random: np.random.Generator) -> None:
        self.ids = [f"x{index}" for index in range(COUNT)]
        self.query_ids = [f"q{index}" for index in range(QUERIES)]
        self.order = random.permutation(COUNT)
        self.train = [full(random, COUNT), full(random, COUNT)]
        self.query = [full(random, QUERIES), full(random, QUERIES)]
        extra = full(random, 1)
        second = {name: np.concatenate([part[self.order], extra[name]]) for name, part in self.train[1].items()}
        self.stores = [folder / "one.lorif", folder / "two.lorif"]
        paths = [
            batch(folder / "t1.safetensors", self.train[0], self.ids),
            batch(folder / "t2.safetensors", second, [*(self.ids[row] for row in self.order), "more"]),
        ]
        for store, path in zip(self.stores, paths, strict=True):
            run("ingest", store, path, "--encoding", "f32")
        turned = {name: part[::-1] for name, part in self.query[1].items()}
        self.queries = [
            batch(folder / "q1.safetensors", self.query[0], self.query_ids),
            batch(folder / "q2.safetensors", turned, self.query_ids[::-1]),
        ]

    def dot(self, index: int) -> np.ndarray:
        return flat(self.query[index]) @ flat(self.train[index]).T

    def run(self, index: int, *settings: str) -> str:
        return ",".join([str(self.stores[index]), str(self.queries[index]), *settings])


@pytest.fixture
def checkpoints(tmp_path: Path, random: np.random.Generator) -> Checkpoints:
    return Checkpoints(tmp_path, random)


def test_agreement_and_cost(checkpoints: Checkpoints) -> None:
    both = f"{checkpoints.run(0, 'dot')}+{checkpoints.run(1, 'weight=3', 'name=both')}"
    runs = (checkpoints.run(0, "dot", "name=first"), checkpoints.run(1, "dot"), checkpoints.run(0, "cosine"), both)
    report = run("compare", *runs, "--top", TOP, "--json").json()
    one, two = checkpoints.dot(0), checkpoints.dot(1)
    norms = np.linalg.norm(flat(checkpoints.query[0]), axis=1)[:, None] * np.linalg.norm(
        flat(checkpoints.train[0]), axis=1
    )
    expected = [agreement(one, other) for other in (one, two, one / norms, (one + 3 * two) / 4)]
    assert (report["queries"], report["examples"], report["top"]) == (QUERIES, COUNT, TOP)
    for found, (correlation, shared) in zip(report["runs"], expected, strict=True):
        assert found["rankCorrelation"] == pytest.approx(correlation, abs=1e-12)
        assert found["sharedTop"] == pytest.approx(shared, abs=1e-12)
        assert found["seconds"] > 0
    assert [found["name"] for found in report["runs"]] == [
        "first",
        str(checkpoints.stores[1]),
        str(checkpoints.stores[0]),
        "both",
    ]
    size = sum(path.stat().st_size for path in checkpoints.stores[0].glob("segments/*")) / COUNT
    assert report["runs"][0]["storedBytesPerExample"] == pytest.approx(size)
    numbers = sum(d1 * d2 for d1, d2 in SHAPES.values())
    assert report["runs"][0]["readBytesPerExample"] == pytest.approx(4 * numbers, rel=0.2)
    table = run("compare", *runs, "--top", TOP).stdout
    assert "first" in table and f"{expected[1][0]:.3f}" in table


def test_a_query_over_checkpoints(checkpoints: Checkpoints, tmp_path: Path) -> None:
    out = tmp_path / "mean.safetensors"
    options = ("--method", "dot", "--checkpoint", checkpoints.run(1, "weight=3"), "--output", out, "--top", TOP)
    outcome = run("query", checkpoints.stores[0], checkpoints.queries[0], *options, "--format", "jsonl")
    expected = (checkpoints.dot(0) + 3 * checkpoints.dot(1)) / 4
    tensors, metadata = read_tensors(out)
    assert np.abs(tensors["scores"] - expected).max() < 1e-5 * np.abs(expected).max()
    assert json.loads(metadata["example_ids"]) == checkpoints.ids
    assert json.loads(metadata["query_ids"]) == checkpoints.query_ids
    best = [line["id"] for line in outcome.json_lines() if line["query"] == "q2"]
    assert best == [checkpoints.ids[row] for row in np.argsort(-expected[2])[:TOP]]
    assert "1 examples" in outcome.stderr


def test_a_query_over_curvatures(checkpoints: Checkpoints, tmp_path: Path) -> None:
    store, queries = checkpoints.stores[0], checkpoints.queries[0]
    ids = [
        run("fit", store, *how, "--json").json()["curvature"]
        for how in (("--exact",), ("--exact", "--scope", "global"))
    ]
    damping = ("--relative-damping", 0.5)
    expected = sum(scores(store, queries, "--curvature", each, *damping).astype(float) for each in ids) / 2
    found = scores(store, queries, "--curvature", ",".join(ids), *damping)
    assert np.abs(found - expected).max() < 1e-6 * np.abs(expected).max()
    assert (
        np.abs(scores(store, queries, "--curvature", ids[0], *damping) - expected).max() > 1e-3 * np.abs(expected).max()
    )


def test_bad_runs(checkpoints: Checkpoints, tmp_path: Path) -> None:
    good = checkpoints.run(0, "dot")
    for bad in (
        "", "store", f"{good},rho=0", f"{good},rho=x", f"{good},colour=red", f"{good},self-influence",
        f"{good},nothing", f"{good}+{checkpoints.run(1, 'cosine')}", f"{good}+",
    ):  # fmt: skip
        outcome = attempt("compare", good, bad)
        assert outcome.code == USAGE, (bad, str(outcome))
    assert attempt("compare", good).code == USAGE
    refused("compare", good, f"{tmp_path / 'no.lorif'},{checkpoints.queries[0]}", says=["no.lorif"])
    refused("compare", good, checkpoints.run(0), says=["lorif fit"])
    strangers = batch(tmp_path / "q3.safetensors", checkpoints.query[0], [f"s{index}" for index in range(QUERIES)])
    refused("compare", good, f"{checkpoints.stores[0]},{strangers},dot", says=["query", "by id"])
    two = ("--relative-damping", "0.1,1")
    run("fit", checkpoints.stores[0])
    arguments = ("query", checkpoints.stores[0], checkpoints.queries[0], "--checkpoint", checkpoints.run(1))
    assert attempt(*arguments, *two).code == USAGE
