"""A cluster of small nodes on the loopback, and collections with the store that they must agree with."""

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
from lorif.batch import Factors, write_batch
from lorif.ray import Collection, Query, Settings, query
from lorif.ray.query import CollectionAnswer
from lorif.tool import Tool
from ray.cluster_utils import Cluster

#: Rows of each segment; the shardings below put them together differently.
SIZES = (70, 3, 130, 40, 1, 96, 60)
LAYERS = {"a.qkv": (8, 6), "a.out": (5, 7), "b.up": (6, 6)}
TOP, BOTTOM = 7, 3

_NODE: dict[str, Any] = {"node_ip_address": "127.0.0.1", "num_cpus": 1, "object_store_memory": 80 << 20}
_ATTEMPTS = 4


def _again(start: Callable[[], Any]) -> Any:
    """Ray gives a node half a minute to start, which is short on a busy machine."""
    for attempt in range(_ATTEMPTS):
        try:
            return start()
        except Exception:
            if attempt + 1 == _ATTEMPTS:
                raise
    raise AssertionError


def add_node(cluster: Any) -> Any:
    """One more node, of one processor."""
    return _again(lambda: cluster.add_node(**_NODE))


@contextmanager
def started(nodes: int) -> Iterator[Any]:
    """A cluster of so many nodes of one processor, all on the loopback, and a driver that is connected."""
    cluster = _again(lambda: Cluster(initialize_head=True, head_node_args={**_NODE, "include_dashboard": False}))
    for _ in range(nodes - 1):
        add_node(cluster)
    ray.init(address=cluster.address, log_to_driver=False)
    try:
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def run(*arguments: object, tool: str | None = None) -> str:
    """What the program prints."""
    found = subprocess.run(
        [tool or Tool().path, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=120
    )
    assert found.returncode == 0, found.stderr
    return found.stdout


@dataclass(frozen=True)
class Library:
    """Batches, their segments, one store with all of them, and queries."""

    folder: Path
    batches: tuple[Path, ...]
    segments: tuple[Path, ...]
    store: Path
    queries: Path

    @property
    def curvature(self) -> str:
        """The store's active curvature."""
        (file,) = (self.store / "curvature").iterdir()
        return file.stem

    def collection(self, path: Path, shards: Sequence[Sequence[int]]) -> Collection:
        """A collection with these segments in each shard, and the store's curvature."""
        path.parent.mkdir(parents=True, exist_ok=True)
        collection = Collection(path)
        collection.create()
        basis = sorted((self.store / "basis").glob("*.basis"))
        for number, members in enumerate(shards):
            if members:
                collection.add(*basis, *(self.segments[each] for each in members), shards=1)
            else:
                empty = path.parent / f"empty-{number}.lorif"
                if not empty.exists():
                    run("create", empty, "--layers", self.batches[0], *self.design)
                collection.add(empty)
        collection.use_curvature(self.store)
        return collection

    @property
    def design(self) -> list[str]:
        """Options with which the store was made."""
        return json.loads((self.folder / "design.json").read_text())

    def alone(self, request: Sequence[str], kernel: str | None, *, store: Path | None = None) -> str:
        """What the program says of the one store."""
        options = [*request, "--format=jsonl", *([f"--kernel={kernel}"] if kernel else [])]
        return run("query", store or self.store, *options)


def make_library(
    folder: Path, design: Sequence[str], *, dense: bool = False, fit: Sequence[str] = ("--rank=12",)
) -> Library:
    """A library in a folder; `design` are options of `lorif pack`."""
    folder.mkdir(parents=True)
    (folder / "design.json").write_text(json.dumps(list(design)))
    random = np.random.default_rng(11)
    names = [f"ex-{number:04}" for number in random.permutation(sum(SIZES))]
    batches, segments = [], []
    start = 0
    first: dict[str, Any] = {}
    scales = {name: 10.0**place for place, name in enumerate(LAYERS)}
    for number, size in enumerate(SIZES):
        arrays = _rows(random, size, scales, dense=dense)
        if number == 5:
            # Equal rows score equally: ids must decide, across segments and shards.
            arrays = {name: _with_copies(value, first[name]) for name, value in arrays.items()}
        if number == 0:
            first = arrays
        ids = names[start : start + size]
        records = [{"source": "ABC"[row % 3], "length": start + row} for row in range(size)]
        if number == 3:
            records = [{"length": row} for row in range(size)]
        batch = folder / f"batch-{number}.safetensors"
        write_batch(batch, arrays, ids=ids, records=records)
        batches.append(batch)
        start += size
    if any(option.startswith("--whiten-from") for option in design):
        run("create", folder / "basis.lorif", *design)
        design = [f"--basis-from={folder / 'basis.lorif'}", *(each for each in design if "whiten" not in each)]
        (folder / "design.json").write_text(json.dumps(list(design)))
    for number, batch in enumerate(batches):
        segment = folder / f"part-{number}.segment"
        run("pack", segment, batch, *design)
        segments.append(segment)
    store = folder / "store.lorif"
    if (folder / "basis.lorif").exists():
        shutil.copytree(folder / "basis.lorif", store)
    run("attach", store, *segments)
    run("fit", store, *fit)
    queries = folder / "queries.safetensors"
    asked = {name: random.standard_normal((5, *shape)).astype(np.float32) for name, shape in LAYERS.items()}
    groups = [{"task": "xy"[row % 2]} for row in range(5)]
    write_batch(queries, asked, ids=[f"q{row}" for row in range(5)], records=groups)
    return Library(folder, tuple(batches), tuple(segments), store, queries)


def _rows(random: np.random.Generator, count: int, scales: dict[str, float], *, dense: bool) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for name, (d1, d2) in LAYERS.items():
        left, right = (random.standard_normal((count, d, 2)).astype(np.float32) for d in (d1, d2))
        left *= np.float32(scales[name])
        rows[name] = (left @ right.swapaxes(1, 2)).astype(np.float32) if dense else Factors(left, right)
    return rows


def _with_copies(value: Any, first: Any) -> Any:
    if isinstance(value, Factors):
        return Factors(*(_with_copies(mine, theirs) for mine, theirs in zip(value, first, strict=True)))
    value = value.copy()
    value[:20] = first[:20]
    return value


def settings(folder: Path, **changed: Any) -> Settings:
    """One task a segment, unless said, and a cache of its own for every node."""
    given: dict[str, Any] = {"cache": f"{folder}/cache-{{node}}", "unit_bytes": 1, "cpus": 1, "straggler_seconds": 60.0}
    given["node_seconds"] = 300.0
    return Settings(**(given | changed))


def ask(collection: Collection, folder: Path, request: Query, **changed: Any) -> CollectionAnswer:
    """A query, as the tests ask it."""
    return query(collection, request, settings=settings(folder, **changed))


def wait_until(condition: Any, seconds: float = 60.0) -> None:
    """Until something holds; never for longer."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.05)


def same(found: str, wanted: str) -> bool:
    """Whether two answers are equal, but for the last of the six digits of shares: those are of the units' own sums."""
    shares = [[float(each) for each in re.findall(r'"share":([^,}]+)', text)] for text in (found, wanted)]
    bare = [re.sub(r'"share":[^,}]+', "", text) for text in (found, wanted)]
    return bare[0] == bare[1] and all(abs(a - b) <= 3e-5 * abs(b) for a, b in zip(*shares, strict=True))


def slow_tool(folder: Path) -> tuple[str, Path, Path]:
    """The program behind a gate: a query begins with a mark in a folder, and goes on when a file is there.

    Gives the program, the folder of marks, and the file.
    """
    marks, gate, path = folder / "marks", folder / "gate", folder / "lorif-behind-a-gate"
    marks.mkdir()
    path.write_text(
        "#!/bin/sh\n"
        f'if [ "$1" = query ]; then echo $PPID > {marks}/$$; while [ ! -e {gate} ]; do sleep 0.1; done; fi\n'
        f'exec {Tool().path} "$@"\n'
    )
    path.chmod(0o755)
    return str(path), marks, gate
