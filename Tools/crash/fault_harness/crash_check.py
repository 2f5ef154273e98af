"""Recovers from a crash image, and compares what is there with what may be there."""

import contextlib
import hashlib
import json
import math
import re
import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from fault_harness.crash_images import CrashImage
from fault_harness.crash_operations import Operation
from fault_harness.disk_model import Image
from fault_harness.sample_store import Inputs
from fault_harness.shim import NO, OK, REFUSED, ForkServer, Outcome

SHARED_MEMORY = "lock.mdb"
UNCOUNTED = re.compile(
    r"/quarantine/|/lock\.mdb$|/tmp/fit-[0-9a-f]{32}-[0-9a-f]{32}\.curvature$|^[^/]+\.(packing|basis)-[^/]+$"
)
UNFINISHED = re.compile(r"(store|copy)\.(creating|copying)-")
STORES = ("store", "copy")
ABSENT = ("absent",)
# What can be asked of a store, and all of it together: its logical content.
QUESTIONS = (("inspect", "--json"), ("snapshot", "--list", "--json"), ("fit", "--list", "--json"))


class Observer(contextlib.AbstractContextManager["Observer"]):
    """Finds out the state of the stores in one folder, again and again."""

    def __init__(self, binary: Path, root: Path, scratch: Path) -> None:
        self.root = root
        self._exported = scratch / "exported.safetensors"
        self._verified: dict[bytes, Outcome] = {}
        self._contents: dict[bytes, tuple[str, ...]] = {}
        self._servers: dict[tuple[str, str], ForkServer] = {}
        for name in STORES:
            commands = {" ".join(question): (question[0], root / name, *question[1:]) for question in QUESTIONS}
            commands |= {"verify": ("verify", root / name), "export": ("export", root / name, self._exported)}
            for label, command in commands.items():
                self._servers[name, label] = ForkServer(binary, scratch, *command, root=root)

    @property
    def run_count(self) -> int:
        """Runs of the program so far."""
        return sum(server.run_count for server in self._servers.values())

    def state(self) -> tuple[list[str], tuple]:
        """What is wrong with the stores in the folder, and their logical content."""
        problems, contents = [], []
        for name in STORES:
            if not (self.root / name).exists():
                contents.append(ABSENT)
                continue
            key = tree_digest(self.root / name)
            if key not in self._verified:
                self._verified[key] = self._servers[name, "verify"].run()
            if self._verified[key].code != OK:
                problems.append(str(self._verified[key]))
            # Answers come from everything but the files that are being written.
            key = tree_digest(self.root / name, but="tmp/")
            if key not in self._contents:
                self._contents[key] = self._ask(name)
            contents.append(self._contents[key])
        packed = self.root / "out.segment"
        contents.append((packed.read_bytes(),) if packed.exists() else ABSENT)
        return problems, tuple(contents)

    def _ask(self, name: str) -> tuple[str, ...]:
        self._exported.unlink(missing_ok=True)
        answers = []
        for question in QUESTIONS:
            outcome = self._servers[name, " ".join(question)].run()
            answers.append(_without_identity(outcome) if question[0] == "inspect" else outcome.stdout)
        outcome = self._servers[name, "export"].run()
        beside = self._exported.with_suffix(".jsonl")
        for path in (self._exported, beside):
            answers.append(hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "nothing")
            path.unlink(missing_ok=True)
        return tuple(answers)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self._servers.values():
            server.__exit__(kind, error, trace)


def _without_identity(outcome: Outcome) -> str:
    """A store's own random identity, and its path, are no content."""
    if outcome.code != OK:
        return outcome.stderr
    return json.dumps({k: v for k, v in json.loads(outcome.stdout).items() if k not in ("identity", "store")})


