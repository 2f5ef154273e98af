"""Input that must be refused: the right exit code, a message that names file and place, a store left as it was."""

import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from harness import (
    DAMAGED,
    ENVIRONMENT,
    OK,
    USAGE,
    Layers,
    attempt,
    batch_tensors,
    contents,
    refused,
    run,
    safetensors_bytes,
    tensor_entry,
    write_batch,
    write_tensors,
)

NAMES = ("h.0.attn", "h.1.mlp")
ROWS = 4


def layers(random: np.random.Generator, count: int = ROWS, d1: int = 3, d2: int = 5, rank: int = 2) -> dict:
    """Factors of two layers."""
    return {
        name: tuple(random.standard_normal((count, d, rank)).astype(np.float32) for d in (d1, d2)) for name in NAMES
    }


@pytest.fixture
def store(random: np.random.Generator, tmp_path: Path) -> Path:
    """A store of four rows, e0 to e3."""
    path = tmp_path / "s.lorif"
    batch = write_batch(tmp_path / "first.safetensors", layers(random), ids=[f"e{row}" for row in range(ROWS)])
    run("ingest", "--encoding", "f32", path, batch)
    return path


def assert_refused_and_unchanged(store: Path, command: tuple, says: tuple, code: int = 3) -> None:
    before, facts = contents(store), run("inspect", store, "--json").stdout
    refused(*command, code=code, says=says)
    assert run("inspect", store, "--json").stdout == facts
    after = contents(store)
    assert list(after) == list(before)
    # The catalog may be rewritten by a transaction that was given up; segments and the rest may not change a byte.
    assert {n: b for n, b in after.items() if "catalog" not in n} == {
        n: b for n, b in before.items() if "catalog" not in n
    }
    run("verify", store)


def tampered(random: np.random.Generator, change: Callable[[dict], None], count: int = ROWS) -> bytes:
    """A good batch whose header was changed."""
    header: dict = {"__metadata__": {"lorif.batch": "1", "layers": json.dumps(NAMES)}}
    data = b""
    for name, array in batch_tensors(layers(random, count)).items():
        content = array.tobytes()
        header[name] = tensor_entry("F32", array.shape, len(data), len(data) + len(content))
        data += content
    change(header)
    return safetensors_bytes(header, data)


def moved(name: str, by: int) -> Callable[[dict], None]:
    def change(header: dict) -> None:
        header[name]["data_offsets"] = [offset + by for offset in header[name]["data_offsets"]]

    return change


def replaced(name: str, **fields: object) -> Callable[[dict], None]:
    return lambda header: header[name].update(fields)


FIRST, LAST = "h.0.attn/left", "h.1.mlp/right"

BAD_HEADERS = {
    "overlap": moved("h.0.attn/right", -8),
    "hole": moved(LAST, 8),
    "beyond the data": replaced(LAST, data_offsets=[1 << 20, (1 << 20) + 160]),
    "offsets reversed": replaced(FIRST, data_offsets=[96, 0]),
    "negative offset": replaced(FIRST, data_offsets=[-96, 0]),
    "offset over 64 bits": replaced(FIRST, data_offsets=[0, 1 << 70]),
    "shape against length": replaced(FIRST, shape=[ROWS, 3, 3]),
    "shape overflows": replaced(FIRST, shape=[1 << 62, 1 << 62, 4]),
    "negative dimension": replaced(FIRST, shape=[-4, 3, 2]),
    "two dimensions": replaced(FIRST, shape=[ROWS, 6]),
    "unknown dtype": replaced(FIRST, dtype="F31"),
    "integer dtype": replaced(FIRST, dtype="I32"),
    "dtype missing": lambda header: header[FIRST].pop("dtype"),
}


NOT_COUNTS = ("negative offset", "offset over 64 bits", "negative dimension")


@pytest.mark.parametrize("name", list(BAD_HEADERS))
def test_bad_header(name: str, store: Path, random: np.random.Generator, tmp_path: Path) -> None:
    batch = tmp_path / "bad.safetensors"
    batch.write_bytes(tampered(random, BAD_HEADERS[name]))
    # Numbers that are no counts at all are found before the tensor is known: then the place is a byte of the header.
    place = "header, byte" if name in NOT_COUNTS else "h."
    assert_refused_and_unchanged(store, ("ingest", "--encoding", "f32", store, batch), (batch, place))


