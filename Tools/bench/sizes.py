"""Bytes per example of every encoding, everything in the store's directory counted.

Ingests real factors with fresh directions (16 layers of 64×64 unless said) at c = 1, 4 and 8 and as full matrices,
once for each encoding, and prints a Markdown table. The last line is what LoGRA keeps of the same gradients in f16.
"""

import argparse
import json
import sys
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory

import numpy as np
from batches import Shape, chunk, generate, identifier, read_sources
from processes import ROOT, files_below, machine, run, total_bytes
from safetensors.numpy import save_file

TILE = ROOT / "Tests/Data/reference/train_c1.safetensors"
ENCODINGS = ("f32", "f16", "bf16", "int8", "q4", "q3", "q2", "q1")
RANKS = (1, 4, 8)
FULL_ROWS_PER_FILE = 2048


def full_batches(folder: Path, shape: Shape) -> list[Path]:
    """Files of full matrices: sums of `shape.rank` outer products."""
    folder.mkdir(parents=True, exist_ok=True)
    sources = read_sources(TILE)
    paths = []
    for start in range(0, shape.rows, FULL_ROWS_PER_FILE):
        rows = range(start, min(start + FULL_ROWS_PER_FILE, shape.rows))
        tensors = {}
        for layer, name in enumerate(shape.layer_names):
            left, right = chunk(shape, sources, layer, rows)
            tensors[f"{name}/full"] = np.matmul(left, right.transpose(0, 2, 1)).astype(np.float16)
        metadata = {
            "lorif.batch": "1",
            "layers": json.dumps(shape.layer_names),
            "ids": json.dumps([identifier(row) for row in rows]),
        }
        path = folder / f"full-{start:06d}.safetensors"
        save_file(tensors, path, metadata)
        paths.append(path)
    return paths


def bytes_per_example(lorif: Path, store: Path, encoding: str, batches: list[Path], rows: int) -> float:
    """Ingests into a new store and weighs its directory."""
    outcome = run(lorif, "ingest", store, *batches, "--encoding", encoding)
    if outcome.code != 0:
        sys.exit(f"{outcome.command}\n{outcome.stderr}")
    size = total_bytes(files_below(store)) / rows
    rmtree(store)
    return size


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lorif", type=Path, default=ROOT / ".build/release/lorif")
    parser.add_argument("--rows", type=int, default=100_000, help="examples of each store of factors (default: 100000)")
    parser.add_argument("--full-rows", type=int, default=8192, help="examples of full matrices (default: 8192)")
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--d", type=int, default=64, help="d1 = d2 (default: 64)")
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    parser.add_argument("--output", type=Path, help="a .md file (default: standard output)")
    options = parser.parse_args()
    with TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        table: dict[str, list[float]] = {encoding: [] for encoding in ENCODINGS}
        for rank in (*RANKS, None):
            rows = options.rows if rank else options.full_rows
            shape = Shape(rows, options.layers, options.d, options.d, rank or RANKS[-1], "f16", 1, 1)
            batches = generate(folder / "batches", shape, TILE) if rank else full_batches(folder / "batches", shape)
            for encoding in ENCODINGS:
                size = bytes_per_example(options.lorif, folder / "store.lorif", encoding, batches, rows)
                table[encoding].append(size)
                print(f"c = {rank or 'full'}, {encoding}: {size:,.0f} B", file=sys.stderr, flush=True)
            rmtree(folder / "batches")
        facts = "; ".join(f"{key}: {value}" for key, value in machine(folder).items())
    titles = [f"c = {rank}" for rank in RANKS] + ["full"]
    lines = [
        "# Bytes per example",
        "",
        f"{options.layers} layers of {options.d}×{options.d}; {options.rows:,} examples with factors, "
        f"{options.full_rows:,} with full matrices; every file of the store counted. {facts}",
        "",
        "| encoding | " + " | ".join(titles) + " |",
        "|---|" + "---|" * len(titles),
        *(
            f"| `{encoding}` | " + " | ".join(f"{size:,.0f}" for size in sizes) + " |"
            for encoding, sizes in table.items()
        ),
        f"| LoGRA, f16 | | | | {options.layers * options.d**2 * 2:,} |",
        "",
    ]
    if options.output:
        options.output.write_text("\n".join(lines), encoding="utf-8")
    else:
        print("\n".join(lines))


if __name__ == "__main__":
    main()
