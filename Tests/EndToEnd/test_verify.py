"""Verify finds every flipped byte, every cut and every exchanged file; nothing ever crashes or answers wrongly."""

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from harness import DAMAGED, NO, REFUSED, attempt, contents, run, write_batch

# One process per flip: all bytes of a tiny segment would take minutes, so the end-to-end test takes a sample that holds
# every byte that is not zero and some of the padding; the Swift tests flip every byte in one process.
PADDING_SAMPLE = 150
OTHER_SAMPLE = 120
WORKERS = os.cpu_count() or 1


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny store with two segments, metadata and curvature."""
    folder = tmp_path_factory.mktemp("verify")
    random = np.random.default_rng(7)
    store = folder / "whole.lorif"
    for part in range(2):
        layers = {
            "a": tuple(random.standard_normal((3, d, 1)).astype(np.float32) for d in (2, 3)),
            "b": (random.standard_normal((3, 2, 2)).astype(np.float32),),
        }
        ids = [f"{part}-{row}" for row in range(3)]
        records = [{"id": identifier, "text": "and it was so", "row": row} for row, identifier in enumerate(ids)]
        run(
            "ingest",
            "--encoding",
            "f32",
            store,
            write_batch(folder / f"{part}.safetensors", layers, ids=ids, records=records),
        )
    run("fit", store, "--exact")
    run("verify", store)
    return store


@pytest.fixture(scope="module")
def copies(whole: Path) -> Iterator[list[Path]]:
    """One copy of the store per worker."""
    paths = [whole.parent / f"copy-{worker}.lorif" for worker in range(WORKERS)]
    for path in paths:
        shutil.copytree(whole, path)
    yield paths
    for path in paths:
        shutil.rmtree(path)


def query_of(store: Path) -> Path:
    return store.parent / "0.safetensors"


def undetected(copies: list[Path], file: str, changes: list[tuple[int, bytes]], harmless_allowed: bool = False) -> list:
    """The changes (offset and new bytes) to a file that verify does not report; the file is put back after each."""

    def work(worker: int) -> list:
        store, found = copies[worker], []
        path = store / file
        good = path.read_bytes()
        path.chmod(0o600)
        for offset, new in changes[worker::WORKERS]:
            path.write_bytes(good[:offset] + new + good[offset + len(new) :])
            outcome = attempt("verify", store)
            place = "catalog" if file.startswith("catalog/") else Path(file).name
            named = place in outcome.stdout + outcome.stderr
            if outcome.code not in (NO, DAMAGED, REFUSED) or (not named and outcome.code == NO):
                same = harmless_allowed and outcome.code == 0 and answers(store) == answers_of_whole
                if not same:
                    found.append((file, offset, new, outcome.code, outcome.stdout + outcome.stderr))
        path.write_bytes(good)
        assert attempt("verify", store).code == 0
        return found

    def answers(store: Path) -> list[str]:
        query = query_of(store)
        return [
            attempt("query", store, query, "--format", "jsonl", "--top", 9, "--method", method).stdout
            for method in ("dot", "influence")
        ]

    answers_of_whole = answers(copies[0])
    with ThreadPoolExecutor(WORKERS) as pool:
        return [change for found in pool.map(work, range(WORKERS)) for change in found]


def sample(content: bytes, count: int, random: np.random.Generator) -> list[int]:
    return sorted(random.choice(len(content), size=min(count, len(content)), replace=False).tolist())


def flips(content: bytes, offsets: list[int], random: np.random.Generator) -> list[tuple[int, bytes]]:
    """Each byte with one random bit or several changed."""
    return [(offset, bytes([content[offset] ^ int(random.integers(1, 256))])) for offset in offsets]


def segments(store: Path) -> list[Path]:
    return sorted((store / "segments").iterdir())


def test_flipped_bytes_of_a_segment(whole: Path, copies: list[Path], random: np.random.Generator) -> None:
    segment = segments(whole)[0]
    content = segment.read_bytes()
    offsets = [offset for offset, byte in enumerate(content) if byte]
    padding = [offset for offset, byte in enumerate(content) if not byte]
    offsets += random.choice(padding, size=min(PADDING_SAMPLE, len(padding)), replace=False).tolist()
    assert not undetected(copies, str(segment.relative_to(whole)), flips(content, sorted(offsets), random))


@pytest.mark.parametrize("kind", ["lorif.store", "segments/", "curvature/"])
def test_flipped_bytes_of_other_files(kind: str, whole: Path, copies: list[Path], random: np.random.Generator) -> None:
    files = [
        name for name in contents(whole) if name.startswith(kind) and name != f"segments/{segments(whole)[0].name}"
    ]
    assert files
    for name in files:
        content = (whole / name).read_bytes()
        assert not undetected(copies, name, flips(content, sample(content, OTHER_SAMPLE, random), random))


def test_flipped_bytes_of_the_catalog(whole: Path, copies: list[Path], random: np.random.Generator) -> None:
    """Pages that LMDB no longer uses may change; then the answers must be the same."""
    name = "catalog/data.mdb"
    content = (whole / name).read_bytes()
    used = [offset for offset, byte in enumerate(content) if byte]
    offsets = sorted(random.choice(used, size=min(OTHER_SAMPLE, len(used)), replace=False).tolist())
    assert not undetected(copies, name, flips(content, offsets, random), harmless_allowed=True)


def damaged(store: Path, whole: Path, name: str, content: bytes | None) -> str | None:
    """Replaces or removes one file of a copy, asks verify, puts it back; what went wrong, if anything."""
    path = store / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    outcome = attempt("verify", store)
    path.write_bytes((whole / name).read_bytes())
    return None if outcome.code in (NO, DAMAGED, REFUSED) else f"{name}: {outcome}"


def test_cut_grown_and_missing_files(whole: Path, copies: list[Path], random: np.random.Generator) -> None:
    for name, content in contents(whole).items():
        if name.startswith("tmp/"):
            continue
        changed: list[bytes | None] = [None, b"", content[:1], content[:-1]]
        changed += [content[: int(length)] for length in random.integers(1, len(content), 5)]
        if not name.startswith("catalog/"):
            changed += [content + b"\0", content + bytes(4096), content + content[-64:]]
        for new in changed:
            assert damaged(copies[0], whole, name, new) is None


def test_exchanged_segments(whole: Path, copies: list[Path]) -> None:
    first, second = (str(path.relative_to(whole)) for path in segments(whole))
    assert damaged(copies[0], whole, first, (whole / second).read_bytes()) is None


def test_exchanged_pages(whole: Path, copies: list[Path]) -> None:
    """Two 64-byte stretches of a segment that differ, exchanged: both were written by us, but not there."""
    segment = segments(whole)[0]
    content = segment.read_bytes()
    pages = [content[start : start + 64] for start in range(4096, len(content) - 64, 64)]
    for a in range(min(6, len(pages))):
        b = next(b for b in range(a + 1, len(pages)) if pages[b] != pages[a])
        changed = bytearray(content)
        changed[4096 + 64 * a : 4160 + 64 * a], changed[4096 + 64 * b : 4160 + 64 * b] = pages[b], pages[a]
        assert damaged(copies[0], whole, str(segment.relative_to(whole)), bytes(changed)) is None


def test_other_commands_never_answer_from_damage(whole: Path, copies: list[Path], random: np.random.Generator) -> None:
    """A query over a damaged segment gives the right answer (the byte was not needed) or the exit code for damage."""
    store, query = copies[0], query_of(whole)
    command = ("query", store, query, "--method", "dot", "--format", "jsonl", "--top", 9)
    right = run(*command).stdout
    segment = segments(store)[0]
    good = segment.read_bytes()
    segment.chmod(0o600)
    for offset, new in flips(good, sample(good, 60, random), random):
        segment.write_bytes(good[:offset] + new + good[offset + 1 :])
        outcome = attempt(*command)
        assert outcome.code == DAMAGED or (outcome.code == 0 and outcome.stdout == right), (offset, str(outcome))
    segment.write_bytes(good)
