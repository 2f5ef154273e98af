#!/usr/bin/env python3
"""Fuzzes the importers: stores of other programs, of which files are changed at random.

Each case copies a small store that the other program wrote, changes some of its files, and imports it up to the batch
that `lorif pack` would take. It must be refused by name, or be read: with the shapes that it says, and the same in
pieces as in one. A traceback, 64 MiB of memory, or a second of processor time is a finding. Seeded: a case is repeated
by its number (`--first N --cases 1`). Ends with 1 if anything was found.
"""

import argparse
import copy
import json
import random
import resource
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "Tools" / "python" / "src"))

import numpy as np  # noqa: E402
from lorif.batch import BatchError, FactorBatch  # noqa: E402
from lorif.importers import ImporterError, Options, Settings, Source, open_source  # noqa: E402
from lorif.importers.rows import read_rows, write_rows  # noqa: E402

PEERS = ROOT / "Tools" / "python" / "tests" / "fixtures" / "peers"
MATRIX, VECTOR = Options(layout="matrix"), Options(layout="vector")
SEEDS: dict[str, Options] = {
    "bergson": MATRIX,
    "bergson-bf16": MATRIX,
    "bergson-global": VECTOR,
    "bergson-legacy": MATRIX,
    "bergson-legacy-tokens": MATRIX,
    "bergson-tokens": MATRIX,
    "bergson-unit": MATRIX,
    "bergson-whole": VECTOR,
    "dattri": MATRIX,
    "dattri-factgrass": VECTOR,
    "logix": MATRIX,
    "logix-whole": MATRIX,
    "npy": MATRIX,
    "npy-vectors": VECTOR,
    "trak": VECTOR,
    "trak-features": Options(what="features"),
    "trak-queries": Options(experiment="ask"),
}
NUMBERS = (0, 1, -1, 3, 2**31 - 1, 2**31, 2**32, 2**40, 2**61, 2**62, 2**63, 2**64 - 1, 2**64, 10**30, 1.5, -0.0, 1e308)
OTHERS: tuple[Any, ...] = (
    *(None, True, False, "", "x", "0", "../../x", "x" * 5000, "\ud800", "\0", "é" * 600, [], {}, [[]], [None], {"": 0}),
    *("float16", "float32", "float64", "bfloat16", "uint16", "int8", "object", "<f4", "(9,)<f4"),
)
HEADERS = (
    *(b"{'descr': '<f4', 'fortran_order': False, 'shape': (%d, 3, 2), }" % number for number in (0, 1, 2**31, 2**62)),
    b"{'descr': '|O', 'fortran_order': False, 'shape': (4, 3, 2), }",
    b"{'descr': '<f4', 'fortran_order': True, 'shape': (4, 3, 2), }",
    b"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (4, 3, 2), }",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (4, -3, 2), }",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': 4, }",
    b"{'descr': '<M8[ns]', 'fortran_order': False, 'shape': (4, 3), }",
    b"{'descr': '<f4', 'shape': (4, 3, 2), }",
    b"(" * 5000,
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (" + b"1," * 70 + b"), }",
    b"\xff\xfe",
)
WORDS = (b"[" * 100_000, b'{"a":' * 100_000, b"NaN", b"1e999", b"9" * 5000, b"\xff\xff\xff\xff")
BEGINNINGS = (b"", b"null", b"[]", b"{}", b"\0" * 64, b"\x93NUMPY", b"\x93NUMPY\x03\0\xff\xff\xff\x7f")
MEMORY_LIMIT, SECONDS_LIMIT = 64 << 20, 1.0


def write_npy(folder: Path) -> None:
    """The two seeds that no other program has to write."""
    numbers = np.random.default_rng(1)
    for name, shapes in {"npy": ((4, 3, 2), (4, 5, 1)), "npy-vectors": ((4, 6),)}.items():
        for place, shape in enumerate(shapes):
            path = folder / name / f"layer.{place}.npy"
            path.parent.mkdir(exist_ok=True)
            np.save(path, numbers.standard_normal(shape).astype((np.float32, np.float64)[place]))


