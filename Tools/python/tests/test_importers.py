"""Importers against stores that the real packages wrote (fixtures/write_peers.py), and against damaged ones."""

import json
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from lorif.importers import FORMATS, ImporterError, Options, Settings, open_source
from lorif.importers.rows import read_rows
from lorif.importers.source import Source, read_entries, read_json

PEERS = Path(__file__).parent / "fixtures" / "peers"
MATRIX = Options(layout="matrix")


def opened(name: str, options: Options = MATRIX) -> Source:
    return open_source(name.partition("-")[0], str(PEERS / name), options)


def everything(source: Source) -> dict[str, np.ndarray]:
    return {name: np.array(values) for name, values in source.read(0, source.row_count).items()}


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[str], Path]:
    def copy(name: str) -> Path:
        return shutil.copytree(PEERS / name, tmp_path / name)

    return copy


@pytest.mark.parametrize("name", ["bergson", "logix", "dattri"])
def test_dot_products_are_those_of_the_package(name: str) -> None:
    train, ask = everything(opened(name)), everything(opened(f"{name}-queries"))
    found = sum(np.einsum("qab,nab->qn", ask[layer], train[layer], dtype=np.float64) for layer in train)
    expected = np.load(PEERS / f"{name}-scores.npy")
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def test_trak_scores_are_those_of_the_package() -> None:
    source = opened("trak", Options(what="features"))
    train, ask = everything(source), everything(opened("trak", Options(experiment="ask")))
    assert [(layer.input_dimension, layer.output_dimension) for layer in source.layers] == [(32, 1), (32, 1)]
    records = source.records(0, source.row_count)
    dots = [np.einsum("qab,nab->qn", ask[name], train[name], dtype=np.float64) for name in train]
    weights = [[record[f"out_to_loss-{m}"] for record in records] for m in (0, 1)]
    found = np.mean(dots, axis=0) * np.mean(weights, axis=0)
    expected = np.load(PEERS / "trak-scores.npy")
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


def test_bergson_has_the_output_side_first() -> None:
    shapes = (("*.q_proj", 8, 8), ("*.k_proj", 4, 8), ("*.v_proj", 4, 8), ("*.o_proj", 8, 8), ("*.down_proj", 8, 12))
    source = opened("bergson-whole", Options(shapes=(*shapes, ("*", 12, 8))))
    expected = np.load(PEERS / "bergson-whole-first-up_proj.npy")
    assert expected.shape == (12, 8)
    found = source.read(0, 1)["layers.0.mlp.up_proj"][0]
    assert np.allclose(found, expected.T, atol=1e-6 * np.abs(expected).max())


def test_logix_has_the_output_side_first() -> None:
    source = opened("logix-whole")
    expected = np.load(PEERS / "logix-whole-first-0.npy")
    assert expected.shape == (10, 6)
    assert [(layer.name, layer.input_dimension, layer.output_dimension) for layer in source.layers] == [
        ("0", 6, 10),
        ("2", 10, 5),
    ]
    assert np.allclose(source.read(0, 1)["0"][0], expected.T, rtol=1e-5, atol=1e-7)


def test_dattri_has_the_output_side_first_and_its_batch_size_multiplied_in() -> None:
    output, side = np.load(PEERS / "dattri-first-output.npy"), np.load(PEERS / "dattri-first-input.npy")
    alone = np.outer(side, output)
    assert np.allclose(opened("dattri").read(0, 1)["layers.0"][0], alone, atol=1e-5 * np.abs(alone).max())
    # Had the loss been a sum, rows would have been multiplied for nothing: by five, and by three in the last batch.
    mean, total = opened("dattri"), opened("dattri", Options(layout="matrix", loss="sum"))
    sizes = np.array([5.0] * 20 + [3.0] * 3)[:, None, None]
    assert np.allclose(everything(total)["layers.2"] * sizes, everything(mean)["layers.2"], rtol=1e-6)


