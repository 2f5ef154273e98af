"""Runs programs and says what they took; says what machine this is."""

import datetime
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Run:
    """One finished process.

    Attributes:
        command: As typed.
        code: Exit code; negative after a signal.
        seconds: Wall time.
        processor_seconds: User and system time.
        peak_bytes: Largest resident set.
        stdout: What it printed.
        stderr: What it complained about.
    """

    command: str
    code: int
    seconds: float
    processor_seconds: float
    peak_bytes: int
    stdout: str
    stderr: str


def run(*arguments: object, discard: bool = False) -> Run:
    """Runs a program to its end, whatever its exit code; `discard` throws away what it prints."""
    command = [str(argument) for argument in arguments]
    reading, writing = os.pipe()
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr, os.fdopen(reading) as report:
        launched = subprocess.run(
            [sys.executable, "-I", "-S", str(Path(__file__).with_name("launch.py")), str(writing), *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL if discard else stdout,
            stderr=stderr,
            pass_fds=[writing],
            check=False,
        )
        os.close(writing)
        texts = []
        for stream in (stdout, stderr):
            stream.seek(0)
            texts.append(stream.read().decode(errors="replace"))
        fields = report.read().split()
    if launched.returncode != 0 or len(fields) != 4:
        raise RuntimeError(f"could not run {' '.join(command)}: {texts[1]}")
    code, seconds, processor_seconds, peak = fields
    return Run(" ".join(command), int(code), float(seconds), float(processor_seconds), int(peak) * 1024, *texts)


def files_below(folder: Path) -> list[Path]:
    """Every regular file below a folder, sorted."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def total_bytes(paths: Iterable[Path]) -> int:
    """The lengths of files."""
    return sum(path.stat().st_size for path in paths)


def flush(paths: Iterable[Path]) -> float:
    """Makes files durable; seconds taken."""
    start = time.perf_counter()
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    return time.perf_counter() - start


def back_memory(byte_count: int) -> None:
    """Touches that much memory in a process that ends at once.

    In a virtual machine the host may have taken back what was free, and the first program to use it would pay.
    """
    touch = f"import mmap\nm = mmap.mmap(-1, {byte_count})\nfor i in range(0, {byte_count}, 4096): m[i] = 1"
    subprocess.run([sys.executable, "-I", "-S", "-c", touch], check=True)


def evict(paths: Iterable[Path]) -> None:
    """Drops files from the page cache, theirs only, so that other work on the machine is not disturbed."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def commit() -> str:
    """The commit of this checkout, marked if files differ from it."""
    outcome = run("git", "-C", ROOT, "describe", "--always", "--dirty", "--abbrev=12", "--exclude", "*")
    return outcome.stdout.strip() if outcome.code == 0 else "unknown"


def file_system(folder: Path) -> str:
    """The type of the file system that holds a folder."""
    outcome = run("stat", "-f", "-c", "%T", folder)
    return outcome.stdout.strip() if outcome.code == 0 else "unknown"


def processor() -> str:
    """The processor's name."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def machine(folder: Path) -> dict[str, str]:
    """Everything that a figure depends on besides the program's arguments."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "commit of this checkout": commit(),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{memory / 2**30:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "file system": file_system(folder),
        "load average before": " ".join(f"{value:.2f}" for value in os.getloadavg()),
    }
