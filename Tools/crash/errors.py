#!/usr/bin/env python3
"""Lets every call of every command fail, one after the other and from there on, and looks at what comes of it.

A command must end with a documented exit code and a message, or do its work; the store must be whole and in the state
that the exit code says; and the same command must then do its work.
"""

import argparse
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from fault_harness.crash_check import Observer
from fault_harness.crash_operations import make_inputs
from fault_harness.error_cases import COMMANDS, FAULTS
from fault_harness.error_check import ErrorChecker, ErrorTally
from fault_harness.shim import ForkServer
from fault_harness.table import Table, write_results


def run_command(binary: Path, name: str, folder: Path, limit: int | None, minutes: float) -> ErrorTally:
    """Every fault at every call of one command; of each fault at most `limit` calls, at random."""
    deadline = time.monotonic() + 60 * minutes
    command = next(command for command in COMMANDS if command.name == name)
    work = folder / name.replace(" ", "-")
    for part in ("base", "image"):
        (work / part).mkdir(parents=True)
    tally = ErrorTally()
    with ForkServer(binary, work) as server, Observer(binary, work / "image", work) as observer:
        inputs = make_inputs(server, work / "inputs")
        command.prepare(server, work / "base", inputs)
        checker = ErrorChecker(command, server, observer, inputs, work / "base", work / "report")
        points = []
        for fault in FAULTS:
            count = len(checker.calls(fault, 0)[1])
            chosen = random.Random(3).sample(range(count), min(count, limit or count))  # noqa: S311
            points += [(fault, number + 1) for number in chosen]
        random.Random(4).shuffle(points)  # noqa: S311
        tally.planned = len(points)
        for fault, number in points:
            if time.monotonic() > deadline:
                break
            checker.check(fault, number, tally)
        tally.runs = server.run_count + observer.run_count
    shutil.rmtree(work)
    return tally


def table_of(tallies: dict[str, ErrorTally]) -> Table:
    """A line for each way of failing."""
    rows = []
    for fault in FAULTS:
        counts = [tally.points[fault.name] for tally in tallies.values()]
        violations = sum(f": {fault.name}, " in v for tally in tallies.values() for v in tally.violations)
        rows.append([fault.name, str(sum(counts)), str(violations)])
    return Table("Failing calls", ["fault", "points", "violations"], rows)


def main() -> int:
    """Runs them and prints the table; 1 if there was a violation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lorif", type=Path, required=True, help="the program")
    parser.add_argument("--short", action="store_true", help="two random calls for each fault and some commands")
    parser.add_argument("--only", action="append", help="only this command", choices=[c.name for c in COMMANDS])
    parser.add_argument("--minutes", type=float, default=1440.0, help="most time for one command")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--directory", type=Path, default=Path("/dev/shm"), help="where the stores are")
    parser.add_argument("--results", type=Path, help="a folder for errors.md and errors.json")
    given = parser.parse_args()
    began = time.monotonic()
    short = ("query", "first ingest", "ingest", "compact", "fit", "copy")
    wanted = [c.name for c in COMMANDS if c.name in (given.only or (short if given.short else [c.name]))]
    limit = 2 if given.short else None
    with (
        tempfile.TemporaryDirectory(prefix="lorif-errors-", dir=given.directory) as name,
        multiprocessing.get_context("fork").Pool(given.jobs) as pool,
    ):
        arguments = [(given.lorif.resolve(), command, Path(name), limit, given.minutes) for command in wanted]
        tallies = dict(zip(wanted, pool.starmap(run_command, arguments, chunksize=1), strict=True))
    violations = [violation for tally in tallies.values() for violation in tally.violations]
    rows = [[name, str(tally.points.total()), str(len(tally.violations))] for name, tally in tallies.items()]
    tables = [table_of(tallies), Table("By command", ["command", "points", "violations"], rows)]
    facts = {"planned": sum(tally.planned for tally in tallies.values()),
             "points": sum(tally.points.total() for tally in tallies.values()),
             "runs": sum(tally.runs for tally in tallies.values()), "violations": len(violations),
             "seconds": round(time.monotonic() - began)}  # fmt: skip
    print(tables[0].text(), facts, *violations[:60], sep="\n")
    if given.results:
        write_results(given.results, "errors", tables, facts, violations)
    return 1 if violations or not facts["points"] else 0


if __name__ == "__main__":
    sys.exit(main())
