"""`lorif collection`: the package's command under the program's name."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from harness import BINARY, ENVIRONMENT, run, write_batch


def collection(*arguments: object, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BINARY, "collection", *map(str, arguments)],
        env=os.environ | {"LORIF_PYTHON": python}, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def test_a_collection_names_stores(random: np.random.Generator, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed; collections stay UNTESTED")
    layers = {"a": tuple(random.standard_normal((40, d, 1), dtype=np.float32) for d in (8, 6))}
    for name in ("one", "two"):
        batch = write_batch(tmp_path / f"{name}.safetensors", layers, ids=[f"{name}-{row}" for row in range(40)])
        run("ingest", tmp_path / f"{name}.lorif", batch)
    manifest = tmp_path / "c.json"
    assert collection("create", manifest).returncode == 0
    added = collection("add", manifest, tmp_path / "one.lorif", tmp_path / "two.lorif")
    assert added.returncode == 0, added.stderr
    assert collection("verify", manifest).returncode == 0
    held = json.loads(collection("inspect", manifest, "--json").stdout)
    assert held["rows"] == 80
    assert collection("add", tmp_path / "no.json", tmp_path / "one.lorif").returncode != 0


def test_help_works_without_the_package(tmp_path: Path) -> None:
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    bare.chmod(0o755)
    asked = collection("--help", python=str(bare))
    assert asked.returncode == 0
    assert "lorif collection create" in asked.stdout
    assert "[ray]" in asked.stdout
    wanted = collection("create", tmp_path / "c.json", python=str(bare))
    assert wanted.returncode == ENVIRONMENT
    assert "[ray]" in wanted.stderr
    assert "Traceback" not in wanted.stderr
