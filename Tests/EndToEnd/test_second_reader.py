"""Segments that the program wrote, read by the second reader, which knows only the pages of Formats/."""

from pathlib import Path

import numpy as np
import oracle
import pytest
from harness import assert_close, run, scores, write_batch
from lorif.batch import FactorBatch, Factors
from lorif.coordinates import Coordinates
from lorif.curvature import Curvature
from lorif.segment import RESIDUAL_NORMS, Segment

SHAPES = {"h.0": (33, 7, 3), "h.1": (5, 40, 1), "h.2": (6, 6, 0)}
COUNT = 75
ENCODINGS = ["f32", "f16", "bf16", "int8", "q4", "q3", "q2", "q1"]


def segments(store: Path) -> list[Segment]:
    return [Segment(path) for path in sorted((store / "segments").iterdir())]


def factored(value: Factors | np.ndarray) -> tuple[np.ndarray, ...]:
    return tuple(value) if isinstance(value, Factors) else (value,)


@pytest.fixture
def layers(random: np.random.Generator) -> dict:
    result = {}
    for name, (d1, d2, rank) in SHAPES.items():
        shapes = ((COUNT, d1, rank), (COUNT, d2, rank)) if rank else ((COUNT, d1, d2),)
        result[name] = tuple(random.standard_normal(shape).astype(np.float32) for shape in shapes)
    # A row of zeros, and a component of zeros.
    result["h.0"][0][7] = 0
    result["h.0"][1][8, :, 1] = 0
    result["h.2"][0][9] = 0
    return result


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_both_readers_agree(encoding: str, layers: dict, random: np.random.Generator, tmp_path: Path) -> None:
    ids = [f"é{row}" for row in range(COUNT)]
    records = [{"id": name, "text": f"{name}\n", "n": row, "even": row % 2 == 0} for row, name in enumerate(ids)]
    store = tmp_path / "s.lorif"
    run("ingest", store, write_batch(tmp_path / "b.safetensors", layers, ids, records), "--encoding", encoding)
    (segment,) = segments(store)
    segment.verify()
    assert segment.encoding == encoding
    assert segment.identifiers() == ids
    assert segment.metadata() == [{key: value for key, value in record.items() if key != "id"} for record in records]

    kept = {layer.name: factored(segment.values(number)) for number, layer in enumerate(segment.layers)}
    run("export", store, tmp_path / "exported.safetensors")
    exported = FactorBatch(tmp_path / "exported.safetensors")
    assert exported.ids == ids
    for name, parts in kept.items():
        again = exported.factors(name) if len(parts) == 2 else (exported.gradients(name),)
        for values, wanted in zip(again, parts, strict=True):
            assert np.array_equal(values, wanted)
    assert list(kept) == list(SHAPES)
    matrices, given = oracle.gradients(kept), oracle.gradients(layers)
    if encoding in ("f32", "f16", "bf16", "int8"):
        for name, parts in layers.items():
            for part, values in zip(parts, kept[name], strict=True):
                wanted = oracle.stored(part.reshape(COUNT, -1, 1) if len(parts) == 1 else part, encoding)
                assert np.array_equal(values, wanted.reshape(part.shape).astype(np.float32))
    for number, name in enumerate(SHAPES):
        loss = np.linalg.norm(matrices[name] - given[name], axis=(1, 2))
        residuals = segment.norms(RESIDUAL_NORMS)[number]
        assert (residuals >= loss * (1 - 1e-6)).all()
        assert (residuals <= loss * 1.01 + 1e-30).all()
        limit = {"f32": 0, "f16": 1e-3, "bf16": 1e-2, "int8": 3e-2, "q4": 0.25, "q3": 0.4, "q2": 0.6, "q1": 0.95}
        assert loss.sum() <= limit[encoding] * np.linalg.norm(given[name], axis=(1, 2)).sum()

    asked = {name: (random.standard_normal((2, d1, d2)).astype(np.float32),) for name, (d1, d2, _) in SHAPES.items()}
    query = write_batch(tmp_path / "q.safetensors", asked)
    wanted = oracle.dot(oracle.gradients(asked), matrices, list(SHAPES))
    assert_close(scores(store, query, "--method", "dot"), wanted, 1e-5)


def test_low_bit_components_come_largest_first(layers: dict, tmp_path: Path) -> None:
    store = tmp_path / "s.lorif"
    run("ingest", store, write_batch(tmp_path / "b.safetensors", layers), "--encoding", "q4")
    left, right = segments(store)[0].values(0)
    given = layers["h.0"]
    sizes = np.sort(np.linalg.norm(given[0], axis=1) * np.linalg.norm(given[1], axis=1), axis=1)[:, ::-1]
    kept = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    assert np.allclose(kept, sizes, rtol=0.3, atol=1e-6)


