"""`lorif import`: scores of the other programs kept, interruptions survived, nothing added that is not whole."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from harness import BINARY, ENVIRONMENT, INTERRUPTED, REFUSED, USAGE, attempt, contents, refused, run, scores

PEERS = Path(__file__).resolve().parents[2] / "Tools" / "python" / "tests" / "fixtures" / "peers"
ROWS, D1, D2 = 600, 24, 20


@pytest.fixture(autouse=True)
def interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORIF_PYTHON", sys.executable)


@pytest.fixture
def matrices(random: np.random.Generator, tmp_path: Path) -> Path:
    """A folder of NumPy files, two layers; singular values fall, so that the best factors are clearly the best."""
    folder = tmp_path / "matrices"
    folder.mkdir()
    for name in ("a", "b"):
        values = random.standard_normal((ROWS, D1, D2)) * 0.5 ** np.arange(D2)
        np.save(folder / f"{name}.npy", values.astype(np.float32))
    return folder


def arrays(folder: Path) -> list[np.ndarray]:
    return [np.load(folder / f"{name}.npy").astype(np.float64) for name in ("a", "b")]


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.endswith(".import")]


@pytest.mark.parametrize(
    ("name", "options"), [("bergson", ()), ("logix", ()), ("dattri", ("--layout", "matrix"))], ids=str
)
def test_dot_scores_are_those_of_the_other_program(name: str, options: tuple, tmp_path: Path) -> None:
    store, asked = tmp_path / "s.lorif", tmp_path / "ask.safetensors"
    report = run(
        "import", name, PEERS / name, store, "--encoding", "f32", *options,
        "--queries", PEERS / f"{name}-queries", "--queries-to", asked, "--json",
    ).json()  # fmt: skip
    assert (report["rows"], report["queries"], report["keptEnergy"]) == (23, 3, None)
    expected = np.load(PEERS / f"{name}-scores.npy")
    found = scores(store, asked, "--method", "dot")
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
    assert leftovers(tmp_path) == []


def test_trak_features_become_vector_layers(tmp_path: Path) -> None:
    store = tmp_path / "s.lorif"
    run("import", "trak", PEERS / "trak", store, "--what", "features", "--queries", "ask", "--encoding", "f32")
    found = scores(store, tmp_path / "s.lorif.queries.safetensors", "--method", "dot")
    losses = [np.load(PEERS / "trak" / str(m) / "out_to_loss.mmap")[:, 0] for m in (0, 1)]
    expected = np.load(PEERS / "trak-scores.npy")
    assert np.abs(found / 2 * np.mean(losses, axis=0) - expected).max() <= 1e-4 * np.abs(expected).max()
    shown = run("inspect", store, "--example", "3").stdout
    assert "out_to_loss-1" in shown


def test_factors_are_the_best_and_their_energy_is_reported(matrices: Path, tmp_path: Path) -> None:
    store, asked = tmp_path / "s.lorif", tmp_path / "ask.safetensors"
    report = run(
        "import", "npy", matrices, store, "--rank", 3, "--encoding", "f32", "--memory", "2MiB", "--json"
    ).json()  # fmt: skip
    run("import", "npy", matrices, store, "--only-queries", "--queries", matrices, "--queries-to", asked)
    assert report["segments"] > 2
    total, kept, expected = 0.0, 0.0, np.zeros((ROWS, ROWS))
    for values in arrays(matrices):
        u, s, vt = np.linalg.svd(values, full_matrices=False)
        total, kept = total + (s**2).sum(), kept + (s[:, :3] ** 2).sum()
        best = np.einsum("nak,nk,nkb->nab", u[:, :, :3], s[:, :3], vt[:, :3])
        expected += values.reshape(ROWS, -1) @ best.reshape(ROWS, -1).T
    assert report["keptEnergy"] == pytest.approx(kept / total, rel=1e-4)
    assert report["sourceBytes"] == sum(path.stat().st_size for path in matrices.iterdir())
    found = scores(store, asked, "--method", "dot")
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


def test_output_first_transposes(matrices: Path, tmp_path: Path) -> None:
    run("import", "npy", matrices, tmp_path / "s.lorif", "--output-first")
    layers = run("inspect", tmp_path / "s.lorif", "--layers", "--json").json()
    assert [(layer["d1"], layer["d2"]) for layer in layers] == [(D2, D1), (D2, D1)]


def test_an_import_that_is_repeated_adds_nothing(tmp_path: Path) -> None:
    store = tmp_path / "s.lorif"
    command = ("import", "bergson", PEERS / "bergson", store, "--rank", 2, "--json")
    run(*command)
    before = contents(store)
    again = run(*command).json()
    assert (again["alreadyPresent"], again["rows"], again["totalRows"]) == (True, 0, 23)
    assert [path for path in before if path.endswith(".segment")] == [
        path for path in contents(store) if path.endswith(".segment")
    ]


def test_several_sources_in_one_store(tmp_path: Path) -> None:
    store = tmp_path / "s.lorif"
    run("import", "bergson", PEERS / "bergson", store, "--rank", 2, "--encoding", "f16")
    refused("import", "bergson", PEERS / "bergson-queries", store, says=('"0"', "--id-prefix", "kept in"))
    report = run("import", "bergson", PEERS / "bergson-queries", store, "--id-prefix", "ask-", "--json").json()
    assert (report["rows"], report["totalRows"]) == (3, 26)
    run("inspect", store, "--example", "ask-2")
    for options, says in {
        ("--rank", "3"): "rank 2",
        ("--encoding", "f32"): "f16",
    }.items():
        refused("import", "bergson", PEERS / "bergson-queries", store, "--id-prefix", "x", *options, says=(says,))
    refused("import", "logix", PEERS / "logix", store, says=("no such layer",))
    assert run("inspect", store, "--json").json()["rows"] == 26


def test_ids_and_metadata_of_the_caller(matrices: Path, tmp_path: Path) -> None:
    ids, texts = tmp_path / "ids", tmp_path / "texts.jsonl"
    ids.write_text("".join(f"row {row}\n" for row in range(ROWS)))
    texts.write_text("".join(json.dumps({"id": f"row {row}", "text": f"text {row}"}) + "\n" for row in range(ROWS)))
    run("import", "npy", matrices, tmp_path / "s.lorif", "--ids", ids, "--metadata", texts)
    assert "text 17" in run("inspect", tmp_path / "s.lorif", "--example", "row 17").stdout
    ids.write_text("a\n" * ROWS)
    refused("import", "npy", matrices, tmp_path / "t.lorif", "--ids", ids, says=("distinct ids", "'a'"))
    ids.write_text("a\n")
    refused("import", "npy", matrices, tmp_path / "t.lorif", "--ids", ids, says=(f"expected {ROWS} ids",))


def hole(folder: Path) -> None:
    """Rows of zeros near the end: all parts but the last are fine."""
    for name in ("a", "b"):
        np.lib.format.open_memmap(folder / f"{name}.npy", "r+")[ROWS - 3] = 0


def not_finite(folder: Path) -> None:
    np.lib.format.open_memmap(folder / "b.npy", "r+")[ROWS - 2, 3, 4] = np.nan


@pytest.mark.parametrize("damage", [hole, not_finite])
def test_nothing_is_added_of_a_source_that_is_bad_at_its_end(damage: object, matrices: Path, tmp_path: Path) -> None:
    good = tmp_path / "good"
    shutil.copytree(matrices, good)
    damage(matrices)
    command = ("import", "npy", matrices, tmp_path / "s.lorif", "--memory", "1MiB")
    refused(*command, says=(matrices,))
    assert not (tmp_path / "s.lorif").exists()
    assert leftovers(tmp_path) == []
    run("import", "npy", good, tmp_path / "s.lorif")
    before = contents(tmp_path / "s.lorif")
    refused(*command, "--id-prefix", "x", says=(matrices,))
    assert contents(tmp_path / "s.lorif") == before


def started(command: list[object]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [BINARY, *map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
    )


def finished_parts(work: Path) -> Iterator[Path]:
    return work.glob("part-*.json")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda x: x.name)
def test_an_interrupted_import_goes_on(number: signal.Signals, matrices: Path, tmp_path: Path) -> None:
    store, work = tmp_path / "s.lorif", tmp_path / "s.lorif.import"
    command = ["import", "npy", matrices, store, "--rank", "2", "--encoding", "f32", "--memory", "1MiB"]
    process = started(command)
    deadline = time.monotonic() + 60
    while len(list(finished_parts(work))) < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(number)
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == (INTERRUPTED if number != signal.SIGKILL else -signal.SIGKILL), complaint
    assert not store.exists()
    while (outcome := attempt(*command, "--json")).code == ENVIRONMENT:  # a pack that was left alone holds the lock
        assert "at work" in outcome.stderr
        assert time.monotonic() < deadline
    report = outcome.json()
    assert report["resumedSegments"] >= 2
    assert (report["rows"], report["totalRows"]) == (ROWS, ROWS)
    run(*command[:3], tmp_path / "whole.lorif", *command[4:])
    asked = tmp_path / "ask.safetensors"
    run("import", "npy", matrices, store, "--only-queries", "--queries", matrices, "--queries-to", asked)
    found, expected = (scores(tmp_path / name, asked, "--method", "dot") for name in ("s.lorif", "whole.lorif"))
    assert np.array_equal(found, expected)
    assert leftovers(tmp_path) == []


def test_parts_of_another_import_are_dropped(matrices: Path, tmp_path: Path) -> None:
    store, work = tmp_path / "s.lorif", tmp_path / "s.lorif.import"
    process = started(["import", "npy", matrices, store, "--rank", "1", "--memory", "1MiB"])
    while not list(finished_parts(work)):
        assert process.poll() is None
        time.sleep(0.002)
    process.terminate()
    process.communicate(timeout=60)
    report = run("import", "npy", matrices, store, "--rank", "2", "--memory", "1MiB", "--json").json()
    assert report["resumedSegments"] == 0
    assert run("inspect", store, "--layers", "--json").json()[0]["rank"] == 2


def test_a_folder_that_is_not_an_import_is_left_alone(matrices: Path, tmp_path: Path) -> None:
    work = tmp_path / "s.lorif.import"
    work.mkdir()
    (work / "thesis.txt").write_text("mine")
    refused("import", "npy", matrices, tmp_path / "s.lorif", says=(work,))
    assert (work / "thesis.txt").read_text() == "mine"


def test_queries_must_have_the_layers(tmp_path: Path) -> None:
    refused(
        "import", "logix", PEERS / "logix", tmp_path / "s.lorif", "--queries", PEERS / "logix-whole",
        says=("expected the layers of",),
    )  # fmt: skip
    refused(
        "import", "bergson", PEERS / "bergson", tmp_path / "s.lorif", "--queries", PEERS / "bergson-queries",
        "--memory", "8KiB", says=("raise --memory",),
    )  # fmt: skip
    refused(
        "import", "bergson", PEERS / "bergson", tmp_path / "s.lorif", "--queries", PEERS / "bergson-queries",
        "--queries-to", tmp_path / "ask.npy", says=("ends in .safetensors",),
    )  # fmt: skip
    assert not (tmp_path / "s.lorif").exists()


def test_what_has_no_matrix_is_refused(tmp_path: Path) -> None:
    for name, says in {"bergson-global": "no matrix to factor", "dattri-factgrass": "--layout"}.items():
        refused("import", name.partition("-")[0], PEERS / name, tmp_path / "s.lorif", says=(says,))
    for command in (("trak", PEERS / "trak"), ("bergson", PEERS / "bergson-global", "--layout", "vector")):
        refused("import", *command[:2], tmp_path / "s.lorif", "--rank", 1, *command[2:], says=("cannot be factored",))
    assert list(tmp_path.iterdir()) == []


def test_usage(tmp_path: Path) -> None:
    for arguments in ((), ("other", "a", "b"), ("npy", "a", "b", "--shape", "x"), ("npy", "a", "b", "--memory", "0")):
        refused("import", *arguments, code=USAGE, says=("usage: lorif import",))
    assert "exit codes" in run("import", "--help").stdout
    assert "LORIF_PYTHON" in run("help", "import").stdout
    refused("import", "npy", tmp_path / "missing", tmp_path / "s", code=REFUSED, says=("missing",))
    refused("import", "logix", PEERS / "logix", tmp_path / "s", "--encoding", "f8", code=USAGE, says=("f8",))
    assert list(tmp_path.iterdir()) == []


def test_without_the_package_it_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E "$@"\n')
    bare.chmod(0o755)
    monkeypatch.setenv("LORIF_PYTHON", str(bare))
    # A folder of that name in the working directory is not the package.
    (tmp_path / "lorif" / "importers").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    refused("import", "numpy", "x", "y", code=ENVIRONMENT, says=("-m pip install", "LORIF_PYTHON"))
    assert "lorif import bergson" in run("import", "--help").stdout
    monkeypatch.setenv("LORIF_PYTHON", str(tmp_path / "none"))
    refused("import", "numpy", "x", "y", code=ENVIRONMENT, says=("cannot be started", "pip install"))
    assert "pip install" in run("import", "--help").stdout
    assert (tmp_path / "lorif" / "importers").is_dir()
