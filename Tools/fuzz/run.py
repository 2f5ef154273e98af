#!/usr/bin/env python3
"""Fuzzes everything of lorif that reads bytes which somebody else may have written.

Builds the targets with libFuzzer and AddressSanitizer, tries extreme numbers in every place of the corpora, and
then gives every target its time. Ends with 1 if anything was found; the input is kept in Tools/fuzz/findings.
"""

import argparse
import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CORPORA = Path(__file__).parent / "corpora"
FINDINGS = Path(__file__).parent / "findings"
BUILD = [
    *("swift", "build", "-c", "release", "--scratch-path", str(ROOT / ".build-fuzz"), "--product", "lorif-fuzz"),
    *("--sanitize=fuzzer", "--sanitize=address", "-Xswiftc", "-enable-testing"),
    # SwiftPM hands the two above to the Swift compiler as two options in random order, which takes only the last; this
    # one comes after them.
    *("-Xswiftc", "-sanitize=fuzzer,address"),
]
UNDEFINED = ("nm", "--undefined-only")
# Places that report coverage. Without Swift's there are some 3,000 of C.
FEWEST_COUNTERS = 50_000
# One allocation of more than 64 MiB is a finding: no small input is worth that.
LIMITS = ("-malloc_limit_mb=64", "-rss_limit_mb=512", "-timeout=5", "-print_final_stats=1", "-seed=1")
LARGEST_INPUT = 33 << 10
# A committed corpus has what reaches the most with the fewest bytes.
LARGEST_COMMITTED_BYTES = 192 << 10


@dataclass(frozen=True)
class Outcome:
    """What came of a target."""

    target: str
    runs: int
    seconds: float
    coverage: int
    extremes: str
    finding: str | None


def build() -> Path:
    """The program with all targets."""
    environment = os.environ | {"LORIF_FUZZ": "1"}
    subprocess.run(BUILD, cwd=ROOT, env=environment, check=True, stdout=sys.stderr)
    path = subprocess.run([*BUILD, "--show-bin-path"], cwd=ROOT, env=environment, check=True, capture_output=True)
    return Path(path.stdout.decode().strip()) / "lorif-fuzz"


def environment_of(target: str, **others: str) -> dict[str, str]:
    """What the program reads; Swift's own backtraces take longer than an input may."""
    return os.environ | {
        "LORIF_FUZZ_TARGET": target,
        "SWIFT_BACKTRACE": "enable=no",
        "ASAN_OPTIONS": "quarantine_size_mb=8:allocator_may_return_null=1:detect_leaks=0",
        **others,
    }


def instrumentation(program: Path) -> str | None:
    """Why a program would find nothing: it lacks coverage or AddressSanitizer in Swift's code. None if it has both."""
    begun = subprocess.run([program, "-runs=0"], env=environment_of("where"), capture_output=True, check=False)
    log = begun.stderr.decode(errors="replace")
    counters = re.search(r"\((\d+) inline 8-bit counters\)", log)
    count = int(counters.group(1)) if counters else 0
    if count < FEWEST_COUNTERS:
        return f"has {count:,} counters of coverage, expected at least {FEWEST_COUNTERS:,}\n{log[-1000:]}"
    # Reads one byte behind an allocation, from Swift.
    trespass = subprocess.run(
        [program, "-runs=0"], env=environment_of("where", LORIF_FUZZ_TRESPASS="1"), capture_output=True, check=False
    )
    log = trespass.stderr.decode(errors="replace")
    if "AddressSanitizer: heap-buffer-overflow" not in log or trespass.returncode == 0:
        return f"reads behind an allocation without a report of AddressSanitizer\n{log[-1000:]}"
    # The same of every module of Swift, where its objects are still beside the program.
    for module in sorted(path.name for path in (ROOT / "Sources").iterdir()):
        objects = sorted((program.parent / f"{module}.build").glob("*.swift.o"))
        if not objects:
            continue
        symbols = subprocess.run([*UNDEFINED, *objects], capture_output=True, check=True).stdout
        for wanted in (b"__asan_report_", b"__sanitizer_cov_"):
            if wanted not in symbols:
                return f"was built of the module {module} without {wanted.decode()}*"
    return None


