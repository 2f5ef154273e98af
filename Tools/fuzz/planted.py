#!/usr/bin/env python3
"""Plants bugs in the parsers, and shows that the fuzzer finds each; a fuzzer that finds nothing is no evidence.

Copies the sources to .build-planted, takes a check out of a parser for each bug, behind a switch in the environment,
and builds the targets of that once. Each bug is looked for with its switch on, from the committed corpus, until it is
found; and then for as long again, five seconds at least, with it off, when nothing may be found. Ends with 1 otherwise.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import run

ROOT = run.ROOT
TREE = ROOT / ".build-planted" / "tree"
# What Package.swift names.
PARTS = ("Package.swift", "Package.resolved", "Sources", "Tests", "Tools/fuzz/targets", "Tools/examples", "Tools/bench")


@dataclass(frozen=True)
class Bug:
    """A check that is left out, and the target that should notice."""

    name: str
    what: str
    path: str
    check: str
    planted: str
    target: str


BUGS = (
    Bug(
        "offsets",
        "offsets of ids and values may descend",
        "Sources/Format/IdentifierPage.swift",
        "guard row == 0 ? offsets[0] == 0 : offsets[row] >= offsets[row - 1] else {",
        'guard isPlanted("offsets") || (row == 0 ? offsets[0] == 0 : offsets[row] >= offsets[row - 1]) else {',
        "page",
    ),
    Bug(
        "room",
        "a count is allocated before the bytes are seen",
        "Sources/Format/FilePart.swift",
        "guard count >= 0, !overflow, needed <= remainingCount else {",
        'guard isPlanted("room") || (count >= 0 && !overflow && needed <= remainingCount) else {',
        "schema",
    ),
    Bug(
        "end",
        "bytes after a schema are passed over",
        "Sources/Format/SchemaCoding.swift",
        "try reader.expectEnd()\n        self.init(layers",
        'if !isPlanted("end") { try reader.expectEnd() }\n        self.init(layers',
        "schema",
    ),
    Bug(
        "planes",
        "one byte is read behind an array of 14 bytes",
        "Sources/Format/BytePlanes.swift",
        "unsafe source[count + index]\n",
        'unsafe source[count + index + (count == 7 && isPlanted("planes") ? 1 : 0)]\n',
        "page",
    ),
    Bug(
        "tombstones",
        "a bitmap may be shorter than its rows",
        "Sources/Store/CatalogRecords.swift",
        "guard bits.count == byteCount, count == deletedCount,",
        'guard bits.count == byteCount || isPlanted("tombstones"), count == deletedCount,',
        "catalog-record",
    ),
    Bug(
        "pages",
        "a page may be shorter than the schema says",
        "Sources/Format/SegmentLayout.swift",
        "entry.rawLength != expected {",
        'entry.rawLength != expected, !isPlanted("pages") {',
        "sealed-segment",
    ),
    Bug(
        "frame",
        "what is said of a frame is allocated",
        "Sources/Zstd/ZstdDecompressor.swift",
        "try checkContentSize(of: frame, expected: expectedByteCount)",
        'if !isPlanted("frame") { try checkContentSize(of: frame, expected: expectedByteCount) }',
        "zstd",
    ),
    Bug(
        "walker",
        "liblmdb gets a catalog that was not checked",
        "Sources/LMDB/PageWalker.swift",
        "guard condition else {",
        'guard condition || isPlanted("walker") else {',
        "catalog-file",
    ),
    Bug(
        "header",
        "a header is read that is longer than its file",
        "Sources/Interchange/SafetensorsFile.swift",
        "guard Int(length) <= file.byteCount - 8 else {",
        'guard isPlanted("header") || Int(length) <= file.byteCount - 8 else {',
        "safetensors",
    ),
    Bug(
        "row",
        "metadata may be of a row that is not there",
        "Sources/Interchange/MetadataFile.swift",
        "guard let row, row < rowCount else {",
        'guard let row, row < rowCount || isPlanted("row") else {',
        "metadata",
    ),
    Bug(
        "surrogate",
        "half of a surrogate pair is half of another character",
        "Sources/Interchange/JSONReader.swift",
        "guard (0xDC00...0xDFFF).contains(low),",
        'guard (0xDC00...0xDFFF).contains(low) || isPlanted("surrogate"),',
        "json",
    ),
    Bug(
        "quote",
        "a text may go on behind the end",
        "Sources/Engine/RowFilterParser.swift",
        'var result = ""\n        while position < characters.count {',
        'var result = ""\n        while isPlanted("quote") || position < characters.count {',
        "where",
    ),
)
SWITCH = """

import Glibc

