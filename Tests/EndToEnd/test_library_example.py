"""The example of the Swift library does what the program does."""

import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from harness import BINARY, run, write_batch
from test_oracle import random_layers

EXAMPLE = Path(BINARY).with_name("ask-example")


@pytest.mark.skipif(not os.access(EXAMPLE, os.X_OK), reason="ask-example was not built beside the program")
def test_same_answers_as_the_program(random: np.random.Generator, tmp_path: Path) -> None:
    shapes = {"a": (24, 16, 2)}
    store = tmp_path / "s.lorif"
    ids = [f"{row:03}" for row in range(300)]
    run("ingest", store, write_batch(tmp_path / "t.safetensors", random_layers(random, shapes, 300), ids=ids))
    file = write_batch(tmp_path / "query.safetensors", random_layers(random, shapes, 2, full=True), ids=["p", "q"])
    done = subprocess.run([EXAMPLE, store, file], capture_output=True, check=True, text=True)
    plan, *lines = done.stdout.splitlines()
    assert re.fullmatch(r"300 rows, \d+ bytes, by [a-z-]+", plan)
    wanted = run("query", store, file, "--method", "dot", "--top", 3, "--format", "jsonl").json_lines()
    assert len(lines) == len(wanted) == 6
    for line, answer in zip(lines, wanted, strict=True):
        query, rank, name, score = line.split("\t")
        assert (query, int(rank), name) == (answer["query"], answer["rank"], answer["id"])
        assert float(score) == pytest.approx(answer["score"], rel=1e-6)