BAD_FILES = {
    "empty": b"",
    "seven bytes": b"1234567",
    "text": b"this is not a safetensors file, whatever its name says\n",
    "header longer than the file": safetensors_bytes(b"{}", b"", header_length=1000),
    "header of 2^63 bytes": struct.pack("<Q", 1 << 63) + b"{}",
    "header over the limit": struct.pack("<Q", 100_000_001) + b"{}" + bytes(1000),
    "not JSON": safetensors_bytes(b"{nope}", b""),
    "not an object": safetensors_bytes(b"[1, 2]", b""),
    "not UTF-8": safetensors_bytes(b'{"\xff\xfe": 1}', b""),
    "no tensors": safetensors_bytes({"__metadata__": {"lorif.batch": "1"}}, b""),
    "deep nesting": safetensors_bytes(b"[" * 100_000, b""),
}


@pytest.mark.parametrize("name", list(BAD_FILES))
def test_not_a_batch(name: str, store: Path, tmp_path: Path) -> None:
    batch = tmp_path / "bad.safetensors"
    batch.write_bytes(BAD_FILES[name])
    assert_refused_and_unchanged(store, ("ingest", "--encoding", "f32", store, batch), (batch,))


def test_every_truncation_of_a_batch(store: Path, random: np.random.Generator, tmp_path: Path) -> None:
    whole = write_batch(tmp_path / "whole.safetensors", layers(random)).read_bytes()
    before = contents(store)
    batch = tmp_path / "cut.safetensors"
    for length in sorted(
        {0, 1, 7, 8, 9, len(whole) // 2, len(whole) - 1, *random.integers(0, len(whole), 12).tolist()}
    ):
        batch.write_bytes(whole[:length])
        refused("ingest", "--encoding", "f32", store, batch, says=(batch,))
    batch.write_bytes(whole + b"\0")
    refused("ingest", "--encoding", "f32", store, batch, says=(batch,))
    assert list(contents(store)) == list(before)
    run("verify", store)


def test_missing_file(store: Path, tmp_path: Path) -> None:
    before = contents(store)
    outcome = attempt("ingest", "--encoding", "f32", store, tmp_path / "nothing.safetensors")
    assert outcome.code in (3, ENVIRONMENT), str(outcome)
    assert "nothing.safetensors" in outcome.stderr
    assert list(contents(store)) == list(before)


def without(part: str) -> Callable[[Layers], dict]:
    def change(good: Layers) -> dict:
        return {name: array for name, array in batch_tensors(good).items() if name != part}

    return change


@pytest.mark.parametrize("part", [FIRST, "h.1.mlp/right"])
def test_one_side_missing(part: str, store: Path, random: np.random.Generator, tmp_path: Path) -> None:
    batch = write_tensors(tmp_path / "bad.safetensors", without(part)(layers(random)), {"lorif.batch": "1"})
    assert_refused_and_unchanged(
        store, ("ingest", "--encoding", "f32", store, batch), (batch, part.split("/", maxsplit=1)[0])
    )


SHAPES = {
    "d1": ({"d1": 4}, "3"),
    "d2": ({"d2": 6}, "5"),
    "rank": ({"rank": 3}, "2"),
}


@pytest.mark.parametrize("name", list(SHAPES))
def test_shape_against_the_store(name: str, store: Path, random: np.random.Generator, tmp_path: Path) -> None:
    shape, expected = SHAPES[name]
    batch = write_batch(tmp_path / "bad.safetensors", layers(random, **shape))
    assert_refused_and_unchanged(store, ("ingest", "--encoding", "f32", store, batch), (batch, "h.0.attn", expected))


def test_rank_differs_within_a_layer(store: Path, random: np.random.Generator, tmp_path: Path) -> None:
    bad = layers(random)
    bad["h.1.mlp"] = (bad["h.1.mlp"][0], bad["h.1.mlp"][1][:, :, :1])
    batch = write_batch(tmp_path / "bad.safetensors", bad)
    assert_refused_and_unchanged(store, ("ingest", "--encoding", "f32", store, batch), (batch, "h.1.mlp"))


def test_row_counts_differ_between_layers(store: Path, random: np.random.Generator, tmp_path: Path) -> None:
    bad = layers(random)
    bad["h.1.mlp"] = layers(random, count=ROWS + 1)["h.1.mlp"]
    batch = write_batch(tmp_path / "bad.safetensors", bad)
    assert_refused_and_unchanged(store, ("ingest", "--encoding", "f32", store, batch), (batch, "h.1.mlp"))


def test_layers_differ_from_the_store(store: Path, random: np.random.Generator, tmp_path: Path) -> None:
    good = layers(random)
    fewer = write_batch(tmp_path / "fewer.safetensors", {"h.0.attn": good["h.0.attn"]})
    assert_refused_and_unchanged(store, ("ingest", "--encoding", "f32", store, fewer), (fewer, "h.1.mlp"))
    more = write_batch(tmp_path / "more.safetensors", {**good, "h.2.new": good["h.0.attn"]})
    assert_refused_and_unchanged(store, ("ingest", "--encoding", "f32", store, more), (more, "h.2.new"))


def test_two_batches_of_one_call_disagree(random: np.random.Generator, tmp_path: Path) -> None:
    first = write_batch(tmp_path / "a.safetensors", layers(random))
    second = write_batch(tmp_path / "b.safetensors", layers(random, rank=1))
    refused("ingest", "--encoding", "f32", tmp_path / "new.lorif", first, second, says=(second, "h.0.attn"))
    assert not (tmp_path / "new.lorif").exists()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_not_finite(value: float, dtype: type, store: Path, random: np.random.Generator, tmp_path: Path) -> None:
    bad = {name: tuple(part.astype(dtype) for part in parts) for name, parts in layers(random).items()}
    bad["h.1.mlp"][1][2, 4, 1] = value
    batch = write_batch(tmp_path / "bad.safetensors", bad, ids=["n0", "n1", "n2", "n3"])
    assert_refused_and_unchanged(store, ("ingest", "--encoding", "f32", store, batch), (batch, "h.1.mlp", "n2", "2"))


def test_not_finite_in_the_last_of_several_batches(store: Path, random: np.random.Generator, tmp_path: Path) -> None:
    good = write_batch(tmp_path / "good.safetensors", layers(random), ids=["g0", "g1", "g2", "g3"])
    bad = layers(random)
    bad["h.0.attn"][0][3, 0, 0] = np.nan
    batch = write_batch(tmp_path / "bad.safetensors", bad, ids=["n0", "n1", "n2", "n3"])
    assert_refused_and_unchanged(store, ("ingest", "--encoding", "f32", store, good, batch), (batch, "h.0.attn", "n3"))
    run("ingest", "--encoding", "f32", store, good)


def test_duplicate_ids(store: Path, random: np.random.Generator, tmp_path: Path) -> None:
    twice = write_batch(tmp_path / "twice.safetensors", layers(random), ids=["x", "y", "x", "z"])
    assert_refused_and_unchanged(store, ("ingest", "--encoding", "f32", store, twice), (twice, "x"))
    known = write_batch(tmp_path / "known.safetensors", layers(random), ids=["x", "y", "e2", "z"])
    assert_refused_and_unchanged(store, ("ingest", "--encoding", "f32", store, known), (known, "e2"))
    first = write_batch(tmp_path / "p.safetensors", layers(random), ids=["p", "q", "r", "s"])
    second = write_batch(tmp_path / "q.safetensors", layers(random), ids=["t", "u", "v", "p"])
    assert_refused_and_unchanged(store, ("ingest", "--encoding", "f32", store, first, second), (second, "p"))


@pytest.mark.parametrize(
    "ids",
    [["a", "b"], ["a", "b", "c", 4], ["a", "b", "c", ""], "abcd", ["a", "b", "c", "d" * 5000]],
    ids=["too few", "a number", "an empty one", "no list", "too long"],
)
def test_bad_ids(ids: object, store: Path, random: np.random.Generator, tmp_path: Path) -> None:
    batch = tmp_path / "bad.safetensors"
    write_tensors(batch, batch_tensors(layers(random)), {"lorif.batch": "1", "ids": json.dumps(ids)})
    assert_refused_and_unchanged(store, ("ingest", "--encoding", "f32", store, batch), (batch, "ids"))


def test_zero_rows(store: Path, random: np.random.Generator, tmp_path: Path) -> None:
    batch = write_batch(tmp_path / "none.safetensors", layers(random, count=0))
    assert_refused_and_unchanged(store, ("ingest", "--encoding", "f32", store, batch), (batch,))


@pytest.mark.parametrize("version", ["2", "x", ""])
def test_unknown_batch_version(version: str, store: Path, random: np.random.Generator, tmp_path: Path) -> None:
    batch = write_tensors(tmp_path / "b.safetensors", batch_tensors(layers(random)), {"lorif.batch": version})
    assert_refused_and_unchanged(store, ("ingest", "--encoding", "f32", store, batch), (batch, "lorif.batch"))


BAD_METADATA = {
    "not JSON": "{nope}\n",
    "no object": "[1]\n",
    "id twice": '{"id": "n1"}\n{"id": "n1"}\n',
    "cut": '{"id": "n0", "text": "x',
    "not UTF-8": b'{"id": "n0", "text": "\xff"}\n',
}


@pytest.mark.parametrize("name", list(BAD_METADATA))
def test_bad_metadata(name: str, store: Path, random: np.random.Generator, tmp_path: Path) -> None:
    batch = write_batch(tmp_path / "b.safetensors", layers(random), ids=["n0", "n1", "n2", "n3"])
    text = BAD_METADATA[name]
    beside = tmp_path / "b.jsonl"
    beside.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert_refused_and_unchanged(store, ("ingest", "--encoding", "f32", store, batch), (beside,))


def test_encoding_and_rank_against_the_store(store: Path, random: np.random.Generator, tmp_path: Path) -> None:
    batch = write_batch(tmp_path / "b.safetensors", layers(random))
    assert_refused_and_unchanged(store, ("ingest", store, batch, "--encoding", "int8"), ("f32", "int8"))
    assert_refused_and_unchanged(store, ("ingest", store, batch, "--encoding", "f33"), ("f33",), code=USAGE)
    assert_refused_and_unchanged(store, ("ingest", "--encoding", "f32", store, batch, "--rank", "1"), ("1",))


def test_query_with_an_unknown_layer(store: Path, random: np.random.Generator, tmp_path: Path) -> None:
    query = write_batch(tmp_path / "q.safetensors", {"h.0.atn": layers(random)["h.0.attn"]})
    command = ("query", store, query, "--method", "dot")
    assert_refused_and_unchanged(store, command, (query, "h.0.atn"))


def test_query_with_a_wrong_shape(store: Path, random: np.random.Generator, tmp_path: Path) -> None:
    query = write_batch(tmp_path / "q.safetensors", layers(random, d1=5, d2=3))
    assert_refused_and_unchanged(store, ("query", store, query, "--method", "dot"), (query, "h.0.attn", "3", "5"))


def test_query_that_is_not_finite(store: Path, random: np.random.Generator, tmp_path: Path) -> None:
    bad = layers(random)
    bad["h.1.mlp"][0][1, 0, 0] = np.nan
    query = write_batch(tmp_path / "q.safetensors", bad)
    command = ("query", store, query, "--method", "dot", "--output", tmp_path / "s.safetensors")
    assert_refused_and_unchanged(store, command, (query, "h.1.mlp", "1"))
    assert not list(tmp_path.glob("s.safetensors*"))


def test_query_arguments(store: Path, random: np.random.Generator, tmp_path: Path) -> None:
    query = write_batch(tmp_path / "q.safetensors", layers(random))
    refused("query", store, query, "--method", "guess", code=USAGE, says=("guess",))
    refused("query", store, query, "--method", "dot", "--layers", "nothing.*", says=("nothing.*",))
    refused("query", store, query, "--method", "dot", "--format", "xml", code=USAGE, says=("xml",))
    for options in (("--top", -1), ("--damping", 1, "--relative-damping", 1), ("--damping", "x")):
        assert attempt("query", store, query, *options).code == USAGE, options
    for options in (("--damping", 0), ("--damping", -1), ("--relative-damping", "nan")):
        assert attempt("query", store, query, *options).code in (USAGE, 3), options
    nowhere = tmp_path / "no" / "s.npy"
    refused("query", store, query, "--method", "dot", "--output", nowhere, says=(nowhere,))
    text = ("--format", "npy", "--output", tmp_path / "s.txt")
    refused("query", store, query, "--method", "dot", *text, code=USAGE, says=(".npy",))
    refused("query", store, "--method", "dot", code=attempt("query", store, "--method", "dot").code)


def test_influence_before_fit(store: Path, random: np.random.Generator, tmp_path: Path) -> None:
    query = write_batch(tmp_path / "q.safetensors", layers(random))
    for method in ("influence", "relatif"):
        command = ("query", store, query, "--method", method)
        assert_refused_and_unchanged(store, command, (store, "lorif fit"))


def test_fit_on_an_empty_store(random: np.random.Generator, tmp_path: Path) -> None:
    batch = write_batch(tmp_path / "b.safetensors", layers(random))
    for name, options in (("bare", ()), ("with layers", ("--layers", batch))):
        store = tmp_path / f"{name}.lorif"
        run("create", "--encoding", "f32", store, *options)
        refused("fit", store, says=(store,))
        run("verify", store)


def test_create_twice(store: Path) -> None:
    assert_refused_and_unchanged(store, ("create", "--encoding", "f32", store), (store,))


def test_store_path_that_is_no_store(random: np.random.Generator, tmp_path: Path) -> None:
    batch = write_batch(tmp_path / "b.safetensors", layers(random))
    file = tmp_path / "file"
    file.write_text("not a store")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "precious").write_text("keep me")
    commands = (("ingest", "--encoding", "f32", batch), ("fit",), ("query", batch), ("inspect",), ("verify",))
    for command, *rest in commands:
        for path in (file, folder):
            outcome = attempt(command, path, *rest)
            assert outcome.code == 3, str(outcome)
            assert str(path) in outcome.stderr, str(outcome)
        if command != "ingest":
            outcome = attempt(command, tmp_path / "nowhere", *rest)
            assert outcome.code == 3, str(outcome)
            assert "nowhere" in outcome.stderr, str(outcome)
    assert file.read_text() == "not a store"
    assert contents(folder) == {"precious": b"keep me"}
    assert not (tmp_path / "nowhere").exists()