def fuzz(program: Path, target: str, seconds: int, working: Path, extremes: bool) -> Outcome:
    """Extreme numbers in the corpus, and then as much time as is given."""
    corpus = CORPORA / target
    said = ""
    if extremes:
        tried = subprocess.run(
            [program], env=environment_of(target, LORIF_FUZZ_EXTREMES=str(corpus)), capture_output=True, check=False
        )
        said = tried.stdout.decode().strip()
        if tried.returncode:
            return Outcome(target, 0, 0, 0, said, (said + tried.stderr.decode(errors="replace"))[-2000:])
    fresh = working / target
    fresh.mkdir(parents=True, exist_ok=True)
    FINDINGS.mkdir(exist_ok=True)
    command = [program, *LIMITS, f"-max_len={LARGEST_INPUT}", f"-max_total_time={seconds}"]
    command += [f"-artifact_prefix={FINDINGS}/{target}-", fresh, corpus]
    began = time.monotonic()
    done = subprocess.run(list(map(str, command)), env=environment_of(target), capture_output=True, check=False)
    log = done.stderr.decode(errors="replace")
    coverage = re.findall(r" cov: (\d+)", log)
    runs = re.search(r"stat::number_of_executed_units: (\d+)", log)
    return Outcome(
        target,
        int(runs.group(1)) if runs else 0,
        time.monotonic() - began,
        int(coverage[-1]) if coverage else 0,
        said,
        log[-3000:] if done.returncode else None,
    )


def keep(program: Path, target: str, working: Path) -> None:
    """Makes the committed corpus anew: what reaches most, small inputs first, up to a size."""
    with tempfile.TemporaryDirectory() as name:
        merged = Path(name)
        command = [program, "-merge=1", f"-max_len={LARGEST_INPUT}", merged, CORPORA / target, working / target]
        subprocess.run(list(map(str, command)), env=environment_of(target), capture_output=True, check=True)
        total = 0
        chosen = sorted(merged.iterdir(), key=lambda path: path.stat().st_size)
        for path in (CORPORA / target).iterdir():
            if not path.name.startswith("seed-"):
                path.unlink()
        for path in chosen:
            total += path.stat().st_size
            if total > LARGEST_COMMITTED_BYTES:
                break
            shutil.copy(path, CORPORA / target / path.name[:16])


def main() -> int:
    """Runs the targets; 1 if something was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="time of each target (default 60)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="targets at once")
    parser.add_argument("--only", action="append", help="only this target")
    parser.add_argument("--no-extremes", action="store_true", help="only what libFuzzer makes")
    parser.add_argument("--program", type=Path, help="built targets, in place of building them")
    parser.add_argument("--working", type=Path, help="keep what was found interesting here, for the next run")
    parser.add_argument("--keep", action="store_true", help="put what reaches more into the committed corpora")
    parser.add_argument("--results", type=Path, help="a Markdown file for the table")
    given = parser.parse_args()
    program = (given.program or build()).resolve()
    if lack := instrumentation(program):
        print(f"{program} is not what fuzzing needs: it {lack}", file=sys.stderr)
        return 1
    targets = [path.name for path in sorted(CORPORA.iterdir()) if not given.only or path.name in given.only]
    with tempfile.TemporaryDirectory(prefix="lorif-fuzz-") as name:
        working = given.working or Path(name)
        with concurrent.futures.ThreadPoolExecutor(given.jobs) as pool:
            outcomes = list(
                pool.map(lambda target: fuzz(program, target, given.seconds, working, not given.no_extremes), targets)
            )
        if given.keep:
            for target in targets:
                keep(program, target, working)
    lines = ["| target | inputs | seconds | edges reached | extreme numbers | found |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {o.target} | {o.runs:,} | {o.seconds:.0f} | {o.coverage:,} | {o.extremes} | {'YES' if o.finding else '0'} |"
        for o in outcomes
    ]
    print("\n".join(lines))
    for outcome in outcomes:
        if outcome.finding:
            print(f"\n== {outcome.target}\n{outcome.finding}")
    if given.results:
        given.results.write_text("# Fuzzing\n\n" + "\n".join(lines) + "\n")
    found = sum(outcome.finding is not None for outcome in outcomes)
    print(f"{len(outcomes)} targets, {sum(o.runs for o in outcomes):,} inputs, {found} findings")
    return 1 if found or not outcomes else 0


if __name__ == "__main__":
    sys.exit(main())
