"""Kills lorif at random moments and compares the store with a model after every operation.

    python Tools/crash/kill_loop.py --lorif .build/release/lorif --iterations 500 --seed 1

Every operation is started as a process of its own and killed by SIGKILL, half of them after a uniformly random delay
of up to a little more than it usually takes, half at a random change in the store's directories; some of them again
and again while the next start recovers; the others finish. Then `verify` must find nothing, and the content must be
that of before the operation or that of after it; of after it, if the program had said so by exit code 0. After the
next writer, no file may be left that nothing accounts for.

Exits with 1 on any violation, with 2 if the program cannot do enough to be tested.
"""

import argparse
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from kill_harness.operations import GENERATORS
from kill_harness.program import Program
from kill_harness.session import Session, Settings

SHORT_ITERATIONS = 40
NEEDED = ("ingest", "query", "verify")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lorif", type=Path, required=True, metavar="PATH", help="the program under test")
    parser.add_argument("--iterations", type=int, default=500, help="operations to run (default 500)")
    parser.add_argument("--short", action="store_true", help=f"{SHORT_ITERATIONS} iterations, for every change")
    parser.add_argument("--seed", type=int, default=None, help="default: from the clock, and printed")
    parser.add_argument("--operations", default="", metavar="LIST", help=f"of {','.join(GENERATORS)} (default all)")
    parser.add_argument("--kills", type=float, default=0.85, metavar="SHARE", help="of the operations (default 0.85)")
    parser.add_argument(
        "--aimed", type=float, default=0.5, metavar="SHARE", help="of the kills, at a change in the store (default 0.5)"
    )
    parser.add_argument("--directory", type=Path, default=None, help="where to work; a real disk tests more than tmpfs")
    parser.add_argument("--keep", action="store_true", help="leave everything behind, with each store as it was before")
    parser.add_argument("--max-violations", type=int, default=20, help="stop after that many (default 20)")
    return parser.parse_args()


def available_operations(program: Program, wanted: list[str]) -> tuple[str, ...]:
    """The wanted operations that the program has the commands for; says loudly which it has not."""
    chosen = []
    for name in wanted:
        lacking = [command for command in GENERATORS[name][2] if not program.has_command(command)]
        if lacking:
            print(f"LEFT OUT: {name}: the program has no command {', '.join(lacking)}", file=sys.stderr)
        else:
            chosen.append(name)
    for command, option in (("ingest", "--on-duplicate"), ("ingest", "--atomic"), ("query", "--snapshot")):
        if program.has_command(command) and not program.has_option(command, option):
            print(f"LEFT OUT: {command} {option}: the program has no such option", file=sys.stderr)
    if not program.has_command("export"):
        print("LEFT OUT: export: content is compared through scores and query results instead", file=sys.stderr)
    return tuple(chosen)


def main() -> int:
    """Runs the loop and prints the summary."""
    options = arguments()
    seed = int(time.time()) if options.seed is None else options.seed
    wanted = options.operations.split(",") if options.operations else list(GENERATORS)
    unknown = sorted(set(wanted) - set(GENERATORS))
    if unknown:
        print(f"no such operations: {', '.join(unknown)}; there are: {', '.join(GENERATORS)}", file=sys.stderr)
        return 2
    program = Program(options.lorif.resolve())
    lacking = [command for command in NEEDED if not program.has_command(command)]
    if lacking:
        print(f"{options.lorif} --help lists no {', '.join(lacking)}: nothing can be tested", file=sys.stderr)
        return 2
    folder = Path(tempfile.mkdtemp(prefix="lorif-kill-", dir=options.directory))
    iterations = SHORT_ITERATIONS if options.short else options.iterations
    repeat = f"python Tools/crash/kill_loop.py --lorif {options.lorif} --seed {seed} --iterations {iterations}"
    repeat += f" --kills {options.kills} --aimed {options.aimed}"
    if options.operations:
        repeat += f" --operations {options.operations}"
    print(f"repeat: {repeat} --keep", file=sys.stderr)
    operations = available_operations(program, wanted)
    shares = (options.kills, options.aimed)
    session = Session(
        Settings(program, seed, iterations, operations, folder, *shares, options.keep, options.max_violations)
    )
    began = time.monotonic()
    # A run that is stopped still says what it found.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        session.run()
    finally:
        print(session.summary())
        print(f"seed {seed}, {time.monotonic() - began:.0f} s")
        if options.keep:
            print(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return 1 if session.violations else 0


if __name__ == "__main__":
    sys.exit(main())