/// Whether a bug is switched on.
private func isPlanted(_ name: String) -> Bool { plantedName == name }
private let plantedName = getenv("LORIF_PLANTED").map { String(cString: $0) }
"""


def plant() -> None:
    """A copy of the sources with every bug; a file that is the same as before keeps its time."""
    fresh = TREE.with_name("fresh")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, fresh / part, ignore=shutil.ignore_patterns(".*", "*.lorif"))
        elif source.exists():
            shutil.copy2(source, fresh / part)
    for bug in BUGS:
        path = fresh / bug.path
        text = path.read_text()
        if text.count(bug.check) != 1:
            raise SystemExit(f"{bug.path} has {text.count(bug.check)} places for the bug {bug.name!r}: {bug.check}")
        path.write_text(text.replace(bug.check, bug.planted))
    for changed in {bug.path for bug in BUGS}:
        path = fresh / changed
        path.write_text(path.read_text() + SWITCH)
    TREE.mkdir(exist_ok=True)
    for path in sorted(fresh.rglob("*")):
        kept = TREE / path.relative_to(fresh)
        if path.is_dir():
            kept.mkdir(parents=True, exist_ok=True)
        elif not kept.exists() or kept.read_bytes() != path.read_bytes():
            shutil.copy2(path, kept)
    shutil.rmtree(fresh)


def build() -> Path:
    """The targets with all bugs."""
    command = [str(word).replace(str(ROOT / ".build-fuzz"), str(TREE.with_name("build"))) for word in run.BUILD]
    environment = os.environ | {"LORIF_FUZZ": "1"}
    subprocess.run(command, cwd=TREE, env=environment, check=True, stdout=sys.stderr)
    path = subprocess.run([*command, "--show-bin-path"], cwd=TREE, env=environment, check=True, capture_output=True)
    return Path(path.stdout.decode().strip()) / "lorif-fuzz"


def look(program: Path, bug: Bug, planted: bool, seconds: int) -> tuple[float, int, str]:
    """Fuzzes a target until something is found: the time, the inputs, and what it was; an empty text for nothing."""
    with tempfile.TemporaryDirectory(prefix="lorif-planted-") as folder:
        (Path(folder) / "new").mkdir()
        command = [program, *run.LIMITS, f"-max_len={run.LARGEST_INPUT}", f"-max_total_time={seconds}"]
        command += [f"-artifact_prefix={folder}/", f"{folder}/new", run.CORPORA / bug.target]
        switch = {"LORIF_PLANTED": bug.name} if planted else {}
        environment = run.environment_of(bug.target, **switch)
        began = time.monotonic()
        done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, check=False)
        spent = time.monotonic() - began
    log = done.stderr.decode(errors="replace")
    inputs = re.findall(r"stat::number_of_executed_units: (\d+)", log) or re.findall(r"^#(\d+)\s", log, re.MULTILINE)
    said = re.findall(
        r"(AddressSanitizer: [\w-]+|libFuzzer: [\w -]+|was accepted that would be written otherwise|Fatal error: .*|"
        r"an object is not what was written of it|strings are not what was written of them)",
        log,
    )
    return spent, int(inputs[-1]) if inputs else 0, "; ".join(dict.fromkeys(said))[:120] if done.returncode else ""


def main() -> int:
    """Looks for every bug; 1 if one was not found, or something where there is none."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=600, help="most time for a bug (default 600)")
    parser.add_argument("--only", choices=[bug.name for bug in BUGS], help="only this bug")
    parser.add_argument("--program", type=Path, help="built targets with the bugs, in place of building them")
    parser.add_argument("--results", type=Path, help="a Markdown file for the table")
    given = parser.parse_args()
    if not given.program:
        plant()
    program = (given.program or build()).resolve()
    if lack := run.instrumentation(program):
        print(f"{program} is not what fuzzing needs: it {lack}", file=sys.stderr)
        return 1
    lines = ["| planted | target | found after | inputs | said | without it |", "|---|---|---|---|---|---|"]
    failures = 0
    for bug in BUGS:
        if given.only not in (None, bug.name):
            continue
        spent, inputs, said = look(program, bug, planted=True, seconds=given.seconds)
        control, control_inputs, other = look(program, bug, planted=False, seconds=max(5, round(spent)))
        failures += not said or bool(other)
        lines.append(
            f"| {bug.what} | {bug.target} | {f'{spent:.1f} s' if said else 'NOT FOUND'} | {inputs:,} | {said} "
            f"| {other or f'nothing in {control_inputs:,} inputs, {control:.0f} s'} |"
        )
        print(lines[-1], flush=True)
    if given.results:
        given.results.write_text("# Planted bugs in parsers\n\n" + "\n".join(lines) + "\n")
    print(f"{len(lines) - 2} bugs planted, {failures} not found or found without being there")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
