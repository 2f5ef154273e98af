#!/usr/bin/env python3
"""Compares what the recorder sees of some commands with what strace sees.

A change that it missed could not be lost in a crash.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from fault_harness.crash_operations import OPERATIONS, make_inputs
from fault_harness.sample_store import copy_store
from fault_harness.shim import ForkServer, build_shim
from fault_harness.trace import SYSTEM_CALLS, count_by_kind, count_by_strace, read_trace

COMMANDS = ("ingest", "compact", "fit with coordinates", "full copy", "drop a snapshot")


def main() -> int:
    """Runs each command twice, and compares; 1 if there is a difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lorif", type=Path, required=True, help="the program")
    parser.add_argument("--directory", type=Path, default=Path("/dev/shm"), help="where the stores are")
    given = parser.parse_args()
    binary = given.lorif.resolve()
    differences = []
    with tempfile.TemporaryDirectory(prefix="lorif-recorder-", dir=given.directory) as name:
        folder = Path(name)
        with ForkServer(binary, folder) as server:
            inputs = make_inputs(server, folder / "inputs")
            for operation in (operation for operation in OPERATIONS if operation.name in COMMANDS):
                base, root = folder / f"base-{operation.name}", folder / f"root-{operation.name}"
                base.mkdir()
                operation.prepare(server, base, inputs)
                command = [str(binary), *map(str, operation.command(root, inputs))]
                copy_store(base, root)
                # Two environments: strace must not see the recorder's own writes, nor the recorder be seen by strace.
                calls = ",".join(sorted(call for calls in SYSTEM_CALLS.values() for call in calls))
                traced = ["strace", "-f", "-y", "-z", "-e", f"trace={calls}", "-o", str(folder / "strace"), *command]
                subprocess.run(traced, check=True, capture_output=True)
                seen = count_by_strace((folder / "strace").read_text("utf-8", "replace"), root)
                copy_store(base, root)
                settings = {"LD_PRELOAD": build_shim(), "LORIF_SHIM_ROOT": root, "LORIF_RECORD": folder / "trace"}
                environment = {**os.environ, **{key: str(value) for key, value in settings.items()}}
                subprocess.run(command, check=True, capture_output=True, env=environment)
                recorded = count_by_kind(read_trace(folder / "trace", root))
                print(operation.name, "strace:", dict(seen), "recorder:", dict(recorded))
                if seen != recorded or not seen:
                    differences.append(operation.name)
    print(f"different: {differences}" if differences else "the same")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
