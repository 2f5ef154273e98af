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
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from harness import OK, attempt, batch_tensors, run, safetensors_bytes, tensor_entry, write_batch, write_tensors

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
    "headers of batches": """
        ingest store bad/not-json.safetensors
        ingest store bad/twice.safetensors
        ingest store bad/metadata.safetensors
        ingest store bad/value.safetensors
        ingest store bad/dtype.safetensors
        ingest store bad/beyond.safetensors
        ingest store bad/overflow.safetensors
        ingest store bad/length.safetensors
        ingest store bad/overlap.safetensors
        ingest store bad/hole.safetensors
        ingest store bad/trailing.safetensors
        ingest store bad/version.safetensors
        ingest store bad/nothing.safetensors
        ingest store bad/name.safetensors
        ingest store bad/both.safetensors
        ingest store bad/shape.safetensors
        ingest store bad/no-rows.safetensors
        ingest store bad/ranks.safetensors
        ingest store bad/dtypes.safetensors
        ingest store bad/long.safetensors
        ingest store bad/list.safetensors
        ingest store bad/not-there.safetensors
        ingest store bad/not-listed.safetensors
        ingest store bad/layer-twice.safetensors
        ingest store bad/no-id.safetensors
        ingest store bad/basis.safetensors
        ingest store long-id.safetensors
        create new --whiten-from bad/moments.safetensors
    """,
    "metadata of batches": """
        ingest store lines/long.safetensors
        ingest store lines/fields.safetensors
        ingest store lines/id.safetensors
        ingest store lines/twice.safetensors
        ingest store lines/rows.safetensors
    """,
    "ranks, bases and curvature": """
        ingest new train.safetensors --rank 3
        ingest store in-a-basis.safetensors
        ingest new in-a-basis.safetensors
        create new --layers train.safetensors --basis-from white
        create new --whiten-from train.safetensors
        create new --basis-from store
        create new --basis-from train.jsonl
        ingest white far.safetensors
        attach new white.segment
        pack no-ids.segment no-ids.safetensors
        fit store --memory 1MiB
        query huge huge.safetensors --method dot
        query global q.safetensors --layers h.0.attn
        query store
        compare store,q.safetensors zero,q.safetensors
    """,
    "names that are taken": """
        create store --layers train.safetensors
        attach store train.segment
        attach new train.segment again.segment
        ingest numbers no-ids.safetensors
        snapshot store 'a b'
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
        query gone q.safetensors --method dot
        inspect misnamed
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
    for name in ("bare", "damaged", "cut", "gone", "misnamed"):
        shutil.copytree(folder / "store", folder / name)
    next((folder / "gone" / "segments").iterdir()).unlink()
    identity = bytearray((folder / "misnamed" / "lorif.store").read_bytes())
    identity[50] ^= 1
    (folder / "misnamed" / "lorif.store").write_bytes(identity)
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
    wrong_headers(folder / "bad")
    wrong_lines(folder / "lines", layers)
    other_stores(folder, layers)
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
    write_batch(folder / "long-id.safetensors", layers(), ids=[*fresh[:5], "x" * 5000])
    write_batch(folder / "layer.safetensors", {"h.0.atn": layers()["h.0.attn"]}, ids=fresh)
    write_batch(folder / "fewer.safetensors", {"h.0.mlp": layers()["h.0.mlp"]}, ids=fresh)
    write_batch(folder / "shape.safetensors", layers(h_0_mlp=(2, 6)), ids=fresh)
    write_batch(folder / "rank.safetensors", layers(rank=1), ids=fresh)
    write_batch(folder / "metadata.safetensors", layers(), ids=fresh)
    (folder / "metadata.jsonl").write_text('{"id": "new-0", "text": "x"}\n{"id": "new-1", "text": }\n')


def header(change: Callable[[dict], object] = lambda _: None, tail: bytes = b"") -> bytes:
    """A good batch of two layers, its header changed and something put behind it."""
    entries: dict = {"__metadata__": {"lorif.batch": "1", "layers": json.dumps(["a", "b"])}}
    data = b""
    for layer in ("a", "b"):
        for side, length in (("left", 4), ("right", 3)):
            content = np.ones((5, length, 2), np.float32).tobytes()
            entries[f"{layer}/{side}"] = tensor_entry("F32", (5, length, 2), len(data), len(data) + len(content))
            data += content
    change(entries)
    return safetensors_bytes(entries, data + tail)


def of(name: str, **fields: object) -> Callable[[dict], object]:
    return lambda entries: entries[name].update(fields)


def wrong_headers(folder: Path) -> None:
    """A batch for each rule of their form that can be broken."""
    folder.mkdir()
    twice = b'{"a/left":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a/left":{"dtype":"F32"}}'
    files = {
        "not-json": safetensors_bytes(b"{nope}", b""),
        "twice": safetensors_bytes(twice, bytes(4)),
        "metadata": header(lambda entries: entries.update({"__metadata__": [1]})),
        "value": header(of("__metadata__", note=1)),
        "dtype": header(of("a/left", dtype="F31")),
        "beyond": header(of("b/right", data_offsets=[1 << 20, (1 << 20) + 120])),
        "overflow": header(of("a/left", shape=[1 << 62, 1 << 62, 4])),
        "length": header(of("a/left", shape=[5, 3, 3])),
        "overlap": header(of("a/right", data_offsets=[152, 272])),
        "hole": header(of("b/right", data_offsets=[448, 568]), bytes(8)),
        "trailing": header(tail=b"\0"),
        "version": header(of("__metadata__", **{"lorif.batch": "2"})),
        "nothing": safetensors_bytes({"__metadata__": {"lorif.batch": "1"}}, b""),
        "name": header(lambda entries: entries.update({"a/middle": entries.pop("a/right")})),
        "both": header(lambda entries: entries.update({"a/full": entries.pop("b/left")})),
        "shape": header(of("a/left", shape=[5, 8])),
        "long": struct.pack("<Q", 100_000_001) + b"{}" + bytes(1000),
        "list": header(of("__metadata__", layers="[1")),
        "not-there": header(of("__metadata__", layers='["a", "b", "c"]')),
        "not-listed": header(of("__metadata__", layers='["a"]')),
        "layer-twice": header(of("__metadata__", layers='["a", "b", "a"]')),
        "no-id": header(of("__metadata__", ids='["x", "y", "", "z", "w"]')),
        "basis": header(of("__metadata__", basis="xyz")),
    }
    for name, content in files.items():
        (folder / f"{name}.safetensors").write_bytes(content)
    ones = {(d, c): np.ones((2, d, c), np.float32) for d in (4, 3) for c in (1, 2)}
    fields = {"lorif.batch": "1", "layers": '["a"]'}
    write_tensors(folder / "no-rows.safetensors", {f"a/{s}": np.ones((0, 4, 1), np.float32) for s in ("left", "right")})
    write_tensors(folder / "ranks.safetensors", {"a/left": ones[4, 2], "a/right": ones[3, 1]}, fields)
    halves = {"a/left": ones[4, 1], "a/right": ones[3, 1].astype(np.float16)}
    write_tensors(folder / "dtypes.safetensors", halves, fields)
    moments = {"a/full": np.ones((2, 4, 3), np.float32), "a/second_moment_left": np.eye(4)}
    write_tensors(folder / "moments.safetensors", moments, fields)


def wrong_lines(folder: Path, layers: Callable[..., dict]) -> None:
    """User metadata that break a rule."""
    folder.mkdir()
    ids = [f"new-{row}" for row in range(6)]
    lines = {
        "long": '{"id": "new-0", "text": "' + "x" * (17 << 20) + '"}\n',
        "fields": json.dumps({"id": "new-0"} | {f"f{number}": 1 for number in range(70_000)}) + "\n",
        "id": '{"id": [1]}\n',
        "twice": '{"id": "new-0"}\n{"id": "new-0"}\n',
        "rows": '{"text": "x"}\n{"text": "y"}\n',
    }
    for name, text in lines.items():
        write_batch(folder / f"{name}.safetensors", layers(), ids=None if name == "rows" else ids)
        (folder / f"{name}.jsonl").write_text(text)


def other_stores(folder: Path, layers: Callable[..., dict]) -> None:
    """Whitened, global, of numbers that are too large or none at all; and segments."""
    random = np.random.default_rng(6)
    full = {"f": ((random.standard_normal((30, 4, 3)) * 1e-9).astype(np.float32),)}
    sample = write_batch(folder / "sample.safetensors", full, ids=[f"s-{row}" for row in range(30)])
    run("ingest", folder / "white", sample, "--whiten-from", sample, "--encoding", "f32")
    run("pack", folder / "white.segment", sample, "--basis-from", folder / "white", "--encoding", "f32")
    far = {"f": (np.full((1, 4, 3), 3e38, np.float32),)}
    write_batch(folder / "far.safetensors", far, ids=["far"])
    write_batch(folder / "in-a-basis.safetensors", layers(), ids=[f"b-{row}" for row in range(6)], basis="0" * 31 + "1")
    write_batch(folder / "no-ids.safetensors", layers())
    huge = {name: tuple(np.full_like(side, 1.5e19) for side in sides) for name, sides in layers().items()}
    write_batch(folder / "huge.safetensors", huge, ids=[f"huge-{row}" for row in range(6)])
    run("ingest", folder / "huge", folder / "huge.safetensors", "--encoding", "f32")
    zero = {name: tuple(np.zeros_like(side) for side in sides) for name, sides in layers().items()}
    run("ingest", folder / "zero", write_batch(folder / "zero.safetensors", zero, ids=list("uvwxyz")))
    run("fit", folder / "zero", "--rank", 2)
    run("ingest", folder / "global", folder / "train.safetensors", "--encoding", "f32")
    run("fit", folder / "global", "--rank", 2, "--scope", "global")
    run("pack", folder / "train.segment", folder / "train.safetensors", "--encoding", "f32")
    mixed = write_batch(folder / "mixed.safetensors", layers(), ids=["train-3", *(f"m-{row}" for row in range(5))])
    run("pack", folder / "again.segment", mixed, "--encoding", "f32")
    numbers = write_batch(folder / "numbers.safetensors", layers(), ids=[str(row) for row in range(5, 11)])
    run("ingest", folder / "numbers", numbers, "--encoding", "f32")


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


#: Kinds of errors that no command on the fixture's files meets, by why, or with the words of theirs that are there.
ELSEWHERE = {
    "the text is that of the error or reason in it": """
        EngineError.outputFailed EngineError.contradiction EngineError.invalidRequest StoreError.file StoreError.format
        StoreError.page StoreError.pageCompression StoreError.compression StoreError.catalog StoreError.schemaRefused
        InterchangeError.file CurvatureError.invalidOptions CurvatureError.decomposition CurvatureError.unreadable
        FileError.failed
    """,
    "damage inside files: test_verify.py and Tools/crash/damage.py": """
        StoreError.paddingNotZero StoreError.wrongStatistics StoreError.wrongIndex StoreError.wrongNorm
        StoreError.identifierLiveTwice StoreError.duplicateIdentifier StoreError.catalogDamaged StoreError.schemaDiffers
        StoreError.basisDamaged StoreError.curvatureShape StoreError.coordinatesDamaged StoreError.storeVersion
    """,
    "the machine, another process or a signal: test_interruption.py, Tools/crash/errors.py and surroundings.py": """
        EngineError.changedMeanwhile EngineError.cancelled StoreError.storeNotWritable StoreError.locked
        StoreError.commitInDoubt StoreError.generationDiffers StoreError.writerEnded InterchangeError.metadataChanged
        FileError.shortRead CurvatureError.unexpectedTile
    """,
    "guards of the library, before which the commands ask in their own words: tests in Swift": """
        StoreError.blockShape StoreError.notFinite StoreError.identifierTooLong StoreError.equalIdentifiers
        StoreError.metadataField StoreError.metadataTooLarge StoreError.segmentFull StoreError.emptySegment
        StoreError.identifiersUnknown StoreError.identifierAssignedTaken StoreError.curvatureUnknown
        InterchangeError.unknownExtension InterchangeError.numberTooLarge
    """,
    "numbers at the end of their range, or ids with the same first digits: tests in Swift": """
        CurvatureError.nonFinite CurvatureError.invalidDamping CurvatureError.overflow EngineError.curvatureAmbiguous
    """,
}
#: Texts that are put together.
WORDS = {
    "EngineError.basisMismatch": "they cannot be compared",
    "EngineError.basisLayer": "lacks layer",
    "EngineError.patternMatchesNothing": "matches none of the",
    "EngineError.fieldUnknown": "has a field",
}
ERRORS = ("Engine/EngineError", "Store/StoreError", "Interchange/InterchangeError", "Curvature/CurvatureError",
    "Files/FileError")  # fmt: skip


def described(path: Path) -> dict[str, str]:
    """The longest fixed part of each case's text in an error type."""
    text = path.read_text(encoding="utf-8").split("public var description: String {")[-1].split("\n    }\n")[0]
    cases = r"\n        case ((?:\.\w+(?:\([^)]*\))?(?:, )?)+):(.*?)(?=\n        case |\Z)"
    found = {}
    for names, code in re.findall(cases, text, re.DOTALL):
        parts = [""]
        for literal in re.findall(r'"((?:[^"\\]|\\.)*)"', code):
            # Interpolations, with calls in them.
            fixed = re.split(r"\\\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)", literal.replace('\\"', '"'))
            parts += [" ".join(part.split()) for part in fixed]
        for name in re.findall(r"\.(\w+)", re.sub(r"\([^)]*\)", "", names)):
            found[name] = max(parts, key=len)
    return found


def test_every_kind_of_error_is_said_or_tested_elsewhere() -> None:
    shown = " ".join(SNAPSHOT.read_text(encoding="utf-8").split())
    elsewhere = {name for names in ELSEWHERE.values() for name in names.split()}
    missing, known = [], set()
    for kind in ERRORS:
        for case, part in described(ROOT / f"Sources/{kind}.swift").items():
            name = f"{kind.split('/')[1]}.{case}"
            known.add(name)
            words = WORDS.get(name, part)
            if name not in elsewhere and (not words or words not in shown):
                missing.append((name, words))
    assert missing == []
    assert len(known) > 140
    assert (elsewhere | set(WORDS)) - known == set()
