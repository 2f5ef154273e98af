#!/usr/bin/env python3
"""Random operations on stores and on a model of them, most of the writing ones killed somewhere; the two must agree.

    python Tools/crash/model_test.py --lorif .build/release/lorif --operations 100000 --seed 1
    python Tools/crash/model_test.py --lorif .build/release/lorif --processes --operations 12000

By default every command is a fork of a loaded program, and SIGKILL comes before one of its calls that change files:
a sequence is the same in every run, and one that fails is made shorter, and printed with the command that repeats it.
With --processes every command is a process of its own, killed from outside at a random moment or a random change in
the store's directories, and everything is looked at after every operation.

After a kill `verify` must find nothing, and the content must be that of before the operation or that of after it; of
after it, if the program had said so by exit code 0. After the next writer, no file may be left that nothing accounts
for. What readers say must be what the model says.

Exits with 1 on any violation, with 2 if the program cannot do enough to be tested.
"""

import argparse
import multiprocessing
import os
import shlex
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from threading import Event

import numpy as np

from fault_harness.table import write_results
from model_harness.killing import ClockKiller
from model_harness.kinds import KINDS
from model_harness.planted import PLANTED
from model_harness.program import Program
from model_harness.sequence import Settings, play
from model_harness.session import Session, Tally
from model_harness.steps import Step

SHORT_OPERATIONS, SHORT_PROCESS_OPERATIONS = 600, 40
NEEDED = ("ingest", "query", "verify")
MOST_SEQUENCES = 1 << 31


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lorif", type=Path, required=True, metavar="PATH", help="the program under test")
    parser.add_argument("--operations", type=int, default=None, help="how many to run (default 10,000)")
    parser.add_argument(
        "--short", action="store_true", help=f"{SHORT_OPERATIONS}, or {SHORT_PROCESS_OPERATIONS} processes"
    )
    parser.add_argument("--minutes", type=float, default=1440.0, help="stop after this time, with what there is")
    parser.add_argument("--jobs", type=int, default=1, help="sequences at a time (default 1)")
    parser.add_argument("--seed", type=int, default=None, help="default: from the clock, and printed")
    parser.add_argument("--from-sequence", type=int, default=0, metavar="N", help="go on with a run that was stopped")
    parser.add_argument("--sequence", type=int, metavar="N", help="only this one, without making it shorter")
    parser.add_argument("--steps", metavar="LIST", help="with --sequence: these steps instead of drawn ones")
    parser.add_argument("--kinds", default="", metavar="LIST", help=f"of {','.join(KINDS)} (default all)")
    parser.add_argument("--kills", type=float, default=None, metavar="SHARE", help="of the writers (default 0.4)")
    parser.add_argument("--processes", action="store_true", help="kill processes from outside (default 0.85 of them)")
    parser.add_argument(
        "--aimed", type=float, default=0.5, metavar="SHARE", help="of these kills, at a change (default 0.5)"
    )
    parser.add_argument("--planted", choices=PLANTED, help="a bug, to see that it is found")
    parser.add_argument(
        "--directory", type=Path, default=None, help="where to work (default /dev/shm; for processes TMPDIR)"
    )
    parser.add_argument("--keep", action="store_true", help="keep the files of each failing sequence")
    parser.add_argument("--max-violations", type=int, default=20, help="stop after that many (default 20)")
    parser.add_argument("--results", type=Path, help="a folder for model.md, or kills.md, and the like in JSON")
    given = parser.parse_args()
    if given.operations is None:
        short = SHORT_PROCESS_OPERATIONS if given.processes else SHORT_OPERATIONS
        given.operations = short if given.short else 10_000
    if given.kills is None:
        given.kills = 0.85 if given.processes else 0.4
    given.seed = int(time.time()) if given.seed is None else given.seed
    given.lorif = given.lorif.resolve()
    if given.directory is None and not given.processes:
        given.directory = Path("/dev/shm")
    return given


def available_kinds(program: Program, wanted: list[str]) -> tuple[str, ...]:
    """The wanted operations that the program has the commands for; says loudly which it has not."""
    chosen = []
    for name in wanted:
        lacking = [command for command in KINDS[name][2] if not program.has_command(command)]
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


