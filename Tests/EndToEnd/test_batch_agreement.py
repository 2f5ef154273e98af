"""The program and `lorif.batch` take and refuse the same files."""

import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from harness import OK, REFUSED, attempt, batch_tensors, safetensors_bytes, tensor_entry, write_tensors
from lorif.batch import BatchError, FactorBatch

NAMES = ("h.0.attn", "h.1/mlp")
ROWS = 3


def good(random: np.random.Generator) -> dict[str, np.ndarray]:
    """Factors of one layer, full matrices of another."""
    return batch_tensors(
        {
            NAMES[0]: tuple(random.standard_normal((ROWS, d, 2)).astype(np.float32) for d in (3, 4)),
            NAMES[1]: (random.standard_normal((ROWS, 2, 5)).astype(np.float32),),
        }
    )


def taken_by_python(path: Path) -> bool:
    try:
        batch = FactorBatch(path)
        for layer in batch.layers:
            batch.gradients(layer.name)
    except BatchError:
        return False
    return True


def taken_by_the_program(path: Path, folder: Path) -> bool:
    folder.mkdir(exist_ok=True)
    outcome = attempt("ingest", folder / f"{path.stem}.lorif", path, "--encoding", "f32")
    assert outcome.code in (OK, REFUSED), str(outcome)
    return outcome.code == OK


def parts(path: Path) -> tuple[dict, bytes]:
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def entry(name: str, **fields: object) -> Callable[[dict], None]:
    return lambda header: header[name].update(fields)


def metadata(**fields: object) -> Callable[[dict], None]:
    return lambda header: header["__metadata__"].update(fields)


def renamed(old: str, new: str) -> Callable[[dict], None]:
    return lambda header: header.update({new: header.pop(old)})


LEFT, RIGHT, FULL = f"{NAMES[0]}/left", f"{NAMES[0]}/right", f"{NAMES[1]}/full"
CHANGES: dict[str, Callable[[dict], object]] = {
    "nothing": lambda header: None,
    "unknown key": entry(FULL, more=[1, {"a": None}]),
    "no metadata": lambda header: header.pop("__metadata__"),
    "metadata null": lambda header: header.update(__metadata__=None),
    "metadata number": metadata(k=1),
    "provenance": metadata(model="ü", projection="{}"),
    "version": metadata(**{"lorif.batch": "2"}),
    "version absent": lambda header: header["__metadata__"].pop("lorif.batch"),
    "ids": metadata(ids='["a", "b", "c"]'),
    "ids composed and not": metadata(ids='["\\u00e9", "e\\u0301", "c"]'),
    "ids with space around": metadata(ids=' ["a", "b", "c"] '),
    "ids twice": metadata(ids='["a", "b", "a"]'),
    "ids few": metadata(ids='["a", "b"]'),
    "ids numbers": metadata(ids="[1, 2, 3]"),
    "ids object": metadata(ids='{"a": 1}'),
    "ids empty one": metadata(ids='["a", "", "c"]'),
    "ids long": metadata(ids=json.dumps(["a", "b", "x" * 4097])),
    "ids longest": metadata(ids=json.dumps(["a", "b", "x" * 4096])),
    "ids surrogate": metadata(ids='["a", "b", "\\ud800"]'),
    "ids no JSON": metadata(ids='["a", "b", "c",]'),
    "ids NaN": metadata(ids="[NaN]"),
    "layers": metadata(layers=json.dumps(NAMES[::-1])),
    "layers missing one": metadata(layers=json.dumps(NAMES[:1])),
    "layers twice": metadata(layers=json.dumps([*NAMES, NAMES[0]])),
    "layers unknown": metadata(layers=json.dumps([*NAMES, "x"])),
    "layers empty": metadata(layers="[]"),
    "name of nothing": renamed(FULL, "/full"),
    "name long": renamed(FULL, "n" * 1025 + "/full"),
    "other part": renamed(FULL, "x/middle"),
    "no slash": renamed(FULL, "full"),
    "both forms": renamed(FULL, f"{NAMES[0]}/full"),
    "one side": lambda header: header.pop(LEFT),
    "dtype unknown": entry(FULL, dtype="F31"),
    "dtype integer": entry(FULL, dtype="I32"),
    "dtype number": entry(FULL, dtype=32),
    "dtype array": entry(FULL, dtype=["F32"]),
    "unknown key NaN": entry(FULL, more=float("nan")),
    "dtype f16": entry(FULL, dtype="F16"),
    "dtype absent": lambda header: header[FULL].pop("dtype"),
    "shape transposed": entry(FULL, shape=[ROWS, 5, 2]),
    "shape two": entry(FULL, shape=[ROWS, 10]),
    "shape four": entry(FULL, shape=[ROWS, 1, 2, 5]),
    "shape zero": entry(FULL, shape=[ROWS, 0, 5]),
    "shape negative": entry(FULL, shape=[ROWS, -2, -5]),
    "shape float": entry(FULL, shape=[ROWS, 2.0, 5]),
    "shape true": entry(FULL, shape=[ROWS, 10, True]),
    "shape huge": entry(FULL, shape=[2**32, 2**32, 2**32]),
    "rows": entry(FULL, shape=[ROWS - 1, 3, 5]),
    "offsets reversed": lambda header: header[FULL]["data_offsets"].reverse(),
    "offsets negative": entry(FULL, data_offsets=[-4, 116]),
    "offsets one": entry(FULL, data_offsets=[0]),
    "overlap": lambda header: header[RIGHT].update(data_offsets=header[LEFT]["data_offsets"]),
    "hole": lambda header: header.pop(FULL),
    "entry a list": lambda header: header.update({FULL: []}),
    "rank by side": lambda header: header[LEFT].update(shape=[ROWS, 2, 3]),
}