def nodes(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a JSON value."""
    found: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting:
        container = waiting.pop()
        keys = container if isinstance(container, dict) else range(len(container))
        for key in list(keys):
            found.append((container, key))
            if isinstance(container[key], (dict, list)):
                waiting.append(container[key])
    return found


def changed_json(content: bytes, choice: random.Random) -> bytes:
    """The same description with some values exchanged, gone, twice, or of another type."""
    value = json.loads(content)
    for _ in range(choice.choice((1, 1, 1, 2, 4))):
        places = nodes(value)
        if not places:
            break
        container, key = choice.choice(places)
        match choice.randrange(7):
            case 0 | 1:
                container[key] = choice.choice(NUMBERS)
            case 2:
                # A copy: what a later change put into the original would be in every case after it, and in itself.
                container[key] = copy.deepcopy(choice.choice(OTHERS))
            case 3:
                del container[key]
            case 4:
                other, place = choice.choice(places)
                container[key] = json.loads(json.dumps(other[place]))
            case 5 if isinstance(container, list):
                container.insert(choice.randint(0, len(container)), json.loads(json.dumps(container[key])))
            case 6 if isinstance(container, dict):
                container[choice.choice((str(key) + "x", str(key)[:-1], "\ud800", ""))] = container.pop(key)
            case _ if isinstance(container[key], int):
                container[key] += choice.choice((-1, 1, 1 << 20))
    return json.dumps(value).encode()


def changed_bytes(content: bytes, choice: random.Random) -> bytes:
    """The same file with bits turned, parts gone, twice or zero, or of another length."""
    size = len(content)
    at = choice.randint(0, size)
    end = min(size, at + choice.choice((1, 2, 4, 8, 64, 512)))
    before, part, after = content[:at], content[at:end], content[end:]
    match choice.randrange(9):
        case 0 if size:
            turned = bytearray(content)
            for _ in range(choice.choice((1, 1, 3, 20))):
                turned[choice.randrange(size)] ^= 1 << choice.randrange(8)
            changed = bytes(turned)
        case 1:
            changed = before
        case 2:
            changed = before + after
        case 3:
            changed = before + part * 2 + after
        case 4:
            changed = content + choice.choice((b"\0", b" ", b"x", b"\0" * 4096, content))
        case 5:
            changed = before + bytes(end - at) + after
        case 6:
            changed = before + choice.choice(WORDS) + part + after
        case 7 if content.startswith(b"\x93NUMPY"):
            header = choice.choice(HEADERS)
            lengths = (len(header).to_bytes(2, "little"), b"\xff\xff", b"\0\0")
            changed = content[:8] + choice.choice(lengths[:1] * 5 + lengths[1:]) + header + content[128:]
        case _:
            changed = choice.choice(BEGINNINGS)
    return changed


def change(root: Path, choice: random.Random) -> list[str]:
    """Changes one to three files of a store; what was done."""
    done = []
    for _ in range(choice.choice((1, 1, 1, 2, 3))):
        files = sorted(path for path in root.rglob("*") if path.is_file())
        if not files:
            break
        path = choice.choice(files)
        kind = choice.randrange(20)
        done.append(f"{path.relative_to(root)} {kind}")
        if kind == 0:
            path.unlink()
        elif kind == 1:
            path.write_bytes(choice.choice(files).read_bytes())
        elif kind == 2:
            path.rename(path.with_name(path.name.replace("0", "7") + choice.choice(("", "x"))))
        elif path.suffix == ".json" and kind < 16:
            try:
                path.write_bytes(changed_json(path.read_bytes(), choice))
            except (ValueError, TypeError, RecursionError):
                path.write_bytes(changed_bytes(path.read_bytes(), choice))
        else:
            path.write_bytes(changed_bytes(path.read_bytes(), choice))
    return done


class WrongError(Exception):
    """A source was read that is not what it says."""


def expect(condition: object, what: str) -> None:
    """Raises unless the condition holds."""
    if not condition:
        raise WrongError(what)


def read(source: Source, scratch: Path) -> None:
    """Reads a source that was not refused, all of it and in two pieces."""
    count, settings = source.row_count, Settings(zero_rows="keep")
    rows = read_rows(source, 0, count, settings)
    halves = ((0, count // 2), (count // 2, count))
    pieces = [read_rows(source, low, high, settings) for low, high in halves if low < high]
    expect(len(rows.ids) == count, f"{len(rows.ids)} ids of {count} rows")
    expect([name for piece in pieces for name in piece.ids] == rows.ids, "other ids in pieces")
    expect(rows.records is None or len(rows.records) == count, "another number of records than of rows")
    expect(list(rows.layers) == [layer.name for layer in source.layers], "other layers were read than are said")
    for layer in source.layers:
        values = rows.layers[layer.name]
        shape = (count, layer.input_dimension, layer.output_dimension)
        expect(values.shape == shape, f"layer {layer.name!r} has shape {values.shape}, not {shape}")
        joined = np.concatenate([piece.layers[layer.name] for piece in pieces])
        expect(np.array_equal(joined, values), f"layer {layer.name!r} has other numbers in pieces")
    write_rows(rows, source, scratch)
    expect(list(FactorBatch(scratch).ids or ()) == rows.ids, "the batch has other ids")


def attempt(name: str, root: Path, scratch: Path) -> tuple[str, str]:
    """Opens and reads one store: `accepted`, `refused` or, with anything else, `found`; and what was said or found."""
    before, began = peak(), time.process_time()
    try:
        warnings.simplefilter("error")
        read(open_source(name.partition("-")[0], str(root), SEEDS[name]), scratch)
        outcome, wrong = "accepted", ""
    except (ImporterError, BatchError) as error:
        outcome, wrong = "refused", str(error)
        if not wrong or len(wrong) > 2000 or "\n" in wrong.strip():
            outcome, wrong = "found", f"a refusal of {len(wrong)} characters or several lines: {wrong[:200]!r}"
    except Exception:
        outcome, wrong = "found", "".join(traceback.format_exc(limit=-4, chain=False))
    seconds, grown = time.process_time() - began, peak() - before
    if seconds > SECONDS_LIMIT or grown > MEMORY_LIMIT:
        return "found", f"{seconds:.2f} s of processor time, {grown >> 20} MiB"
    return outcome, wrong


def peak() -> int:
    """The most bytes that this process has had in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


@dataclass
class Outcomes:
    """What came of the cases, by store and outcome, and what was found."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    found: list[str] = field(default_factory=list)


def run_cases(names: Sequence[str], seed: int, numbers: Iterable[int], directory: Path) -> Outcomes:
    """Tries these cases of some stores, each of which must be read while it is whole."""
    outcomes = Outcomes()
    with tempfile.TemporaryDirectory(prefix="lorif-importers-", dir=directory) as folder:
        seeds, scratch = Path(folder), Path(folder) / "scratch.safetensors"
        write_npy(seeds)
        sources = {name: source_of(name, seeds) for name in names}
        for name, source in sources.items():
            outcome, wrong = attempt(name, source, scratch)
            if outcome != "accepted":
                raise RuntimeError(f"the whole store {name} was not accepted: {wrong}")
        for number in numbers:
            choice = random.Random(f"{seed} {number}")  # noqa: S311 - repeatable on purpose
            name = choice.choice(sorted(names))
            root = shutil.copytree(sources[name], seeds / "case")
            done = change(root, choice)
            outcome, wrong = attempt(name, root, scratch)
            outcomes.counts[name, outcome] += 1
            if outcome == "found":
                outcomes.found.append(f"case {number}, {name}, {'; '.join(done)}:\n{wrong}")
            shutil.rmtree(root)
    return outcomes


def source_of(name: str, seeds: Path) -> Path:
    """A whole store: one made here, or one that the other program wrote; several cases may be of one."""
    for path in (seeds / name, PEERS / name):
        if path.exists():
            return path
    return PEERS / name.partition("-")[0]


def numbers_until(first: int, deadline: float) -> Iterator[int]:
    """Numbers of cases for as long as there is time."""
    while time.monotonic() < deadline:
        yield first
        first += 1


def main() -> int:
    """Runs the cases; 1 if something was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="time in all (default 60)")
    parser.add_argument("--cases", type=int, help="this many cases, whatever time they take")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--only", action="append", choices=sorted(SEEDS), help="only this store")
    parser.add_argument("--directory", type=Path, default=Path("/dev/shm"), help="where to work")  # noqa: S108
    parser.add_argument("--results", type=Path, help="a Markdown file for the table")
    given = parser.parse_args()
    names = given.only or list(SEEDS)
    deadline = time.monotonic() + given.seconds
    last = range(given.first, given.first + given.cases) if given.cases else numbers_until(given.first, deadline)
    outcomes = run_cases(names, given.seed, last, given.directory)
    lines = ["| store | refused | read | found |", "|---|---|---|---|"]
    for name in names:
        refused, read_, found = (outcomes.counts[name, outcome] for outcome in ("refused", "accepted", "found"))
        lines.append(f"| {name} | {refused:,} | {read_:,} | {found} |")
    total = f"seed {given.seed}: {outcomes.counts.total():,} cases, {len(outcomes.found)} findings"
    print("\n".join(lines), *outcomes.found[:20], f"{total}, peak {peak() >> 20} MiB", sep="\n\n")
    if given.results:
        given.results.write_text("# Fuzzing the importers\n\n" + "\n".join(lines) + f"\n\n{total}\n")
    return 1 if outcomes.found or not outcomes.counts else 0


if __name__ == "__main__":
    sys.exit(main())
