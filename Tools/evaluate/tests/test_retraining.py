# ruff: noqa: D103, S101
"""The short experiments: what they must show, with margins that are wide but real."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed; retraining stays UNTESTED")
pytest.importorskip("sklearn", reason="scikit-learn is not installed; retraining stays UNTESTED")

from retrain import main
from retraining.plans import PLANS
from retraining.workshop import Workshop
from sources import PACKAGES

BINARY = os.environ.get("LORIF_BIN", "")
needs_program = pytest.mark.skipif(not BINARY, reason="LORIF_BIN is not set")
# Both short plans have these.
D, RANK = 24, 4
LOGRA, DOT = f"LoGRA: d = {D}, full, f16, exact", f"dot: d = {D}, full, f16"


def factors(family: str, encoding: str) -> str:
    return f"{family}: d = {D}, c = {RANK}, {encoding}, exact"


def fetched(folder: Path) -> Path:
    """The packages with the texts, as apt-get has them."""
    folder.mkdir()
    for package in (package for packages in PACKAGES.values() for package in packages):
        command = ["apt-get", "download", "-q", package]
        if subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode != 0:
            pytest.skip(f"{' '.join(command)} failed; retraining on texts stays UNTESTED")
    return folder


@pytest.fixture(scope="module", params=["digits", "text"])
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    folder, task = tmp_path_factory.mktemp("retraining"), request.param
    texts = ["--texts", str(fetched(folder / "texts"))] if task == "text" else []
    places = ["--work", str(folder / "work"), "--output", str(folder / task), "--data", str(folder / "data")]
    assert main([task, "--short", *places, *texts]) == 0
    content = json.loads((folder / f"{task}.json").read_text(encoding="utf-8"))
    by_title = {row["title"]: row for row in content["methods"]}
    text = (folder / f"{task}.md").read_text(encoding="utf-8")
    assert all(f"| {title} | " in text for title in by_title)
    return by_title | {"content": content}


def gain(results: dict[str, dict], one: str, other: str) -> tuple[float, float]:
    """The mean difference of the LDS over the judging half of the queries, and its standard error."""
    own, reference = (np.array(results[title]["per_query"])[1::2] for title in (one, other))
    difference = own - reference
    return float(difference.mean()), float(difference.std(ddof=1) / np.sqrt(len(difference)))


@needs_program
@pytest.mark.parametrize(
    ("better", "worse", "margin"),
    [
        (LOGRA, DOT, 0.05),
        (DOT, "random", 0.03),
        (factors("LoRIF", "q2"), f"LoRIF: d = {D}, c = {RANK}, f32, dot", 0.05),
        (factors("LoRIF whitened", "q2"), factors("LoRIF", "q2"), 0.01),
        (factors("LoRIF whitened", "f32"), LOGRA, 0.0),
    ],
    ids=["influence over dot", "dot over random", "2 bits over dot", "whitened over plain", "whitened over LoGRA"],
)
def test_better_methods_predict_retraining_better(
    results: dict[str, dict], better: str, worse: str, margin: float
) -> None:
    mean, error = gain(results, better, worse)
    assert mean > margin
    assert mean > 2 * error


@needs_program
@pytest.mark.parametrize("family", ["LoRIF", "LoRIF whitened"])
def test_int8_is_within_the_noise_of_f32(results: dict[str, dict], family: str) -> None:
    mean, _ = gain(results, factors(family, "int8"), factors(family, "f32"))
    assert abs(mean) < results[factors(family, "f32")]["standard_error"] / 2


@needs_program
def test_what_was_planted_is_found(results: dict[str, dict]) -> None:
    content = results["content"]
    spoiled = {row["title"].split(",")[0]: row for row in content["spoiled"]}
    # Chance finds a tenth.
    assert spoiled["self-influence"]["share"] > 0.3
    assert spoiled["self-influence"]["second"] > 0.8
    copies = {row["title"]: row for row in content["copies"]}
    assert copies[f"relatif, {LOGRA}"]["share"] > 0.5
    assert copies["chance"]["share"] < 0.2


@needs_program
def test_without_its_best_examples_a_query_is_answered_worse(results: dict[str, dict]) -> None:
    content = results["content"]
    lost = {row["title"]: float(np.mean(row["increases"])) for row in content["removals"]}
    assert bool(lost) == bool(content["plan"]["removal_counts"])
    for title in (LOGRA, factors("LoRIF whitened", "q2")) if lost else ():
        assert lost[title] > lost["random"] + 0.2


@needs_program
def test_results_hold_what_was_asked(results: dict[str, dict]) -> None:
    exact = results[LOGRA]
    assert exact["rank_correlation_with_logra"] == pytest.approx(1)
    assert exact["top_10_shared_with_logra"] == 10
    assert exact["minus_logra"] == 0
    # What the recorder whitened and factored is worth what the program whitened and factored.
    own, reference = (
        results[f"{factors('LoRIF whitened', 'q2')}{end}"]["lds"] for end in (", factors by the recorder", "")
    )
    assert own == pytest.approx(reference, abs=0.02)


def test_a_folder_keeps_to_its_plan(tmp_path: Path) -> None:
    Workshop(tmp_path, PLANS["digits", "short"])
    with pytest.raises(ValueError, match=r"plan\.json: expected the plan asked for"):
        Workshop(tmp_path, PLANS["digits", "long"])


@needs_program
def test_out_of_time_is_said_and_taken_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert main(["digits", "--short", "--work", str(tmp_path / "work"), "--seconds", "0"]) == 75
    assert "the same command goes on" in capsys.readouterr().err


def test_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    wrong = (["numbers", "--work", "w"], ["digits"], ["digits", "--work", "w", "--plot"])
    for arguments, said in zip(wrong, ("invalid choice", "--work", "--plot"), strict=True):
        with pytest.raises(SystemExit) as refusal:
            main([*arguments, "--lorif", __file__])
        assert refusal.value.code == 2
        assert said in capsys.readouterr().err
