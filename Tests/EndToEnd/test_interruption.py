"""Writers that are stopped, killed, or not alone."""

import fcntl
import os
import signal
import struct
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from harness import BINARY, ENVIRONMENT, INTERRUPTED, attempt, refused, run, scores, write_batch

ROWS = 4000
SHAPES = {"a": (96, 64), "b": (64, 96)}
MOMENTS = 6


def batch(path: Path, random: np.random.Generator, rows: int, prefix: str) -> Path:
    """Factors of rank 2 with ids."""
    layers = {
        name: tuple(random.standard_normal((rows, d, 2), dtype=np.float32) for d in dimensions)
        for name, dimensions in SHAPES.items()
    }
    return write_batch(path, layers, ids=[f"{prefix}{row}" for row in range(rows)])


@pytest.fixture
def files(random: np.random.Generator, tmp_path: Path) -> tuple[Path, Path]:
    """A small batch, and one that takes a while."""
    return (
        batch(tmp_path / "small.safetensors", random, 50, "s"),
        batch(tmp_path / "large.safetensors", random, ROWS, "l"),
    )


def start(*arguments: object) -> subprocess.Popen[bytes]:
    command = [BINARY, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)


def example_count(store: Path, query: Path) -> int:
    return scores(store, query, "--method", "dot").shape[1]


def set_open_file_description_lock(file: int) -> None:
    """Takes the lock that the program's one writer holds."""
    fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))


def test_a_second_writer_is_refused_and_readers_are_not(files: tuple[Path, Path], tmp_path: Path) -> None:
    small, large = files
    store = tmp_path / "s.lorif"
    run("ingest", "--encoding", "f32", store, small)
    with (store / "writer.lock").open("r+b") as lock:
        set_open_file_description_lock(lock.fileno())
        refused("ingest", "--encoding", "f32", store, large, code=ENVIRONMENT, says=(store,))
        refused("fit", store, code=ENVIRONMENT, says=(store,))
        assert example_count(store, small) == 50
        run("inspect", store)
        run("verify", store)
    run("ingest", "--encoding", "f32", store, large)
    assert example_count(store, small) == 50 + ROWS


def test_a_writer_at_work_holds_the_lock(files: tuple[Path, Path], tmp_path: Path) -> None:
    small, large = files
    store = tmp_path / "s.lorif"
    run("ingest", "--encoding", "f32", store, small)
    writer = start("ingest", "--encoding", "f32", store, large)
    try:
        deadline = time.monotonic() + 30
        while not any((store / "tmp").iterdir()) and writer.poll() is None and time.monotonic() < deadline:
            time.sleep(0.001)
        writer.send_signal(signal.SIGSTOP)
        if any((store / "tmp").iterdir()):
            refused("fit", store, code=ENVIRONMENT, says=(store,))
            assert example_count(store, small) == 50
    finally:
        writer.send_signal(signal.SIGCONT)
        output, errors = writer.communicate(timeout=60)
    assert writer.returncode == 0, (output, errors)
    assert example_count(store, small) == 50 + ROWS


def duration(store: Path, large: Path) -> float:
    """Seconds that the large ingest takes."""
    began = time.monotonic()
    run("ingest", "--encoding", "f32", store, large)
    return time.monotonic() - began


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda n: n.name)
def test_stopped_at_any_moment(
    number: signal.Signals, files: tuple[Path, Path], random: np.random.Generator, tmp_path: Path
) -> None:
    """The store is at the last commit or at the new one, whole either way, and the ingest can be run again."""
    small, large = files
    whole = duration(tmp_path / "timing.lorif", large)
    for moment, share in enumerate(random.uniform(0, 1.05, MOMENTS)):
        store = tmp_path / f"{number.name}-{moment}.lorif"
        run("ingest", "--encoding", "f32", store, small)
        writer = start("ingest", "--encoding", "f32", store, large)
        time.sleep(whole * share)
        writer.send_signal(number)
        _, errors = writer.communicate(timeout=60)
        expected = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: None}.get(number, INTERRUPTED)
        if number == signal.SIGTERM:
            assert writer.returncode in (0, -signal.SIGTERM, 128 + signal.SIGTERM, INTERRUPTED), errors
        else:
            # Before the program has set up its handler, SIGINT ends it as it ends any other.
            assert writer.returncode in (0, expected, -number), errors
        run("verify", store)
        assert example_count(store, small) in (50, 50 + ROWS)
        run("ingest", "--encoding", "f32", store, large)
        assert example_count(store, small) == 50 + ROWS
        run("verify", store)
        assert not list((store / "tmp").iterdir())


def test_killed_while_the_store_is_created(
    files: tuple[Path, Path], random: np.random.Generator, tmp_path: Path
) -> None:
    """After a kill during the first ingest the same command works, whether the folder was there or not."""
    small, _ = files
    for moment in range(MOMENTS):
        store = tmp_path / f"{moment}.lorif"
        writer = start("ingest", "--encoding", "f32", store, small)
        time.sleep(random.uniform(0, 0.06))
        writer.kill()
        writer.communicate(timeout=60)
        outcome = attempt("ingest", "--encoding", "f32", store, small)
        assert outcome.code == 0, str(outcome)
        assert example_count(store, small) == 50
        run("verify", store)


def test_interrupted_fit_leaves_no_curvature(files: tuple[Path, Path], tmp_path: Path) -> None:
    small, large = files
    store = tmp_path / "s.lorif"
    run("ingest", "--encoding", "f32", store, large)
    fit = start("fit", store, "--rank", "64", "--scope", "global")
    time.sleep(0.15)
    fit.send_signal(signal.SIGINT)
    _, errors = fit.communicate(timeout=120)
    assert fit.returncode in (0, INTERRUPTED, -signal.SIGINT), errors
    run("verify", store)
    if fit.returncode != 0:
        refused("query", store, small, "--method", "influence", says=("lorif fit",))
