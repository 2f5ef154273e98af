"""Stands between the harness and a program, and breaks one promise now and then.

    python wrapper.py MUTATION PROGRAM COMMAND ...

Works with any program of the same command line, the real one included; see MUTATIONS for what can be broken.
"""

import json
import os
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

WRITERS = ("ingest", "attach", "delete", "compact", "fit", "snapshot")
Pass = Callable[[list[str]], int]


def now_and_then() -> bool:
    """True in half of the calls."""
    return os.urandom(1)[0] % 2 == 0


def segments(words: list[str]) -> list[Path]:
    folder = Path(words[1]) / "segments"
    return sorted(folder.iterdir()) if folder.exists() else []


def drop_segment(words: list[str], run: Pass) -> int:
    """A committed segment file is lost."""
    code = run(words)
    if code == 0 and words[0] in WRITERS and segments(words) and now_and_then():
        segments(words)[-1].unlink()
    return code


def truncate_segment(words: list[str], run: Pass) -> int:
    """A committed segment file is cut in half."""
    code = run(words)
    if code == 0 and words[0] in WRITERS and segments(words) and now_and_then():
        path = segments(words)[-1]
        path.chmod(0o600)
        os.truncate(path, path.stat().st_size // 2)
    return code


def acknowledge_nothing(words: list[str], run: Pass) -> int:
    """A command says that it is done, but did nothing."""
    return 0 if words[0] in ("ingest", "delete", "attach") and now_and_then() else run(words)


def acknowledge_early(words: list[str], run: Pass) -> int:
    """A command says that it is done before it is."""
    if words[0] not in WRITERS or not now_and_then() or os.fork():
        return 0 if words[0] in WRITERS else run(words)
    for stream in (0, 1, 2):
        os.close(stream)
    time.sleep(0.3)
    run(words)
    os._exit(0)


def shortened(path: Path, folder: Path, keep: float, note: str) -> Path:
    """A copy of a batch with only that share of its rows."""
    content = path.read_bytes()
    (length,) = struct.unpack_from("<Q", content)
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    made: dict = {"__metadata__": {**header["__metadata__"], "note": note}}
    chosen = b""
    for name, entry in header.items():
        if name != "__metadata__":
            start, end = entry["data_offsets"]
            rows = entry["shape"][0]
            kept = max(1, int(rows * keep))
            part = data[start : start + (end - start) // rows * kept]
            shape = [kept, *entry["shape"][1:]]
            made[name] = {**entry, "shape": shape, "data_offsets": [len(chosen), len(chosen) + len(part)]}
            chosen += part
    if "ids" in header["__metadata__"]:
        made["__metadata__"]["ids"] = json.dumps(json.loads(header["__metadata__"]["ids"])[:kept])
    text = json.dumps(made).encode()
    copy = folder / path.name
    copy.write_bytes(struct.pack("<Q", len(text)) + text + chosen)
    beside = path.with_suffix(".jsonl")
    if beside.exists():
        lines = beside.read_text(encoding="utf-8").split("\n")[:kept]
        copy.with_suffix(".jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return copy


def half_ingest(words: list[str], run: Pass) -> int:
    """An ingest takes in half of a file."""
    if words[0] != "ingest" or not now_and_then():
        return run(words)
    with tempfile.TemporaryDirectory() as folder:
        halves = [
            str(shortened(Path(word), Path(folder), 0.5, "half")) if word.endswith(".safetensors") else word
            for word in words
        ]
        return run(halves)


def forget_digests(words: list[str], run: Pass) -> int:
    """A file that was taken in before is taken for a new one, and its ids are not looked at."""
    if words[0] != "ingest":
        return run(words)
    with tempfile.TemporaryDirectory() as folder:
        fresh = [
            str(shortened(Path(word), Path(folder), 1, os.urandom(8).hex())) if word.endswith(".safetensors") else word
            for word in words
        ]
        return run(fresh)


def one_commit_per_file(words: list[str], run: Pass) -> int:
    """An ingest of several files that is to be atomic commits each of them for itself."""
    batches = [word for word in words[2:] if word.endswith(".safetensors")]
    if words[0] != "ingest" or "file" in words or len(batches) < 2:
        return run(words)
    options = [word for word in words[2:] if word not in batches]
    for batch in batches:
        if code := run([*words[:2], batch, *options]):
            return code
        time.sleep(0.1)
    return 0


def stale_lock(words: list[str], run: Pass) -> int:
    """A killed writer leaves a lock that nobody removes."""
    if words[0] not in WRITERS:
        return run(words)
    lock = Path(words[1] + ".lock")
    try:
        os.close(os.open(lock, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        print(f"{lock}: another writer is at work", file=sys.stderr)
        return 5
    code = run(words)
    lock.unlink()
    return code


def litter(words: list[str], run: Pass) -> int:
    """A writer leaves a file behind that nothing names."""
    code = run(words)
    if code == 0 and words[0] in WRITERS and now_and_then():
        (Path(words[1]) / "segments" / "00000000deadbeef.segment").write_bytes(b"")
    return code


def forgiving_verify(words: list[str], run: Pass) -> int:
    """Segments are lost, and verify says that all is well."""
    return 0 if words[0] == "verify" and run(words) in (0, 1, 4) else drop_segment(words, run)


MUTATIONS: dict[str, Callable[[list[str], Pass], int]] = {
    "acknowledge-early": acknowledge_early,
    "acknowledge-nothing": acknowledge_nothing,
    "drop-segment": drop_segment,
    "forget-digests": forget_digests,
    "forgiving-verify": forgiving_verify,
    "half-ingest": half_ingest,
    "litter": litter,
    "none": lambda words, run: run(words),
    "one-commit-per-file": one_commit_per_file,
    "stale-lock": stale_lock,
    "truncate-segment": truncate_segment,
}


def main() -> int:
    mutation, program, *words = sys.argv[1:]

    def run(changed: list[str]) -> int:
        return subprocess.run([program, *changed], check=False).returncode

    return run(words) if "--help" in words else MUTATIONS[mutation](words, run)


if __name__ == "__main__":
    sys.exit(main())
