"""Appending, replacing, deleting, selecting, packing, attaching and exporting rows."""

import json
from pathlib import Path

import numpy as np
import pytest
from harness import contents, read_tensors, refused, run, scores, write_batch
from lorif.segment import Segment

SHAPES = {"h.0": (6, 4, 2), "h.1": (3, 7, 1)}


def layers(random: np.random.Generator, count: int, dtype: str = "f4", full: bool = False) -> dict:
    """Numbers that every floating-point type holds."""

    def numbers(*shape: int) -> np.ndarray:
        return random.integers(-8, 9, shape).astype(np.float32).astype(dtype)

    if full:
        return {name: (numbers(count, d1, d2),) for name, (d1, d2, _) in SHAPES.items()}
    return {name: (numbers(count, d1, c), numbers(count, d2, c)) for name, (d1, d2, c) in SHAPES.items()}


def names(start: int, stop: int) -> list[str]:
    return [f"row-{number}" for number in range(start, stop)]


def records(ids: list[str]) -> list[dict]:
    return [
        {"id": name, "number": int(name[4:]), "kind": "even" if int(name[4:]) % 2 == 0 else "odd"}
        | ({"half": True} if int(name[4:]) < 20 else {})
        for name in ids
    ]


def batch(path: Path, random: np.random.Generator, start: int, stop: int, **options: object) -> tuple[Path, dict]:
    values = layers(random, stop - start, **options)
    ids = names(start, stop)
    return write_batch(path, values, ids, records(ids)), values


def exported(store: Path, *options: object) -> tuple[list[str], dict[str, np.ndarray]]:
    path = store.parent / "exported.safetensors"
    run("export", store, path, *options)
    tensors, metadata = read_tensors(path)
    return json.loads(metadata["ids"]), tensors


def test_export_is_the_inverse_of_ingest(random: np.random.Generator, tmp_path: Path) -> None:
    for dtype, encoding in (("f4", "f32"), ("f2", "f16")):
        for full in (False, True):
            store = tmp_path / f"{encoding}-{full}.lorif"
            source, _ = batch(tmp_path / "b.safetensors", random, 0, 70, dtype=dtype, full=full)
            run("ingest", store, source, "--encoding", encoding)
            ids, tensors = exported(store)
            given, _ = read_tensors(source)
            assert ids == names(0, 70)
            assert set(tensors) == set(given)
            for name, values in given.items():
                assert tensors[name].dtype == values.dtype
                assert np.array_equal(tensors[name], values)
            lines = (tmp_path / "exported.jsonl").read_text().splitlines()
            assert [json.loads(line) for line in lines] == records(names(0, 70))


def test_selections(random: np.random.Generator, tmp_path: Path) -> None:
    store = tmp_path / "s.lorif"
    run("ingest", "--encoding", "f32", store, batch(tmp_path / "b.safetensors", random, 0, 50)[0])
    for condition, wanted in {
        "kind = 'even' and number >= 40": [40, 42, 44, 46, 48],
        "number in (3, 7) or id = 'row-9'": [3, 7, 9],
        "half is null and number < 23": [20, 21, 22],
        "half = true and not kind = 'odd' and number > 15": [16, 18],
        "id like '%-4_' and number != 41": [40, *range(42, 50)],
    }.items():
        assert exported(store, "--where", condition)[0] == [f"row-{number}" for number in wanted]
    chosen = tmp_path / "ids.txt"
    chosen.write_text("row-11\nrow-3\n")
    assert exported(store, "--ids", chosen)[0] == ["row-3", "row-11"]
    refused("export", store, tmp_path / "x.safetensors", "--where", "colour = 'red'", says=("colour",))
    refused("export", store, tmp_path / "x.safetensors", "--where", "number >", code=2, says=("character 9",))
    chosen.write_text("row-11\nrow-99\n")
    refused("export", store, tmp_path / "x.safetensors", "--ids", chosen, says=("row-99",))


def test_filtered_queries_score_what_is_left(random: np.random.Generator, tmp_path: Path) -> None:
    store = tmp_path / "s.lorif"
    run("ingest", "--encoding", "f32", store, batch(tmp_path / "b.safetensors", random, 0, 50)[0])
    queries = write_batch(tmp_path / "q.safetensors", layers(random, 3, full=True), ["a", "b", "c"])
    everything = scores(store, queries, "--method", "dot")
    odd = scores(store, queries, "--method", "dot", "--where", "kind = 'odd'")
    assert np.array_equal(odd, everything[:, 1::2])


