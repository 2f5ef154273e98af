#!/usr/bin/env python3
"""Makes the first inputs of every target from a small store, by the program itself."""

import argparse
import json
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

CORPORA = Path(__file__).parent / "corpora"
HEADER_BYTES = 4096
SHAPES = {"h.0": (4, 3), "h.1": (3, 5)}


def write(target: str, name: str, content: bytes) -> None:
    """One input."""
    folder = CORPORA / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"seed-{name}").write_bytes(content)


def batch(path: Path, count: int, dense: bool) -> None:
    """A batch with ids and user metadata."""
    random = np.random.default_rng(count)
    tensors = {}
    for layer, (inputs, outputs) in SHAPES.items():
        if dense:
            tensors[f"{layer}/full"] = random.standard_normal((count, inputs, outputs)).astype(np.float32)
        else:
            tensors[f"{layer}/left"] = random.standard_normal((count, inputs, 1)).astype(np.float16)
            tensors[f"{layer}/right"] = random.standard_normal((count, outputs, 1)).astype(np.float16)
    names = [f"row-{number}" for number in range(count)]
    metadata = {"lorif.batch": "1", "layers": json.dumps(list(SHAPES)), "ids": json.dumps(names), "note": "ü"}
    records = [{"id": n, "number": i, "source": "ab"[i % 2], "share": i / 3} for i, n in enumerate(names)]
    path.with_suffix(".jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    save_file(tensors, path, metadata)


def store_seeds(lorif: Path, folder: Path) -> None:
    """Files of stores in several encodings."""

    def run(*arguments: object) -> None:
        subprocess.run([lorif, *map(str, arguments)], check=True, capture_output=True)

    batch(folder / "rows.safetensors", 5, dense=False)
    batch(folder / "dense.safetensors", 3, dense=True)
    write("safetensors", "factors", (folder / "rows.safetensors").read_bytes())
    write("safetensors", "dense", (folder / "dense.safetensors").read_bytes())
    for encoding, source in (("f32", "rows"), ("int8", "rows"), ("q2", "rows"), ("f16", "dense"), ("q1", "dense")):
        store = folder / f"{encoding}.lorif"
        run("ingest", store, folder / f"{source}.safetensors", "--encoding", encoding)
        segment = next((store / "segments").iterdir()).read_bytes()
        write("sealed-segment", encoding, segment[HEADER_BYTES:])
        if encoding in {"f32", "q2"}:
            write("segment", encoding, segment)
    store = folder / "f32.lorif"
    run("snapshot", store, "name")
    run("fit", store, "--rank", "2", "--coordinates", "int8")
    run("fit", store, "--rank", "3", "--scope", "global", "--coordinates", "f32")
    for path in (store / "curvature").iterdir():
        write("sealed-curvature", path.stem[:8], path.read_bytes()[HEADER_BYTES:])
    for path in (store / "coordinates").iterdir():
        write("sealed-coordinates", path.stem[:8], path.read_bytes()[HEADER_BYTES:])
    write("catalog-file", "store", (store / "catalog" / "data.mdb").read_bytes())
    write("identity", "store", (store / "lorif.store").read_bytes())
    whitened = folder / "whitened.lorif"
    batch(folder / "sample.safetensors", 40, dense=True)
    run("ingest", whitened, folder / "rows.safetensors", "--whiten-from", folder / "sample.safetensors")
    for path in (whitened / "basis").iterdir():
        write("sealed-basis", "basis", path.read_bytes()[HEADER_BYTES:])
    machine = folder / "machine.json"
    run("calibrate", folder, "--output", machine)
    write("machine", "measured", machine.read_bytes()[: 8 << 10])


def model_seeds() -> None:
    """Configurations of models as Hugging Face has them: plain, with experts, and one inside another."""
    plain = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    experts = {"num_experts": 4, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 48}
    configurations = {
        "llama": {"model_type": "llama", **plain, "num_key_value_heads": 2, "head_dim": 32},
        "gpt2": {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 4, "n_inner": None},
        "gpt-neo": {"model_type": "gpt_neo", "num_layers": 2, "attention_types": [[["global", "local"], 1]]},
        "falcon": {"model_type": "falcon", **plain, "num_kv_heads": 2, "new_decoder_architecture": True},
        "opt": {"model_type": "opt", **plain, "ffn_dim": 96, "word_embed_proj_dim": 32},
        "experts": {"model_type": "qwen2_moe", **plain, **experts, "decoder_sparse_step": 2, "mlp_only_layers": [1]},
        "composite": {"model_type": "llava", "text_config": {"model_type": "llama", **plain}, "vision_config": {}},
    }
    for name, fields in configurations.items():
        write("model-config", name, json.dumps(fields).encode())


def record_seeds() -> None:
    """Payloads of pages and of records of the catalog; their layouts are in Formats/."""
    norms = struct.pack("<15H", *range(15))
    identifiers = [b"row-0", "ü".encode(), b""]
    offsets = struct.pack("<4I", 0, 5, 7, 7)
    write("page", "field", b"\0\3\0" + bytes([1, 2, 3]) + bytes(24))
    write("page", "identifiers", b"\1\3\0" + offsets + b"".join(identifiers))
    write("page", "norms", b"\2\5\0" + norms)
    write("page", "index", b"\3\2\0" + struct.pack("<QQII", 3, 9, 1, 0))
    write("page", "statistics", b"\4\1\0" + bytes(32))
    write("page", "planes", b"\5\0\0" + bytes(range(16)))
    digest = struct.pack("<QQ", 2, 1)
    write("catalog-record", "state", b"\0" + digest + struct.pack("<5Q", 1, 2, 3, 4, 5) + digest + bytes(24))
    write(
        "catalog-record", "segment", b"\1" + struct.pack("<3Q", 5, 0, 1) + struct.pack("<3Q", 4096, 200, 4480) + digest
    )
    write("catalog-record", "tombstones", b"\2" + struct.pack("<2Q", 70, 1) + bytes(16))
    write("catalog-record", "ingest", b"\3" + struct.pack("<3Q", 5, 0, 1) + struct.pack("<I", 2) + b"{}" * 2)
    write("catalog-record", "curvature", b"\4" + bytes(120))
    write("catalog-record", "snapshot", b"\5" + bytes(160))
    write("catalog-record", "rows", b"\6" + digest * 2)
    schema = b"\1\0\0\0" + struct.pack("<I", 1) + struct.pack("<I", 3) + b"h.0" + struct.pack("<II", 4, 3) + b"\1"
    write("schema", "factors", schema + struct.pack("<I", 1))
    write("zstd", "empty", struct.pack("<I", 0) + bytes.fromhex("28b52ffd2000010000"))
    write("zstd", "zeros", struct.pack("<I", 1000) + bytes.fromhex("28b52ffd60e8024d0000100000010063130e"))


def text_seeds() -> None:
    """Texts of all kinds."""
    lines = ['{"id": "row-0", "text": "ü\\n\\u00e9", "n": 1}', '{"id": "3", "x": [1, {"a": null}], "y": -1.5e3}', ""]
    write("metadata", "ids", "\n".join(lines).encode())
    write("metadata", "numbers", b'{"id": 0, "a": true}\n{"id": 4}\n')
    write("metadata", "order", b'{"a": 1}\r\n{"a": 2}\n')
    write("json", "object", b'{"a": [1, 2.5, -0, 1e400], "b": "\\ud83d\\ude00", "c": {"d": null}}')
    write("json", "strings", b'["a", "\\\\", ""]')
    for number, text in enumerate(
        (
            "source = 'genesis' and number >= 3",
            "not (id like 'row-%' or share < 0.5) and none is null",
            "number in (1, 2, -3) or good = true",
            "\"list\" != 'x''y' and id is not null",
        )
    ):
        write("where", str(number), text.encode())


def main() -> int:
    """Writes them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lorif", type=Path, required=True, help="the program")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        store_seeds(given.lorif.resolve(), Path(name))
    model_seeds()
    record_seeds()
    text_seeds()
    return 0


if __name__ == "__main__":
    sys.exit(main())
