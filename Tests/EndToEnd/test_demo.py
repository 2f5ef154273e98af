"""The demo set: what its answers show, as Tools/demo/README.md says, and the parts of its maker that need no model."""

import json
import re
import runpy
from pathlib import Path

import pytest
from conftest import ROOT
from harness import run

DEMO = ROOT / "Tools" / "demo"


def records(name: str) -> dict[str, dict]:
    lines = (DEMO / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return {record["id"]: record for record in map(json.loads, lines)}


def test_texts_of_a_source_are_helped_by_texts_of_that_source(tmp_path: Path) -> None:
    store = tmp_path / "demo.lorif"
    run("ingest", store, DEMO / "train.safetensors", "--encoding", "f16")
    run("fit", store, "--rank", 64)
    hits = run("query", store, DEMO / "query.safetensors", "--top", 10, "--format", "jsonl").json_lines()
    trained, asked = records("train"), records("query")
    assert (len(trained), len(asked), len(hits)) == (510, 24, 240)
    found: dict[str, list[bool]] = {}
    for hit in hits:
        source = asked[hit["query"]]["source"]
        assert hit["metadata"] == {key: value for key, value in trained[hit["id"]].items() if key != "id"}
        found.setdefault(source, []).append(hit["metadata"]["source"] == source)
    page = (DEMO / "README.md").read_text(encoding="utf-8")
    stated = {source: int(share) for source, share in re.findall(r"^\| ([\w ]+) \| (\d+) % \| 33 % \|", page, re.M)}
    assert stated.pop("all") == pytest.approx(100 * sum(map(sum, found.values())) / len(hits), abs=2)
    assert set(stated) == set(found)
    for source, share in stated.items():
        assert 100 * sum(found[source]) / len(found[source]) == pytest.approx(share, abs=3)
        assert sum(record["source"] == source for record in trained.values()) == 170
        assert share > 1.5 * 33


def test_pieces_are_merged_by_frequency_and_give_the_text_back() -> None:
    Pieces = runpy.run_path(str(DEMO / "words.py"))["Pieces"]
    texts = ["low low low lower", "lowest newest newest"]
    pieces = Pieces(texts, 13)
    assert pieces.pieces[:9] == sorted(set("".join(texts)))
    # By hand: l-o and o-w occur five times, then lo-w five times, then " "-low, e-s and s-t three times each.
    assert pieces.pieces[9:] == ["lo", "low", " low", "es"]
    assert [pieces.pieces[number] for number in pieces.numbers("lowest low")] == ["low", "es", "t", " low"]
    for text in (*texts, "test  lowel", ""):
        assert pieces.text(pieces.numbers(text)) == text
