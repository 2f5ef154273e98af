"""Makes the demo set: the public-domain part of a gradient experiment, factored to rank 4 in f16.

    python3 Tools/demo/make.py SOURCE [--rank 4]

SOURCE is a folder with train_full.safetensors and query_full.safetensors (`<layer>/full` [n, d1, d2], ids and layers in
the metadata) and the .jsonl file beside each (id, source, text). Kept are the rows whose source is `bible` (the King
James text). Training rows become rank-c factors, the truncated SVD of each matrix with √σ in both sides; queries stay
full matrices.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

SOURCE_KEPT = "bible"


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """All tensors and the metadata of a safetensors file."""
    with safe_open(path, "np") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118 (not a dict)


def kept_records(path: Path) -> list[dict[str, str]]:
    """The records of the public-domain source, in file order."""
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [record for record in records if record["source"] == SOURCE_KEPT]


def write_records(records: list[dict[str, str]], path: Path) -> None:
    with path.open("w", encoding="utf-8") as output:
        for record in records:
            fields = {"id": record["id"], "source": "King James Bible", "text": record["text"]}
            output.write(json.dumps(fields, ensure_ascii=False) + "\n")


def factors(matrices: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Best rank-c approximation: left [n, d1, c] and right [n, d2, c], √σ in both."""
    left, sigma, right = np.linalg.svd(matrices.astype(np.float64), full_matrices=False)
    root = np.sqrt(sigma[:, :rank])[:, None, :]
    return left[:, :, :rank] * root, np.swapaxes(right, 1, 2)[:, :, :rank] * root


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--rank", type=int, default=4)
    arguments = parser.parse_args()
    here = Path(__file__).resolve().parent

    for part in ("train", "query"):
        tensors, metadata = read(arguments.source / f"{part}_full.safetensors")
        records = kept_records(arguments.source / f"{part}_full.jsonl")
        layers, identifiers = json.loads(metadata["layers"]), json.loads(metadata["ids"])
        position = {identifier: row for row, identifier in enumerate(identifiers)}
        rows = [position[record["id"]] for record in records]

        output: dict[str, np.ndarray] = {}
        lost = total = 0.0
        for layer in layers:
            matrices = tensors[f"{layer}/full"][rows]
            if part == "query":
                output[f"{layer}/full"] = matrices.astype(np.float16)
                continue
            left, right = (side.astype(np.float16) for side in factors(matrices, arguments.rank))
            output[f"{layer}/left"], output[f"{layer}/right"] = left, right
            kept = np.einsum("nac,nbc->nab", left.astype(np.float64), right.astype(np.float64))
            lost += float(((matrices.astype(np.float64) - kept) ** 2).sum())
            total += float((matrices.astype(np.float64) ** 2).sum())
        save_file(
            output,
            here / f"{part}.safetensors",
            {
                "lorif.batch": "1",
                "ids": json.dumps([record["id"] for record in records]),
                "layers": json.dumps(layers),
                "model": "two-layer GPT, d_model 64",
                "loss_reduction": "mean over tokens",
                "tool": "Tools/demo/make.py",
            },
        )
        (here / f"{part}.safetensors").chmod(0o644)
        write_records(records, here / f"{part}.jsonl")
        kept_energy = f", energy kept {1 - lost / total:.3f}" if total else ""
        print(f"{part}: {len(records)} rows, {len(layers)} layers{kept_energy}")


if __name__ == "__main__":
    main()
