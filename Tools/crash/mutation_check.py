#!/usr/bin/env python3
"""Plants bugs and runs the harness that should find each; a harness that finds nothing is no evidence.

The program stays as it is: bugs are planted in the record of what it did, or by the library that stands before it.
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import crash_points
from fault_harness.access import paths_and_permissions
from fault_harness.crash_check import Observer
from fault_harness.crash_operations import make_inputs
from fault_harness.damage_cases import LOCK_FILE, Case, flips
from fault_harness.damage_check import DamageChecker, Tally
from fault_harness.error_cases import COMMANDS, EIO, Fault
from fault_harness.error_check import ErrorChecker, ErrorTally
from fault_harness.place import FailedError, Place
from fault_harness.planted_bugs import PLANTED_ORDERS, PlantedOrder
from fault_harness.readers import shrinking_files
from fault_harness.sample_store import Inputs, files_of, make_store
from fault_harness.shim import ForkServer, Kind, build_shim
from fault_harness.table import Table, write_results
from model_harness.kinds import KINDS
from model_harness.planted import PLANTED
from model_harness.program import Program
from model_harness.sequence import Settings
from model_harness.session import Session

FLIPS = 400
MODEL_OPERATIONS = 4000
LEFT_OUT = 0


def find_order(binary: Path, folder: Path, planted: PlantedOrder) -> list[str]:
    """What the enumeration of crash points says."""
    return crash_points.run_operation(binary, planted.operation, folder, None, 0, planted.change).violations


def find_ignored_error(binary: Path, folder: Path, command_name: str, kind: Kind, path: str) -> list[str]:
    """What the error harness says of a program that takes a failed call for done."""
    return find_error(binary, folder, command_name, Fault("taken for done", LEFT_OUT, (kind,), 1), path)


def find_error(
    binary: Path, folder: Path, command_name: str, fault: Fault, path: str, plant: Mapping[str, object] | None = None
) -> list[str]:
    """What the error harness says of a program with a bug, when calls on such paths fail."""
    command = next(command for command in COMMANDS if command.name == command_name)
    for part in ("base", "image"):
        (folder / part).mkdir()
    tally = ErrorTally()
    with (
        ForkServer(binary, folder, plant=plant) as server,
        Observer(binary, folder / "image", folder) as observer,
    ):
        inputs = make_inputs(server, folder / "inputs")
        command.prepare(server, folder / "base", inputs)
        checker = ErrorChecker(command, server, observer, inputs, folder / "base", folder / "report")
        lines = checker.calls(fault, 0)[1]
        for number, line in enumerate(lines, 1):
            if path in line:
                checker.check(fault, number, tally)
    return tally.violations


def find_with_model(binary: Path, folder: Path, bug: str) -> list[str]:
    """What the model-based test says of a program with a bug, in the steps that are left of the failing sequence."""
    work = folder / "work"
    program = Program(binary, work, operations_are_processes=False, bug=PLANTED[bug])
    settings = Settings(program, seed=3, kinds=tuple(KINDS), folder=work, kills=0.4)
    try:
        found = Session(settings, range(1 << 20), MODEL_OPERATIONS, time.monotonic() + 600, 1, None, "…").run()
    finally:
        program.close()
    return found.violations


def find_damage(
    binary: Path, folder: Path, chosen: Callable[[Case], bool], plant: Callable[[Path], Mapping[str, object]]
) -> list[str]:
    """What the damage harness says of a program with a bug, for some flips of those that `chosen` takes."""
    store = folder / "store"
    bugs = plant(folder / "pristine")
    inputs = Inputs(folder / "inputs")
    with ForkServer(binary, folder, plant=bugs) as server:
        make_store(server, store, inputs)
    shutil.copytree(store, folder / "pristine")
    pristine = files_of(store) | {LOCK_FILE: (store / LOCK_FILE).read_bytes()}
    cases = [case for case in flips(pristine) if chosen(case)]
    tally = Tally()
    with DamageChecker(binary, store, inputs, folder, plant=bugs) as checker:
        for case in random.Random(1).sample(cases, min(FLIPS, len(cases))):  # noqa: S311
            case.apply(store)
            checker.check(case, tally, every=2)
            case.undo(store, pristine)
    return tally.violations


def _unread(path: str, begin: int, end: int) -> Callable[[Path], Mapping[str, object]]:
    return lambda pristine: {"LORIF_PLANT_UNREAD": f"{path}:{begin}:{end}:{pristine / path}"}


def _in_range(path: str, begin: int, end: int) -> Callable[[Case], bool]:
    return lambda case: bool(case.byte) and case.byte[0] == path and begin <= case.byte[1] < end


def find_in_surroundings(
    binary: Path, folder: Path, check: Callable[[Place], int], plant: Mapping[str, str]
) -> list[str]:
    """What a check of the surroundings says of a program with a bug."""
    bugs = {"LD_PRELOAD": str(build_shim()), "LORIF_SHIM_ROOT": str(folder), **plant}
    with ForkServer(binary, folder) as server:
        try:
            check(Place(binary, folder, server, Inputs(folder / "inputs"), True, bugs))
        except FailedError as error:
            return [str(error)]
    return []


SEGMENT = "segments/0000000000000001.segment"
Finder = Callable[[Path, Path], list[str]]
OTHERS: dict[tuple[str, str], Finder] = {
    ("a failed write to an export is taken for done", "errors"): lambda binary, folder: find_ignored_error(
        binary, folder, "export", Kind.WRITE, ".tmp"
    ),
    ("a failed write to the catalog is taken for done", "errors"): lambda binary, folder: find_ignored_error(
        binary, folder, "delete", Kind.WRITE, "data.mdb"
    ),
    ("a failed fsync is taken for done", "errors"): lambda binary, folder: find_ignored_error(
        binary, folder, "ingest", Kind.FSYNC, ".segment"
    ),
    ("a segment is not closed when its fsync fails", "errors"): lambda binary, folder: find_error(
        binary,
        folder,
        "ingest",
        Fault("EIO once", EIO, (Kind.FSYNC,), 1),
        ".segment",
        {"LORIF_PLANT_LEFT_OUT": "close:.segment"},
    ),
    ("a failed rename is taken for done", "errors"): lambda binary, folder: find_ignored_error(
        binary, folder, "export", Kind.RENAME, ".tmp"
    ),
    ("a header's zeros are not checked", "damage"): lambda binary, folder: find_damage(
        binary, folder, _in_range(SEGMENT, 64, 4088), _unread(SEGMENT, 64, 4088)
    ),
    ("padding between pages is not checked", "damage"): lambda binary, folder: find_damage(
        binary, folder, _in_range(SEGMENT, 4096 + 60, 4096 + 64), _unread(SEGMENT, 4096 + 60, 4096 + 64)
    ),
    ("checksums cover the first 16 bytes only", "damage"): lambda binary, folder: find_damage(
        binary, folder, _in_range(SEGMENT, 4096, 4600), lambda _: {"LORIF_PLANT_HASH": 16}
    ),
    ("files may be read by everybody", "surroundings"): lambda binary, folder: find_in_surroundings(
        binary, folder, paths_and_permissions, {"LORIF_PLANT_MODE": "044"}
    ),
    ("a file that shrinks is a SIGBUS", "surroundings"): lambda binary, folder: find_in_surroundings(
        binary, folder, shrinking_files, {"LORIF_PLANT_SIGBUS": "1"}
    ),
}


def main() -> int:
    """Plants every bug and prints the table; 1 if one was not found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lorif", type=Path, required=True, help="the program")
    parser.add_argument("--only", action="append", help="only bugs whose names contain this")
    parser.add_argument("--directory", type=Path, default=Path("/dev/shm"), help="where the stores are")
    parser.add_argument("--results", type=Path, help="a folder for mutations.md and mutations.json")
    given = parser.parse_args()
    began = time.monotonic()
    finders: dict[tuple[str, str], Finder] = {
        (planted.name, f"crash points of {planted.operation}"): (
            lambda binary, folder, planted=planted: find_order(binary, folder, planted)
        )
        for planted in PLANTED_ORDERS
    }
    of_model: dict[tuple[str, str], Finder] = {
        (bug, "model"): (lambda binary, folder, bug=bug: find_with_model(binary, folder, bug)) for bug in PLANTED
    }
    rows, missed = [], []
    for (name, harness), find in (finders | OTHERS | of_model).items():
        if given.only is not None and not any(part in name for part in given.only):
            continue
        with tempfile.TemporaryDirectory(prefix="lorif-planted-", dir=given.directory) as folder:
            found = find(given.lorif.resolve(), Path(folder))
        rows.append([name, harness, str(len(found)), found[0].splitlines()[0][:100] if found else "not found"])
        missed += [] if found else [name]
        print(f"{name}: {len(found)} violations", flush=True)
    table = Table("Planted bugs", ["bug", "harness", "violations", "the first"], rows)
    facts = {"bugs": len(rows), "found": len(rows) - len(missed), "seconds": round(time.monotonic() - began)}
    print(table.text(), facts, sep="\n")
    if given.results:
        write_results(given.results, "mutations", [table], facts, missed)
    return 1 if missed or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
