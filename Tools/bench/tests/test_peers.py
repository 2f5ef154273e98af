# ruff: noqa: D103, S101
"""The pure parts of the contest: data, pins, points, goals, agreement, report."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
from batches import Shape, Source
from contest import stages
from contest.agreement import batch_rows, best, overlap, reference, relative_error
from contest.data import DENSE, dense_rows, energies, query_file, write, write_full_batch, write_queries
from contest.entrants import ALL, TOP, WARM, Entrant, Figure, Measurement, Results, Size
from contest.environment import PEERS, last_words, pins
from contest.report import Goal, cell, markdown, reached, times
from contest.runner import Limits, Point, Runner, failure
from contest.stores import Disk, format_bytes
from peers import HERE, LONG, SHORT, parse, sized
from processes import Run
from safetensors.numpy import load_file

SHAPE = Shape(rows=37, layers=2, d1=6, d2=5, rank=1, dtype="f16", files=1, seed=3)


@pytest.fixture
def sources() -> list[Source]:
    random = np.random.default_rng(0)
    return [
        Source(random.standard_normal((9, 6)).astype(np.float32), random.standard_normal((9, 5)).astype(np.float32))
        for _ in range(2)
    ]


@pytest.fixture
def made(tmp_path: Path, sources: list[Source], monkeypatch: pytest.MonkeyPatch) -> tuple[Path, dict[int, float]]:
    monkeypatch.setattr("contest.data.ROWS_PER_FILE", 16)
    monkeypatch.setattr("contest.data.BLOCK", 5)
    kept = write(tmp_path, SHAPE, sources)
    write_queries(tmp_path / "queries", SHAPE, sources, (1, 4))
    return tmp_path, kept


def test_factors_are_truncations_of_the_dense_rows(made: tuple[Path, dict[int, float]]) -> None:
    folder, kept = made
    dense = dense_rows(folder / DENSE, SHAPE, range(37)).astype(np.float64)
    assert dense.shape == (37, 2, 6, 5)
    shares = {}
    for rank in (1, 4):
        files = sorted((folder / f"factors-c{rank}").glob("*"))
        assert [len(batch_rows(path, SHAPE)) for path in files] == [16, 16, 5]
        rows = np.concatenate([batch_rows(path, SHAPE) for path in files])
        shares[rank] = 1 - ((dense - rows) ** 2).sum() / (dense**2).sum()
        assert shares[rank] == pytest.approx(kept[rank], abs=1e-3)
    assert 0.3 < shares[1] < shares[4] < 1
    assert all((np.linalg.matrix_rank(row, tol=1e-2 * np.linalg.norm(row)) > 1).all() for row in dense[:, 0])


def test_energies_are_those_of_the_matrices() -> None:
    random = np.random.default_rng(1)
    left, right = random.standard_normal((3, 4, 2)), random.standard_normal((3, 5, 2))
    found = energies(left, right)
    assert found[0] == pytest.approx(((left @ right.transpose(0, 2, 1)) ** 2).sum())
    assert found[1] == pytest.approx(((left[:, :, 1:] @ right[:, :, 1:].transpose(0, 2, 1)) ** 2).sum())
    assert found[2] == 0


def test_full_batches_hold_the_rows_asked_for(made: tuple[Path, dict[int, float]], tmp_path: Path) -> None:
    path = tmp_path / "full.safetensors"
    write_full_batch(path, made[0] / DENSE, SHAPE, range(10, 13))
    assert np.array_equal(batch_rows(path, SHAPE), dense_rows(made[0] / DENSE, SHAPE, range(10, 13)))


def test_queries_begin_alike_and_find_their_row(made: tuple[Path, dict[int, float]]) -> None:
    folder = made[0] / "queries"
    for kind in ("full", "rank-1"):
        one, four = (load_file(query_file(folder, kind, count)) for count in (1, 4))
        assert all(np.array_equal(one[name], four[name][:1]) for name in one)
    queries = batch_rows(query_file(folder, "full", 4), SHAPE)
    first = np.concatenate([batch_rows(path, SHAPE) for path in sorted((made[0] / "factors-c1").glob("*"))])
    seen = first[[query * 37 // 4 for query in range(4)]]
    fresh = queries - seen
    assert abs((fresh * seen).sum()) < 0.5 * (seen**2).sum()


def test_the_requirements_pin_everything_and_name_every_peer() -> None:
    found = pins((HERE / "peers-requirements.txt").read_text())
    assert set(PEERS) < set(found)
    assert {"torch", "numpy", "matplotlib"} < set(found)


def test_what_is_not_pinned_is_refused() -> None:
    assert pins("# why\nA==1.0  # because\n\n") == {"a": "1.0"}
    with pytest.raises(ValueError, match="line 2"):
        pins("a==1\nb>=2")


@pytest.mark.parametrize(("code", "text", "reason"), [
    (0, "", ""), (124, "", "stopped after 7 s"), (1, "x\nMemoryError: no", "out of memory (MemoryError: no)"),
    (-9, "", "out of memory (no message)"), (3, "first\nthe | end\n", "the / end"),
])  # fmt: skip
def test_failures_have_reasons(code: int, text: str, reason: str) -> None:
    assert failure(Run("x", code, 1.0, 1.0, 1, "", text), 7) == reason


def test_the_last_words_are_the_last() -> None:
    assert last_words("a\n\n b \n\n") == "b"


def test_disk_is_bounded_and_shared_files_count_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(600))
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    assert Disk(tmp_path, 1000).refusal(400) == ""
    assert "400 B" not in Disk(tmp_path, 1000).refusal(401)
    assert "600 B" in Disk(tmp_path, 1000).refusal(401)
    assert "are free" in Disk(tmp_path, 1 << 70).refusal(1 << 60)
    assert [format_bytes(count) for count in (12, 3400, 5.6e9)] == ["12 B", "3.4 kB", "5.6 GB"]


def measured(name: str, scan: float, *, group: str = "g", queries: int = 1, rows: int = 10) -> Measurement:
    made = Measurement(name, group, "full", queries, TOP, WARM, rows)
    made.add(2 * scan, scan, 5_000_000)
    made.opening.append(1.0)
    return made


def test_a_ratio_is_of_those_measured_in_turns() -> None:
    results = Results()
    ours = "lorif q2 c=4"
    results.measurements = [
        measured(ours, 1.0, group="other"), measured(ours, 0.5), measured("peer", 10.0),
    ]  # fmt: skip
    goal = Goal("", "peer", ours, "full", 1, 3)
    assert reached(goal, results) == 20
    assert reached(Goal("", "peer", ours, "full", 1, 3, whole=True), results) == 20
    assert reached(Goal("", "peer", ours, "full", 1, 3, whole=True, imports=False), results) == 11
    assert reached(Goal("", "peer", ours, "full", 8, 3), results) is None
    assert cell(results.measurements[2], results) == "20 / 10 (×20 / ×20)"
    assert cell(results.measurements[1], results) == "1 / 0.5"
    assert [times(value) for value in (0.25, 3.14, 1234)] == ["×0.25", "×3.1", "×1,234"]


def test_the_report_names_what_was_not_measured() -> None:
    failed = Measurement("peer", "g", "full", 64, TOP, WARM, 10, failure="out of memory")
    results = Results(
        facts={"seed": "1"}, packages=[{"name": "p", "version": "1", "failure": "no wheel"}],
        sizes=[
            Size("f16", "LoGRA", 4, 4.0, 3), Size("q2", "lorif", 1, 1.0, 3),
            Size("f32", "LogIX", 8, None, 3, "no room"),
        ],
        measurements=[measured("lorif q2 c=4", 0.5), measured("peer", 5.0), failed],
        figures=[Figure("limits", "this machine", {"disk, GB/s": 1.5})],
    )  # fmt: skip
    text = markdown(results)
    assert "| p | 1 | no wheel |" in text
    assert "| lorif: q2 | 1 | ×4 | 3 |  |" in text
    assert "| LogIX: f32 | not made |  | 3 | no room |" in text
    assert "| peer | 10 / 5 (×10 / ×10) | 5 MB |" in text
    assert "| peer | 64 full, warm | out of memory |" in text
    assert "| this machine | 1.5 |" in text
    assert json.loads(json.dumps(results.json()))["measurements"][0]["scan median"] == 0.5


def test_agreement_counts_and_measures() -> None:
    scores = np.array([[0.0, 3.0, 2.0, 1.0]])
    assert best(scores, 2).tolist() == [[1, 2]]
    assert overlap(best(scores, 2), np.array([[2, 3]])) == 1
    assert relative_error(scores + np.array([0, 0, 0.5, 0]), scores) == pytest.approx(0.5 / scores.std())
    rows = np.arange(24.0).reshape(2, 3, 2, 2)
    assert reference(rows[:1], rows).tolist() == [[float((rows[0] * row).sum()) for row in rows]]


def runner(tmp_path: Path, **changes: float) -> Runner:
    limits = {"process_seconds": 5.0, "point_seconds": 5.0, "deadline": time.monotonic() + 60, **changes}
    return Runner(
        Path("/bin/false"), Path("/bin/false"), tmp_path, shape=SHAPE,
        limits=Limits(repeats=2, memory=1 << 30, **limits), results=Results(),
    )  # fmt: skip


def test_after_a_failure_more_queries_are_not_tried_but_fewer_are(tmp_path: Path) -> None:
    entrant = Entrant("x", "lorif", tmp_path, "full", 37)
    run = runner(tmp_path)
    for queries in (8, 64, 1):
        run.point([entrant], Point("g", queries, WARM))
    failures = {each.queries: each.failure for each in run.results.measurements}
    assert failures == {8: "no message", 64: "not tried: with 8 no message", 1: "no message"}


@pytest.mark.parametrize(("changes", "store", "reason"), [
    ({}, "absent", "its store could not be made"), ({"deadline": 0.0}, "", "no time left"),
])  # fmt: skip
def test_what_cannot_be_asked_is_noted(tmp_path: Path, changes: dict, store: str, reason: str) -> None:
    run = runner(tmp_path, **changes)
    run.point([Entrant("x", "lorif", tmp_path / store, "full", 37)], Point("g", 1, WARM))
    assert [each.failure for each in run.results.measurements] == [reason]
    run.unusable["p"] = "no wheel"
    run.point([Entrant("y", "bergson", tmp_path, "full", 37, package="p")], Point("g", 1, WARM))
    assert run.results.measurements[-1].failure == "no wheel"


def test_every_kept_answer_has_a_file_of_its_own(tmp_path: Path) -> None:
    run = runner(tmp_path)
    one, two = (Entrant(name, "lorif", tmp_path, "full", 37) for name in "ab")
    paths = [run._kept(entrant, ".npy") for entrant in (one, one, two)]
    assert len(set(paths)) == 3
    assert run.kept == {("a, full", ".npy"): paths[1], ("b, full", ".npy"): paths[2]}


def test_a_process_that_takes_too_long_is_stopped(tmp_path: Path) -> None:
    outcome = runner(tmp_path).bounded("sleep", 30, seconds=1)
    assert failure(outcome, 1) == "stopped after 1 s"


def test_sizes_and_presets_of_the_command_line() -> None:
    options = parse(["--lorif", "/bin/true", "--short"])
    assert (options.rows, options.queries) == (SHORT["rows"], SHORT["queries"])
    options = parse(["--lorif", "/bin/true", "--rows", "500"])
    assert (options.rows, options.cold) == (500, LONG["cold"])
    assert sized("12GB") == 12 * 10**9
    assert sized("0.5GiB") == 1 << 29
    extent = stages.Extent((1, 64, 256), (1,), (), 10, (8,), 1)
    assert extent.compared == 64
    assert stages.Extent((1, 4), (1,), (), 10, (8,), 1).compared == 4
    assert ALL != TOP


@pytest.mark.parametrize("wrong", [["--rows", "5"], ["--cold", "3"], ["--disk", "much"], ["--lorif", "/nonexistent"]])
def test_wrong_command_lines_are_refused(wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as refusal:
        parse(["--lorif", "/bin/true", *wrong])
    assert refusal.value.code == 2