def test_names_and_ids() -> None:
    logix = opened("logix")
    assert [layer.name for layer in logix.layers] == ["0", "2"]
    assert logix.ids(0, 23) == [f"example {row}" for row in range(23)]
    assert opened("bergson").ids(20, 23) == ["20", "21", "22"]
    names = opened("bergson-tokens").ids(0, opened("bergson-tokens").row_count)
    offsets = np.load(PEERS / "bergson-tokens" / "offsets.npy")
    assert names == [f"{d}/{t}" for d, (low, high) in enumerate(pairwise(offsets)) for t in range(high - low)]


def test_token_rows_sum_to_the_rows_of_documents() -> None:
    tokens, documents = opened("bergson-tokens"), opened("bergson")
    rows = everything(tokens)["layers.1.mlp.down_proj"]
    offsets = np.load(PEERS / "bergson-tokens" / "offsets.npy")
    sums = np.add.reduceat(rows, offsets[:-1], axis=0)
    expected = documents.read(0, len(sums))["layers.1.mlp.down_proj"]
    assert np.allclose(sums, expected, atol=1e-5 * np.abs(expected).max())


def test_bfloat16_is_close_to_single() -> None:
    half, single = everything(opened("bergson-bf16")), everything(opened("bergson"))
    for layer, values in half.items():
        expected = single[layer][: len(values)]
        assert np.linalg.norm(values - expected) <= 0.05 * np.linalg.norm(expected)
        assert not (values.view(np.uint32) & 0xFFFF).any()


def test_what_bergson_did_to_its_rows_is_told(copied: Callable[[str], Path]) -> None:
    unit, plain = opened("bergson-unit"), opened("bergson")
    squares = sum((values.astype(float) ** 2).sum((1, 2)) for values in everything(unit).values())
    assert np.allclose(squares, 1, atol=1e-5)
    assert plain.notes == []
    assert [note for note in unit.notes if "unit norm" in note] == unit.notes != []
    assert unit.provenance["bergson.loss_reduction"] == "sum"
    index = copied("bergson-unit")
    text("config.yaml", (index / "config.yaml").read_text().replace("hessian_path: null", "hessian_path: h"))(index)
    assert any("preconditioned already" in note for note in open_source("bergson", str(index), MATRIX).notes)


@pytest.mark.parametrize("name", ["bergson-legacy", "bergson-legacy-tokens"])
def test_the_layout_before_version_0_11(name: str) -> None:
    source = opened(name)
    values = np.load(PEERS / "bergson-legacy-values.npy").reshape(6, 2, 4, 4)
    found = everything(source)
    assert list(found) == ["layers.0.up", "layers.0.down"]
    for place, layer in enumerate(found):
        assert np.array_equal(found[layer], values[:, place].swapaxes(1, 2))
    ids = [str(row) for row in range(6)] if name == "bergson-legacy" else ["0/0", "0/1", "2/0", "2/1", "2/2", "3/0"]
    assert source.ids(0, 6) == ids


def test_shards_follow_each_other(tmp_path: Path) -> None:
    for number, name in enumerate(["bergson", "bergson-queries"]):
        shutil.copytree(PEERS / name, tmp_path / f"shard-{number}")
    source = open_source("bergson", str(tmp_path), MATRIX)
    assert source.row_count == 26
    layer = source.layers[3].name
    both = np.concatenate([everything(opened(name))[layer] for name in ("bergson", "bergson-queries")])
    assert np.array_equal(source.read(21, 25)[layer], both[21:25])


def test_repeated_ids_are_left_out_as_logix_does(copied: Callable[[str], Path]) -> None:
    log = copied("logix")
    changed(log / "log_rank_0_chunk_1_metadata.json", lambda entries: entries[2].update(data_id="example 0"))
    source = open_source("logix", str(log), MATRIX)
    assert source.row_count == 22
    assert any("1 examples left out" in note for note in source.notes)
    assert np.array_equal(source.read(0, 1)["0"], opened("logix").read(0, 1)["0"])


def test_a_text_too_long_for_an_id_becomes_its_digest(copied: Callable[[str], Path]) -> None:
    log = copied("logix")
    changed(log / "log_rank_0_chunk_0_metadata.json", lambda entries: entries[1].update(data_id="é" * 2049))
    source = open_source("logix", str(log), MATRIX)
    assert source.ids(1, 2)[0].startswith("sha256-")
    assert source.records(0, 2) == [{}, {"data_id": "é" * 2049}]


