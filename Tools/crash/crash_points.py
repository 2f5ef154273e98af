#!/usr/bin/env python3
"""Enumerates what a crash at every moment of every command may leave on disk, and recovers from each.

Every image must be the state before or after the command, after it once the command has said that it is done; the same
command run again must bring the state after it and leave no file over.
"""

import argparse
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from fault_harness.crash_check import CrashChecker, CrashTally, Observer, expectation, write_image
from fault_harness.crash_images import CrashImage, crash_images
from fault_harness.crash_operations import OPERATIONS, make_inputs
from fault_harness.disk_model import load
from fault_harness.shim import ForkServer
from fault_harness.table import Table, write_results
from fault_harness.trace import Event, read_trace

# How many crash images of each command are recovered under the recorder, and that recovery crashed in turn.
NESTED_IMAGES = 1
Mutation = Callable[[list[Event]], list[Event]]


def run_operation(
    binary: Path,
    name: str,
    folder: Path,
    limit: int | None,
    nested: int,
    mutation: Mutation | None = None,
    minutes: float = 1440.0,
) -> CrashTally:
    """All images of one command, and of its repetition after a few crashes; at most `limit` of each are recovered.

    With a `mutation` of the record, the first violation is enough. What there is no time for is counted, not recovered.
    """
    operation = next(operation for operation in OPERATIONS if operation.name == name)
    work = folder / operation.name.replace(" ", "-")
    (work / "base").mkdir(parents=True)
    tally = CrashTally(deadline=time.monotonic() + 60 * minutes)
    root = work / "image"
    root.mkdir()
    with ForkServer(binary, work) as server, Observer(binary, root, work) as observer:
        inputs = make_inputs(server, work / "inputs")
        operation.prepare(server, work / "base", inputs)
        settings: dict[str, object] = {"LORIF_SHIM_ROOT": root, "LORIF_RECORD": work / "trace"}
        expected = expectation(operation, observer, server, inputs, work / "base", settings)
        checker = CrashChecker(operation, expected, observer, server, inputs, root)
        # The shim writes canonical paths; the base is loaded from where the command ran.
        events = read_trace(work / "trace", root)
        if mutation:
            events, nested = mutation(events), 0
        interesting = _check(checker, work / "base", events, limit, tally, is_enough=mutation is not None)
        chosen = random.Random(1)  # noqa: S311
        for crash in chosen.sample(interesting, min(nested, len(interesting))):
            write_image(crash.image, work / "crashed")
            shutil.rmtree(root)
            shutil.copytree(work / "crashed", root)
            server.run(*operation.command(root, inputs), settings=settings)
            _check(checker, work / "crashed", read_trace(work / "trace", root), limit, tally)
            shutil.rmtree(work / "crashed")
        tally.runs = server.run_count + observer.run_count
    shutil.rmtree(work)
    return tally


def _check(
    checker: CrashChecker,
    base: Path,
    events: list[Event],
    limit: int | None,
    tally: CrashTally,
    is_enough: bool = False,
) -> list[CrashImage]:
    """Checks every different image; gives those that are in the midst of the command."""
    seen: dict[tuple[bytes, bool], CrashImage] = {}
    name = checker.operation.name
    for crash in crash_images(load(base), events):
        tally.images[name] += 1
        seen.setdefault((crash.key, crash.is_acknowledged), crash)
    images = list(seen.values())
    if limit is not None and len(images) > limit:
        images = random.Random(2).sample(images, limit)  # noqa: S311
    tally.unique[name] += len(seen)
    # In a random order what there was time for is a fair sample.
    for crash in random.Random(5).sample(images, len(images)):  # noqa: S311
        if time.monotonic() > tally.deadline or (is_enough and tally.violations):
            break
        checker.check(crash, tally)
        tally.recovered[name] += 1
    return [crash for crash in images if not crash.is_acknowledged and crash.cut > 0]


def table_of(tallies: dict[str, CrashTally]) -> Table:
    """A line for each command."""
    states = ("before", "between", "after", "under repair", "another")
    rows = []
    for name, tally in tallies.items():
        counts = [
            tally.images[name],
            tally.unique[name],
            tally.recovered[name],
            *(tally.states[name, s] for s in states),
        ]
        rows.append([name, *map(str, counts), str(len(tally.violations))])
    totals = [str(sum(int(row[column]) for row in rows)) for column in range(1, len(states) + 5)]
    columns = ["command", "images", "different", "recovered", *states, "violations"]
    return Table("Crash points", columns, [*rows, ["all", *totals]])


def main() -> int:
    """Runs the enumeration and prints the table; 1 if there was a violation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lorif", type=Path, required=True, help="the program")
    parser.add_argument("--short", action="store_true", help="a few random images of each command, for every change")
    parser.add_argument("--only", action="append", help="only this command", choices=[o.name for o in OPERATIONS])
    parser.add_argument("--minutes", type=float, default=1440.0, help="most time for one command")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--directory", type=Path, default=Path("/dev/shm"), help="where the stores are")
    parser.add_argument("--results", type=Path, help="a folder for crash-points.md and crash-points.json")
    given = parser.parse_args()
    limit, nested = (10, 0) if given.short else (None, NESTED_IMAGES)
    began = time.monotonic()
    wanted = [operation for operation in OPERATIONS if given.only is None or operation.name in given.only]
    with (
        tempfile.TemporaryDirectory(prefix="lorif-crash-", dir=given.directory) as name,
        multiprocessing.get_context("fork").Pool(given.jobs) as pool,
    ):
        arguments = [
            (given.lorif.resolve(), operation.name, Path(name), limit, nested, None, given.minutes)
            for operation in wanted
        ]
        tallies = dict(zip((o.name for o in wanted), pool.starmap(run_operation, arguments, chunksize=1), strict=True))
    table = table_of(tallies)
    violations = [violation for tally in tallies.values() for violation in tally.violations]
    facts = {"images": int(table.rows[-1][1]), "different": int(table.rows[-1][2]),
             "recovered": int(table.rows[-1][3]),
             "runs": sum(tally.runs for tally in tallies.values()), "violations": len(violations),
             "seconds": round(time.monotonic() - began)}  # fmt: skip
    print(table.text(), facts, *violations[:40], sep="\n")
    if given.results:
        write_results(given.results, "crash-points", [table], facts, violations)
    return 1 if violations or not facts["images"] else 0


if __name__ == "__main__":
    sys.exit(main())
