"""The shell: through a terminal as people use it, and through a pipe as scripts do."""

import os
import pty
import re
import select
import signal
import subprocess
import termios
import time
from pathlib import Path

import pytest
from conftest import ROOT
from harness import BINARY, REFUSED, USAGE, Outcome, run

# A terminal that says nothing for so long will not say what is waited for.
TIMEOUT = 20
QUERIES = ROOT / "Tools/demo/query.safetensors"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("shell") / "demo.lorif"
    run("ingest", store, ROOT / "Tools/demo/train.safetensors", "--encoding", "f16")
    run("fit", store, "--rank", 8)
    return store


def piped(store: Path, *lines: str) -> Outcome:
    done = subprocess.run(
        [BINARY, "shell", store], input="\n".join(lines), capture_output=True, timeout=TIMEOUT, check=False, text=True
    )
    return Outcome(done.returncode, done.stdout, done.stderr, "lorif shell")


def without_time(text: str) -> str:
    return re.sub(r"[\d.]+ s\n", "s\n", text)


def test_questions_are_those_of_query(store: Path) -> None:
    said = piped(store, f"query {QUERIES} --top 2 --bottom 1 --method dot", "id bible-0090 jargon-0001 --top 1")
    assert said.code == 0, str(said)
    expected = run("query", store, QUERIES, "--top", 2, "--bottom", 1, "--method", "dot").stdout
    expected += run("query", store, "--by-id", "bible-0090", "--by-id", "jargon-0001", "--top", 1).stdout
    assert without_time(said.stdout) == without_time(expected)


def test_settings_hold_until_they_are_unset(store: Path) -> None:
    said = piped(
        store, "set top 1", "set format jsonl", "set relative-damping 5", "set layers '*.qkv' '*.up'", "set",
        "id bible-0090", "id bible-0090 --damping 0.5", "set damping 0.5", "unset layers", "id bible-0090", "set",
    )  # fmt: skip
    assert said.code == 0, str(said)
    base = ("query", store, "--by-id", "bible-0090", "--top", 1, "--format", "jsonl")
    layers = ("--layers", "*.qkv", "--layers", "*.up")
    answers = [line for line in said.stdout.splitlines() if line.startswith("{")]
    assert answers == [
        run(*base, "--relative-damping", 5, *layers).stdout.strip(),
        run(*base, "--damping", 0.5, *layers).stdout.strip(),
        run(*base, "--damping", 0.5).stdout.strip(),
    ]
    assert "relative-damping  5" in said.stdout and "layers            '*.qkv' '*.up'" in said.stdout
    assert said.stdout.rstrip().endswith("damping  0.5")


def test_what_there_is(store: Path) -> None:
    said = piped(store, "# a comment", "", "info", "info layers", "show sqlite-0001", "help", "explain id bible-0001")
    assert said.code == 0, str(said)
    assert run("inspect", store).stdout in said.stdout
    assert run("inspect", store, "--layers").stdout in said.stdout
    assert run("inspect", store, "--example", "sqlite-0001").stdout in said.stdout
    assert "explain [analyze]" in said.stdout and "kernel" in said.stdout


def test_reload_sees_what_was_committed(tmp_path: Path) -> None:
    store = tmp_path / "s.lorif"
    run("ingest", store, ROOT / "Tools/demo/train.safetensors")
    process = subprocess.Popen(
        [BINARY, "shell", store], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    assert process.stdin and process.stdout
    process.stdin.write("show bible-0001\n")
    assert process.stdout.readline().startswith("id")
    run("delete", store, "--where", "id = 'bible-0001'")
    process.stdin.write("id bible-0001 --method dot --top 1 --format jsonl\n")
    while not (line := process.stdout.readline()).startswith("{"):
        pass
    assert '"bible-0001"' in line
    process.stdin.write("reload\n")
    assert process.stdout.readline() == "509 examples, generation 2\n"
    process.stdin.write("show bible-0001\n")
    process.stdin.close()
    assert process.wait(TIMEOUT) == REFUSED


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        ("qury x", USAGE, "did you mean 'query'?"),
        ("query /none.safetensors", REFUSED, "/none.safetensors"),
        ("query a b", USAGE, "one file"),
        ("id", USAGE, "ids"),
        ("id nobody", REFUSED, "nobody"),
        ("id bible-0001 --mehtod dot", USAGE, "--mehtod"),
        ("set mehtod dot", USAGE, "did you mean 'method'?"),
        ("set method guess", USAGE, "guess"),
        ("set top", USAGE, "one value"),
        ("unset", USAGE, "one name"),
        ("show", USAGE, "one id"),
        ("show nobody", REFUSED, "nobody"),
        ("info pages", USAGE, "layers"),
        ("explain", USAGE, "a question"),
        ("query 'x", USAGE, "does not end"),
    ],
)
def test_a_wrong_line_ends_a_script(store: Path, line: str, code: int, says: str) -> None:
    said = piped(store, line, "info")
    assert said.code == code, str(said)
    assert says in said.stderr, str(said)
    assert said.stderr.startswith("lorif: ")
    assert "generation" not in said.stdout


