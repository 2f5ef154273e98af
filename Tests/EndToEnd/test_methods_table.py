"""Tools/evaluate/methods.py on a small experiment: what its rows must say whatever the numbers."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from conftest import ROOT
from harness import BINARY, write_batch
from safetensors.numpy import save_file

TRAIN, ASKED, SUBSETS = 40, 6, 30


def test_every_method_has_a_row(random: np.random.Generator, tmp_path: Path) -> None:
    for name, count in (("train", TRAIN), ("query", ASKED)):
        layers = {layer: (random.standard_normal((count, 6, 5)).astype(np.float32),) for layer in ("b", "a")}
        write_batch(tmp_path / f"{name}_full.safetensors", layers, [f"{name} {row}" for row in range(count)])
    subsets = random.integers(2, size=(SUBSETS, TRAIN)).astype(np.uint8)
    losses = random.standard_normal((SUBSETS, ASKED)).astype(np.float32)
    save_file({"subsets": subsets, "query_losses": losses}, tmp_path / "retraining.safetensors")
    script = ROOT / "Tools" / "evaluate" / "methods.py"
    command = [sys.executable, script, tmp_path, "--lorif", BINARY, "--rhos", "0.1", "1", "--folder", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines() if line[:1] == "|"]
    table = {row[0]: dict(zip(rows[0][1:], row[1:], strict=True)) for row in rows[2:]}
    assert len(table) == 21
    agreement = {
        title: (float(row["rank corr. with LoGRA"]), float(row["of its 10 best"])) for title, row in table.items()
    }
    assert agreement["LoGRA: full, f16, exact"] == (1, 10)
    # Rank 4 of matrices with five columns keeps most of them; random scores agree with nothing.
    assert agreement["LoRIF: c = 4, f16, exact"][0] > 0.8
    assert abs(agreement["random"][0]) < 0.4
    # The concatenation has curvature between the layers as well.
    assert 0.5 < agreement["TRAK: concatenated, f16, exact global"][0] < 1
    assert all(-1 <= float(row["LDS"].split(" ")[0]) <= 1 for row in table.values())
    assert table["dot: full, f16"]["ρ"] == "–"
    assert json.dumps(sorted(table)).count("whitened") == 4