def test_numpy_files(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    values = {"h.2": random.standard_normal((4, 2, 3)), "h.10": random.standard_normal((4, 5, 1))}
    (tmp_path / "h").mkdir()
    np.save(tmp_path / "h.2.npy", values["h.2"])
    np.save(tmp_path / "h" / "10.npy", np.asfortranarray(values["h.10"]))
    source = open_source("npy", str(tmp_path), Options())
    assert [(x.name, x.input_dimension, x.output_dimension) for x in source.layers] == [("h.2", 2, 3), ("h/10", 5, 1)]
    assert np.array_equal(source.read(1, 3)["h/10"], values["h.10"][1:3])
    turned = open_source("npy", str(tmp_path), Options(input_first=False))
    assert (turned.layers[0].input_dimension, turned.layers[0].output_dimension) == (3, 2)
    assert np.array_equal(turned.read(0, 4)["h.2"], values["h.2"].swapaxes(1, 2))


def changed(path: Path, change: Callable) -> None:
    value = json.loads(path.read_text())
    result = change(value)
    path.write_text(json.dumps(value if result is None or isinstance(result, (int, list)) else result))


def info(**fields: object) -> Callable[[Path], None]:
    return lambda root: changed(root / "info.json", lambda value: value.update(fields))


def sizes(**fields: object) -> Callable[[Path], None]:
    return lambda root: changed(root / "info.json", lambda value: value["grad_sizes"].update(fields))


def cut(name: str, by: int) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        (path,) = root.glob(name)
        content = path.read_bytes()
        path.write_bytes(content[:by] if by < 0 else content + bytes(by))

    return change


def gone(name: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        (path,) = root.glob(name)
        path.unlink()

    return change


def text(name: str, content: str | bytes) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        path = root / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    return change


def entry(chunk: int, place: int, **fields: object) -> Callable[[Path], None]:
    return lambda root: changed(
        root / f"log_rank_0_chunk_{chunk}_metadata.json", lambda entries: entries[place].update(fields)
    )


def chunk(number: str, change: Callable[[dict], object]) -> Callable[[Path], None]:
    return lambda root: changed(root / "grad" / f"chunk_gradients_{number}_metadata.json", change)


def batches(change: Callable[[dict], object]) -> Callable[[Path], None]:
    return lambda root: changed(root / "batch_metadata.json", lambda value: change(value["batch_info"]))


def flagged(root: Path) -> None:
    np.lib.format.open_memmap(root / "1" / "_is_featurized.mmap", "r+")[3] = 0


def widened(root: Path) -> None:
    """Two layers of 16 numbers become one of 17 and one of 15."""
    sizes(**{"layers.0.mlp.up_proj": 17, "layers.0.mlp.down_proj": 15})(root)


NESTED = "[" * 100_000
DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "bergson: cut off": (cut("gradients.bin", -4), "gradients.bin: expected 20608 bytes"),
    "bergson: too long": (cut("gradients.bin", 4), "gradients.bin: expected 20608 bytes"),
    "bergson: no numbers": (gone("gradients.bin"), "gradients.bin does not exist"),
    "bergson: no description": (gone("info.json"), "expected info.json"),
    "bergson: deep": (text("info.json", NESTED), "expected JSON"),
    "bergson: deep object": (text("info.json", '{"a":' * 5000), "expected JSON"),
    "bergson: NaN": (text("info.json", '{"num_grads": NaN}'), "expected JSON"),
    "bergson: key twice": (text("info.json", '{"num_grads": 1, "num_grads": 2}'), "twice"),
    "bergson: not UTF-8": (text("info.json", b'{"\xff": 1}'), "expected JSON"),
    "bergson: an array": (text("info.json", "[]"), "expected a JSON object"),
    "bergson: digits": (text("info.json", '{"num_grads": ' + "9" * 10_000 + "}"), "expected JSON"),
    "bergson: rows": (info(num_grads=10**18), "gradients.bin: expected"),
    "bergson: more rows than bits": (info(num_grads=2**80), "expected an integer"),
    "bergson: negative rows": (info(num_grads=-1), "expected an integer"),
    "bergson: true rows": (info(num_grads=True), "expected an integer"),
    "bergson: no rows": (info(num_grads=0), "gradients.bin: expected 0 bytes"),
    "bergson: no layers": (info(grad_sizes={}), "grad_sizes"),
    "bergson: layers a list": (info(grad_sizes=[1]), "grad_sizes"),
    "bergson: size zero": (sizes(**{"layers.0.mlp.up_proj": 0}), "expected an integer from 1"),
    "bergson: other size": (sizes(**{"layers.0.mlp.up_proj": 15}), "expected"),
    "bergson: float size": (sizes(**{"layers.0.mlp.up_proj": 16.0}), "expected an integer"),
    "bergson: dtype": (info(base_dtype="int8"), "base_dtype"),
    "bergson: dtype object": (info(base_dtype={"a": 1}), "base_dtype"),
    "bergson: projection": (text("processor_config.yaml", "projection_dim: 5\n"), "expected 5 · 5 numbers"),
    "bergson: no square": (
        lambda root: (text("processor_config.yaml", "projection_dim: null\n")(root), widened(root)),
        "no square matrix; say --shape",
    ),
    "bergson: scores": (info(num_scores=3), "scores, not gradients"),
    "bergson-tokens: offsets gone": (gone("offsets.npy"), "offsets.npy does not exist"),
    "bergson-tokens: offsets cut": (cut("offsets.npy", -8), "offsets.npy"),
    "bergson-tokens: offsets no array": (text("offsets.npy", "x"), "offsets.npy"),
    "bergson-tokens: one document more": (info(num_items=7), "increasing integers"),
    "bergson-legacy: other order": (
        lambda root: changed(root / "info.json", lambda value: value["dtype"]["names"].reverse()),
        "packed structure",
    ),
    "bergson-legacy: padding": (
        lambda root: changed(root / "info.json", lambda value: value["dtype"].update(offsets=[0, 64])),
        "packed structure",
    ),
    "logix: cut off": (cut("*chunk_1.mmap", -1), "is the file cut off"),
    "logix: too long": (cut("*chunk_1.mmap", 4), "expected 1024 bytes"),
    "logix: chunk gone": (
        lambda root: (gone("*chunk_1.mmap")(root), gone("*chunk_1_metadata.json")(root)),
        "chunk 1 of rank 0 is missing",
    ),
    "logix: numbers gone": (gone("*chunk_2.mmap"), "is missing"),
    "logix: description gone": (gone("*chunk_2_metadata.json"), "does not exist"),
    "logix: description of another run": (
        lambda root: shutil.copy(root / "log_rank_0_chunk_2_metadata.json", root / "log_rank_0_chunk_1_metadata.json"),
        "expected 896 bytes",
    ),
    "logix: description cut": (cut("*chunk_0_metadata.json", -100), "expected JSON objects"),
    "logix: no end": (cut("*chunk_0_metadata.json", -1), "cut off"),
    "logix: more after the end": (
        text("log_rank_0_chunk_0_metadata.json", "[] []"),
        "nothing after the array",
    ),
    "logix: deep": (text("log_rank_0_chunk_0_metadata.json", NESTED), "expected an object"),
    "logix: deep object": (text("log_rank_0_chunk_0_metadata.json", "[" + '{"a":' * 5000), "expected JSON"),
    "logix: an object": (text("log_rank_0_chunk_0_metadata.json", "{}"), "expected a JSON array"),
    "logix: offset": (entry(0, 1, offset=10**17), "expected data within"),
    "logix: negative offset": (entry(0, 1, offset=-4), "expected an integer"),
    "logix: overlap": (entry(0, 1, offset=64), "overlaps"),
    "logix: hole": (entry(0, 1, data_id="x", offset=1024 - 128), "overlaps|undescribed"),
    "logix: other shape": (entry(0, 1, shape=[[2, 8], [4, 4]]), "first entry"),
    "logix: block": (entry(0, 0, block_size=31), "block_size"),
    "logix: not a matrix": (entry(0, 0, shape=[[16], [4, 4]]), "expected a matrix"),
    "logix: shape zero": (entry(0, 0, shape=[[4, 0], [4, 4]]), "expected an integer from 1"),
    "logix: activations": (entry(0, 0, path=[["0", "forward"], ["2", "grad"]]), "activations"),
    "logix: layer twice": (
        lambda root: [
            changed(path, lambda entries: [e.update(path=[["0", "grad"], ["0", "grad"]]) for e in entries])
            for path in root.glob("*_metadata.json")
        ],
        "distinct layers",
    ),
    "logix: int8": (entry(0, 0, dtype="int8"), "without a scale"),
    "logix: dtype object": (entry(0, 0, dtype="object"), "expected float16"),
    "logix: id a list": (entry(0, 0, data_id=["a"]), "data_id"),
    "logix: id empty": (entry(0, 0, data_id=""), "1 to 4096 bytes"),
    "logix: id half a pair": (entry(0, 0, data_id="\ud800"), "surrogate"),
    "logix: nothing": (
        lambda root: [path.unlink() for path in root.glob("log_*")],
        "found none",
    ),
    "dattri: chunk gone": (
        lambda root: (gone("grad/*2_3.mmap")(root), gone("grad/*2_3_metadata.json")(root)),
        "2 of 5 batches are in no chunk",
    ),
    "dattri: numbers gone": (gone("grad/*4_4.mmap"), "does not exist"),
    "dattri: cut off": (cut("grad/*0_1.mmap", -64), "expected 1280 bytes"),
    "dattri: batch twice": (
        lambda root: (
            shutil.copy(root / "grad/chunk_gradients_4_4.mmap", root / "grad/chunk_gradients_5_5.mmap"),
            shutil.copy(
                root / "grad/chunk_gradients_4_4_metadata.json", root / "grad/chunk_gradients_5_5_metadata.json"
            ),
        ),
        "in another chunk, too",
    ),
    "dattri: unknown batch": (chunk("4_4", lambda c: c["batches"][0].update(batch_idx=9)), "not in batch_metadata"),
    "dattri: rows of a batch": (chunk("0_1", lambda c: c["batches"][0].update(end_row=4)), "expected rows 0 to 5"),
    "dattri: shape": (chunk("0_1", lambda c: c.update(shape=[10**9, 32])), "expected 128000000000 bytes"),
    "dattri: columns": (chunk("0_1", lambda c: c.update(shape=[10, 31])), r"expected \[rows, 32\]"),
    "dattri: layers": (chunk("0_1", lambda c: c.update(layer_dims=[8, 24])), "layer_dims"),
    "dattri: dtype": (chunk("0_1", lambda c: c.update(storage_dtype="object")), "storage_dtype"),
    "dattri: hole between batches": (batches(lambda b: b["2"].update(start_idx=11)), "expected start_idx 10"),
    "dattri: batch number": (batches(lambda b: b.update(x=b.pop("2"))), "expected a batch number"),
    "dattri: no batches": (batches(lambda b: b.clear()), "found none"),
    "dattri: batch gone": (batches(lambda b: b.pop("4") and None), "total_samples"),
    "trak: not featurized": (flagged, "1 of 23 examples of checkpoint 1"),
    "trak: cut off": (cut("0/grads.mmap", -4), "complete NumPy file"),
    "trak: other train set": (
        lambda root: changed(root / "metadata.json", lambda value: value.update({"train set size": 24})),
        "expected shape",
    ),
    "trak: pickled": (
        lambda root: (
            np.save(root / "0" / "grads.mmap.npy", np.array([{}]), allow_pickle=True)
            or (root / "0" / "grads.mmap.npy").replace(root / "0" / "grads.mmap")
        ),
        "complete NumPy file",
    ),
}


@pytest.mark.parametrize("name", list(DAMAGE))
def test_damage_is_refused(name: str, copied: Callable[[str], Path]) -> None:
    store = name.partition(":")[0]
    root = copied(store)
    change, says = DAMAGE[name]
    open_source(store.partition("-")[0], str(root), MATRIX)
    change(root)
    with pytest.raises(ImporterError, match=says):
        open_source(store.partition("-")[0], str(root), MATRIX)


@pytest.mark.parametrize("format_name", list(FORMATS))
def test_what_is_not_there_is_refused(format_name: str, tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ImporterError, match=str(tmp_path)):
            open_source(format_name, str(path), MATRIX)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("bergson-global", "no matrix"),
        ("bergson-whole", "--shape"),
        ("dattri-factgrass", "does not record"),
        ("dattri", "LoGra"),
    ],
)
def test_what_has_no_matrix_is_refused_unless_taken_as_vectors(name: str, says: str) -> None:
    with pytest.raises(ImporterError, match=says):
        opened(name, Options())
    source = opened(name, Options(layout="vector"))
    assert all(layer.output_dimension == 1 for layer in source.layers)
    flat = np.concatenate([values[:, :, 0] for values in everything(source).values()], axis=1)
    raw = {"bergson-global": "gradients.bin", "dattri-factgrass": "grad/chunk_gradients_0_1.mmap"}.get(name)
    if raw is not None:
        assert np.array_equal(flat.ravel(), np.fromfile(PEERS / name / raw, np.float32))


