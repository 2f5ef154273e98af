"""Factor batches against the safetensors library, and against every rule of the format."""

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from lorif.batch import BatchError, FactorBatch, Factors, SecondMoments, natural_key, write_batch
from safetensors import safe_open
from safetensors.numpy import save_file

ROWS = 3


@pytest.fixture
def layers() -> dict[str, Factors | np.ndarray]:
    random = np.random.default_rng(1)

    def normal(*shape: int) -> np.ndarray:
        return random.standard_normal(shape).astype(np.float32)

    return {"z/proj": Factors(normal(ROWS, 4, 2), normal(ROWS, 5, 2)), "a": normal(ROWS, 2, 3)}


def test_the_safetensors_library_reads_what_we_write(layers: dict, tmp_path: Path) -> None:
    path = tmp_path / "b.safetensors"
    write_batch(path, layers, ids=["ä", "b", "c"], provenance={"model": "m"})
    with safe_open(path, "np") as file:
        assert np.array_equal(file.get_tensor("z/proj/left"), layers["z/proj"].left)
        assert np.array_equal(file.get_tensor("z/proj/right"), layers["z/proj"].right)
        assert np.array_equal(file.get_tensor("a/full"), layers["a"])
        metadata = file.metadata()
    assert metadata["lorif.batch"] == "1"
    assert json.loads(metadata["ids"]) == ["ä", "b", "c"]
    assert json.loads(metadata["layers"]) == ["z/proj", "a"]
    assert metadata["model"] == "m"


def test_round_trip(layers: dict, tmp_path: Path) -> None:
    path = tmp_path / "b.safetensors"
    write_batch(path, layers, ids=["x", "y", "z"], provenance={"seed": "1"})
    batch = FactorBatch(path)
    assert [(layer.name, layer.rank) for layer in batch.layers] == [("z/proj", 2), ("a", None)]
    assert (batch.row_count, batch.ids, batch.provenance) == (ROWS, ["x", "y", "z"], {"seed": "1"})
    left, right = batch.factors("z/proj", slice(1, 3))
    assert np.array_equal(left, layers["z/proj"].left[1:])
    assert np.array_equal(right, layers["z/proj"].right[1:])
    assert np.array_equal(batch.gradients("a"), layers["a"])
    expected = np.stack([left[i] @ right[i].T for i in range(2)])
    assert np.allclose(batch.gradients("z/proj", slice(1, 3)), expected, atol=1e-6)


@pytest.mark.parametrize(("dtype", "tolerance"), [("f16", 2**-11), ("bf16", 2**-8)])
def test_narrow_types_round_to_nearest(layers: dict, dtype: str, tolerance: float, tmp_path: Path) -> None:
    path = tmp_path / "b.safetensors"
    write_batch(path, layers, dtype=dtype)
    read = FactorBatch(path).factors("z/proj").left
    wanted = layers["z/proj"].left
    assert (np.abs(read - wanted) <= tolerance * np.abs(wanted)).all()
    assert not np.array_equal(read, wanted)


def test_bfloat16_ties_go_to_even(tmp_path: Path) -> None:
    path = tmp_path / "b.safetensors"
    bits = np.array([0x3F808000, 0x3F818000, 0x3F808001, 0x3F807FFF], dtype=np.uint32)
    write_batch(path, {"l": bits.view(np.float32).reshape(1, 4, 1)}, dtype="bf16")
    read = FactorBatch(path).gradients("l").reshape(-1).view(np.uint32)
    assert [hex(value) for value in read] == ["0x3f800000", "0x3f820000", "0x3f810000", "0x3f800000"]


def test_overflow_and_not_finite_are_refused_and_leave_no_file(layers: dict, tmp_path: Path) -> None:
    path = tmp_path / "b.safetensors"
    layers["a"][1, 0, 2] = 1e6
    with pytest.raises(BatchError, match=r"a/full.*row 1 \(id 'y'\)"):
        write_batch(path, layers, dtype="f16", ids=["x", "y", "z"])
    layers["a"][1, 0, 2] = np.nan
    with pytest.raises(BatchError, match="row 1"):
        write_batch(path, layers)
    assert not list(tmp_path.iterdir())


