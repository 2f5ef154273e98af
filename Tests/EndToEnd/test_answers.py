"""Answers as text, JSON Lines, CSV, Markdown and arrays (Formats/answers.md), in pipes, files and terminals."""

import csv
import fcntl
import io
import json
import os
import pty
import re
import struct
import subprocess
import termios
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from harness import BINARY, TIMEOUT, USAGE, read_tensors, refused, run, scores, write_batch

COUNT = 30
LAYERS = {"l.0": (4, 6), "l.1": (5, 3)}
# What a terminal must not obey, and what is wider or narrower than a character.
TEXTS = ("plain words " * 20, "世界 漢字 " * 30, "e\u0301\u0301 \u202e back \x1b[31mred\x07", "👩‍👩‍👧 🇩🇪 ❤️ " * 20, "")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("answers")
    random = np.random.default_rng(11)

    def gradients(count: int) -> dict:
        return {
            name: tuple(random.standard_normal((count, d, 2)).astype(np.float32) for d in shape)
            for name, shape in LAYERS.items()
        }

    ids = [f"id {row} |*\x1b[2J" for row in range(COUNT)]
    records = [{"id": each, "text": TEXTS[row % 5], "source": f"s{row % 3} 世"} for row, each in enumerate(ids)]
    train = write_batch(folder / "train.safetensors", gradients(COUNT), ids=ids, records=records)
    queries = write_batch(
        folder / "q.safetensors", gradients(2), ids=["q1", "q2"],
        records=[{"id": "q1", "text": TEXTS[1]}, {"id": "q2", "text": TEXTS[2]}],
    )  # fmt: skip
    store = folder / "s.lorif"
    run("ingest", "--encoding", "f32", store, train)
    run("fit", store)
    return store, queries


@pytest.mark.parametrize(
    "options", [(), ("--method", "cosine"), ("--aggregate", "max"), ("--relative-damping", "0.1,10")]
)
def test_shares_are_parts_of_the_sum_of_magnitudes(files: tuple[Path, Path], options: tuple) -> None:
    store, queries = files
    matrix = scores(store, queries, *options).astype(np.float64)
    sums = np.abs(matrix.reshape(-1, COUNT)).sum(axis=1)
    hits = run("query", store, queries, *options, "--top", COUNT, "--bottom", COUNT, "--format", "jsonl").json_lines()
    assert len(hits) == 2 * COUNT * len(sums)
    for place, total in enumerate(sums):
        for hit in hits[place * 2 * COUNT : (place + 1) * 2 * COUNT]:
            assert hit["share"] == pytest.approx(abs(hit["score"]) / total, rel=2e-5)
        assert sum(hit["share"] for hit in hits[place * 2 * COUNT :][:COUNT]) == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize("encoding", ["q2", "int8"])