def test_an_unfinished_build_is_refused(tmp_path: Path) -> None:
    shutil.copytree(PEERS / "bergson", tmp_path / "index.part")
    with pytest.raises(ImporterError, match="let the build finish"):
        open_source("bergson", str(tmp_path / "index.part"), MATRIX)


def test_shapes_must_fit() -> None:
    with pytest.raises(ImporterError, match="of 64 numbers, found 9x9"):
        opened("bergson-whole", Options(shapes=(("*", 9, 9),)))


def test_holes_of_zeros_are_refused(copied: Callable[[str], Path]) -> None:
    index = copied("bergson")
    values = np.memmap(index / "gradients.bin", np.float32, "r+", shape=(23, 14 * 16))
    values[7] = 0
    values[9, :16] = 0
    values.flush()
    source = open_source("bergson", str(index), MATRIX)
    with pytest.raises(ImporterError, match=r"1 of rows 0 to 22 are nothing but zeros.*row 7 \(id '7'\)"):
        read_rows(source, 0, 23, Settings())
    kept = read_rows(source, 0, 23, Settings(zero_rows="keep"))
    assert (len(kept.ids), kept.skipped, kept.with_zero_layers) == (23, 0, 1)
    skipped = read_rows(source, 0, 23, Settings(zero_rows="skip"))
    assert (skipped.skipped, "7" in skipped.ids, len(skipped.layers["layers.0.mlp.up_proj"])) == (1, False, 22)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused_by_name(value: float, copied: Callable[[str], Path]) -> None:
    index = copied("bergson")
    np.memmap(index / "gradients.bin", np.float32, "r+", shape=(23, 14 * 16))[5, 20] = value
    source = open_source("bergson", str(index), MATRIX)
    with pytest.raises(ImporterError, match=r"row 5 \(id 'x5'\), layer 'layers.0.self_attn.k_proj'"):
        read_rows(source, 0, 23, Settings(id_prefix="x"))