def run_part(given: argparse.Namespace, part: int) -> Tally:
    """Every `jobs`-th sequence, until a SIGTERM, after which a run still says what it found."""
    stop = Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    base = Path(tempfile.mkdtemp(prefix="lorif-model-", dir=given.directory))
    folder = base / "work"
    program = Program(given.lorif, folder, given.processes, PLANTED[given.planted] if given.planted else None)
    names = given.kinds.split(",") if given.kinds else list(KINDS)
    clock = ClockKiller(given.kills, given.aimed, folder, np.random.default_rng([given.seed, part]))
    kinds = tuple(name for name in names if all(map(program.has_command, KINDS[name][2])))
    settings = Settings(program, given.seed, kinds, folder, given.kills, clock if given.processes else None)
    try:
        if given.steps:
            return play_steps(settings, given)
        first = given.from_sequence + part if given.sequence is None else given.sequence
        session = Session(
            settings,
            range(first, MOST_SEQUENCES, given.jobs) if given.sequence is None else range(first, first + 1),
            given.operations // given.jobs,
            time.monotonic() + 60 * given.minutes,
            given.max_violations,
            Path(given.directory or tempfile.gettempdir()) / f"lorif-model-{given.seed}" if given.keep else None,
            repeat_command(given),
            stop,
        )
        return session.run()
    finally:
        program.close()
        shutil.rmtree(base, ignore_errors=True)


def play_steps(settings: Settings, given: argparse.Namespace) -> Tally:
    """Plays the given steps, and says what was done."""
    violation, done = play(settings, given.sequence or 0, [Step.parse(text) for text in given.steps.split(",")])
    print(*settings.program.history, sep="\n")
    if given.keep:
        kept = Path(given.directory or tempfile.gettempdir()) / f"lorif-model-{given.seed}"
        shutil.copytree(settings.folder, kept, dirs_exist_ok=True)
        print(f"kept: {kept}")
    return Tally(violations=[violation] if violation else [], operations=len(done), sequences=1)


def repeat_command(given: argparse.Namespace) -> str:
    """What makes the same sequences again."""
    words = ["python", "Tools/crash/model_test.py", "--lorif", str(given.lorif), "--seed", str(given.seed)]
    words += ["--kills", str(given.kills)]
    words += ["--processes", "--aimed", str(given.aimed)] if given.processes else []
    words += ["--kinds", given.kinds] if given.kinds else []
    words += ["--planted", given.planted] if given.planted else []
    return shlex.join(words)


def main() -> int:
    """Plays the sequences and prints the summary."""
    given = arguments()
    wanted = given.kinds.split(",") if given.kinds else list(KINDS)
    unknown = sorted(set(wanted) - set(KINDS))
    if unknown:
        print(f"no such operations: {', '.join(unknown)}; there are: {', '.join(KINDS)}", file=sys.stderr)
        return 2
    program = Program(given.lorif)
    lacking = [command for command in NEEDED if not program.has_command(command)]
    if lacking:
        print(f"{given.lorif} --help lists no {', '.join(lacking)}: nothing can be tested", file=sys.stderr)
        return 2
    available_kinds(program, wanted)
    if not given.processes and not Program(given.lorif, Path("/")).can_fork:
        print("LEFT OUT: kills at chosen calls need a binary and a C compiler; use --processes", file=sys.stderr)
        return 2
    print(f"repeat: {repeat_command(given)} --operations {given.operations}", file=sys.stderr)
    began = time.monotonic()
    jobs = 1 if given.steps or given.sequence is not None else given.jobs
    given.jobs = jobs
    tally = Tally()
    if jobs == 1:
        tally.merge(run_part(given, 0))
    else:
        # Sent to the process group it also reaches the parts.
        signal.signal(signal.SIGTERM, lambda *_: None)
        with multiprocessing.get_context("spawn").Pool(jobs) as pool:
            for part in pool.starmap(run_part, [(given, number) for number in range(jobs)]):
                tally.merge(part)
    table = tally.table()
    facts = {
        "operations": tally.operations,
        "kills": tally.kills,
        "sequences": tally.sequences,
        "violations": len(tally.violations),
        "seed": given.seed,
        "next sequence": tally.next_sequence,
        "seconds": round(time.monotonic() - began),
    }
    print(table.text(), facts, *(tally.violations if given.steps else []), sep="\n")
    print(f"{tally.kills} kills, {tally.sequences} stores, {len(tally.violations)} violations")
    if given.results:
        write_results(given.results, "kills" if given.processes else "model", [table], facts, tally.violations)
    return 1 if tally.violations else 0


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(main())
