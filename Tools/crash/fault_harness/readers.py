"""Files that shrink under a scan, killed readers, readers beside writers, any number of threads."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from fault_harness.place import Place, expect, typed
from fault_harness.sample_store import batch, files_of, identifiers, must
from fault_harness.shim import DAMAGED, OK, Outcome

SCANNED_ROWS = 30_000
READER_ROUNDS = 12


def _large_store(place: Place) -> Path:
    store = place.folder / "large"
    random = np.random.default_rng(5)
    tensors = {
        f"h.{layer}/{side}": random.standard_normal((SCANNED_ROWS, 24, 2), dtype=np.float32)
        for layer in range(2)
        for side in ("left", "right")
    }
    path = place.folder / "large.safetensors"
    names = json.dumps(identifiers(0, SCANNED_ROWS))
    save_file(tensors, path, {"lorif.batch": "1", "ids": names, "layers": json.dumps(["h.0", "h.1"])})
    must(place.server, "ingest", store, path, "--encoding", "f32")
    queries = {f"h.{layer}/full": random.standard_normal((4, 24, 24), dtype=np.float32) for layer in range(2)}
    save_file(queries, place.folder / "large-queries.safetensors", {"lorif.batch": "1", "layers": '["h.0", "h.1"]'})
    return store


def shrinking_files(place: Place) -> int:
    """A segment that is cut while it is scanned: an error or the whole answer, and never a signal.

    One that another program writes into, which nothing of lorif does: an error or an answer, and never a signal. A page
    is scored where it is mapped, right after it was checked, and what is written between the two cannot be seen.
    """
    store = _large_store(place)
    segment = next((store / "segments").iterdir())
    content = segment.read_bytes()
    arguments = ("query", store, place.folder / "large-queries.safetensors", "--method", "dot", "--format", "jsonl")
    expected = must(place.server, *arguments).stdout
    random = np.random.default_rng(6)
    began = time.monotonic()
    must(place.server, *arguments)
    whole = time.monotonic() - began
    codes = []
    rounds = 8 if place.short else 150
    for number in range(rounds):
        query = place.start(*arguments)
        time.sleep(random.uniform(0, whole * 1.2))
        if number % 2 == 0:
            os.truncate(segment, int(random.integers(0, len(content))))
        else:
            # Other bytes in the same file: what is mapped changes under the scan.
            with segment.open("r+b") as file:
                file.seek(int(random.integers(4096, len(content) - 8192)))
                file.write(bytes(4096))
        stdout, stderr = query.communicate(timeout=60)
        outcome = Outcome(query.returncode, stdout.decode(), stderr.decode(), "query under truncation")
        typed(outcome, OK, DAMAGED)
        is_cut = number % 2 == 0
        expect(
            outcome.code != OK or outcome.stdout == expected or not is_cut, "a wrong answer from a file that has shrunk"
        )
        codes.append(outcome.code)
        segment.write_bytes(content)
    expect(DAMAGED in codes, "no scan met the damage", codes)
    return rounds


def _must_beside(reader: subprocess.Popen[bytes], place: Place, *arguments: object) -> None:
    """Runs a writer, which must not wait for a stopped reader.

    But for one that was stopped while it opened the catalog: liblmdb has the first process hold a lock while it sets up
    its table of readers. Then the same command must succeed once that reader is killed.
    """
    outcome = place.server.run(*arguments)
    if outcome.code == -signal.SIGALRM:
        reader.kill()
        outcome = place.server.run(*arguments)
    typed(outcome, OK)


def killed_readers(place: Place) -> int:
    """Readers killed in a scan or stopped for good block no writer, and what they kept from reuse is collected."""
    store = _large_store(place)
    arguments = ("query", store, place.folder / "large-queries.safetensors", "--method", "dot", "--top", "1")
    random = np.random.default_rng(7)
    rounds = 6 if place.short else 100
    catalog_sizes = []
    for number in range(rounds):
        readers = [place.start(*arguments) for _ in range(2)]
        time.sleep(random.uniform(0, 0.12))
        readers[1].send_signal(signal.SIGSTOP)
        readers[0].kill()
        doomed = place.folder / "doomed.txt"
        doomed.write_text(f"row-{number}\n")
        _must_beside(readers[1], place, "delete", store, "--ids", doomed)
        before = sorted(path.name for path in (store / "segments").iterdir())
        _must_beside(readers[1], place, "compact", store)
        after = sorted(path.name for path in (store / "segments").iterdir())
        expect(not set(before) & set(after), "an old segment is still there", before, after)
        readers[1].kill()
        for reader in readers:
            reader.communicate(timeout=60)
        catalog_sizes.append((store / "catalog" / "data.mdb").stat().st_size)
    typed(place.server.run("verify", store), OK)
    settled = max(catalog_sizes[: max(3, rounds // 4)])
    expect(catalog_sizes[-1] <= 4 * settled, "the catalog grows without end", catalog_sizes)
    return 2 * rounds


def readers_beside_writers(place: Place) -> int:
    """Reading processes during ingest, delete, compaction and collection: each answer is that of one generation."""
    store = place.folder / "store"
    must(place.server, "ingest", store, place.inputs.path("batch-0"), "--encoding", "f32")
    arguments = ("query", store, place.inputs.path("queries"), "--method", "dot", "--top", "100", "--format", "jsonl")
    answers = {must(place.server, *arguments).stdout}
    rounds = 2 if place.short else READER_ROUNDS
    script = f'while [ ! -e {place.folder}/stop ]; do "$@" || echo "exit $?"; echo end; done'
    command = ["sh", "-c", script, "sh", str(place.binary), *map(str, arguments)]
    readers = []
    for number in range(3):
        with (place.folder / f"answers-{number}").open("wb") as output:
            readers.append(subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT))
    for number in range(rounds):
        names = [f"round-{number}-{row}" for row in range(5)]
        fresh = batch(place.folder / f"round-{number}.safetensors", 100 + number, names)
        newer = batch(place.folder / f"newer-{number}.safetensors", 500 + number, names[3:])
        for step in (
            ("ingest", store, fresh),
            ("delete", store, "--where", f"id like 'round-{number - 1}-%'"),
            ("compact", store),
            ("ingest", store, newer, "--on-duplicate", "replace"),
            ("compact", store),
        ):
            must(place.server, *step)
            answers.add(must(place.server, *arguments).stdout)
    (place.folder / "stop").touch()
    for reader in readers:
        reader.wait(timeout=60)
    seen = [
        answer
        for number in range(3)
        for answer in (place.folder / f"answers-{number}").read_text().split("end\n")
        if answer
    ]
    for answer in seen:
        expect(answer in answers, "an answer that no generation gives", answer[:500])
    expect(len(set(seen)) > 1, "the readers have seen only one generation")
    return len(seen)


def determinism(place: Place) -> int:
    """The same commands give the same bytes, whatever the number of threads."""
    digests, rankings = [], []
    for number, threads in enumerate((1, 1, 2, 5)):
        store = place.folder / f"store-{number}"
        must(place.server, "ingest", store, place.inputs.path("batch-0"), "--encoding", "q4")
        must(place.server, "ingest", store, place.inputs.path("batch-1"))
        must(place.server, "delete", store, "--ids", place.inputs.path("doomed"))
        must(place.server, "fit", store, "--rank", "2", "--threads", threads, "--coordinates", "int8")
        must(place.server, "compact", store)
        must(place.server, "fit", store, "--rank", "2", "--threads", threads, "--coordinates", "int8")
        files = {path: content for path, content in files_of(store).items() if "segment" in path or "c" in path[:1]}
        # The catalog has the store's own random identity.
        digests.append({path: content for path, content in files.items() if not path.startswith("catalog/")})
        asked = ("query", store, place.inputs.path("queries"), "--format", "jsonl", "--threads", threads)
        ranked = must(place.server, *asked).stdout
        rankings.append(ranked)
        expect(ranked == rankings[0], "another ranking with other threads")
        expect(digests[number] == digests[0], "other bytes", sorted(digests[number].keys() ^ digests[0].keys()))
    return len(digests)
