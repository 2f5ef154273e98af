"""Whitened stores against float64 NumPy: maps, scores in whitened coordinates, and what must keep the basis."""

import json
from pathlib import Path

import numpy as np
import oracle
import pytest
from harness import (
    DAMAGED,
    NO,
    USAGE,
    assert_close,
    attempt,
    batch_tensors,
    contents,
    read_tensors,
    refused,
    run,
    scores,
    write_batch,
    write_tensors,
)
from lorif.basis import Basis
from lorif.segment import Segment

TOLERANCE = 1e-5
ROWS = 260
Maps = dict[str, tuple[np.ndarray, np.ndarray]]


def inverse_root(moment: np.ndarray, epsilon: float) -> np.ndarray:
    values, vectors = np.linalg.eigh(moment)
    return (vectors * (np.maximum(values, 0) + epsilon * values.mean()) ** -0.5) @ vectors.T


def whitening(rows: oracle.Rows, epsilon: float = 0.03) -> Maps:
    """W1 and W2 of every layer by the formulae of Formats/basis.md."""
    maps = {}
    for name, g in rows.items():
        left = np.einsum("nab,ncb->ac", g, g) / len(g)
        right = np.einsum("nab,nac->bc", g, g) / len(g)
        maps[name] = (np.sqrt(np.trace(left)) * inverse_root(left, epsilon), inverse_root(right, epsilon))
    return maps


def whitened(rows: oracle.Rows, maps: Maps) -> oracle.Rows:
    return {name: maps[name][0] @ g @ maps[name][1] for name, g in rows.items()}


def wide(layers: dict[str, tuple[np.ndarray, ...]]) -> oracle.Rows:
    return {name: parts[0].astype(np.float64) for name, parts in layers.items()}


def segment(store: Path) -> Segment:
    (path,) = sorted((store / "segments").iterdir())
    return Segment(path)


def stored_rows(store: Path) -> oracle.Rows:
    """What the second reader finds, multiplied out."""
    found = segment(store)
    rows = {}
    for number, layer in enumerate(found.layers):
        values = found.values(number)
        parts = tuple(values) if isinstance(values, tuple) else (values,)
        rows[layer.name] = oracle.gradients({"x": parts})["x"]
    return rows


def basis_file(store: Path) -> Path:
    (path,) = (store / "basis").iterdir()
    return path


@pytest.fixture(scope="module")
def train(reference: Path) -> dict[str, tuple[np.ndarray]]:
    """Full matrices: those of the reference factors, with a tail of small singular values."""
    tensors, metadata = read_tensors(reference / "train_c4.safetensors")
    random = np.random.default_rng(7)
    result = {}
    for name in json.loads(metadata["layers"]):
        product = np.einsum("nac,nbc->nab", tensors[f"{name}/left"][:ROWS], tensors[f"{name}/right"][:ROWS])
        noise = random.standard_normal(product.shape) * 0.1 * np.sqrt((product**2).mean())
        result[name] = ((product + noise).astype(np.float32),)
    return result


@pytest.fixture(scope="module")
def queries(reference: Path) -> oracle.Rows:
    tensors, _ = read_tensors(reference / "query_full.safetensors")
    return {name.removesuffix("/full"): values.astype(np.float64) for name, values in tensors.items()}


