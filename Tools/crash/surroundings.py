#!/usr/bin/env python3
"""Full and read-only disks, shrinking files, killed readers, readers beside writers, paths, permissions, determinism.

Checks that mount a file system need a mount name space of their own: `--unshare`.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fault_harness.access import paths_and_permissions
from fault_harness.disks import file_size_limit, full_disk, read_only_disk
from fault_harness.place import FailedError, Place
from fault_harness.readers import determinism, killed_readers, readers_beside_writers, shrinking_files
from fault_harness.sample_store import Inputs, SetupError
from fault_harness.shim import ForkServer
from fault_harness.table import Table, write_results

CHECKS = {
    check.__name__.replace("_", " "): check
    for check in (
        full_disk, file_size_limit, read_only_disk, shrinking_files, killed_readers, readers_beside_writers,
        paths_and_permissions, determinism,
    )
}  # fmt: skip
NEEDS_MOUNT = ("full disk", "read only disk")


def can_unshare() -> bool:
    """Whether this user may have a mount name space of their own."""
    return subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode == 0


def main() -> int:
    """Runs the checks and prints the table; 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lorif", type=Path, required=True, help="the program")
    parser.add_argument("--short", action="store_true", help="fewer cases, for every change")
    parser.add_argument("--only", action="append", help="only this check", choices=CHECKS)
    parser.add_argument(
        "--unshare", action="store_true", help="run in a mount name space of its own, if that is allowed"
    )
    parser.add_argument("--directory", type=Path, default=Path("/dev/shm"), help="where the stores are")
    parser.add_argument("--results", type=Path, help="a folder for surroundings.md and surroundings.json")
    given = parser.parse_args()
    if given.unshare and can_unshare():
        rest = [argument for argument in sys.argv if argument != "--unshare"]
        os.execvp("unshare", ["unshare", "-m", *(["-r"] if os.getuid() else []), sys.executable, *rest])  # noqa: S606
    began = time.monotonic()
    rows, failures = [], []
    for name, check in CHECKS.items():
        if given.only is not None and name not in given.only:
            continue
        if name in NEEDS_MOUNT and not can_unshare():
            rows.append([name, "0", "not allowed here"])
            continue
        with tempfile.TemporaryDirectory(prefix="lorif-around-", dir=given.directory) as folder:
            work = Path(folder)
            with ForkServer(given.lorif.resolve(), work) as server:
                place = Place(given.lorif.resolve(), work, server, Inputs(work / "inputs"), given.short)
                try:
                    rows.append([name, str(check(place)), "ok"])
                except (FailedError, SetupError) as error:
                    rows.append([name, "?", "failed"])
                    failures.append(f"{name}: {error}")
    table = Table("Surroundings", ["check", "cases", "result"], rows)
    facts = {"checks": len(rows), "failures": len(failures), "seconds": round(time.monotonic() - began)}
    print(table.text(), facts, *failures, sep="\n")
    if given.results:
        write_results(given.results, "surroundings", [table], facts, failures)
    return 1 if failures or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
