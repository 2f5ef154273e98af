"""The README's tour, run as it is printed, and the scripts it names."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from harness import BINARY, TIMEOUT, run

EXIT_CODES = (0, 1, 2, 3, 4, 5, 130)


def test_the_tour(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```\n(lorif .*?)^```$", readme, re.DOTALL | re.MULTILINE)
    commands = [line for block in blocks for line in block.splitlines()]
    assert len(blocks[0].splitlines()) == 5
    (tmp_path / "Tools").symlink_to(ROOT / "Tools")
    (tmp_path / "ids.txt").write_text("bible-0005\nsqlite-0020\n")
    outputs = []
    for line in commands:
        program, *arguments = shlex.split(line, comments=True)
        assert program == "lorif"
        done = subprocess.run(
            [BINARY, *arguments], cwd=tmp_path, capture_output=True, timeout=TIMEOUT, check=False, text=True
        )
        assert done.returncode == 0, f"$ {line}\n{done.stdout}{done.stderr}"
        outputs.append(done.stdout)
    answer = next(text for line, text in zip(commands, outputs, strict=True) if line.startswith("lorif query"))
    assert "query-bible-0" in answer
    assert "King James" in answer


def words(text: str) -> list[str | float]:
    """Words and numbers, without the time that it took and the digest of the fit, which differs between processors."""
    found: list[str | float] = []
    text = re.sub(r"[0-9.]+ s$", "s", text, flags=re.MULTILINE)
    for word in re.sub(r"curvature [0-9a-f]{12}", "curvature", text).split():
        try:
            found.append(float(word))
        except ValueError:
            found.append(word)
    return found


def test_the_answer_that_is_shown(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = readme.split("```text\n")[1].split("```")[0]
    tour = re.findall(r"^```\n(lorif .*?)^```$", readme, re.DOTALL | re.MULTILINE)[0].splitlines()[:3]
    (tmp_path / "Tools").symlink_to(ROOT / "Tools")
    for line in tour:
        done = subprocess.run(
            [BINARY, *shlex.split(line)[1:]],
            cwd=tmp_path,
            env=os.environ | {"COLUMNS": "100"},
            capture_output=True,
            timeout=TIMEOUT,
            check=True,
            text=True,
        )
    head, foot = (words(part) for part in shown.rsplit("…\n", 1))
    answer = words(done.stdout)
    for part, found in ((head, answer[: len(head)]), (foot, answer[-len(foot) :])):
        assert len(part) == len(found)
        for a, b in zip(part, found, strict=True):
            if isinstance(a, float):
                assert b == pytest.approx(a, rel=1e-3), (a, b)
            else:
                assert a == b


def test_the_questions(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme.split("### Asking\n")[1].split("```")[1]
    (tmp_path / "Tools").symlink_to(ROOT / "Tools")
    (tmp_path / "ids.txt").write_text("bible-0005\nsqlite-0020\n")
    asked = [line.replace("$Q", "Tools/demo/query.safetensors") for line in section.splitlines()[1:]]
    assert len(asked) > 5
    before = ["lorif ingest demo.lorif Tools/demo/train.safetensors", "lorif fit demo.lorif --rank 16"]
    for line in before + asked:
        program, *arguments = shlex.split(line, comments=True)
        assert program == "lorif"
        done = subprocess.run(
            [BINARY, *arguments], cwd=tmp_path, capture_output=True, timeout=TIMEOUT, check=False, text=True
        )
        assert done.returncode == 0, f"$ {line}\n{done.stdout}{done.stderr}"
        assert done.stdout


def test_the_documented_exit_codes_are_the_programs() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert tuple(int(code) for code in re.findall(r"^\| (\d+) \|", readme, re.MULTILINE)) == EXIT_CODES


def code(heading: str, language: str) -> str:
    """The first block of a language under a heading."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    return readme.split(f"{heading}\n")[1].split(f"```{language}\n")[1].split("```")[0]