def test_unwritable_store_path(random: np.random.Generator, tmp_path: Path) -> None:
    batch = write_batch(tmp_path / "b.safetensors", layers(random))
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "store", Path("/proc/lorif-store"), tmp_path / ("x" * 300)):
        outcome = attempt("ingest", "--encoding", "f32", path, batch)
        assert outcome.code == ENVIRONMENT, str(outcome)
        assert str(path) in outcome.stderr, str(outcome)


def test_ingest_of_nothing_creates_nothing(tmp_path: Path) -> None:
    store = tmp_path / "s.lorif"
    (tmp_path / "bad.safetensors").write_bytes(b"nonsense")
    refused("ingest", "--encoding", "f32", store, tmp_path / "bad.safetensors", says=("bad.safetensors",))
    assert not store.exists()
    assert attempt("ingest", "--encoding", "f32", store).code == USAGE
    assert not store.exists()


def test_the_same_batch_twice_adds_nothing(store: Path, tmp_path: Path) -> None:
    outcome = attempt("ingest", "--encoding", "f32", store, tmp_path / "first.safetensors")
    assert outcome.code in (OK, 3), str(outcome)
    run("verify", store)
    lines = run("query", store, tmp_path / "first.safetensors", "--method", "dot", "--top", 99, "--format", "jsonl")
    assert len(lines.json_lines()) == ROWS * ROWS


def test_a_damaged_segment_stops_a_query(store: Path, tmp_path: Path) -> None:
    segment = next((store / "segments").iterdir())
    content = bytearray(segment.read_bytes())
    content[4096 + 3] ^= 1
    segment.chmod(0o600)
    segment.write_bytes(content)
    options = ("--method", "dot", "--output", tmp_path / "s.npy")
    refused("query", store, tmp_path / "first.safetensors", *options, code=DAMAGED, says=(segment.name,))
    assert not (tmp_path / "s.npy").exists()
    segment.unlink()
    refused("query", store, tmp_path / "first.safetensors", *options, code=DAMAGED, says=(segment.name,))
