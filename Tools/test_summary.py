"""Adds up what Tools/test ran and prints "N passed, N failed" as the last line.

    python3 Tools/test_summary.py REPORTS

REPORTS holds `outcomes` (a line "name passed" or "name failed" per check) and the xUnit files of the test runners.
Exits with 1 if anything failed, if a runner left no report, or if no check and no test ran.
"""

import sys
from pathlib import Path
from xml.etree import ElementTree

RUNNERS = {
    "swift-tests": ("swift.xml", "swift-swift-testing.xml"),
    "python-tests": ("python.xml",),
    "end-to-end-tests": ("end-to-end.xml",),
}


def counts(report: Path) -> tuple[int, int, int]:
    """Passed, failed and skipped tests of an xUnit file."""
    suites = ElementTree.parse(report).getroot().iter("testsuite")  # noqa: S314
    tests = failed = skipped = 0
    for suite in suites:
        tests += int(suite.get("tests", 0))
        failed += int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        skipped += int(suite.get("skipped", 0))
    return tests - failed - skipped, failed, skipped


def main() -> int:
    """Prints a line per check and the closing line; returns the exit code."""
    reports = Path(sys.argv[1])
    passed = failed = skipped = 0
    for line in (reports / "outcomes").read_text(encoding="utf-8").splitlines():
        name, outcome = line.rsplit(" ", 1)
        if name not in RUNNERS:
            passed, failed = passed + (outcome == "passed"), failed + (outcome == "failed")
            print(f"{name}: {outcome}")
            continue
        tests = [counts(reports / file) for file in RUNNERS[name] if (reports / file).exists()]
        ran, broken, left_out = (sum(part) for part in zip(*tests, strict=True)) if tests else (0, 0, 0)
        # A runner that failed without a failed test (a crash), or that ran nothing, is itself a failure.
        if broken == 0 and (outcome == "failed" or ran == 0):
            broken = 1
        passed, failed, skipped = passed + ran, failed + broken, skipped + left_out
        print(f"{name}: {ran} passed, {broken} failed, {left_out} left out")
    print(f"\n{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