def test_deleted_rows_are_gone_from_every_answer(random: np.random.Generator, tmp_path: Path) -> None:
    store = tmp_path / "s.lorif"
    run("ingest", "--encoding", "f32", store, batch(tmp_path / "a.safetensors", random, 0, 40)[0])
    run("ingest", "--encoding", "f32", store, batch(tmp_path / "b.safetensors", random, 40, 60)[0])
    queries = write_batch(tmp_path / "q.safetensors", layers(random, 2, full=True), ["a", "b"])
    before = scores(store, queries, "--method", "dot")
    doomed = tmp_path / "ids.json"
    doomed.write_text(json.dumps(["row-5", "row-45", "row-59"]))
    assert run("delete", store, "--ids", doomed, "--json").json()["deletedRows"] == 3
    assert run("delete", store, "--where", "number < 3", "--json").json()["deletedRows"] == 3
    gone = [0, 1, 2, 5, 45, 59]
    left = [number for number in range(60) if number not in gone]
    assert np.array_equal(scores(store, queries, "--method", "dot"), before[:, left])
    assert exported(store)[0] == [f"row-{number}" for number in left]
    answers = run("query", store, queries, "--method", "dot", "--top", 60, "--format", "jsonl").json_lines()
    assert {answer["id"] for answer in answers} == {f"row-{number}" for number in left}
    refused("inspect", store, "--example", "row-5", says=("row-5",))
    state = contents(store)
    refused("delete", store, "--ids", doomed, says=("row-5",))
    assert contents(store) == state
    assert run("delete", store, "--ids", doomed, "--ignore-missing", "--json").json()["deletedRows"] == 0
    # A deleted id is free again.
    run("ingest", "--encoding", "f32", store, batch(tmp_path / "c.safetensors", random, 5, 6)[0])
    assert exported(store)[0][-1] == "row-5"
    run("verify", store)


def test_duplicate_policies(random: np.random.Generator, tmp_path: Path) -> None:
    store = tmp_path / "s.lorif"
    first, old = batch(tmp_path / "a.safetensors", random, 0, 10)
    second, new = batch(tmp_path / "b.safetensors", random, 8, 14)
    run("ingest", "--encoding", "f32", store, first)
    state = contents(store)
    refused("ingest", "--encoding", "f32", store, second, says=("b.safetensors", "row 0", "row-8"))
    assert contents(store) == state
    assert run("ingest", "--encoding", "f32", store, second, "--on-duplicate", "skip", "--json").json()["rows"] == 4
    ids, tensors = exported(store)
    assert ids == names(0, 14)
    assert np.array_equal(tensors["h.0/left"], np.concatenate([old["h.0"][0], new["h.0"][0][2:]]))

    other = tmp_path / "t.lorif"
    run("ingest", "--encoding", "f32", other, first)
    report = run("ingest", "--encoding", "f32", other, second, "--on-duplicate", "replace", "--json").json()
    assert (report["rows"], report["replacedRows"]) == (6, 2)
    ids, tensors = exported(other)
    assert ids == names(0, 8) + names(8, 14)
    assert np.array_equal(tensors["h.1/right"], np.concatenate([old["h.1"][1][:8], new["h.1"][1]]))

    # Between files of one command the last one wins.
    third = tmp_path / "u.lorif"
    run("ingest", "--encoding", "f32", third, first, second, "--on-duplicate", "replace")
    assert exported(third)[0] == names(0, 14)
    assert np.array_equal(exported(third)[1]["h.0/left"], tensors["h.0/left"])
    refused(
        "ingest",
        "--encoding",
        "f32",
        tmp_path / "v.lorif",
        first,
        second,
        says=("b.safetensors", "row-8", "a.safetensors"),
    )
    assert not (tmp_path / "v.lorif").exists()


def test_a_file_is_taken_once(random: np.random.Generator, tmp_path: Path) -> None:
    store = tmp_path / "s.lorif"
    source, _ = batch(tmp_path / "a.safetensors", random, 0, 10)
    run("ingest", "--encoding", "f32", store, source)
    again = run("ingest", "--encoding", "f32", store, source, "--json").json()
    assert again["rows"] == 0
    assert again["batches"][0]["alreadyPresent"]
    assert again["totalRows"] == 10


def test_atomic_by_command_or_by_file(random: np.random.Generator, tmp_path: Path) -> None:
    good, _ = batch(tmp_path / "a.safetensors", random, 0, 10)
    bad_values = layers(random, 5)
    bad_values["h.1"][0][3, 0, 0] = np.nan
    bad = write_batch(tmp_path / "b.safetensors", bad_values, names(10, 15))
    whole, piecewise = tmp_path / "whole.lorif", tmp_path / "piecewise.lorif"
    refused("ingest", "--encoding", "f32", whole, good, bad, says=("b.safetensors", "h.1", "row-13"))
    assert not whole.exists()
    refused("ingest", "--encoding", "f32", piecewise, good, bad, "--atomic", "file", says=("b.safetensors", "h.1"))
    assert exported(piecewise)[0] == names(0, 10)