def test_several_blocks_and_segments(random: np.random.Generator, tmp_path: Path) -> None:
    store = tmp_path / "s.lorif"
    counts = (8200, 3)
    given = []
    for part, count in enumerate(counts):
        layers = {"l": tuple(random.standard_normal((count, d, 1)).astype(np.float32) for d in (2, 3))}
        given.append(layers["l"])
        ids = [f"{part}/{row}" for row in range(count)]
        run("ingest", "--encoding", "f32", store, write_batch(tmp_path / f"{part}.safetensors", layers, ids))
    read = segments(store)
    assert sorted(segment.row_count for segment in read) == sorted(counts)
    for segment in read:
        segment.verify()
        part = counts.index(segment.row_count)
        assert segment.identifiers() == [f"{part}/{row}" for row in range(counts[part])]
        for values, wanted in zip(segment.values(0), given[part], strict=True):
            assert np.array_equal(values, wanted)
    assert max(segment.block_count for segment in read) == 2


def test_the_same_input_gives_the_same_bytes(layers: dict, tmp_path: Path) -> None:
    batch = write_batch(tmp_path / "b.safetensors", layers)
    for encoding in ("f32", "q2"):
        files = []
        for attempt_number in range(2):
            store = tmp_path / f"{encoding}-{attempt_number}.lorif"
            run("ingest", store, batch, "--encoding", encoding)
            (path,) = (store / "segments").iterdir()
            files.append(path.read_bytes())
        assert files[0] == files[1]


@pytest.mark.parametrize("scope", ["per-layer", "global"])
@pytest.mark.parametrize(("encoding", "tolerance"), [("f32", 1e-6), ("f16", 1e-3), ("int8", 1e-2)])
def test_curvature_and_coordinates(
    scope: str, encoding: str, tolerance: float, layers: dict, random: np.random.Generator, tmp_path: Path
) -> None:
    """The eigenpairs are those of H, and the coordinates what the format says of them, by NumPy in float64."""
    store = tmp_path / "s.lorif"
    ids = [f"a{row}" for row in range(COUNT)]
    run("ingest", store, write_batch(tmp_path / "b.safetensors", layers, ids), "--encoding", "int8")
    done = run("fit", store, "--rank", 9, "--scope", scope, "--coordinates", encoding, "--json").json()
    (segment,) = segments(store)
    gradients = [
        rows.reshape(COUNT, -1)
        for rows in oracle.gradients(
            {layer.name: factored(segment.values(number)) for number, layer in enumerate(segment.layers)}
        ).values()
    ]
    (path,) = (store / "curvature").iterdir()
    curvature = Curvature(path)
    assert (curvature.digest, curvature.scope) == (done["curvature"], scope)
    (path,) = (store / "coordinates").iterdir()
    coordinates = Coordinates(path)
    assert path.name == f"{curvature.digest}-{segment.digest}.coordinates"
    assert (coordinates.curvature, coordinates.segment) == (curvature.digest, segment.digest)
    assert coordinates.values_encoding == encoding
    assert coordinates.ranks == tuple(len(group.eigenvalues) for group in curvature.groups)
    total = np.zeros(COUNT)
    for number, group in enumerate(curvature.groups):
        rows = np.concatenate([gradients[layer] for layer in group.layers], axis=1).astype(np.float64)
        exact = np.linalg.eigvalsh(rows.T @ rows)[::-1]
        assert np.allclose(group.eigenvalues, exact[:9], rtol=1e-6)
        assert np.isclose(group.trace, exact.sum(), rtol=1e-6)
        basis = group.basis.astype(np.float64)
        assert np.abs(basis @ (rows.T @ rows) - group.eigenvalues[:, None] * basis).max() < 1e-5 * exact[0]
        products = rows @ basis.T
        weights = group.eigenvalues + group.trace / group.gradient_length
        found, wanted = coordinates.values(number), products / np.sqrt(weights)
        assert np.abs(found - wanted).max() <= tolerance * np.abs(wanted).max()
        outside = np.sqrt(np.maximum(0, (rows**2).sum(axis=1) - (products**2).sum(axis=1)))
        assert np.abs(coordinates.outside_norms(number) - outside).max() <= 1e-5 * outside.max()
        total += coordinates.self_influence(number, group, 2.0)
    answer = scores(store, None, "--method", "self-influence", "--damping", 2)[0]
    assert np.abs(answer - total).max() <= 1e-5 * total.max()
