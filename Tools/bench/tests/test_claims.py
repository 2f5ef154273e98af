# ruff: noqa: D103, S101
"""The README says what the committed results say, and a figure that was changed on either side is noticed."""

import json
import re
import shutil
from pathlib import Path

import pytest
from claims import BLOCK, ROOT, main
from rendered import CHANGES, changes, dampings, faster, read_table, targets, whitening

README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A root with the README and the files that it is made from."""
    shutil.copy(ROOT / "README.md", tmp_path)
    for _, paths, _ in BLOCK.findall(README):
        for path in paths.split():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / path, tmp_path / path)
    return tmp_path


def changed(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_the_readme_says_what_the_results_say(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check"]) == 0, capsys.readouterr().out


def test_the_readme_has_costs_and_quality() -> None:
    sources = {path for _, paths, _ in BLOCK.findall(README) for path in paths.split()}
    assert "Tools/bench/results/peers.json" in sources
    assert {path for path in sources if path.startswith("Tools/evaluate/results/")}


def test_a_changed_number_of_the_readme_fails(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, _, body in BLOCK.findall(README):
        row = next(line for line in body.splitlines() if re.search(r"\| \d[\d.,]* ", line))
        wrong = re.sub(r"\| \d[\d.,]* ", "| 77.7 ", row, count=1)
        changed(copy / "README.md", row, wrong)
        assert main(["--check", "--root", str(copy)]) == 1, name
        shown = capsys.readouterr().out
        assert f"-{wrong}\n+{row}\n" in shown
        assert main(["--write", "--root", str(copy)]) == 0
        assert (copy / "README.md").read_text(encoding="utf-8") == README


def test_a_changed_number_of_a_result_fails(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = copy / "Tools/bench/results/peers.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["sizes"][0]["bytes"] *= 2
    path.write_text(json.dumps(content), encoding="utf-8")
    assert main(["--check", "--root", str(copy)]) == 1
    assert "524,288" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("<!-- end of generated -->", "", "without its"),
        ("generated: peers from", "generated: pears from", "found 'pears'"),
        ("results/peers.json -->", "results/pears.json -->", "no such file"),
    ],
)
def test_what_cannot_be_made_is_said(
    copy: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, said: str
) -> None:
    changed(copy / "README.md", old, new)
    assert main(["--check", "--root", str(copy)]) == 5
    assert said in capsys.readouterr().err


def test_results_without_what_is_claimed_are_an_error(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copy / "Tools/bench/results/peers.json").write_text('{"sizes": []}', encoding="utf-8")
    assert main(["--write", "--root", str(copy)]) == 5
    assert "cannot be rendered" in capsys.readouterr().err
    assert (copy / "README.md").read_text(encoding="utf-8") == README


def method(family: str, rest: str, size: float, choosing: float, lds: float) -> dict[str, object]:
    return {
        "title": f"{family}: d = 8, {rest}", "family": family, "d": 8, "bytes_per_example": size, "lds": lds,
        "times_fewer": 1024 / size, "lds_choosing": choosing, "standard_error": 0.01, "of_logra": lds / 0.4,
        "minus_logra": lds - 0.4, "minus_logra_standard_error_over_subsets": 0.02,
        "lds_by_rho": {"1": 0.4, "3": 0.5, "30": 0.3},
    }  # fmt: skip


def change(title: str, gain: float, before: float, after: float) -> dict[str, object]:
    return {"title": title, "gain": [gain, 0.01], "subset_error": 0.03, "sizes": [before, after]}


EXPERIMENT = json.dumps(
    {
        "plan": {"task": "digits", "dimensions": [8], "ranks": [1]},
        "methods": [
            method("LoGRA", "full, f16, exact", 1030, 0.4, 0.4),
            # Better on the judging half, worse on the choosing one: not taken.
            method("LoRIF", "c = 1, q2, exact", 32, 0.41, 0.5),
            method("LoRIF whitened", "c = 1, q2, exact", 32, 0.43, 0.424),
            method("LoRIF whitened", "c = 1, q1, exact", 16, 0.3, 0.38),
            method("LoRIF whitened", "c = 1, q2, no curvature", 32, 0.1, 0.2),
            method("LoRIF whitened", "full, q2, exact", 140, 0.9, 0.9),
            method("LoGRA", "full, f16, exact, gradients averaged over 3 checkpoints", 1030, 0.41, 0.41),
            method("LoRIF", "c = 1, q1, exact, gradients averaged over 3 checkpoints", 16, 0.4, 0.44),
            # Scores of several stores, in the bytes of all: neither one checkpoint nor one store.
            method("LoRIF", "c = 1, q1, exact, mean of 3 checkpoints", 16, 0.9, 0.9),
        ],
        "changes": [
            change(title, gain, 32, size)
            for title, gain, size in [
                *((start, 0.01, 32) for start in CHANGES),
                ("mean of 3 checkpoints, matrices", 0.5, 1030),
                ("c = 2 → 4", 0.02, 64),
            ]
        ],
    }
)


def test_targets_are_judged_on_what_was_not_chosen_by() -> None:
    text = targets(EXPERIMENT)
    row, averaged = read_table(text, "")
    assert row["LoGRA, f16"] == "1,030: 0.400 ± 0.010"
    assert row["≥ 30 times fewer bytes"] == "32 (whitened, c = 1, q2): 0.424 ± 0.010, ×1.06 (+0.024 ± 0.020)"
    assert row["≥ 60 times fewer bytes"] == "16 (whitened, c = 1, q1): 0.380 ± 0.010, ×0.95 (-0.020 ± 0.020)"
    assert averaged["LoGRA, f16"] == "1,030: 0.410 ± 0.010"
    assert averaged["≥ 60 times fewer bytes"] == "16 (c = 1, q1): 0.440 ± 0.010, ×1.10 (+0.040 ± 0.020)"
    assert "LoGRA with 30 times fewer bytes in 1 of 1, and with averaged gradients in 1 of 1" in text
    assert "LoGRA with 60 times fewer bytes in 0 of 1, and with averaged gradients in 1 of 1" in text


def test_changes_have_the_larger_error_and_their_bytes() -> None:
    rows = read_table(changes(EXPERIMENT), "")
    assert len(rows) == len(CHANGES)
    by_title = {row["LDS gained (bytes per example)"]: row["digits, d = 8"] for row in rows}
    assert by_title["ε = 0.03"] == "+0.010 ± 0.030 (32)"
    assert by_title["mean of 3 checkpoints"] == "+0.010 ± 0.030 (32)"


def test_bytes_that_change_are_said() -> None:
    content = json.loads(EXPERIMENT)
    content["changes"] = [row for row in content["changes"] if row["title"] != "c = 2 → 4" or row["sizes"][1] == 64]
    rows = read_table(changes(json.dumps(content)), "")
    (found,) = (row for row in rows if row["LDS gained (bytes per example)"] == "c = 2 → 4")
    assert found["digits, d = 8"] == "+0.020 ± 0.030 (32 → 64)"


def test_the_default_damping_is_compared_with_the_best() -> None:
    rows = read_table(dampings(EXPERIMENT), "")
    assert [row["digits"] for row in rows] == [
        "0.100 (at most 0.100)",
        "0.100 (at most 0.100)",
        "0.200 (at most 0.200)",
    ]


def test_whitening_has_a_column_for_every_rank() -> None:
    rows = read_table(whitening(EXPERIMENT), "")
    assert [row["c = 1"] for row in rows] == ["32", "0.500", "0.424", "0.200"]
    assert [row["full matrices"] for row in rows] == ["140", "–", "0.900", "–"]


def test_a_faster_peer_is_named() -> None:
    found = {
        ("full", "lorif q2 c=4", 1): {"scan": [0.010, 0.030, 0.020]},
        ("full", "torch, LoGRA f16", 1): {"scan": [0.015]},
        ("full", "lorif q2 c=4", 8): {"scan": [0.1]},
        ("full", "torch, LoGRA f16", 8): {"scan": [0.2]},
    }
    assert faster(found).endswith("lorif q2 c=4, full: 1 (torch, LoGRA f16, 15 ms).\n")
    del found["full", "torch, LoGRA f16", 1]
    assert faster(found).startswith("No peer")