def test_doubles_beyond_single_precision_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "l.npy", np.full((2, 3, 3), 1e300))
    with pytest.raises(ImporterError, match="finite numbers in single precision"):
        read_rows(open_source("npy", str(tmp_path), Options()), 0, 2, Settings())


def test_rows_are_scaled_and_energy_is_theirs() -> None:
    rows, plain = (read_rows(opened("logix"), 0, 23, Settings(scale=scale)) for scale in (3.0, 1.0))
    assert np.allclose(rows.layers["2"], 3 * plain.layers["2"], rtol=1e-6)
    assert rows.energy == pytest.approx(9 * plain.energy)
    expected = sum(float((values.astype(np.float64) ** 2).sum()) for values in everything(opened("logix")).values())
    assert plain.energy == pytest.approx(expected)


def test_descriptions_are_read_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "entries.json"
    entries = [{"number": number, "text": "é\\]}," * 5000} for number in range(100)]
    path.write_text(json.dumps(entries, indent=2, ensure_ascii=False), encoding="utf-8")
    assert path.stat().st_size > 2 << 20
    assert list(read_entries(path)) == entries
    path.write_text("[]")
    assert list(read_entries(path)) == []
    path.write_text('[{"a": 1},]')
    with pytest.raises(ImporterError, match="expected an object"):
        list(read_entries(path))


def test_a_large_description_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "info.json"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ImporterError, match="expected at most"):
        read_json(path)