class Session:
    """A shell in a terminal of 100 columns."""

    def __init__(self, store: Path, home: Path) -> None:
        self.process, self.leader = pty.fork()
        if self.process == 0:
            os.environ.update(TERM="xterm", XDG_STATE_HOME=str(home), NO_COLOR="1", COLUMNS="100")
            os.chdir(ROOT)
            os.execv(BINARY, [BINARY, "shell", str(store)])  # noqa: S606
        self.shown = ""
        self.wait("lorif> ")

    def wait(self, text: str) -> str:
        """What is shown until the text has appeared since the last wait."""
        until = time.monotonic() + TIMEOUT
        while text not in self.shown:
            ready, _, _ = select.select([self.leader], [], [], max(0, until - time.monotonic()))
            assert ready, (text, self.shown)
            try:
                self.shown += os.read(self.leader, 65536).decode(errors="replace")
            except OSError as error:
                raise AssertionError((text, self.shown)) from error
        place = self.shown.index(text) + len(text)
        seen, self.shown = self.shown[:place], self.shown[place:]
        return seen

    def type(self, keys: str) -> None:
        os.write(self.leader, keys.encode())

    def wait_for_answer(self, text: str) -> str:
        """As `wait`, and then for the prompt."""
        return self.wait(text) + self.wait("lorif> ")

    def end(self) -> int:
        """The exit code, once the terminal is closed by the program."""
        until = time.monotonic() + TIMEOUT
        while True:
            ready, _, _ = select.select([self.leader], [], [], max(0, until - time.monotonic()))
            if not ready:
                os.kill(self.process, signal.SIGKILL)
                raise AssertionError(f"the session goes on: {self.shown!r}")
            try:
                chunk = os.read(self.leader, 65536)
            except OSError:
                break
            if not chunk:
                break
            self.shown += chunk.decode(errors="replace")
        _, status = os.waitpid(self.process, 0)
        os.close(self.leader)
        return os.waitstatus_to_exitcode(status)


def test_a_line_is_edited(store: Path, tmp_path: Path) -> None:
    session = Session(store, tmp_path)
    # Typed with a mistake in the middle: left, backspace, a letter; then to the end.
    session.type("show biXle-0001\x1b[D\x1b[D\x1b[D\x1b[D\x1b[D\x1b[D\x1b[D\x7fb\x05\r")
    assert "King James Bible" in session.wait_for_answer("norm")
    session.type("nonsense\x15show nobody\x17jargon-0001\r")
    session.wait_for_answer("Jargon File")
    # A character of three bytes, and one that joins the one before, are one step back.
    session.type("wörld e\u0301漢\x7f\x7f\x7f\x7f\x7f\x7f\x7f\x7finfo\r")
    session.wait_for_answer("bytes/example")
    session.type("half a line\x03")
    session.wait_for_answer("^C")
    session.type("help\r")
    session.wait_for_answer("Ctrl-D")
    session.type("\x04")
    assert session.end() == 0


def test_history_is_kept(store: Path, tmp_path: Path) -> None:
    first = Session(store, tmp_path)
    first.type("show sqlite-0001\r")
    first.wait_for_answer("SQLite documentation")
    first.type(" info\r")
    first.wait_for_answer("bytes/example")
    first.type("quit\r")
    assert first.end() == 0
    kept = tmp_path / "lorif" / "history"
    assert kept.read_text() == "show sqlite-0001\nquit\n"
    assert kept.stat().st_mode & 0o077 == 0
    second = Session(store, tmp_path)
    second.type("unfinished\x1b[A\x1b[A")
    second.wait("show sqlite-0001")
    second.type("\r")
    second.wait_for_answer("SQLite documentation")
    second.type("\x04")
    assert second.end() == 0


def test_tab_completes(store: Path, tmp_path: Path) -> None:
    session = Session(store, tmp_path)
    session.type("que\tTools/demo/qu\t")
    session.wait("query Tools/demo/query.")
    session.type("s\t--me\t\x15")
    session.wait("safetensors --me")
    session.type("show bible-000\t")
    listed = session.wait("bible-0009")
    assert "bible-0000  bible-0001" in listed
    session.type("7\t\r")
    session.wait_for_answer("King James Bible")
    session.type("set meth\tnorm\t\r")
    session.wait_for_answer("normalized-dot")
    session.type("set\r")
    session.wait_for_answer("method  normalized-dot")
    session.type("quit\r")
    assert session.end() == 0


def test_an_error_does_not_end_a_session(store: Path, tmp_path: Path) -> None:
    session = Session(store, tmp_path)
    session.type("show nobody\r")
    session.wait_for_answer("no example has the id 'nobody'")
    session.type("show bible-0001\r")
    session.wait_for_answer("King James Bible")
    os.kill(session.process, signal.SIGTERM)
    assert session.end() == 0


def test_keys_wait_for_the_answer(store: Path, tmp_path: Path) -> None:
    """What is typed while an answer is computed and printed is neither lost nor shown in between."""
    session = Session(store, tmp_path)
    session.type("info\rshow biX\x7fble-0001\rhelp\r\x04")
    assert session.end() == 0
    assert "bytes/example" in session.shown and "King James Bible" in session.shown and "Ctrl-D" in session.shown
    assert session.shown.count("lorif> ") > 3


def test_the_terminal_is_left_as_it_was(store: Path, tmp_path: Path) -> None:
    for last in ("\x04", "quit\r", "\x03\x04"):
        leader, follower = pty.openpty()
        before = termios.tcgetattr(follower)
        process = subprocess.Popen(
            [BINARY, "shell", store], stdin=follower, stdout=follower, stderr=follower,
            env=os.environ | {"XDG_STATE_HOME": str(tmp_path), "NO_COLOR": "1"},
        )  # fmt: skip
        shown = b""
        while b"lorif> " not in shown:
            shown += os.read(leader, 65536)
        assert termios.tcgetattr(follower) != before
        os.write(leader, last.encode())
        assert process.wait(TIMEOUT) == 0
        assert termios.tcgetattr(follower) == before
        os.close(leader)
        os.close(follower)