def test_records_ride_beside_the_batch(layers: dict, tmp_path: Path) -> None:
    path = tmp_path / "b.safetensors"
    write_batch(path, layers, ids=["x", "y", "z"], records=[{"text": "é\n"}, {}, {"id": "z", "n": 1}])
    lines = (tmp_path / "b.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [{"id": "x", "text": "é\n"}, {"id": "y"}, {"id": "z", "n": 1}]
    with pytest.raises(BatchError, match="expected id 'y'"):
        write_batch(path, layers, ids=["x", "y", "z"], records=[{}, {"id": "q"}, {}])
    with pytest.raises(BatchError, match="3 records"):
        write_batch(path, layers, records=[{}])


@pytest.mark.parametrize(
    "ids",
    [["a", "b"], ["a", "b", "a"], ["a", "", "c"], ["a", "b", "x" * 4097], ["a", "b", "\ud800"]],
    ids=["few", "twice", "empty", "long", "surrogate"],
)
def test_bad_ids(ids: list[str], layers: dict, tmp_path: Path) -> None:
    with pytest.raises(BatchError, match="ids"):
        write_batch(tmp_path / "b.safetensors", layers, ids=ids)


BAD_LAYERS: dict[str, dict] = {
    "none": {},
    "no rows": {"a": np.zeros((0, 2, 2))},
    "two dimensions": {"a": np.zeros((2, 2))},
    "a dimension of zero": {"a": np.zeros((2, 0, 2))},
    "ranks differ": {"a": Factors(np.zeros((2, 3, 1)), np.zeros((2, 3, 2)))},
    "rows differ in a layer": {"a": Factors(np.zeros((2, 3, 1)), np.zeros((3, 3, 1)))},
    "rows differ between layers": {"a": np.zeros((2, 1, 1)), "b": np.zeros((3, 1, 1))},
    "a name too long": {"a" * 1025: np.zeros((1, 1, 1))},
    "a name of nothing": {"": np.zeros((1, 1, 1))},
    "a name with half a pair": {"\ud800": np.zeros((1, 1, 1))},
}


@pytest.mark.parametrize("name", list(BAD_LAYERS))
def test_bad_layers(name: str, tmp_path: Path) -> None:
    with pytest.raises(BatchError):
        write_batch(tmp_path / "b.safetensors", BAD_LAYERS[name])
    assert not list(tmp_path.iterdir())


def test_layers_without_an_order_come_in_natural_order(tmp_path: Path) -> None:
    path = tmp_path / "b.safetensors"
    names = ["h.10", "h.2", "h.02", "h.1.b", "h.1.a", "H.3", "h", "h.x"]
    save_file({f"{name}/full": np.zeros((1, 1, 1), np.float32) for name in names}, path)
    expected = ["H.3", "h", "h.1.a", "h.1.b", "h.02", "h.2", "h.10", "h.x"]
    assert [layer.name for layer in FactorBatch(path).layers] == expected
    assert sorted(names, key=natural_key) == expected


def rewritten(path: Path, change: Callable[[dict], None]) -> None:
    """Changes the header of a file and keeps its data."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])


CHANGES: dict[str, Callable[[dict], object]] = {
    "overlap": lambda h: h["a/full"].update(data_offsets=[8, 80]),
    "hole": lambda h: h["a/full"].update(data_offsets=[10_000, 10_072]),
    "reversed": lambda h: h["a/full"].update(data_offsets=[72, 0]),
    "shape": lambda h: h["a/full"].update(shape=[3, 2, 4]),
    "negative": lambda h: h["a/full"].update(shape=[3, -2, -3]),
    "dtype": lambda h: h["a/full"].update(dtype="I32"),
    "unknown type": lambda h: h["a/full"].update(dtype=["F32"]),
    "entry": lambda h: h.update({"a/full": 3}),
    "version": lambda h: h["__metadata__"].update({"lorif.batch": "2"}),
    "metadata": lambda h: h["__metadata__"].update({"k": 1}),
    "ids no list": lambda h: h["__metadata__"].update(ids="x"),
    "ids no strings": lambda h: h["__metadata__"].update(ids="[1, 2, 3]"),
    "ids twice": lambda h: h["__metadata__"].update(ids='["a", "a", "b"]'),
    "layers missing one": lambda h: h["__metadata__"].update(layers='["a"]'),
    "layers twice": lambda h: h["__metadata__"].update(layers='["a", "z/proj", "a"]'),
    "name": lambda h: h.update({"a/half": h.pop("a/full")}),
    "side": lambda h: h.update({"z/proj/full": h.pop("z/proj/left")}),
}


@pytest.mark.parametrize("name", list(CHANGES))
def test_bad_headers(name: str, layers: dict, tmp_path: Path) -> None:
    path = tmp_path / "b.safetensors"
    write_batch(path, layers)
    rewritten(path, lambda header: None)
    FactorBatch(path)
    rewritten(path, CHANGES[name])
    with pytest.raises(BatchError, match=str(path)):
        FactorBatch(path)


def test_every_truncation_is_refused(layers: dict, tmp_path: Path) -> None:
    path = tmp_path / "b.safetensors"
    write_batch(path, layers)
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(BatchError):
            FactorBatch(path)
    path.write_bytes(content + b"\0")
    with pytest.raises(BatchError):
        FactorBatch(path)


def test_a_repeated_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "b.safetensors"
    entry = '"a/full":{"dtype":"F32","shape":[1,1,1],"data_offsets":[0,4]}'
    text = f"{{{entry},{entry}}}".encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(4))
    with pytest.raises(BatchError, match="twice"):
        FactorBatch(path)


def test_numbers_that_are_not_finite_are_found_on_reading(tmp_path: Path) -> None:
    path = tmp_path / "b.safetensors"
    values = np.zeros((4, 2, 2), np.float32)
    values[2, 1, 0] = np.inf
    save_file({"l/full": values}, path, {"ids": '["a","b","c","d"]'})
    batch = FactorBatch(path)
    assert batch.gradients("l", slice(0, 2)).shape == (2, 2, 2)
    with pytest.raises(BatchError, match=r"l/full.*row 2 \(id 'c'\)"):
        batch.gradients("l", slice(1, 4))


def test_the_shipped_batches_are_read() -> None:
    root = Path(__file__).resolve().parents[3]
    paths = [
        *(root / "Tools" / "demo").glob("*.safetensors"),
        *(root / "Tests/Data/reference").glob("*_c?.safetensors"),
    ]
    batches = [path for path in paths if not path.name.startswith("expected")]
    assert len(batches) >= 6
    for path in batches:
        batch = FactorBatch(path)
        assert batch.ids is not None
        for layer in batch.layers:
            assert batch.gradients(layer.name, slice(0, 3)).shape == (3, layer.input_dimension, layer.output_dimension)


def test_a_batch_is_on_the_disk_before_it_has_its_name(
    layers: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    sync, rename = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        target = Path(f"/proc/self/fd/{descriptor}").readlink()
        events.append(f"sync {'folder' if target.is_dir() else target.name.split('.')[2]}")
        sync(descriptor)

    def renamed(self: Path, target: Path) -> Path:
        events.append(f"rename {target.suffix[1:]}")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    write_batch(tmp_path / "b.safetensors", layers, records=[{}, {}, {}])
    assert events == ["sync safetensors", "sync jsonl", "rename jsonl", "rename safetensors", "sync folder"]


def test_basis_and_second_moments_come_back(layers: dict, tmp_path: Path) -> None:
    path = tmp_path / "b.safetensors"
    moments = SecondMoments(np.diag([1.0, 1e-40]), np.diag([1.0, 2.0, 1e300]))
    write_batch(path, layers, basis="0123456789abcdef" * 2, second_moments={"a": moments}, dtype="bf16")
    batch = FactorBatch(path)
    assert batch.basis == "0123456789abcdef" * 2
    assert [layer.name for layer in batch.layers] == ["z/proj", "a"]
    assert (batch.row_count, batch.provenance) == (ROWS, {})
    found = batch.second_moments("a")
    assert found is not None
    for side, given in zip(found, moments, strict=True):
        assert (side == given).all()
    assert batch.second_moments("z/proj") is None


def test_bad_basis_and_moments_are_refused(layers: dict, tmp_path: Path) -> None:
    path = tmp_path / "b.safetensors"
    with pytest.raises(BatchError, match="32 hexadecimal digits"):
        write_batch(path, layers, basis="x")
    good = SecondMoments(np.eye(2), np.eye(3))
    for bad, says in (
        ({"b": good}, "gradients of the layer"),
        ({"a": SecondMoments(np.eye(3), np.eye(3))}, r"\[2, 2\]"),
        ({"a": SecondMoments(np.eye(2) * np.nan, np.eye(3))}, "finite"),
    ):
        with pytest.raises(BatchError, match=says):
            write_batch(path, layers, second_moments=bad)
    save_file({"a/full": np.ones((1, 2, 3), np.float64)}, path)
    with pytest.raises(BatchError, match="F64"):
        FactorBatch(path)
    save_file({"a/full": np.ones((1, 2, 3), np.float32), "a/second_moment_left": np.eye(2)}, path)
    with pytest.raises(BatchError, match="left and right"):
        FactorBatch(path)