@pytest.mark.parametrize("name", list(CHANGES))
def test_headers(name: str, random: np.random.Generator, tmp_path: Path) -> None:
    path = write_tensors(tmp_path / "b.safetensors", good(random), {"lorif.batch": "1", "layers": json.dumps(NAMES)})
    header, data = parts(path)
    CHANGES[name](header)
    path.write_bytes(safetensors_bytes(header, data))
    assert taken_by_python(path) == taken_by_the_program(path, tmp_path)


ENTRY = json.dumps(tensor_entry("F32", (1, 1, 1), 0, 4))
TEXTS: dict[str, bytes] = {
    "good": f'{{"a/full":{ENTRY}}}'.encode(),
    "space after": f'{{"a/full":{ENTRY}}}   \n'.encode(),
    "space before": f'  {{"a/full":{ENTRY}}}'.encode(),
    "comma after": f'{{"a/full":{ENTRY},}}'.encode(),
    "two values": f'{{"a/full":{ENTRY}}}{{}}'.encode(),
    "name twice": f'{{"a/full":{ENTRY},"a/full":{ENTRY}}}'.encode(),
    "name twice by escape": f'{{"a/full":{ENTRY},"\\u0061/full":{ENTRY}}}'.encode(),
    "field twice": b'{"a/full":{"dtype":"F32","dtype":"F32","shape":[1,1,1],"data_offsets":[0,4]}}',
    "metadata key twice": f'{{"__metadata__":{{"k":"1","k":"2"}},"a/full":{ENTRY}}}'.encode(),
    "not UTF-8": f'{{"a/full":{ENTRY},"__metadata__":{{"k":"'.encode() + b'\xff"}}',
    "control character": f'{{"a/full":{ENTRY},"__metadata__":{{"k":"\t"}}}}'.encode(),
    "surrogate": f'{{"__metadata__":{{"k":"\\ud800"}},"a/full":{ENTRY}}}'.encode(),
    "surrogate in a name": f'{{"\\ud800/full":{ENTRY}}}'.encode(),
    "deep": f'{{"a/full":{ENTRY[:-1]},"more":{"[" * 126}{"]" * 126}}}}}'.encode(),
    "too deep": f'{{"a/full":{ENTRY[:-1]},"more":{"[" * 300}{"]" * 300}}}}}'.encode(),
    "NaN": f'{{"a/full":{ENTRY[:-1]},"more":NaN}}}}'.encode(),
    "leading zero": b'{"a/full":{"dtype":"F32","shape":[01,1,1],"data_offsets":[0,4]}}',
    "exponent": b'{"a/full":{"dtype":"F32","shape":[1e0,1,1],"data_offsets":[0,4]}}',
    "array": b"[]",
    "nothing": b"",
    "empty": b"{}",
    "byte order mark": b"\xef\xbb\xbf" + f'{{"a/full":{ENTRY}}}'.encode(),
}


@pytest.mark.parametrize("name", list(TEXTS))
def test_header_texts(name: str, tmp_path: Path) -> None:
    path = tmp_path / "b.safetensors"
    path.write_bytes(safetensors_bytes(TEXTS[name], struct.pack("<f", 1.0)))
    assert taken_by_python(path) == taken_by_the_program(path, tmp_path)


@pytest.mark.parametrize("bits", [0x7F800000, 0xFF800000, 0x7FC00000, 0x00000001, 0x7F7FFFFF], ids=hex)
def test_numbers(bits: int, tmp_path: Path) -> None:
    path = tmp_path / "b.safetensors"
    path.write_bytes(safetensors_bytes(TEXTS["good"], struct.pack("<I", bits)))
    assert taken_by_python(path) == taken_by_the_program(path, tmp_path)


def test_truncations_and_bit_flips(random: np.random.Generator, tmp_path: Path) -> None:
    path = tmp_path / "b.safetensors"
    whole = safetensors_bytes(TEXTS["good"], struct.pack("<f", 1.0))
    verdicts = set()
    for trial in range(60):
        content = bytearray(whole)
        if trial % 3 == 0:
            content = content[: int(random.integers(len(content)))]
        else:
            content[int(random.integers(len(content)))] ^= 1 << int(random.integers(8))
        path.write_bytes(content)
        verdict = taken_by_python(path)
        assert verdict == taken_by_the_program(path, tmp_path / str(trial)), bytes(content)
        verdicts.add(verdict)
    assert verdicts == {True, False}