def tree_digest(folder: Path, but: str = "\0") -> bytes:
    """Equal for equal files below a folder, but for liblmdb's shared memory, and for paths that begin with `but`."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        content = b"" if path.is_dir() or path.name == SHARED_MEMORY else path.read_bytes()
        if not name.startswith(but):
            digest.update(name.encode() + b"\0%d\0" % len(content) + content)
    return digest.digest()


def listing(root: Path) -> set[str]:
    """The files in a folder; what a repair has put aside does not count.

    Nor do the finished layers of an interrupted fit, which are kept for as long as the rows are the same, and temporary
    files beside a store or an output, which a killed command leaves to the user.
    """
    paths = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    return {path for path in paths if not UNCOUNTED.search(path)}


def write_image(image: Image, root: Path) -> None:
    """Makes a folder that holds what the image holds."""
    if root.exists():
        shutil.rmtree(root)
    root.mkdir(parents=True)
    for path in sorted(image):
        content = image[path]
        if content is None:
            (root / path).mkdir()
        else:
            (root / path).write_bytes(content)


@dataclass
class Expectation:
    """What a clean run of the command begins and ends with."""

    before: tuple
    after: tuple
    between: list[tuple]
    files_after: set[str]
    code: int


@dataclass
class CrashTally:
    """What came of the images."""

    images: Counter[str] = field(default_factory=Counter)
    unique: Counter[str] = field(default_factory=Counter)
    states: Counter[tuple[str, str]] = field(default_factory=Counter)
    recovered: Counter[str] = field(default_factory=Counter)
    deadline: float = math.inf
    runs: int = 0
    violations: list[str] = field(default_factory=list)


@dataclass
class CrashChecker:
    """Checks the images of one operation."""

    operation: Operation
    expected: Expectation
    observer: Observer
    server: ForkServer
    inputs: Inputs
    root: Path

    def check(self, crash: CrashImage, tally: CrashTally) -> None:
        """One image: it must be a state that is allowed, and the same command must then bring the state after."""
        write_image(crash.image, self.root)
        problems: list[str] = []
        if self.operation.is_repair and not crash.is_acknowledged:
            name = "under repair"
        else:
            found, state = self.observer.state()
            problems += found
            name = self._name(state)
            if name == "another" or (crash.is_acknowledged and name != "after"):
                said = "was done" if crash.is_acknowledged else "was not done"
                problems.append(f"the command {said}, the state is that of {name}: {self._difference(state)}")
        tally.states[self.operation.name, name] += 1
        if not problems:
            problems += self._recover(name)
        tally.violations += [f"{self.operation.name}: {crash}: {problem}" for problem in problems]

    def _name(self, state: tuple) -> str:
        expected = self.expected
        if state == expected.after:
            return "after"
        if state == expected.before:
            return "before"
        return "between" if state in expected.between else "another"

    def _difference(self, state: tuple) -> str:
        pairs = zip(state, self.expected.after, strict=True)
        return "; ".join(f"{a} and not {b}" for a, b in pairs if a != b)[:600]

    def _recover(self, name: str) -> list[str]:
        """Runs the command again: the state must be that after it, and no file may be left over."""
        outcome = self.server.run(*self.operation.command(self.root, self.inputs))
        allowed = {self.expected.code, *((OK, REFUSED) if name in ("after", "under repair") else ())}
        if outcome.code not in allowed:
            return [f"again: {outcome}"]
        problems, state = self.observer.state()
        if self.operation.is_repair:
            state, after = _without_counts(state), _without_counts(self.expected.after)
        else:
            after = self.expected.after
        if state != after:
            problems.append(f"again: not the state after it: {self._difference(state)}")
        files = listing(self.root)
        left, gone = sorted(files - self.expected.files_after), sorted(self.expected.files_after - files)
        if self.operation.is_repair:
            # Coordinates of a segment that was written anew belong to nothing: the next writer removes them.
            gone = [path for path in gone if "/coordinates/" not in path]
        if name in ("after", "between"):
            # A store that is there is not made again: nobody looks for what an attempt has left beside it.
            left = [path for path in left if not UNFINISHED.match(path)]
        if left or gone:
            problems.append(f"again: files left over {left}, files missing {gone}")
        return problems


def _without_counts(state: tuple) -> tuple:
    """A repair that is repeated counts another generation."""

    def cleaned(answers: tuple[str, ...]) -> tuple[str, ...]:
        if not answers or not answers[0].startswith("{"):
            return answers
        facts = {key: value for key, value in json.loads(answers[0]).items() if key != "generation"}
        return (json.dumps(facts), *answers[1:])

    return tuple(cleaned(answers) for answers in state)


def expectation(
    operation: Operation,
    observer: Observer,
    server: ForkServer,
    inputs: Inputs,
    base: Path,
    settings: dict[str, object],
) -> Expectation:
    """Runs the command on copies of `base` at the place of the images; at last under `settings`, which record it."""
    root = observer.root

    def fresh() -> None:
        if root.exists():
            shutil.rmtree(root)
        shutil.copytree(base, root)

    between = []
    for command in operation.between:
        fresh()
        server.run(*command(root, inputs))
        between.append(observer.state()[1])
    fresh()
    before = observer.state()[1]
    fresh()
    outcome = server.run(*operation.command(root, inputs), settings=settings)
    if outcome.code not in (OK, NO):
        raise RuntimeError(f"a clean run fails\n{outcome}")
    problems, after = observer.state()
    if problems:
        raise RuntimeError(f"a clean run leaves damage: {problems}")
    return Expectation(before, after, between, listing(root), outcome.code)
