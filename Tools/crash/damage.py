#!/usr/bin/env python3
"""Flips every bit of a small store, cuts, extends and exchanges its files, and replays old ones.

Everything must be found by `verify`, or leave every answer as it was; nothing may end in a crash.
"""

import argparse
import itertools
import json
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from fault_harness.damage_cases import CATALOG_FILE, LOCK_FILE, Case, exchanges, flips, lengths, replays, sampled
from fault_harness.damage_check import DamageChecker, Tally
from fault_harness.sample_store import Inputs, copy_store, files_of, make_store
from fault_harness.shim import ForkServer
from fault_harness.table import Table, write_results

KINDS = ("length", "exchange", "replay", "flip")


def page_places(server: ForkServer, store: Path) -> dict[str, list[tuple[int, int]]]:
    """Offset and length of every page of every segment, by the file's path in the store."""
    places: dict[str, list[tuple[int, int]]] = {}
    for page in json.loads(server.run("inspect", store, "--pages", "--json").stdout):
        places.setdefault(f"segments/{page['file']}", []).append((page["offset"], page["storedBytes"]))
    return places


def prepare(binary: Path, folder: Path) -> None:
    """The store, its history and its inputs."""
    with ForkServer(binary, folder) as server:
        make_store(server, folder / "store", Inputs(folder / "inputs"), history=folder / "history")
        (folder / "pages.json").write_text(json.dumps(page_places(server, folder / "store")))


def all_cases(kind: str, folder: Path, pristine: dict[str, bytes]) -> Iterator[Case]:
    """The cases of a kind, in a fixed order."""
    if kind == "flip":
        return flips(pristine)
    if kind == "length":
        return lengths(pristine)
    if kind == "exchange":
        pages = json.loads((folder / "pages.json").read_text())
        return exchanges(pristine, {path: [tuple(place) for place in places] for path, places in pages.items()})
    return replays(pristine, [files_of(path) for path in sorted((folder / "history").iterdir())])


def run_part(binary: Path, folder: Path, part: int, parts: int, shares: dict[str, float], minutes: float) -> Tally:
    """Every `parts`-th case, on a copy of the store."""
    deadline = time.monotonic() + 60 * minutes
    work = folder / f"part-{part}"
    work.mkdir()
    store = work / "store"
    copy_store(folder / "store", store)
    pristine = files_of(store) | {LOCK_FILE: (store / LOCK_FILE).read_bytes()}
    tally = Tally()
    # Of its own: making them writes them, and other parts would see them half written.
    inputs = Inputs(work / "inputs")
    with DamageChecker(binary, store, inputs, work) as checker:
        old_answers = _answers_of_old_catalogs(checker, folder, store, pristine)
        for kind, share in shares.items():
            cases = all_cases(kind, folder, pristine)
            chosen = list(itertools.islice(cases if share >= 1 else sampled(cases, share, seed=1), part, None, parts))
            # In a random order what there was time for is a fair sample.
            random.Random(part).shuffle(chosen)  # noqa: S311
            tally.planned[kind] += len(chosen)
            for case in chosen:
                if time.monotonic() > deadline:
                    break
                case.apply(store)
                before = len(tally.violations)
                checker.check(case, tally)
                old = old_answers.get(dict(case.contents).get(CATALOG_FILE) or b"")
                if old is not None and len(tally.violations) > before:
                    _excuse_rollback(checker, case, tally, before, old)
                case.undo(store, pristine)
        if files_of(store) != {path: content for path, content in pristine.items() if path != LOCK_FILE}:
            tally.violations.append("a reading command has changed a file")
    return tally


def _answers_of_old_catalogs(
    checker: DamageChecker, folder: Path, store: Path, pristine: dict[str, bytes]
) -> dict[bytes, dict[str, tuple[str, bytes]]]:
    """What the store says with the catalog, and every file, of each earlier state, by that catalog."""
    answers = {}
    for old in sorted((folder / "history").iterdir()):
        shutil.rmtree(store)
        copy_store(old, store)
        answers[(store / CATALOG_FILE).read_bytes()] = checker.all_answers()
    shutil.rmtree(store)
    copy_store(folder / "store", store)
    (store / LOCK_FILE).write_bytes(pristine[LOCK_FILE])
    return answers


def _excuse_rollback(
    checker: DamageChecker, case: Case, tally: Tally, before: int, old: dict[str, tuple[str, bytes]]
) -> None:
    """A whole old catalog whose files are all there is an old state of the store, which nothing in it can contradict.

    It is no violation if every answer is that state's.
    """
    if checker.all_answers() == old:
        del tally.violations[before:]
        tally.verdicts[case.kind, "violation"] -= 1
        tally.verdicts[case.kind, "old state, whole"] += 1


def table_of(tally: Tally) -> Table:
    """The counts, a line for each kind of damage."""
    verdicts = ("found", "harmless", "old state, whole", "violation")
    rows = [
        [kind, str(count), *(str(tally.verdicts[kind, v]) for v in verdicts)] for kind, count in tally.cases.items()
    ]
    return Table("Damage", ["damage", "cases", *verdicts], rows)


def main() -> int:
    """Runs the cases and prints the table; 1 if there was a violation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lorif", type=Path, required=True, help="the program")
    parser.add_argument("--short", action="store_true", help="a random part of the cases, for every change")
    parser.add_argument("--share", type=float, default=1.0, help="part of the bit flips to try")
    parser.add_argument("--only", choices=KINDS, action="append", help="only this kind of damage")
    parser.add_argument("--minutes", type=float, default=1440.0, help="stop after this time, with what there is")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--directory", type=Path, default=Path("/dev/shm"), help="where the stores are")
    parser.add_argument("--results", type=Path, help="a folder for damage.md and damage.json")
    given = parser.parse_args()
    shares = dict.fromkeys(KINDS, 1.0) | {"flip": given.share}
    if given.short:
        shares = {"flip": 0.0006, "length": 0.004, "exchange": 0.01, "replay": 0.2}
    shares = {kind: share for kind, share in shares.items() if given.only is None or kind in given.only}
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="lorif-damage-", dir=given.directory) as name:
        folder = Path(name)
        prepare(given.lorif.resolve(), folder)
        arguments = [
            (given.lorif.resolve(), folder, part, given.jobs, shares, given.minutes) for part in range(given.jobs)
        ]
        with multiprocessing.get_context("spawn").Pool(given.jobs) as pool:
            tally = Tally()
            for part in pool.starmap(run_part, arguments):
                tally.merge(part)
    table = table_of(tally)
    facts = {
        "planned": tally.planned.total(),
        "cases": tally.cases.total(),
        "commands": tally.commands,
        "violations": len(tally.violations),
        "seconds": round(time.monotonic() - began),
    }
    print(table.text(), facts, *tally.violations[:50], sep="\n")
    if given.results:
        write_results(given.results, "damage", [table], facts, tally.violations)
    return 1 if tally.violations or not tally.cases else 0


if __name__ == "__main__":
    sys.exit(main())
