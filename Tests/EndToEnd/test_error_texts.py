"""What the program says when something is wrong, word by word: errors.txt has every case with its exit code.

After a change of a text, `LORIF_WRITE_ERRORS=1 pytest Tests/EndToEnd/test_error_texts.py` writes the file anew, to be
read before it is committed.
"""

import json
import os
import re
import shlex
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from harness import OK, attempt, batch_tensors, run, safetensors_bytes, write_batch, write_tensors

SNAPSHOT = Path(__file__).with_name("errors.txt")

# By topic; files are those of the fixture, in the current folder.
CASES = {
    "commands and options": """
        qury store q.safetensors
        frobnicate
        query
        query store q.safetensors --mehtod dot
        query store q.safetensors --method doot
        query store q.safetensors --top -1
        query store q.safetensors --top many
        query store q.safetensors --damping 1 --relative-damping 1
        query store q.safetensors --damping 0
        query store q.safetensors --deadline soon
        query store q.safetensors --memory lots
        query store q.safetensors --threads 0
        query store q.safetensors --json
        query store q.safetensors --format npy
        query store q.safetensors --output a.npy --output b.npy
        query store q.safetensors --curvature a,b --explain
        report store q.safetensors
        fit store --rnk 3
        fit store --rank 4 --exact
        ingest new train.safetensors --encoding q5
        ingest new train.safetensors --rank 2 --energy 0.5
        ingest new train.safetensors --epsilon 1
        inspect store --layers --segments
        snapshot store --dorp x
        estimate
        estimate --examples 10
        estimate --examples 0 --layers 1 --d1 8 --d2 8
        estimate --examples 10 --layers 2 --model-config config.json
        estimate --examples 10 --model-config config.json
        estimate --examples 10 --model-config train.jsonl
        estimate --examples 10 --model-config no.json
    """,
    "stores": """
        inspect nowhere
        inspect train.jsonl
        inspect folder
        query nowhere q.safetensors
        ingest file/new train.safetensors
        query empty q.safetensors --method dot
        query bare q.safetensors
        inspect store --snapshot before
        snapshot store one
        snapshot store --drop before
        copy store store
        copy nowhere new
        attach store train.safetensors
        attach store none.segment
        verify nowhere
        repair nowhere
        doctor nowhere
        shell nowhere
    """,
    "names of layers, examples, fields, curvatures": """
        query store layer.safetensors
        query store shape.safetensors
        query store --by-id train-00
        query store --by-id nobody
        query store --by-id train-0 --layers h.0.atn
        query store --by-id train-0 --layers 'x*'
        query store --by-id train-0 --where 'sorce = 1'
        query store --by-id train-0 --where 'source ='
        query store --by-id train-0 --where 'source = "x'
        query store --by-id train-0 --where 'source = 1 or'
        query store --by-id train-0 --where "source = 'nothing'"
        query store --by-id train-0 --group-by sorce
        query store --by-id train-0 --curvature 00ff
        query store --by-id train-0 --method dot --damping 1
        query store --by-id train-0 --aggregate-by source
        query store --by-id train-0 --per-layer --method l2
        query store --by-id train-0 q.safetensors
        query store --by-id train-0 --among ids-missing.txt
        query store --by-id train-0 --among ids.txt
        query store q.safetensors --checkpoint store
        query store q.safetensors --memory 1KiB
        query store q.safetensors --method cosine --guarantee none --kernel leading-pairs
        fit store --use 00ff
        fit empty
        inspect store --example train-0x
        delete store --ids ids.txt
        export store out.npy
    """,
    "batches": """
        ingest store missing.safetensors
        ingest store folder
        ingest store train.jsonl
        ingest store empty.safetensors
        ingest store short.safetensors
        ingest store json.safetensors
        ingest store dtype.safetensors
        ingest store half.safetensors
        ingest store rows.safetensors
        ingest store ids-repeated.safetensors
        ingest store ids-short.safetensors
        ingest store nan.safetensors
        ingest store again.safetensors
        ingest store layer.safetensors
        ingest store fewer.safetensors
        ingest store shape.safetensors
        ingest store rank.safetensors
        ingest store metadata.safetensors
        ingest store train.safetensors --encoding q4
        query store nan.safetensors --method dot
    """,
    "files that cannot be written": """
        query store q.safetensors --output no/answers.jsonl
        query store q.safetensors --output no/scores.npy
        query store q.safetensors --output folder/
        report store q.safetensors --output no/report.html
        export store no/rows.safetensors
        pack no/a.segment train.safetensors
    """,
    "damaged stores": """
        query damaged q.safetensors --method dot
        verify damaged
        inspect cut --segments
        doctor cut
    """,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stores and batches, right and wrong."""
    folder = tmp_path_factory.mktemp("errors")
    random = np.random.default_rng(5)
    shapes = {"h.0.attn": (4, 3), "h.0.mlp": (2, 5)}

    def layers(count: int = 6, rank: int = 2, **changed: tuple[int, int]) -> dict:
        return {
            name: tuple(random.standard_normal((count, d, rank)).astype(np.float32) for d in shape)
            for name, shape in (shapes | {key.replace("_", "."): value for key, value in changed.items()}).items()
        }

    # A configuration that does not say how many heads there are.
    (folder / "config.json").write_text('{"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2}')
    ids = [f"train-{row}" for row in range(6)]
    records = [{"id": each, "source": f"book {row % 2}"} for row, each in enumerate(ids)]
    train = write_batch(folder / "train.safetensors", layers(), ids=ids, records=records)
    write_batch(folder / "q.safetensors", layers(2), ids=["q-0", "q-1"])
    run("ingest", folder / "store", train, "--encoding", "f32")
    run("create", folder / "empty", "--layers", train, "--encoding", "f32")
    for name in ("bare", "damaged", "cut"):
        shutil.copytree(folder / "store", folder / name)
    run("fit", folder / "store", "--rank", 2)
    run("snapshot", folder / "store", "one")
    (folder / "folder").mkdir()
    (folder / "file").write_text("no folder")
    (folder / "ids.txt").write_text("train-1\ntrain-7\n")
    first = min(page["offset"] for page in run("inspect", folder / "damaged", "--pages", "--json").json())
    for name in ("damaged", "cut"):
        (segment,) = (folder / name / "segments").iterdir()
        content = bytearray(segment.read_bytes())
        content[first] ^= 1
        segment.write_bytes(content if name == "damaged" else content[:-1])
    batches(folder, layers, ids)
    return folder


def batches(folder: Path, layers: object, ids: list[str]) -> None:
    """The batches that are wrong."""
    fresh = [f"new-{row}" for row in range(6)]
    (folder / "empty.safetensors").write_bytes(b"")
    (folder / "short.safetensors").write_bytes(struct.pack("<Q", 5000) + b"{}")
    (folder / "json.safetensors").write_bytes(safetensors_bytes(b'{"a": ', b""))
    write_tensors(folder / "dtype.safetensors", {"h.0.attn/left": np.zeros((1, 4, 1), np.int32)}, {"lorif.batch": "1"})
    halves = batch_tensors(layers())
    del halves["h.0.mlp/right"]
    write_tensors(folder / "half.safetensors", halves, {"lorif.batch": "1", "ids": json.dumps(fresh)})
    uneven = batch_tensors(layers())
    uneven["h.0.mlp/left"] = uneven["h.0.mlp/left"][:5]
    write_tensors(folder / "rows.safetensors", uneven, {"lorif.batch": "1", "ids": json.dumps(fresh)})
    write_batch(folder / "ids-repeated.safetensors", layers(), ids=[*fresh[:5], "new-0"])
    write_batch(folder / "ids-short.safetensors", layers(), ids=fresh[:4])
    nan = layers()
    nan["h.0.mlp"][0][2, 0, 1] = np.nan
    write_batch(folder / "nan.safetensors", nan, ids=fresh)
    write_batch(folder / "again.safetensors", layers(), ids=[*fresh[:5], ids[3]])
    write_batch(folder / "layer.safetensors", {"h.0.atn": layers()["h.0.attn"]}, ids=fresh)
    write_batch(folder / "fewer.safetensors", {"h.0.mlp": layers()["h.0.mlp"]}, ids=fresh)
    write_batch(folder / "shape.safetensors", layers(h_0_mlp=(2, 6)), ids=fresh)
    write_batch(folder / "rank.safetensors", layers(rank=1), ids=fresh)
    write_batch(folder / "metadata.safetensors", layers(), ids=fresh)
    (folder / "metadata.jsonl").write_text('{"id": "new-0", "text": "x"}\n{"id": "new-1", "text": }\n')


def said(folder: Path, line: str) -> str:
    """The command, its exit code and what it says, without what differs from run to run."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        outcome = attempt(*shlex.split(line))
    finally:
        os.chdir(before)
    assert outcome.code != OK, str(outcome)
    text = outcome.stderr or outcome.stdout
    text = re.sub(r"\.lorif-\w+\.tmp", ".lorif-….tmp", text.replace(str(folder), "FOLDER"))
    text = re.sub(r"\b[0-9a-f]{16,32}\b", "…", text)
    if line.startswith("doctor"):
        text = "".join(part for part in re.findall(r"^  fail.*\n(?:   +.*\n)*", text, re.M))
    shown = "".join(f"    {row}".rstrip() + "\n" for row in text.rstrip("\n").splitlines())
    return f"$ lorif {line}\n    exit code {outcome.code}\n{shown}"


def test_every_error_is_said_as_it_is_written_down(folder: Path) -> None:
    parts = []
    for topic, lines in CASES.items():
        parts.append(f"# {topic}\n")
        parts += [said(folder, line.strip()) for line in lines.strip().splitlines()]
    text = "\n".join(parts)
    if os.environ.get("LORIF_WRITE_ERRORS"):
        SNAPSHOT.write_text(text, encoding="utf-8")
    expected = SNAPSHOT.read_text(encoding="utf-8")
    for found, wanted in zip(text.split("\n$ "), expected.split("\n$ "), strict=True):
        assert found == wanted


def test_every_error_helps(folder: Path) -> None:
    """Each text names what it is about, and none is the compiler's or the system's alone."""
    for case in SNAPSHOT.read_text(encoding="utf-8").split("\n$ ")[1:]:
        command, code, *text = case.splitlines()
        assert re.search(r"exit code [1-5]$", code), case
        shown = "\n".join(text)
        assert len(shown) > 20, command
        assert not re.search(r"Optional\(|Error Domain|NSCocoa|Swift\.|\w+Error\(", shown), case
