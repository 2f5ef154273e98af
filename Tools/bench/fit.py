"""Time, passes, energy and peak memory of `lorif fit`, by number of rows and memory budget.

Generates factors (16 layers of 64×64, c = 1, unless said) with the magnitudes of real ones and directions of their own,
ingests them, fits once for each number of rows and budget, and prints a Markdown table. The part that grows with the
rows (reading and products) and the part that does not (eigenproblems) are given apart. The rate is that of all
operations over processor time, single precision (Double ones count twice), against that of NumPy's sgemm on one thread,
measured before and after each fit: the same whatever else the machine does, apart from its caches.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from shutil import copytree, rmtree
from tempfile import TemporaryDirectory

os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
from batches import Shape, generate
from processes import ROOT, machine, run

TILE = ROOT / "Tests/Data/reference/train_c1.safetensors"
HEADER = (
    "rows", "budget", "algorithm", "passes", "energy", "elapsed s", "reading and products s", "eigenproblems s",
    "processor s", "products TFLOP", "eigenproblems TFLOP", "of sgemm", "planned MiB", "peak MiB",
)  # fmt: skip


def sgemm_rate() -> float:
    """Operations per processor second of NumPy's sgemm on one thread."""
    matrix = np.random.default_rng(0).standard_normal((2048, 2048), np.float32)
    started = time.process_time()
    for _ in range(3):
        matrix @ matrix
    return 3 * 2 * 2048**3 / (time.process_time() - started)


def measured(store: Path, options: argparse.Namespace, rows: int, budget: str) -> list[str]:
    """One fit of a copy of a store, as a line of the table."""
    copy = store.with_name("copy.lorif")
    rmtree(copy, ignore_errors=True)
    copytree(store, copy)
    before = sgemm_rate()
    extra = ["--algorithm", options.algorithm] if options.algorithm else []
    arguments = ["--rank", options.rank, "--scope", options.scope, "--memory", budget, *extra, "--json"]
    outcome = run(options.lorif, "fit", copy, *arguments)
    if outcome.code != 0:
        return [f"{rows:,}", budget, outcome.stderr.strip(), *[""] * (len(HEADER) - 3)]
    rate = (before + sgemm_rate()) / 2
    done = json.loads(outcome.stdout)
    groups = done["groups"]
    trace = sum(group["trace"] for group in groups)
    energy = sum(group["capturedEnergy"] * group["trace"] for group in groups) / trace
    share = done["flops"] / outcome.processor_seconds / rate
    return [
        f"{rows:,}", budget, "+".join(sorted({group["algorithm"] for group in groups})),
        str(max(group["passes"] for group in groups)), f"{100 * energy:.1f} %", f"{outcome.seconds:.1f}",
        f"{done['passSeconds']:.1f}", f"{done['eigenSeconds']:.1f}", f"{outcome.processor_seconds:.1f}",
        f"{done['passFlops'] / 1e12:.2f}", f"{done['eigenFlops'] / 1e12:.2f}", f"{100 * share:.0f} %",
        f"{done['plannedMemoryBytes'] / 2**20:,.0f}", f"{outcome.peak_bytes / 2**20:,.0f}",
    ]  # fmt: skip


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--lorif", type=Path, default=ROOT / ".build/release/lorif")
    add("--rows", type=int, nargs="+", default=[20_000, 200_000])
    add("--budgets", nargs="+", default=["4GiB"], help="as of --memory")
    add("--layers", type=int, default=16)
    add("--d", type=int, default=64)
    add("--rank", type=int, default=256, help="eigenvectors per group")
    add("--scope", default="per-layer")
    add("--algorithm", help="gram, kernel or krylov; chosen by the program unless said")
    add("--folder", type=Path, help="where to put stores (default: a temporary folder)")
    options = parser.parse_args()
    print("| " + " | ".join(HEADER) + " |\n|" + "---|" * len(HEADER), flush=True)
    with TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        for rows in options.rows:
            shape = Shape(rows, options.layers, options.d, options.d, 1, "f16", -(-rows // 50_000), 1)
            store = folder / f"{rows}.lorif"
            outcome = run(options.lorif, "ingest", store, *generate(folder / "batches", shape, TILE))
            if outcome.code != 0:
                sys.exit(f"{outcome.command}\n{outcome.stderr}")
            rmtree(folder / "batches")
            for budget in options.budgets:
                line = measured(store, options, rows, budget)
                print("| " + " | ".join(line) + " |", flush=True)
        facts = "; ".join(f"{key}: {value}" for key, value in machine(folder).items())
    shape_text = f"{options.layers} layers of {options.d}×{options.d}, c = 1, q4"
    print(f"\n{shape_text}; rank {options.rank}, {options.scope}. {facts}")


if __name__ == "__main__":
    main()