def test_shares_where_rows_are_ranked_by_estimates(random: np.random.Generator, tmp_path: Path, encoding: str) -> None:
    layers = {"l": tuple(random.standard_normal((400, d, 1)).astype(np.float32) for d in (8, 8))}
    train = write_batch(tmp_path / "t.safetensors", layers)
    queries = write_batch(tmp_path / "q.safetensors", {"l": (random.standard_normal((3, 8, 8)).astype(np.float32),)})
    run("ingest", "--encoding", encoding, tmp_path / "s", train)
    total = np.abs(scores(tmp_path / "s", queries, "--method", "dot").astype(np.float64)).sum(axis=1)
    hits = run("query", tmp_path / "s", queries, "--method", "dot", "--top", 2, "--format", "jsonl").json_lines()
    for place, hit in enumerate(hits):
        assert hit["share"] == pytest.approx(hit["score"] / total[place // 2], rel=0.01)


def test_columns_are_those_that_are_documented(files: tuple[Path, Path]) -> None:
    store, queries = files
    line = run("query", store, queries, "--top", 1, "--format", "jsonl", "--per-layer").json_lines()[0]
    assert list(line) == ["query", "direction", "rank", "id", "score", "share", "layers", "metadata"]
    sweep = run(
        "query", store, queries, "--top", 1, "--format", "csv", "--relative-damping", "1,2", "--per-layer"
    ).stdout
    names = next(csv.reader(io.StringIO(sweep, newline="")))
    assert names[:7] == ["relative_damping", "query", "direction", "rank", "id", "score", "share"]
    assert names[7:] == ["layer.l.0", "layer.l.1", "metadata.text", "metadata.source"]
    group = run("query", store, queries, "--top", 0, "--format", "jsonl", "--group-by", "source").json_lines()[0]
    assert list(group) == ["query", "direction", "rank", "group", "examples", "sum", "mean", "highest", "top"]
    page = (Path(__file__).resolve().parents[2] / "Formats" / "answers.md").read_text(encoding="utf-8")
    for name in [*line, *group, "relative_damping", "damping"]:
        assert f"`{name}`" in page, name


def test_the_name_of_the_output_says_the_format(files: tuple[Path, Path], tmp_path: Path) -> None:
    store, queries = files
    outputs = [tmp_path / f"a.{extension}" for extension in ("txt", "jsonl", "csv", "md", "npy")]
    outputs.append(tmp_path / "a")
    said = run("query", store, queries, *(f"--output={path}" for path in outputs))
    assert said.stdout == ""
    for path, form in zip(outputs[1:4], ("jsonl", "csv", "markdown"), strict=True):
        assert (
            path.read_text(encoding="utf-8") == run("query", store, queries, "--format", form).stdout
            or form == "markdown"
        )
    assert outputs[0].read_text(encoding="utf-8").startswith("query q1\n")
    assert outputs[5].read_text(encoding="utf-8").startswith("query q1\n")
    np.testing.assert_array_equal(np.load(outputs[4]), scores(store, queries))
    # --format overrules the name, but not for scores.
    run("query", store, queries, "--format", "csv", "--output", outputs[5], "--output", tmp_path / "s.safetensors")
    assert outputs[5].read_text(encoding="utf-8").startswith("query,direction,rank")
    assert list(read_tensors(tmp_path / "s.safetensors")[0]) == ["scores"]


def test_every_score_instead_of_lists(files: tuple[Path, Path], tmp_path: Path) -> None:
    store, queries = files
    for form in ("npy", "safetensors"):
        said = run("query", store, queries, "--format", form, "--output", tmp_path / f"s.{form}")
        assert said.stdout == ""
        np.testing.assert_array_equal(
            np.load(tmp_path / "s.npy") if form == "npy" else read_tensors(tmp_path / "s.safetensors")[0]["scores"],
            scores(store, queries),
        )
    refused("query", store, queries, "--format", "npy", code=USAGE, says=("--output", ".npy"))
    refused("query", store, queries, "--format", "npy", "--output", tmp_path / "x.csv", code=USAGE, says=(".npy",))
    refused(
        *("query", store, queries, "--output", tmp_path / "a.npy", "--output", tmp_path / "b.npy"), code=USAGE,
        says=("one file",),
    )  # fmt: skip
    assert not list(tmp_path.glob("[abx].*"))


def test_markdown_shows_texts_and_obeys_none(files: tuple[Path, Path]) -> None:
    store, queries = files
    text = run("query", store, queries, "--top", 30, "--format", "markdown", "--group-by", "source").stdout
    rows = [line for line in text.splitlines() if line.startswith("| helpful")]
    assert len(rows) == 60
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 8 for row in rows)
    assert text.count("## q") == 2
    assert "\x1b" not in text and "\u202e" not in text


def test_ids_come_from_standard_input(files: tuple[Path, Path]) -> None:
    store, _ = files
    ids = [f"id {row} |*\x1b[2J" for row in (3, 17)]
    expected = run("query", store, "--by-id", ids[0], "--by-id", ids[1], "--method", "dot", "--format", "jsonl").stdout
    for given in ("\n".join(ids) + "\n\n", json.dumps(ids)):
        done = subprocess.run(
            [BINARY, "query", store, "--by-id", "-", "--method", "dot", "--format", "jsonl"],
            input=given, capture_output=True, timeout=TIMEOUT, check=True, text=True,
        )  # fmt: skip
        assert done.stdout == expected
    refused("query", store, "--by-id", "-", "--method", "dot", says=("standard input",))


def in_terminal(*arguments: object, columns: int, **environment: str) -> str:
    """What the program prints in a terminal of that width."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    variables = {key: value for key, value in os.environ.items() if key != "NO_COLOR"} | {"TERM": "xterm"} | environment
    process = subprocess.Popen(
        [BINARY, *map(str, arguments)], stdin=follower, stdout=follower, stderr=follower, env=variables
    )
    os.close(follower)
    shown = b""
    while True:
        try:
            chunk = os.read(leader, 65536)
        except OSError:
            break
        if not chunk:
            break
        shown += chunk
    os.close(leader)
    assert process.wait(TIMEOUT) == 0, shown
    return shown.decode()


def columns_of(text: str) -> int:
    """Columns by East Asian width, as terminals count."""
    shown = [c for c in text if not unicodedata.combining(c) and unicodedata.category(c) not in ("Cf", "Mn")]
    return len(shown) + sum(unicodedata.east_asian_width(c) in "WF" for c in shown)


@pytest.mark.parametrize("columns", [40, 64, 80, 133])
def test_lines_fit_the_terminal(files: tuple[Path, Path], columns: int) -> None:
    store, queries = files
    text = in_terminal("query", store, queries, "--top", 12, "--bottom", 3, columns=columns, NO_COLOR="1")
    assert "\x1b" not in text and "\x07" not in text and "\u202e" not in text
    lines = text.replace("\r", "").split("\n")
    # Pictures of several code points are wider here than in the terminal.
    simple = [line for line in lines if "👩" not in line and "🇩" not in line and "❤" not in line]
    assert len(simple) > 10
    for line in simple:
        assert columns_of(line) <= columns, (columns, line)
    assert any("漢字" in line for line in lines) or columns < 64


def test_colour_is_for_terminals_that_want_it(files: tuple[Path, Path]) -> None:
    store, queries = files
    asked = ("query", store, queries, "--top", 2, "--bottom", 2)
    coloured = in_terminal(*asked, columns=100)
    assert "\x1b[32m" in coloured and "\x1b[31m" in coloured
    plain = re.sub(r"\x1b\[\d*m", "", coloured)
    for environment in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        uncoloured = in_terminal(*asked, columns=100, **environment)
        assert "\x1b" not in uncoloured
        assert uncoloured.rpartition("·")[0] == plain.rpartition("·")[0]
    assert "\x1b" not in in_terminal(*asked, "--format", "jsonl", columns=100)
    assert "\x1b" not in run(*asked).stdout


def test_the_footer_says_what_the_answer_rests_on(files: tuple[Path, Path]) -> None:
    store, queries = files
    footer = " ".join(run("query", store, queries, "--top", 0).stdout.split())
    for part in ("influence", "ρ = 1, λ = ", "per-layer curvature", "30 rows × 2 layers", "read", "exact", " s"):
        assert part in footer, footer


def test_others_may_read_what_is_given_a_name(files: tuple[Path, Path], tmp_path: Path) -> None:
    """Files that the user has named get what the umask leaves; those of a store are its owner's."""
    store, queries = files
    before = os.umask(0o027)
    try:
        for name in ("a.txt", "a.jsonl", "a.npy", "a.safetensors"):
            run("query", store, queries, "--method", "dot", "--output", tmp_path / name)
            assert (tmp_path / name).stat().st_mode & 0o777 == 0o640, name
        run("report", store, queries, "--method", "dot", "--output", tmp_path / "r.html")
        assert (tmp_path / "r.html").stat().st_mode & 0o777 == 0o640
        run("export", store, tmp_path / "rows.safetensors")
        run("ingest", tmp_path / "s.lorif", tmp_path / "rows.safetensors")
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "s.lorif").rglob("*") if path.is_file()}
    assert modes == {0o600}


def test_names_that_say_no_format_are_refused(files: tuple[Path, Path], tmp_path: Path) -> None:
    store, queries = files
    question = ("query", store, queries, "--method", "dot", "--output")
    refused(*question, tmp_path / "a.xyz", code=USAGE, says=("a.xyz", ".jsonl"))
    refused(*question, "-", code=USAGE, says=("standard output",))
    run(*question, tmp_path / "a.xyz", "--format", "csv")
    run(*question, tmp_path / "answer")
    assert (tmp_path / "a.xyz").read_text().startswith("query,")
    assert "helpful" in (tmp_path / "answer").read_text()
    refused("report", store, queries, "--method", "dot", "--output", "-", code=USAGE, says=("name",))
