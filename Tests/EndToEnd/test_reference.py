"""Scores on real gradients against float64 expectations that were computed elsewhere."""

import json
from pathlib import Path

import numpy as np
import pytest
from harness import assert_close, read_tensors, run, scores, write_tensors
from lorif.segment import Segment

TOLERANCE = 1e-5
TOP = 10
RANKS = (1, 4)
QUERY_FORMS = ("qfull", "qlow")
# The fits of the table: name of the expectation -> arguments.
FITS = {
    "influence_exact": ["--scope", "global", "--exact"],
    "influence_svd": ["--scope", "global", "--rank", "64"],
    "influence_exact_per_layer": ["--scope", "per-layer", "--exact"],
    "influence_svd_per_layer": ["--scope", "per-layer", "--rank", "32"],
}


def queries(reference: Path, form: str, rank: int) -> Path:
    return reference / ("query_full.safetensors" if form == "qfull" else f"query_c{rank}.safetensors")


@pytest.fixture(scope="module", params=RANKS)
def store(
    request: pytest.FixtureRequest, reference: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, int]:
    path = tmp_path_factory.mktemp("reference") / f"c{request.param}.lorif"
    run("ingest", path, reference / f"train_c{request.param}.safetensors", "--encoding", "f32")
    return path, request.param


@pytest.fixture(scope="module", params=list(FITS))
def fitted(request: pytest.FixtureRequest, store: tuple[Path, int]) -> tuple[Path, int, str]:
    run("fit", store[0], *FITS[request.param])
    return *store, request.param


def expectation(reference: Path, rank: int, name: str) -> np.ndarray:
    tensors, _ = read_tensors(reference / f"expected_c{rank}.safetensors")
    return tensors[name]


def assert_same_order(actual: np.ndarray, expected: np.ndarray) -> None:
    """The ten highest and the ten lowest examples of every query agree, in order."""
    for row, wanted in zip(actual, expected, strict=True):
        assert list(np.argsort(-row, kind="stable")[:TOP]) == list(np.argsort(-wanted, kind="stable")[:TOP])
        assert list(np.argsort(row, kind="stable")[:TOP]) == list(np.argsort(wanted, kind="stable")[:TOP])


@pytest.mark.parametrize("form", QUERY_FORMS)
@pytest.mark.parametrize("method", ["dot", "cosine"])
def test_without_curvature(store: tuple[Path, int], reference: Path, method: str, form: str) -> None:
    path, rank = store
    expected = expectation(reference, rank, f"{form}/{method}")
    actual = scores(path, queries(reference, form, rank), "--method", method)
    assert_close(actual, expected, TOLERANCE)
    assert_same_order(actual, expected)


@pytest.mark.parametrize("form", QUERY_FORMS)
@pytest.mark.parametrize("damping", ["lam0", "lam1"])
def test_influence(fitted: tuple[Path, int, str], reference: Path, damping: str, form: str) -> None:
    path, rank, fit = fitted
    meta = json.loads((reference / "meta.json").read_text())
    value = meta[f"c{rank}"]["lambdas"][damping]
    expected = expectation(reference, rank, f"{form}/{fit}_{damping}")
    actual = scores(path, queries(reference, form, rank), "--method", "influence", "--damping", repr(value))
    assert_close(actual, expected, TOLERANCE)
    assert_same_order(actual, expected)


def test_relative_damping_is_the_mean_eigenvalue_times_rho(fitted: tuple[Path, int, str], reference: Path) -> None:
    path, rank, fit = fitted
    if fit.endswith("per_layer"):
        pytest.skip("the expectations use one damping for all layers")
    expected = expectation(reference, rank, f"qfull/{fit}_lam0")
    actual = scores(path, queries(reference, "qfull", rank), "--relative-damping", "0.1")
    assert_close(actual, expected, TOLERANCE)