def test_memory_is_checked_before_anything_is_written(random: np.random.Generator, tmp_path: Path) -> None:
    source, _ = batch(tmp_path / "a.safetensors", random, 0, 10)
    refused("ingest", "--encoding", "f32", tmp_path / "s.lorif", source, "--memory", "1KiB", says=("--memory",))
    assert not (tmp_path / "s.lorif").exists()
    refused("ingest", "--encoding", "f32", tmp_path / "s.lorif", source, "--memory", "lots", code=2)
    run("ingest", "--encoding", "f32", tmp_path / "s.lorif", source, "--memory", "64MiB")


@pytest.mark.parametrize("encoding", ["f32", "int8", "q2"])
def test_packed_segments_equal_ingested_ones(encoding: str, random: np.random.Generator, tmp_path: Path) -> None:
    first, _ = batch(tmp_path / "a.safetensors", random, 0, 40)
    second, _ = batch(tmp_path / "b.safetensors", random, 40, 70)
    ingested, attached = tmp_path / "ingested.lorif", tmp_path / "attached.lorif"
    run("ingest", ingested, first, second, "--encoding", encoding)
    run("pack", tmp_path / "one.segment", first, "--encoding", encoding)
    run("pack", tmp_path / "two.segment", second, "--encoding", encoding)
    report = run("attach", attached, tmp_path / "one.segment", tmp_path / "two.segment", "--json").json()
    assert report["rows"] == 70
    assert run("attach", attached, tmp_path / "two.segment", "--json").json()["rows"] == 0
    (ids, tensors), (other_ids, other_tensors) = exported(ingested), exported(attached)
    assert ids == other_ids
    for name, values in tensors.items():
        assert np.array_equal(values, other_tensors[name])
    run("verify", attached)


def test_attach_refuses_what_does_not_fit(random: np.random.Generator, tmp_path: Path) -> None:
    first, _ = batch(tmp_path / "a.safetensors", random, 0, 10)
    overlapping, _ = batch(tmp_path / "b.safetensors", random, 9, 12)
    store = tmp_path / "s.lorif"
    run("ingest", store, first)
    state = contents(store)
    run("pack", tmp_path / "other.segment", overlapping, "--encoding", "int8")
    refused("attach", store, tmp_path / "other.segment", says=("other.segment", "int8"))
    run("pack", tmp_path / "taken.segment", overlapping, "--layers-of", store)
    refused("attach", store, tmp_path / "taken.segment", says=("row-9",))
    damaged = bytearray((tmp_path / "taken.segment").read_bytes())
    damaged[5000] ^= 1
    (tmp_path / "damaged.segment").write_bytes(damaged)
    refused("attach", store, tmp_path / "damaged.segment", says=("damaged.segment",))
    refused("pack", "--encoding", "f32", tmp_path / "taken.segment", overlapping, says=("taken.segment",))
    refused(
        "pack",
        "--encoding",
        "f32",
        tmp_path / "n.segment",
        write_batch(tmp_path / "n.safetensors", layers(random, 3)),
        says=("ids",),
    )
    assert contents(store) == state
    # A store that an attach has created goes when the attach fails, whole or not begun.
    run("pack", tmp_path / "good.segment", first)
    new = tmp_path / "new.lorif"
    refused("attach", new, tmp_path / "damaged.segment", says=("damaged.segment",))
    refused("attach", new, tmp_path / "good.segment", tmp_path / "damaged.segment", says=("damaged.segment",))
    refused("attach", new, tmp_path / "good.segment", tmp_path / "other.segment", says=("other.segment",))
    assert sorted(path.name for path in tmp_path.glob("new.lorif*")) == []
    run("attach", new, tmp_path / "good.segment")
    (new / "notes.txt").write_text("mine")
    report = run("verify", new, "--json").json()
    assert report["sound"] and report["orphans"] == [] and report["strays"] == [str(new / "notes.txt")]
    run("delete", new, "--where", "id = 'row-1'")
    assert (new / "notes.txt").read_text() == "mine"


def test_same_input_gives_the_same_bytes(random: np.random.Generator, tmp_path: Path) -> None:
    source, _ = batch(tmp_path / "a.safetensors", random, 0, 100)
    for encoding in ("f16", "q3"):
        files = []
        for number in range(2):
            path = tmp_path / f"{encoding}-{number}.segment"
            run("pack", path, source, "--encoding", encoding)
            files.append(path.read_bytes())
            Segment(path).verify()
        assert files[0] == files[1]