@pytest.fixture(scope="module")
def batch(train: dict[str, tuple[np.ndarray]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_batch(
        tmp_path_factory.mktemp("whitening") / "train.safetensors", train, [f"t{row}" for row in range(ROWS)]
    )


@pytest.fixture(scope="module", params=[None, 2], ids=["full", "rank 2"])
def store(request: pytest.FixtureRequest, batch: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "s.lorif"
    rank = [] if request.param is None else ["--rank", request.param]
    run("create", "--encoding", "f32", path, "--whiten-from", batch, *rank)
    run("ingest", "--encoding", "f32", path, batch)
    return path


def test_the_maps_are_those_of_the_formulae(store: Path, train: dict[str, tuple[np.ndarray]]) -> None:
    basis = Basis(basis_file(store))
    assert basis_file(store).name == f"{basis.digest}.basis"
    assert segment(store).basis == basis.digest
    assert (basis.epsilon, basis.sample_count) == (0.03, ROWS)
    for name, expected in whitening(wide(train)).items():
        for found, wanted in zip(basis.maps(name), expected, strict=True):
            assert np.abs(found - wanted).max() <= 1e-6 * np.abs(wanted).max()
            assert (found == found.T).all()
    shown = run("inspect", store, "--basis", "--json").json()
    assert (shown["basis"], shown["epsilon"], shown["sampleRows"]) == (basis.digest, 0.03, ROWS)
    for layer in shown["layers"]:
        left, right = (np.linalg.cond(side) for side in whitening(wide(train))[layer["layer"]])
        assert layer["leftCondition"] == pytest.approx(left, rel=1e-4)
        assert layer["rightCondition"] == pytest.approx(right, rel=1e-4)
    assert run("inspect", store, "--json").json()["basis"] == basis.digest


def test_rows_are_whitened_before_they_are_truncated(store: Path, train: dict[str, tuple[np.ndarray]]) -> None:
    expected = whitened(wide(train), whitening(wide(train)))
    found = segment(store)
    for number, layer in enumerate(found.layers):
        rows, wanted = stored_rows(store)[layer.name], expected[layer.name]
        energy = (wanted**2).sum(axis=(1, 2))
        lost = ((rows - wanted) ** 2).sum(axis=(1, 2))
        if layer.rank is None:
            assert (lost <= 1e-11 * energy).all()
            continue
        best = (np.linalg.svd(wanted, compute_uv=False)[:, layer.rank :] ** 2).sum(axis=1)
        assert (lost <= best + 1e-4 * energy).all()
        # The residual norm is that of whitened coordinates, rounded up to bf16.
        stated = found.norms(5)[number].astype(np.float64)
        assert (stated >= np.sqrt(lost) * (1 - 1e-5)).all()
        assert (stated <= np.sqrt(lost) * 1.01 + 1e-4 * np.sqrt(energy)).all()


def test_scores(store: Path, train: dict[str, tuple[np.ndarray]], queries: oracle.Rows, reference: Path) -> None:
    """Raw queries are whitened; a full store is compared with the raw gradients, a factored one with what it keeps."""
    maps, names = whitening(wide(train)), list(train)
    rows, asked = stored_rows(store), whitened(queries, maps)
    if segment(store).layers[0].rank is None:
        rows = whitened(wide(train), maps)
    path = reference / "query_full.safetensors"
    groups = [[name] for name in names]
    assert_close(scores(store, path, "--method", "dot"), oracle.dot(asked, rows, names), TOLERANCE)
    assert_close(scores(store, path, "--method", "cosine"), oracle.cosine(asked, rows, names), TOLERANCE)

    norms = segment(store).norms().astype(np.float64)
    weights = {name: 1 / (norms[number] ** 2).sum() for number, name in enumerate(names)}
    for name in names:
        assert 1 / weights[name] == pytest.approx((rows[name] ** 2).sum(), rel=0.016)
    scaled = [{name: g * np.sqrt(weights[name]) for name, g in each.items()} for each in (asked, rows)]
    assert_close(scores(store, path, "--method", "whitened-dot"), oracle.dot(*scaled, names), TOLERANCE)
    assert_close(scores(store, path, "--method", "whitened-cosine"), oracle.cosine(*scaled, names), TOLERANCE)

    run("fit", store, "--exact")
    expected = oracle.influence(rows, asked, groups, relative=30.0)
    assert_close(scores(store, path), expected, TOLERANCE)
    assert "ρ = 30" in run("query", store, path, "--top", 1).stdout
    assert_close(
        scores(store, path, "--relative-damping", 0.5), oracle.influence(rows, asked, groups, relative=0.5), 1e-4
    )
    run("fit", store, "--rank", 16)
    assert_close(scores(store, path), oracle.influence(rows, asked, groups, rank=16, relative=30.0), 1e-4)


def test_score_files_name_the_basis_and_the_scales(store: Path, reference: Path, tmp_path: Path) -> None:
    path = tmp_path / "scores.safetensors"
    run("query", store, reference / "query_full.safetensors", "--method", "whitened-dot", "--output", path)
    _, metadata = read_tensors(path)
    assert metadata["basis"] == segment(store).basis
    norms = segment(store).norms().astype(np.float64)
    assert json.loads(metadata["layer_scales"]) == pytest.approx((norms**2).sum(axis=1), rel=1e-12)


def small(random: np.random.Generator, count: int, scale: float = 1.0) -> dict[str, tuple[np.ndarray]]:
    """Layers of unequal size, correlated inside."""
    shapes = {"a.attn": (6, 4), "a.mlp": (3, 7), "b.attn": (5, 5)}
    result = {}
    for name, (d1, d2) in shapes.items():
        left, right = random.standard_normal((d1, d1)), random.standard_normal((d2, d2))
        g = left @ random.standard_normal((count, d1, d2)) @ right
        result[name] = ((g * scale).astype(np.float32),)
    return result


def ids(count: int, prefix: str = "r") -> list[str]:
    return [f"{prefix}{row}" for row in range(count)]


def test_given_moments_are_used(random: np.random.Generator, tmp_path: Path) -> None:
    layers = small(random, 40)
    plain = write_batch(tmp_path / "plain.safetensors", layers)
    tensors = batch_tensors(small(random, 2))
    for name, g in wide(layers).items():
        tensors[f"{name}/second_moment_left"] = np.einsum("nab,ncb->ac", g, g) / len(g)
        tensors[f"{name}/second_moment_right"] = (np.einsum("nab,nac->bc", g, g) / len(g)).astype(np.float32)
    given = write_tensors(tmp_path / "given.safetensors", tensors, {"layers": json.dumps(list(layers))})
    run("create", "--encoding", "f32", tmp_path / "plain.lorif", "--whiten-from", plain, "--epsilon", 0.02)
    run("create", "--encoding", "f32", tmp_path / "given.lorif", "--whiten-from", given, "--epsilon", 0.02)
    found = Basis(basis_file(tmp_path / "given.lorif"))
    wanted = Basis(basis_file(tmp_path / "plain.lorif"))
    assert (found.sample_count, wanted.sample_count) == (0, 40)
    for name, expected in whitening(wide(layers), 0.02).items():
        for basis in (found, wanted):
            for side, map_ in zip(basis.maps(name), expected, strict=True):
                assert np.abs(side - map_).max() <= 1e-5 * np.abs(map_).max()
    # A batch with moments is ingested like any other.
    run("ingest", "--encoding", "f32", tmp_path / "plain.lorif", given)
    assert stored_rows(tmp_path / "plain.lorif")["a.mlp"].shape == (2, 3, 7)


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
def test_the_scale_of_gradients_does_not_matter(scale: float, random: np.random.Generator, tmp_path: Path) -> None:
    layers = small(random, 50, scale)
    batch = write_batch(tmp_path / "b.safetensors", layers)
    store = tmp_path / "s.lorif"
    run("ingest", "--encoding", "f32", store, batch, "--whiten-from", batch)
    rows = whitened(wide(layers), whitening(wide(layers)))
    assert_close(scores(store, batch, "--method", "dot"), oracle.dot(rows, rows, list(layers)), TOLERANCE)
    run("fit", store, "--exact")
    expected = oracle.influence(rows, rows, [[name] for name in layers], relative=30.0)
    assert_close(scores(store, batch), expected, TOLERANCE)


def test_factors_of_raw_gradients_are_carried_over_with_a_warning(random: np.random.Generator, tmp_path: Path) -> None:
    layers = small(random, 30)
    sample = write_batch(tmp_path / "sample.safetensors", layers)
    factors = {
        name: (
            random.standard_normal((8, g.shape[1], 2)).astype(np.float32),
            random.standard_normal((8, g.shape[2], 2)).astype(np.float32),
        )
        for name, (g,) in layers.items()
    }
    batch = write_batch(tmp_path / "factors.safetensors", factors, ids(8))
    store = tmp_path / "s.lorif"
    done = run("ingest", "--encoding", "f32", store, batch, "--whiten-from", sample)
    assert "Truncated before whitening" in done.stderr
    expected = whitened(oracle.gradients(factors), whitening(wide(layers)))
    for name, rows in stored_rows(store).items():
        assert np.abs(rows - expected[name]).max() <= 1e-5 * np.abs(expected[name]).max()
    # As queries too, at a rank of their own.
    assert_close(
        scores(store, batch, "--method", "dot"), oracle.dot(expected, stored_rows(store), list(layers)), TOLERANCE
    )


@pytest.mark.parametrize("encoding", ["f32", "f16", "q2"])
def test_export_and_ingest_bring_back_every_bit(encoding: str, random: np.random.Generator, tmp_path: Path) -> None:
    layers = small(random, 40)
    batch = write_batch(tmp_path / "b.safetensors", layers, ids(40), [{"id": name, "n": 1} for name in ids(40)])
    store, again = tmp_path / "s.lorif", tmp_path / "again.lorif"
    run("ingest", store, batch, "--whiten-from", batch, "--rank", "*.mlp=full,*=2", "--encoding", encoding)
    exported = tmp_path / "out.safetensors"
    run("export", store, exported)
    _, metadata = read_tensors(exported)
    assert metadata["basis"] == segment(store).basis
    assert (tmp_path / "out.basis").read_bytes() == basis_file(store).read_bytes()
    done = run("ingest", again, exported, "--encoding", encoding)
    assert "note" not in done.stderr
    assert basis_file(again).read_bytes() == basis_file(store).read_bytes()
    for number in range(len(layers)):
        for a, b in zip(segment(store).values(number), segment(again).values(number), strict=True):
            assert a.tobytes() == b.tobytes()
    # Whitened queries are taken as they are, raw ones are whitened.
    method = ("--method", "dot")
    assert (scores(store, batch, *method) == scores(again, batch, *method)).all()
    assert_close(
        scores(again, exported, *method), oracle.dot(stored_rows(store), stored_rows(again), list(layers)), TOLERANCE
    )


def test_another_basis_is_refused_everywhere(random: np.random.Generator, tmp_path: Path) -> None:
    first = write_batch(tmp_path / "a.safetensors", small(random, 30), ids(30, "a"))
    second = write_batch(tmp_path / "b.safetensors", small(random, 30), ids(30, "b"))
    store, other, plain = (tmp_path / f"{name}.lorif" for name in ("store", "other", "plain"))
    run("ingest", "--encoding", "f32", store, first, "--whiten-from", first, "--rank", 2)
    run("ingest", "--encoding", "f32", other, second, "--whiten-from", second, "--rank", 2)
    run("ingest", "--encoding", "f32", plain, second, "--rank", 2)
    foreign = tmp_path / "foreign.safetensors"
    run("export", other, foreign)
    mine, theirs = segment(store).basis, segment(other).basis
    before = contents(store)
    refused("ingest", store, foreign, says=(foreign, mine, theirs))
    refused("query", store, foreign, "--method", "dot", says=(foreign, mine, theirs))
    refused("ingest", plain, foreign, says=(foreign, theirs, "no basis"))
    refused("query", plain, foreign, "--method", "dot", says=(theirs,))
    refused("ingest", store, second, "--whiten-from", second, says=("--whiten-from", mine))
    refused("ingest", store, second, "--basis-from", other, says=("--basis-from", mine, theirs))
    refused("create", tmp_path / "new.lorif", "--whiten-from", foreign, says=(foreign, theirs))
    for name, options in (("theirs", ("--layers-of", other)), ("none", ("--rank", 2))):
        packed = tmp_path / f"{name}.segment"
        run("pack", packed, second, *options)
        refused("attach", store, packed, says=(packed, mine, "in no basis" if name == "none" else theirs))
    refused("attach", tmp_path / "fresh.lorif", tmp_path / "theirs.segment", says=(theirs, "--basis-from"))
    assert not (tmp_path / "fresh.lorif").exists()
    assert contents(store) == before
    # Without the file beside it, the basis has to be named.
    (tmp_path / "foreign.basis").rename(tmp_path / "moved.basis")
    refused("ingest", tmp_path / "new.lorif", foreign, says=(foreign, theirs, "--basis-from"))
    run("ingest", "--encoding", "f32", tmp_path / "new.lorif", foreign, "--basis-from", tmp_path / "moved.basis")


def test_packed_segments_share_a_basis(random: np.random.Generator, tmp_path: Path) -> None:
    layers = small(random, 60)
    batch = write_batch(tmp_path / "b.safetensors", layers, ids(60))
    store, whole = tmp_path / "s.lorif", tmp_path / "whole.lorif"
    run("create", "--encoding", "f32", store, "--whiten-from", batch, "--rank", 2)
    run("ingest", "--encoding", "f32", whole, batch, "--basis-from", store, "--rank", 2)
    run("pack", tmp_path / "a.segment", batch, "--layers-of", store)
    run("pack", tmp_path / "b.segment", batch, "--basis-from", basis_file(store), "--rank", 2, "--encoding", "f32")
    assert (tmp_path / "a.segment").read_bytes() == (tmp_path / "b.segment").read_bytes()
    run("attach", store, tmp_path / "a.segment")
    for number in range(len(layers)):
        for a, b in zip(segment(store).values(number), segment(whole).values(number), strict=True):
            assert a.tobytes() == b.tobytes()


def test_a_basis_alone_makes_a_store(random: np.random.Generator, tmp_path: Path) -> None:
    batch = write_batch(tmp_path / "b.safetensors", small(random, 20), ids(20))
    run("create", "--encoding", "f32", tmp_path / "a.lorif", "--whiten-from", batch)
    run("create", tmp_path / "b.lorif", "--basis-from", tmp_path / "a.lorif", "--rank", 1, "--encoding", "q4")
    run("ingest", tmp_path / "b.lorif", batch)
    assert [layer.rank for layer in segment(tmp_path / "b.lorif").layers] == [1, 1, 1]
    # A store whose layers were left open takes the basis with its first rows.
    run("create", tmp_path / "c.lorif", "--encoding", "q4")
    run("ingest", tmp_path / "c.lorif", batch, "--whiten-from", batch, "--rank", 1)
    assert basis_file(tmp_path / "c.lorif").read_bytes() == basis_file(tmp_path / "a.lorif").read_bytes()


def test_a_flipped_bit_is_found_and_a_copy_heals(random: np.random.Generator, tmp_path: Path) -> None:
    batch = write_batch(tmp_path / "b.safetensors", small(random, 20), ids(20))
    store = tmp_path / "s.lorif"
    run("ingest", "--encoding", "f32", store, batch, "--whiten-from", batch, "--rank", 2)
    run("export", store, tmp_path / "out.safetensors")
    path = basis_file(store)
    good = path.read_bytes()
    for offset in random.integers(0, len(good), 40):
        bad = bytearray(good)
        bad[offset] ^= 1 << int(random.integers(8))
        path.write_bytes(bad)
        found = attempt("verify", store)
        assert found.code == NO, f"byte {offset}\n{found}"
        assert path.name in found.stdout + found.stderr
    assert attempt("query", store, batch, "--method", "dot").code == DAMAGED
    # Queries in the basis need no maps.
    run("query", store, tmp_path / "out.safetensors", "--method", "dot")
    left = attempt("repair", store)
    assert left.code == NO
    assert "--basis-from" in left.stdout
    refused("repair", store, "--basis-from", batch.with_suffix(".none"), code=5)
    run("repair", store, "--basis-from", tmp_path / "out.safetensors")
    assert path.read_bytes() == good
    run("verify", store, "--level", "deep")
    path.unlink()
    assert attempt("verify", store, "--level", "quick").code == NO
    run("repair", store, "--basis-from", tmp_path / "out.basis")
    run("query", store, batch, "--method", "dot")


def test_the_basis_outlives_copy_compaction_and_a_lost_catalog(random: np.random.Generator, tmp_path: Path) -> None:
    batch = write_batch(tmp_path / "b.safetensors", small(random, 20), ids(20))
    more = write_batch(tmp_path / "c.safetensors", small(random, 20), ids(20, "s"))
    store, copy = tmp_path / "s.lorif", tmp_path / "copy.lorif"
    run("ingest", "--encoding", "f32", store, batch, "--whiten-from", batch)
    run("ingest", "--encoding", "f32", store, more)
    expected = scores(store, batch, "--method", "dot")
    run("copy", store, copy)
    assert (scores(copy, batch, "--method", "dot") == expected).all()
    run("snapshot", store, "before")
    run("compact", store, "--rank", 1, "--encoding", "q4")
    assert segment_basis(store) == {Basis(basis_file(store)).digest}
    assert run("inspect", store, "--basis", "--snapshot", "before").code == 0
    (store / "catalog" / "data.mdb").write_bytes(b"x")
    attempt("repair", store)
    run("verify", store, "--level", "deep")
    run("query", store, batch, "--method", "dot")
    assert (scores(copy, batch, "--method", "dot") == expected).all()


def segment_basis(store: Path) -> set[str | None]:
    return {Segment(path).basis for path in (store / "segments").iterdir()}


def test_a_zero_layer_stays_as_it_is_and_is_named(random: np.random.Generator, tmp_path: Path) -> None:
    layers = small(random, 20)
    layers["a.mlp"] = (np.zeros_like(layers["a.mlp"][0]),)
    batch = write_batch(tmp_path / "b.safetensors", layers, ids(20))
    store = tmp_path / "s.lorif"
    done = run("ingest", "--encoding", "f32", store, batch, "--whiten-from", batch)
    assert "'a.mlp' is zero" in done.stderr
    for side in Basis(basis_file(store)).maps("a.mlp"):
        assert (side == np.eye(len(side))).all()
    found = scores(store, batch, "--method", "whitened-dot")
    assert np.isfinite(found).all()
    late = small(random, 20)
    run("ingest", "--encoding", "f32", store, write_batch(tmp_path / "late.safetensors", late, ids(20, "late")))
    paths = sorted((store / "segments").iterdir())
    assert (Segment(paths[1]).values(1) == late["a.mlp"][0]).all()


def test_what_cannot_be_whitened_is_refused(random: np.random.Generator, tmp_path: Path) -> None:
    store = tmp_path / "s.lorif"
    bad = small(random, 5)
    bad["a.mlp"][0][3, 1, 2] = np.nan
    refused("create", store, "--whiten-from", write_batch(tmp_path / "nan.safetensors", bad), says=("NaN", "a.mlp"))
    factors = {"a": (np.ones((3, 4, 1), np.float32), np.ones((3, 2, 1), np.float32))}
    refused("create", store, "--whiten-from", write_batch(tmp_path / "f.safetensors", factors), says=("'a'", "full"))
    wide_layer = {"a": (np.ones((1, 9000, 1), np.float32),)}
    batch = write_batch(tmp_path / "w.safetensors", wide_layer)
    refused("create", store, "--whiten-from", batch, says=("'a'", 8192, 9000))
    moments = batch_tensors({"a": (np.ones((1, 2, 2), np.float32),)})
    moments["a/second_moment_left"] = np.diag([1.0, -1.0])
    refused(
        "create",
        store,
        "--whiten-from",
        write_tensors(tmp_path / "m.safetensors", moments),
        says=("second moments", '"a"', "one of them"),
    )
    moments["a/second_moment_right"] = np.eye(2)
    refused("create", store, "--whiten-from", write_tensors(tmp_path / "n.safetensors", moments), says=("'a'", "-1"))
    refused("create", store, "--basis-from", batch, code=5)
    refused("create", store, "--basis-from", tmp_path / "w.safetensors.txt", code=5)
    (tmp_path / "x.basis").write_bytes(b"nothing" * 1000)
    refused("create", store, "--basis-from", tmp_path / "x.basis", says=("x.basis",))
    sample = write_batch(tmp_path / "s.safetensors", small(random, 5))
    refused("create", store, "--whiten-from", sample, "--epsilon", 0, code=USAGE, says=("--epsilon",))
    refused("create", store, "--epsilon", 1, code=USAGE, says=("--whiten-from",))
    refused("create", store, "--layers", batch, "--whiten-from", sample, says=("lacks layer 'a'",))
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix == ".lorif" or ".basis-" in path.name) == []


def test_ranks_by_name_and_by_energy(random: np.random.Generator, tmp_path: Path) -> None:
    layers = small(random, 50)
    batch = write_batch(tmp_path / "b.safetensors", layers, ids(50))

    def ranks(*options: object) -> list[int | None]:
        path = tmp_path / f"{abs(hash(options))}.lorif"
        run("ingest", "--encoding", "f32", path, batch, *options)
        return [layer.rank for layer in segment(path).layers]

    assert ranks("--rank", "*.attn=3,*=9") == [3, 3, 3]
    assert ranks("--rank", "a.*=1,*.attn=full") == [1, 1, None]
    refused("ingest", tmp_path / "n.lorif", batch, "--rank", "*.atn=3,*=1", says=("*.atn",))
    refused("ingest", tmp_path / "n.lorif", batch, "--rank", "a.*=3", says=("b.attn",))
    for wrong in ("0", "x", "a=", "=2", "a=2,", "5000"):
        refused("ingest", tmp_path / "n.lorif", batch, "--rank", wrong, code=USAGE, says=("--rank",))
    refused("ingest", tmp_path / "n.lorif", batch, "--rank", 1, "--energy", 0.5, code=USAGE)
    for maps in (None, whitening(wide(layers))):
        expected = []
        for g in (wide(layers) if maps is None else whitened(wide(layers), maps)).values():
            share = (np.linalg.svd(g, compute_uv=False) ** 2).sum(axis=0).cumsum()
            expected.append(int((share < 0.8 * share[-1]).sum()) + 1)
        assert ranks("--energy", 0.8, *(() if maps is None else ("--whiten-from", batch))) == expected
    assert ranks("--energy", 1) == [4, 3, 5]


def test_a_store_without_a_basis_has_layer_scales_too(random: np.random.Generator, tmp_path: Path) -> None:
    layers = small(random, 30)
    batch = write_batch(tmp_path / "b.safetensors", layers, ids(30))
    store = tmp_path / "s.lorif"
    run("ingest", "--encoding", "f32", store, batch)
    done = run("query", store, batch, "--method", "whitened-dot")
    assert "not whitened" in done.stderr
    norms = segment(store).norms().astype(np.float64)
    rows = {name: g / np.linalg.norm(norms[number]) for number, (name, g) in enumerate(wide(layers).items())}
    assert_close(scores(store, batch, "--method", "whitened-dot"), oracle.dot(rows, rows, list(layers)), TOLERANCE)
    refused("inspect", store, "--basis", says=("not whitened",))


def test_scales_of_all_rows_may_be_given(random: np.random.Generator, tmp_path: Path) -> None:
    """A part of a store scores as the whole does when it is told tr(H) of all rows; what is given is what counts."""
    layers = small(random, 30)
    batch = write_batch(tmp_path / "b.safetensors", layers, ids(30))
    part = write_batch(tmp_path / "p.safetensors", {name: (g[:12],) for name, (g,) in layers.items()}, ids(12))
    whole, some = tmp_path / "whole.lorif", tmp_path / "some.lorif"
    run("ingest", "--encoding", "f32", whole, batch)
    run("ingest", "--encoding", "f32", some, part)
    norms = segment(whole).norms().astype(np.float64)
    traces = dict(zip(layers, (norms**2).sum(axis=1).tolist(), strict=True))
    given = tmp_path / "scales.json"
    for method, expected in (("whitened-dot", oracle.dot), ("whitened-cosine", oracle.cosine)):
        for scales in (traces, {"a.attn": 0.5, "a.mlp": 100.0, "b.attn": 7.0}):
            given.write_text(json.dumps(scales))
            rows = {name: g / np.sqrt(scales[name]) for name, g in wide(layers).items()}
            found = scores(some, batch, "--method", method, "--layer-scales", given)
            assert_close(found, expected(rows, rows, list(layers))[:, :12], TOLERANCE)
    question = ("query", some, batch, "--method", "whitened-dot", "--layer-scales", given)
    given.write_text('{"a.attn": 1, "a.mlp": 1}')
    run(*question, "--layers", "a.*")
    refused(*question, says=("b.attn", "none"))
    given.write_text('{"a.attn": 1, "a.mlp": 1, "b.attn": -2}')
    refused(*question, says=("b.attn", "-2"))
    given.write_text('{"a.attn": 1, "a.mlp": 1, "b.attn": 1, "c": 1}')
    refused(*question, says=("'c'",))
    given.write_text("[1, 2, 3]")
    refused(*question, says=("scales.json", "layer"))
    refused("query", some, batch, "--method", "dot", "--layer-scales", given, code=USAGE, says=("--layer-scales",))