def test_every_output_says_the_same(store: tuple[Path, int], reference: Path, tmp_path: Path) -> None:
    path, rank = store
    query = queries(reference, "qlow", rank)
    ids = json.loads(read_tensors(reference / f"train_c{rank}.safetensors")[1]["ids"])
    query_ids = json.loads(read_tensors(query)[1]["ids"])
    sources = {
        record["id"]: record["source"]
        for record in map(json.loads, (reference / f"train_c{rank}.jsonl").read_text().splitlines())
    }
    run("query", path, query, "--method", "dot", "--output", tmp_path / "s.safetensors")
    tensors, metadata = read_tensors(tmp_path / "s.safetensors")
    matrix = tensors["scores"]
    assert matrix.dtype == np.float32
    assert json.loads(metadata["query_ids"]) == query_ids
    assert json.loads(metadata["example_ids"]) == ids
    assert metadata["method"] == "dot"

    assert np.array_equal(scores(path, query, "--method", "dot", form="npy"), matrix)

    output = tmp_path / "results.jsonl"
    options = ["--method", "dot", "--top", TOP, "--bottom", TOP, "--format", "jsonl"]
    run("query", path, query, *options, "--output", output)
    results = [json.loads(line) for line in output.read_text().splitlines()]
    assert results == run("query", path, query, *options).json_lines()
    assert len(results) == 2 * TOP * len(query_ids)
    wanted = expectation(reference, rank, "qlow/dot")
    for row, query_id in enumerate(query_ids):
        for direction, order in (("top", np.argsort(-wanted[row])), ("bottom", np.argsort(wanted[row]))):
            found = [r for r in results if r["query"] == query_id and r["direction"] == direction]
            assert [r["rank"] for r in found] == list(range(1, TOP + 1))
            assert [r["id"] for r in found] == [ids[i] for i in order[:TOP]]
            for result in found:
                assert np.float32(result["score"]) == matrix[row, ids.index(result["id"])]
                assert result["metadata"]["source"] == sources[result["id"]]


def test_score_metadata_names_the_curvature_and_damping(fitted: tuple[Path, int, str], reference: Path) -> None:
    path, rank, _ = fitted
    scores(path, queries(reference, "qlow", rank), "--relative-damping", "0.5")
    _, metadata = read_tensors(path.parent / f"scores-{path.name}.safetensors")
    assert metadata["method"] == "influence"
    assert any("damping" in key and "0.5" in value for key, value in metadata.items()), metadata
    assert any("curvature" in key and value for key, value in metadata.items()), metadata


def test_int8_and_f16_stay_near_the_expectation(reference: Path, tmp_path: Path) -> None:
    expected = expectation(reference, 1, "qfull/cosine")
    for encoding, tolerance in (("f16", 1e-3), ("bf16", 1e-2), ("int8", 2e-2)):
        store = tmp_path / f"{encoding}.lorif"
        run("ingest", store, reference / "train_c1.safetensors", "--encoding", encoding)
        assert_close(scores(store, reference / "query_full.safetensors", "--method", "cosine"), expected, tolerance)


def test_full_training_rows_are_factored_by_the_best_rank(reference: Path, tmp_path: Path) -> None:
    """The stored factors keep the energy that the truncated SVD keeps, within 0.01 %."""
    rank = 4
    full, metadata = read_tensors(reference / "query_full.safetensors")
    batch = write_tensors(tmp_path / "full.safetensors", full, {"layers": metadata["layers"]})
    store = tmp_path / "s.lorif"
    run("ingest", "--encoding", "f32", store, batch, "--rank", rank)
    (segment,) = (Segment(path) for path in (store / "segments").iterdir())
    for number, layer in enumerate(segment.layers):
        given = full[f"{layer.name}/full"].astype(np.float64)
        left, right = (side.astype(np.float64) for side in segment.values(number))
        assert left.shape[2] == rank
        lost = np.linalg.norm(given - left @ right.swapaxes(1, 2), axis=(1, 2))
        least = np.sqrt((np.linalg.svd(given, compute_uv=False)[:, rank:] ** 2).sum(axis=1))
        energy = np.linalg.norm(given, axis=(1, 2)) ** 2
        assert (energy - lost**2 >= (1 - 1e-4) * (energy - least**2)).all()
        # √σ in both sides: the columns are balanced and orthogonal.
        grams = [side.swapaxes(1, 2) @ side for side in (left, right)]
        assert np.allclose(*grams, atol=1e-5 * np.abs(left).max() ** 2)
