"""Writes the golden segments of every encoding, what they hold, and broken ones: once for each version of the format.

    LORIF_BIN=.build/release/lorif .venv/bin/python Tests/Golden/make.py

`encodings/ENCODING.segment` is packed from `batch.safetensors` by the program; `encodings/ENCODING.values` is what
the second reader (`lorif.segment`, written from Formats/ alone) finds in it: f32, layer after layer, factors component
after component, left before right. `bad/NAME.segment` is the f16 one broken in one way, and `bad/bad.json` what is to
be said of it.
A change of the format means new files here; a test compares them with what the program writes and reads.
"""

import json
import os
import subprocess
from itertools import pairwise
from pathlib import Path

import numpy as np
import xxhash
from lorif.batch import Factors
from lorif.segment import Segment
from safetensors.numpy import save_file

FOLDER = Path(__file__).resolve().parent
ENCODINGS = ("f32", "f16", "bf16", "int8", "q4", "q3", "q2", "q1")
ROWS = 40


def write_batch() -> None:
    """A layer with factors and a dense one, of lengths that fill no nibble group; zero vectors, large and tiny ones."""
    random = np.random.default_rng(20260121)
    left, right = random.standard_normal((ROWS, 7, 2)), random.standard_normal((ROWS, 5, 2))
    full = random.standard_normal((ROWS, 3, 5))
    left[3], right[4, :, 1], full[5] = 0, 0, 0
    left[6] *= 1e-12
    full[7] *= 1e9
    tensors = {"factored/left": left, "factored/right": right, "whole/full": full}
    metadata = {
        "lorif.batch": "1",
        "layers": json.dumps(["factored", "whole"]),
        "ids": json.dumps([f"gold-{row}" for row in range(ROWS)]),
    }
    save_file(
        {name: array.astype(np.float32) for name, array in tensors.items()}, FOLDER / "batch.safetensors", metadata
    )
    records = [{"id": f"gold-{row}", "source": f"bücher/{row % 3}", "n": row - 9} for row in range(0, ROWS, 2)]
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    (FOLDER / "batch.jsonl").write_text(lines, encoding="utf-8")


def values(segment: Segment) -> bytes:
    """All numbers in the order of the .values files."""
    arrays = []
    for layer in range(len(segment.layers)):
        found = segment.values(layer)
        if isinstance(found, Factors):
            for component in range(found.left.shape[2]):
                arrays += [found.left[:, :, component], found.right[:, :, component]]
        else:
            arrays.append(found)
    return b"".join(np.ascontiguousarray(array, "<f4").tobytes() for array in arrays)


def broken(whole: bytes) -> dict[str, tuple[bytes, str]]:
    """Broken segments by name, and words of the message."""

    def changed(offset: int, value: bytes) -> bytearray:
        return bytearray(whole[:offset] + value + whole[offset + len(value) :])

    def with_header(offset: int, value: bytes) -> bytes:
        data = changed(offset, value)
        data[4088:4096] = xxhash.xxh3_64_intdigest(bytes(data[:4088])).to_bytes(8, "little")
        return bytes(data)

    page = 4096
    return {
        "another-file": (b"not a segment at all, but long enough" * 200, "LORIFSEG"),
        "future-version": (with_header(8, b"\x02"), "version"),
        "unknown-feature": (with_header(16, b"\x04"), "feature"),
        "header-bit": (bytes(changed(100, b"\x01")), "header"),
        "page-bit": (bytes(changed(page, bytes([whole[page] ^ 1]))), "checksum"),
        "padding": (bytes(changed(padding_offset(whole), b"\x01")), "padding"),
        "cut": (whole[:-1], "tail"),
        "cut-in-a-page": (whole[: page + 10], "tail"),
        "longer": (whole + bytes(64), "tail"),
    }


def padding_offset(whole: bytes) -> int:
    """A byte between two pages."""
    path = FOLDER / "encodings" / "f16.segment"
    pages = sorted(Segment(path).pages, key=lambda entry: entry.offset)
    for first, second in pairwise(pages):
        end = first.offset + first.stored_length
        if end < second.offset:
            if whole[end] != 0:
                raise ValueError(f"byte {end} is not padding")
            return end
    raise ValueError("no padding")


def main() -> None:
    """Writes everything."""
    write_batch()
    for encoding in ENCODINGS:
        path = FOLDER / "encodings" / f"{encoding}.segment"
        path.unlink(missing_ok=True)
        command = [os.environ["LORIF_BIN"], "pack", path, "batch.safetensors", "--encoding", encoding]
        subprocess.run(command, cwd=FOLDER, check=True)
        path.chmod(0o644)
        segment = Segment(path)
        segment.verify()
        path.with_suffix(".values").write_bytes(values(segment))
    whole = (FOLDER / "encodings" / "f16.segment").read_bytes()
    says = {}
    for name, (content, words) in broken(whole).items():
        (FOLDER / "bad" / f"{name}.segment").write_bytes(content)
        says[name] = words
    (FOLDER / "bad" / "bad.json").write_text(json.dumps(says, indent=1) + "\n")


if __name__ == "__main__":
    main()
