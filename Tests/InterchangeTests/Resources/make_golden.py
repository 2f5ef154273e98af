"""Makes the golden files of InterchangeTests with numpy and safetensors, independently of the Swift code.

    pip install ml_dtypes numpy safetensors
    python make_golden.py [REAL_BATCH.safetensors]

REAL_BATCH: a factor batch with rank 4; its first three rows become real_c4.safetensors (only numbers and names).
"""

import json
import pathlib
import sys

import ml_dtypes
import numpy as np
import safetensors
from safetensors.numpy import load_file, save_file

here = pathlib.Path(__file__).parent


def pattern(shape, seed):
    """Eighths between -11/8 and 11/8, exact in every type: element k is ((7 k + seed) mod 23 - 11) / 8."""
    k = np.arange(np.prod(shape), dtype=np.int64)
    return ((((7 * k + seed) % 23) - 11) / 8.0).astype(np.float32).reshape(shape)


ids = ["a", 'naïve "quoted" \\ id', "日本", "tab\tid", "😀"]
tensors = {
    "blocks.10.fc/left": pattern((5, 3, 2), 1),
    "blocks.10.fc/right": pattern((5, 4, 2), 2),
    "blocks.2/attn.q/left": pattern((5, 4, 3), 3).astype(np.float16),
    "blocks.2/attn.q/right": pattern((5, 2, 3), 4).astype(np.float16),
    "head/full": pattern((5, 2, 3), 5).astype(ml_dtypes.bfloat16),
}
metadata = {
    "lorif.batch": "1",
    "ids": json.dumps(ids),
    "layers": json.dumps(["head", "blocks.10.fc", "blocks.2/attn.q"]),
    "model": "test model",
    "projection_seed": "11",
}
save_file(tensors, here / "golden_batch.safetensors", metadata)
(here / "golden_batch.jsonl").write_text(
    "\n".join(
        json.dumps({"text": f"example {i}", "id": i_d, "length": 10 * i, "loss": i / 4, "tags": ["x", {"y": None}]})
        for i, i_d in reversed(list(enumerate(ids)))
    )
)

# No version, no ids, no layer order: what a minimal trainer writes.
save_file({"b.10/full": pattern((2, 2, 2), 6), "b.9/full": pattern((2, 3, 1), 7)}, here / "golden_plain.safetensors")

np.save(here / "golden_scores.npy", pattern((3, 5), 8))
save_file(
    {"scores": pattern((3, 5), 8)},
    here / "golden_scores.safetensors",
    {"query_ids": json.dumps(["q0", "q1", 'q"2']), "method": "dot"},
)

if len(sys.argv) > 1:
    real = load_file(sys.argv[1])
    with safetensors.safe_open(sys.argv[1], "np") as file:
        metadata = dict(file.metadata())
    metadata["ids"] = json.dumps(json.loads(metadata["ids"])[:3])
    save_file({name: np.ascontiguousarray(real[name][:3]) for name in real}, here / "real_c4.safetensors", metadata)
    for name in ["blocks.0.qkv/left", "blocks.1.proj/right"]:
        print(name, [float(x) for x in real[name][2, 5]], real[name][:3].astype(np.float64).sum())
