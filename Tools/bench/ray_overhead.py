"""What asking through Ray costs on one node, beside the plain command on the same rows.

    python Tools/bench/ray_overhead.py FOLDER --lorif .build/release/lorif --output Tools/bench/results/ray.md

Makes a store of 16 layers of 64×64 (c = 1, int8) and a collection of its segments in FOLDER, starts Ray on this
machine, and asks both in turns by inner product with full-rank queries. Prints medians: the plain command, the
query through a driver that is connected, the time from starting the cluster to the first answer, handing out 1,000
tasks that do nothing, and planning 1,000 shards. Exits with 1 if the answers differ.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from batches import Shape, generate
from processes import ROOT, machine
from sizes import full_batches

TILE = ROOT / "Tests/Data/reference/train_c1.safetensors"


def run(*arguments: object) -> str:
    """What a command prints."""
    return subprocess.run([str(each) for each in arguments], check=True, capture_output=True, text=True).stdout


def prepare(lorif: str, folder: Path, rows: int, queries: int) -> tuple[Path, Path]:
    """The store, one segment a file, and the queries; made once in a folder."""
    store, asked = folder / "store.lorif", folder / "queries.safetensors"
    if not store.exists():
        shape = Shape(rows, 16, 64, 64, 1, "f16", files=max(2, rows // 100_000), seed=1)
        segments = []
        for number, batch in enumerate(generate(folder / "batches", shape, TILE)):
            segments.append(folder / f"part-{number}.segment")
            run(lorif, "pack", segments[-1], batch, "--encoding", "int8")
            batch.unlink()
        run(lorif, "attach", store, *segments)
        for each in segments:
            each.unlink()
    if not asked.exists():
        (made,) = full_batches(folder / "queries", Shape(queries, 16, 64, 64, 32, "f32", files=1, seed=2))
        made.rename(asked)
    return store, asked


def timed(count: int, work: object, clock: Callable[[], float] = time.monotonic) -> tuple[float, object]:
    """The median of some runs, and what the last gave."""
    times = []
    for _ in range(count):
        started = clock()
        given = work()  # type: ignore[operator]
        times.append(clock() - started)
    return statistics.median(times), given


def plan_many(shards: int, clock: Callable[[], float] = time.monotonic) -> float:
    """Seconds from a manifest's bytes to units, for so many shards on 50 nodes."""
    from lorif.ray.manifest import Manifest, SegmentEntry, Shard, decode  # noqa: PLC0415 - needs the extra `ray`
    from lorif.ray.placement import plan_units  # noqa: PLC0415
    from lorif.ray.scheduler import Node  # noqa: PLC0415
    from lorif.ray.settings import Settings  # noqa: PLC0415

    entries = tuple(
        Shard(f"s{at}", (SegmentEntry(f"s3://b/{at}.segment", f"{at:032x}", 1 << 30, 0, 0, 10**6, at * 10**6, 8192),))
        for at in range(shards)
    )
    data = Manifest("s3://b", None, 1, entries).encoded()
    nodes = {f"n{at}": Node(f"n{at}", 32.0) for at in range(50)}
    return timed(5, lambda: plan_units(decode(data, "s3://b/c.json"), nodes, {}, Settings()), clock)[0]


def nothing(_: object) -> None:
    """A task that does nothing."""


def hand_out(tasks: int) -> float:
    """Seconds for so many tasks, one processor each, from the first to the last result."""
    from lorif.ray.scheduler import Job, Scheduler  # noqa: PLC0415 - needs the extra `ray`
    from lorif.ray.settings import Settings  # noqa: PLC0415

    started = time.monotonic()
    scheduler = Scheduler(nothing, (), Settings(cpus=1))
    scheduler.run([Job(number, 1) for number in range(tasks)], lambda *_: None)
    return time.monotonic() - started


def main() -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--lorif", required=True, help="the program")
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--queries", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--prepare", action="store_true", help="make the store, and stop")
    parser.add_argument("--output", type=Path, help="write the page here, too")
    options = parser.parse_args()
    os.environ["LORIF_BIN"] = str(Path(options.lorif).resolve())
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Both with the same priority; Ray's own is 15 lower.
    os.environ.setdefault("RAY_worker_niceness", "0")
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    options.folder.mkdir(parents=True, exist_ok=True)
    store, asked = prepare(options.lorif, options.folder, options.rows, options.queries)
    if options.prepare:
        return 0
    described = machine(options.folder)

    import ray  # noqa: PLC0415 - reads the environment
    from lorif.ray import Collection, Query, Settings, query  # noqa: PLC0415

    manifest = options.folder / "collection.json"
    manifest.unlink(missing_ok=True)
    collection = Collection(manifest)
    collection.create()
    collection.add(store)
    settings = Settings(cache=str(options.folder / "cache"))
    request = Query(asked, "dot", top=10)
    started = time.monotonic()
    ray.init(
        address="local", num_cpus=os.cpu_count(), object_store_memory=200 << 20, include_dashboard=False,
        log_to_driver=False, _node_ip_address="127.0.0.1",
    )  # fmt: skip
    up = time.monotonic() - started
    query(collection, request, settings=settings)
    first = time.monotonic() - started
    plain_times, ray_times, inside = [], [], []
    for _ in range(options.repeats):
        seconds, plain = timed(
            1, lambda: run(options.lorif, "query", store, asked, "--method=dot", "--top=10", "--format=jsonl")
        )
        plain_times.append(seconds)
        seconds, answer = timed(1, lambda: query(collection, request, settings=settings))
        ray_times.append(seconds)
        inside.append(answer.totals.units[0].tool_seconds)
    tasks = [hand_out(1000) for _ in range(3)]
    ray.shutdown()
    described["Ray"] = ray.__version__
    rows = [
        ("the plain command", plain_times),
        ("through Ray, by a driver that is connected", ray_times),
        ("of which the program", inside),
        ("and all the rest", [whole - part for whole, part in zip(ray_times, inside, strict=True)]),
        ("starting Ray", [up]),
        ("from starting Ray to the first answer", [first]),
        ("handing out 1,000 empty tasks", tasks),
        ("planning 1,000 shards, from the manifest's bytes", [plan_many(1000) for _ in range(3)]),
        ("of which processor time", [plan_many(1000, time.process_time) for _ in range(3)]),
    ]
    overhead = statistics.median(ray_times) / statistics.median(plain_times) - 1
    page = [
        "# Asking through Ray", "",
        f"`Tools/bench/ray_overhead.py`: {options.rows:,} examples of 16 layers of 64×64, c = 1, int8, "
        f"{options.queries} full-rank queries by inner product, all on one machine, {len(answer.totals.units)} unit. "
        "The plain command and the query through Ray are asked in turns.", "",
        *(f"- {name}: {value}" for name, value in described.items()), "",
        "| figure | median | range | runs |", "| --- | ---: | ---: | ---: |",
        *(
            f"| {name} | {statistics.median(values):.3f} s | {min(values):.3f} to {max(values):.3f} | {len(values)} |"
            for name, values in rows
        ),
        f"| overhead | {100 * overhead:.1f} % | | |", "",
        "Answers are equal, byte for byte." if answer.text == plain else "Answers DIFFER.", "",
    ]  # fmt: skip
    print("\n".join(page))
    if options.output:
        options.output.write_text("\n".join(page), encoding="utf-8")
    return 0 if answer.text == plain else 1


if __name__ == "__main__":
    sys.exit(main())
