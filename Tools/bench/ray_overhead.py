"""What asking through Ray costs on one node, beside the plain command on the same rows.

    python Tools/bench/ray_overhead.py FOLDER --lorif .build/release/lorif

Makes a store of 16 layers of 64×64 (c = 1, int8) and a collection of its segments in FOLDER, starts Ray on this
machine, and asks both in turns by inner product with full-rank queries. Prints medians: the plain command, the
query through a driver that is connected, the time from starting the cluster to the first answer, and planning 1,000
shards. Exits with 1 if the answers differ.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from batches import Shape, generate
from processes import ROOT
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


def timed(count: int, work: object) -> tuple[float, object]:
    """The median of some runs, and what the last gave."""
    times = []
    for _ in range(count):
        started = time.monotonic()
        given = work()  # type: ignore[operator]
        times.append(time.monotonic() - started)
    return statistics.median(times), given


def plan_many(shards: int) -> float:
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
    return timed(5, lambda: plan_units(decode(data, "s3://b/c.json"), nodes, {}, Settings()))[0]


def main() -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--lorif", required=True, help="the program")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    os.environ["LORIF_BIN"] = str(Path(options.lorif).resolve())
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    options.folder.mkdir(parents=True, exist_ok=True)
    store, asked = prepare(options.lorif, options.folder, options.rows, options.queries)

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
    ray.shutdown()
    alone, through = statistics.median(plain_times), statistics.median(ray_times)
    rows = [
        ("the plain command", alone),
        (f"through Ray, {len(answer.totals.units)} unit(s)", through),
        ("of which the program", statistics.median(inside)),
        ("starting Ray", up),
        ("from starting Ray to the first answer", first),
        ("planning 1,000 shards", plan_many(1000)),
    ]
    load = os.getloadavg()[0]
    print(f"{options.rows:,} rows, {options.queries} full-rank queries, medians of {options.repeats}, load {load:.1f}")
    for name, value in rows:
        print(f"{name:40} {value:8.3f} s")
    print(f"{'overhead':40} {100 * (through / alone - 1):8.1f} %")
    print("answers are equal" if answer.text == plain else "answers DIFFER")
    return 0 if answer.text == plain else 1


if __name__ == "__main__":
    sys.exit(main())