def test_coordinates_and_whitening(tmp_path: Path) -> None:
    full = ROOT / "Tools/demo/query.safetensors"
    for name in ("sample.safetensors", "train-0.safetensors", "queries.safetensors"):
        shutil.copy(full, tmp_path / name)
    made = ["lorif ingest demo.lorif Tools/demo/train.safetensors"]
    (tmp_path / "Tools").symlink_to(ROOT / "Tools")
    blocks = code("#### Coordinates", "sh").splitlines(), code("### Whitening", "sh").splitlines()
    assert [len(block) for block in blocks] == [2, 3]
    for line in [*made, *blocks[0], *blocks[1]]:
        assert line.startswith("lorif ")
        shell = f'set -e; lorif() {{ {shlex.quote(str(BINARY))} "$@"; }}; {line}'
        done = subprocess.run(
            ["/bin/bash", "-c", shell], cwd=tmp_path, capture_output=True, timeout=TIMEOUT, check=False, text=True
        )
        assert done.returncode == 0, f"$ {line}\n{done.stdout}{done.stderr}"
        assert done.stdout


def test_the_libraries(tmp_path: Path) -> None:
    """The lines of Python run; those of Swift are made of the words of an example that is compiled and compared."""
    run("ingest", tmp_path / "demo.lorif", ROOT / "Tools/demo/train.safetensors")
    run("fit", tmp_path / "demo.lorif", "--rank", 8)
    (tmp_path / "Tools").symlink_to(ROOT / "Tools")
    lines = "import lorif\n" + code("## What is where", "python")
    environment = os.environ | {"LORIF_BIN": str(BINARY), "PYTHONPATH": str(ROOT / "Tools/python/src")}
    done = subprocess.run(
        [sys.executable, "-c", lines], cwd=tmp_path, env=environment, capture_output=True, timeout=TIMEOUT,
        check=False, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    example = (ROOT / "Tools/examples/ask/main.swift").read_text(encoding="utf-8")
    swift = re.sub(r"//.*|\"[^\"]*\"", "", code("## What is where", "swift"))
    assert set(re.findall(r"\w+", swift)) - {"3"} <= set(re.findall(r"\w+", example))


def test_the_commands_between(tmp_path: Path) -> None:
    """Every command in the text itself; names and elisions that stand for the reader's own are put in here."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    text = re.sub(r"^```.*?^```", "", readme, flags=re.DOTALL | re.MULTILINE)
    commands = list(dict.fromkeys(re.findall(r"(?<!`)`(lorif [^`\n]+)`(?!`)", text)))
    assert len(commands) >= 9
    (tmp_path / "Tools").symlink_to(ROOT / "Tools")
    shutil.copy(ROOT / "Tools/examples/config.json", tmp_path)
    for name in ("q", "q1", "q2"):
        shutil.copy(ROOT / "Tools/demo/query.safetensors", tmp_path / f"{name}.safetensors")
    for name in ("demo.lorif", "logra", "lorif", "one", "two"):
        run("ingest", tmp_path / name, ROOT / "Tools/demo/train.safetensors", "--encoding", "f16")
        run("fit", tmp_path / name, "--rank", 8)
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    for command in commands:
        if command.startswith("lorif import "):
            # On stores of the peers' own making: test_import.py.
            continue
        line = command.replace("/data/stores", ".").replace("…", "Tools/demo/query.safetensors --rank 4 --encoding f16")
        shell = f'set -e; lorif() {{ {shlex.quote(str(BINARY))} "$@"; }}; {line}'
        done = subprocess.run(
            ["/bin/bash", "-c", shell], cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, capture_output=True,
            timeout=TIMEOUT, check=False, text=True,
        )  # fmt: skip
        assert done.returncode == 0, f"$ {line}\n{done.stdout}{done.stderr}"
    assert "<html" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert list((tmp_path / "cache").rglob("*.json")), "calibrate has kept nothing"


@pytest.mark.parametrize("script", ["Tools/setup", "Tools/quickstart", "Tools/test", "Tools/install", "Tools/deb"])
def test_scripts_explain_themselves(script: str) -> None:
    path = ROOT / script
    assert os.access(path, os.X_OK)
    shown = subprocess.run([path, "--help"], capture_output=True, timeout=TIMEOUT, check=False, text=True)
    assert shown.returncode == 0
    assert f"Usage: {script}" in shown.stdout
    assert "Example:" in shown.stdout
    wrong = subprocess.run([path, "--no-such"], capture_output=True, timeout=TIMEOUT, check=False, text=True)
    assert wrong.returncode == 2
    assert "--help" in wrong.stderr
