"""What attribution over a cluster takes: bytes, nodes, seconds and memory, from rates that were measured on one node.

    python Tools/bench/cluster_plan.py --lorif .build/release/lorif --output Tools/bench/results/cluster-plan.md

Formulas are in `Cost`; rates are those of results/query.md and results/fit.md, and of the merge as timed here. The
first table checks the formulas against other measured figures; a simulation of slow and failing nodes comes last.
"""

import argparse
import heapq
import json
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

#: Linear layers that are recorded: seven a block.
MODELS = {"1B": 16 * 7, "8B": 32 * 7, "70B": 80 * 7}
EXAMPLES = (10**6, 10**8, 10**9)
DESIGNS = ((64, 1, "int8"), (64, 4, "q4"), (64, 4, "q2"), (64, 8, "q2"), (32, 4, "q2"), (128, 4, "q2"))
CURVATURE_RANK = 64
QUERIES = 16

#: Measured on two processors, 16 layers of 64×64: results/query.md. Row bytes and rows a second of one full-rank query.
FULL_RANK_ROWS_PER_SECOND = {("int8", 1): 0.841e6, ("q2", 4): 0.296e6}
COLD_BYTES_PER_SECOND = 0.985e9
PROCESS_SECONDS = 0.15
#: results/fit.md: 16 layers, D = 4,096: products of 20,000 rows, and the eigenproblems.
FIT_PRODUCT_FLOPS = 5.37e12 / 48.9
FIT_EIGEN_SECONDS = 53.0 / 16
MEASURED_PROCESSORS = 2
MEASURED_LAYERS = 16


@dataclass(frozen=True)
class Machine:
    """A node of the cluster that is planned for, and its network."""

    processors: int = 32
    memory: float = 256e9
    disk: float = 16e12
    disk_rate: float = 5e9
    network: float = 25e9 / 8


@dataclass(frozen=True)
class Cost:
    """What one collection takes on some nodes; all times in seconds, all sizes in bytes."""

    examples: int
    layers: int
    d: int
    rank: int
    encoding: str
    bytes_per_example: float
    machine: Machine

    @property
    def total(self) -> float:
        """Of all segments."""
        return self.examples * self.bytes_per_example

    @property
    def nodes(self) -> int:
        """Nodes whose disks hold the segments, at four fifths."""
        return max(1, int(np.ceil(self.total / (0.8 * self.machine.disk))))

    @property
    def nodes_in_memory(self) -> int:
        """Nodes whose memory holds the segments, at four fifths, so that no query waits for disks."""
        return max(1, int(np.ceil(self.total / (0.8 * self.machine.memory))))

    def scan_seconds(self, nodes: int, queries: int = QUERIES) -> float:
        """One scan: the slower of arithmetic and, where memory does not hold a node's share, disk."""
        rate = (
            rows_per_second(self.encoding, self.rank, self.d, self.layers)
            * self.machine.processors
            / MEASURED_PROCESSORS
        )
        arithmetic = self.examples / nodes * queries / rate
        share = self.total / nodes
        reading = 0.0 if share <= 0.8 * self.machine.memory else share / self.machine.disk_rate
        return max(arithmetic, reading)

    def nodes_for(self, seconds: float) -> int:
        """Nodes on which a scan takes at most so long, with the rows in memory."""
        rate = (
            rows_per_second(self.encoding, self.rank, self.d, self.layers)
            * self.machine.processors
            / MEASURED_PROCESSORS
        )
        return max(self.nodes_in_memory, int(np.ceil(self.examples * QUERIES / rate / seconds)))

    @property
    def query_bytes(self) -> float:
        """Full-rank queries in f32, which go to every node."""
        return QUERIES * self.layers * self.d**2 * 4

    @property
    def curvature_bytes(self) -> float:
        """The eigenvectors in f32, copied once to every node."""
        return self.layers * CURVATURE_RANK * self.d**2 * 4

    def spreading_seconds(self, nodes: int) -> float:
        """Sending the queries to all nodes, in a tree of two branches."""
        return self.query_bytes / self.machine.network * np.ceil(np.log2(nodes + 1))

    def merge_seconds(self, nodes: int, lines_per_second: float, top: int = 100, units: int = 4) -> float:
        """Merging the ranked lists of all units on the driver."""
        return nodes * units * QUERIES * top / lines_per_second

    def fit_seconds(self, nodes: int) -> tuple[float, float, float]:
        """Products over the rows, the reduction of the moments, and the eigenproblems: of all layers, Gram form."""
        length = self.d**2
        flops = FIT_PRODUCT_FLOPS * self.machine.processors / MEASURED_PROCESSORS
        products = self.examples * self.layers * length**2 / (flops * nodes)
        moments = self.layers * length**2 * 8
        # Eight sums come to one node at a time, layers to different nodes; one node has nothing to send.
        steps = np.ceil(np.log(nodes) / np.log(8))
        reduction = 8 * steps * moments / self.machine.network / min(nodes, self.layers)
        eigen = FIT_EIGEN_SECONDS * (length / 4096) ** 3 * self.layers * MEASURED_PROCESSORS / self.machine.processors
        return products, reduction, eigen / min(nodes, self.layers)


def rows_per_second(encoding: str, rank: int, d: int, layers: int) -> float:
    """Rows × full-rank queries a second of two processors.

    Tables and whole numbers both cost in proportion to the numbers of the queries that a row meets: rank × 2 d × the
    length of a contraction, d, for each layer. Low-bit encodings go by the rate of q2, int8 and above by that of int8.
    """
    kind = ("q2", 4) if encoding.startswith("q") else ("int8", 1)
    measured = FULL_RANK_ROWS_PER_SECOND[kind] * kind[1] * 64**2 * MEASURED_LAYERS
    bits = int(encoding[1:]) / 2 if encoding.startswith("q") else 1.0
    return measured / (rank * d**2 * layers * bits)


def estimated(lorif: str, layers: int, d: int, rank: int, encoding: str) -> float:
    """Bytes of an example, by the program."""
    options = [
        "--examples=1000000",
        f"--layers={layers}",
        f"--d1={d}",
        f"--d2={d}",
        f"--rank={rank}",
        f"--encoding={encoding}",
    ]
    found = subprocess.run([lorif, "estimate", *options, "--json"], check=True, capture_output=True, text=True)
    return float(json.loads(found.stdout)["bytesPerExample"])


def merge_rate() -> float:
    """Lines a second of the merge, timed here with metadata of a few words."""
    from lorif.ray.merge import merged  # noqa: PLC0415 - needs the extra `ray`

    def part(number: int) -> bytes:
        rows = (
            json.dumps(
                {"query": f"q{query}", "direction": "top", "rank": rank, "id": f"{number}-{rank}",
                 "score": 1 / (rank + number), "metadata": {"source": "web", "text": "some words " * 4}},
                separators=(",", ":"),
            )
            for query in range(QUERIES) for rank in range(1, 101)
        )  # fmt: skip
        return ("\n".join(rows) + "\n").encode()

    parts = [part(number) for number in range(40)]
    started = time.process_time()
    merged(parts, top=100, bottom=0, group_by=None)
    return len(parts) * QUERIES * 100 / (time.process_time() - started)


def simulate(nodes: int, *, backups: bool, seed: int = 0, runs: int = 20) -> tuple[float, float, float]:
    """Median and 95th percentile of a query's time over the ideal one, and the share of work done twice.

    Four units a node, one after the other; a unit takes 1/4 on average, lognormal with σ = 0.15. Of all nodes 1 % are
    five times slower, and 0.1 % die in mid-query, at any time; their units wait again 0.1 later. A node without units
    of its own takes waiting ones of others. With backups, when none waits, a unit that has run for three times the
    median is started on an idle node as well, and the first to end counts.
    """
    random = np.random.default_rng(seed)
    outcomes = [_one_query(nodes, backups, random) for _ in range(runs)]
    times = [time for time, _ in outcomes]
    extra = float(np.mean([share for _, share in outcomes]))
    return float(np.median(times)), float(np.percentile(times, 95)), extra


def _one_query(nodes: int, backups: bool, random: np.random.Generator) -> tuple[float, float]:  # noqa: PLR0915
    speed = np.where(random.random(nodes) < 0.01, 5.0, 1.0)
    death = np.where(random.random(nodes) < 0.001, random.random(nodes), np.inf)
    work = 0.25 * random.lognormal(-(0.15**2) / 2, 0.15, 4 * nodes)
    waiting = [[4 * node + place for place in range(4)] for node in range(nodes)]
    left = sorted(range(nodes), key=lambda node: speed[node])
    orphans: list[int] = []
    running: dict[int, tuple[int, float]] = {}
    done: set[int] = set()
    twice = 0.0
    events = [(0.0, 0, node) for node in range(nodes)]
    events += [(at + 0.1, 2, node) for node, at in enumerate(death) if np.isfinite(at)]
    heapq.heapify(events)
    idle: list[int] = []
    now = 0.0
    limit = 3 * 0.25

    def begin(node: int, unit: int) -> None:
        running[node] = (unit, now)
        end = now + work[unit] * speed[node]
        if end < death[node]:
            heapq.heappush(events, (end, 1, node))
        if backups:
            heapq.heappush(events, (now + limit, 3, node))

    def choose(node: int) -> int | None:
        if waiting[node]:
            return waiting[node].pop()
        if orphans:
            return orphans.pop()
        # Of a long queue: those of slow nodes are long when others are through.
        while left and not waiting[left[-1]]:
            left.pop()
        return waiting[left[-1]].pop() if left else None

    while len(done) < len(work):
        now, kind, node = heapq.heappop(events)
        if kind == 1:
            unit, _ = running.pop(node)
            if unit in done:
                twice += work[unit]
            done.add(unit)
        elif kind == 2:
            orphans += [
                unit
                for unit in [*waiting[node], *([running.pop(node)[0]] if node in running else [])]
                if unit not in done
            ]
            waiting[node] = []
        elif kind == 3:
            unit, since = running.get(node, (-1, now))
            if unit >= 0 and unit not in done and now - since >= limit - 1e-9:
                if orphans or any(waiting[other] for other in left):
                    heapq.heappush(events, (now + 0.05, 3, node))
                else:
                    orphans.append(unit)
        if kind in (0, 1) and now < death[node]:
            idle.append(node)
        still: list[int] = []
        for free in idle:
            unit = choose(free) if now < death[free] else None
            if unit is None:
                still.append(free)
            else:
                begin(free, unit)
        idle = still
    return now, twice / float(work.sum())


def text_bytes(value: float) -> str:
    """A size with a decimal prefix."""
    for unit, scale in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value:.0f} B"


def text_seconds(value: float) -> str:
    """A time in the unit that suits."""
    for unit, scale in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if value >= 2 * scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value:.3g} s"


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown."""
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in rows)]) + "\n"


def checks(lorif: str) -> str:
    """The formulas beside figures that they were not made from."""
    rows = []

    def check(what: str, predicted: float, measured: float, source: str) -> None:
        rows.append(
            (what, f"{predicted:,.3g}", f"{measured:,.3g}", f"{100 * (predicted / measured - 1):+.0f} %", source)
        )

    check("bytes per example, int8, c = 1", estimated(lorif, 16, 64, 1, "int8"), 2168, "query.md")
    check("bytes per example, q2, c = 4", estimated(lorif, 16, 64, 4, "q2"), 2364, "query.md")
    check(
        "s, 16 full queries of 100,000 rows, q2, c = 4", 16 * 1e5 / FULL_RANK_ROWS_PER_SECOND["q2", 4], 5.0, "query.md"
    )
    check("s, one rank-1 query of 10⁶ cold rows, int8", 1e6 * 2168 / COLD_BYTES_PER_SECOND, 2.14, "query.md")
    check("s, products of a fit of 200,000 rows", 2e5 * 16 * 4096**2 / FIT_PRODUCT_FLOPS, 484.9, "fit.md")
    check("s, eigenproblems of that fit", FIT_EIGEN_SECONDS * 16, 60.5, "fit.md")
    return table(("figure", "formula", "measured", "off by", "from"), rows)


def report(lorif: str) -> str:
    """The page."""
    machine = Machine()
    lines_per_second = merge_rate()
    parts = [_INTRODUCTION, checks(lorif)]
    parts.append(_NODE.format(machine=machine, memory=text_bytes(machine.memory), disk=text_bytes(machine.disk)))
    for model, layers in MODELS.items():
        rows = []
        for d, rank, encoding in DESIGNS:
            each = estimated(lorif, layers, d, rank, encoding)
            for examples in EXAMPLES:
                cost = Cost(examples, layers, d, rank, encoding, each, machine)
                nodes = cost.nodes
                scan = cost.scan_seconds(nodes)
                products, reduction, eigen = cost.fit_seconds(nodes)
                rows.append(
                    (
                        d, rank, encoding, f"10^{len(str(examples)) - 1}", f"{each:,.0f}", text_bytes(cost.total),
                        nodes, cost.nodes_in_memory, f"{cost.nodes_for(60):,}", text_bytes(cost.curvature_bytes),
                        text_seconds(scan),
                        text_seconds(cost.spreading_seconds(nodes)),
                        text_seconds(cost.merge_seconds(nodes, lines_per_second)),
                        text_seconds(products), text_seconds(reduction), text_seconds(eigen),
                    )
                )  # fmt: skip
        parts += [f"## {model}: {layers} layers\n", table(_HEADER, rows)]
    parts.append(
        "## Slow and failing nodes\n\n"
        + (simulate.__doc__ or "").split("\n\n")[1].replace("\n    ", "\n").strip()
        + "\n"
    )
    rows = []
    for nodes in (4, 32, 256, 1024):
        for backups in (False, True):
            median, late, extra = simulate(nodes, backups=backups)
            rows.append((nodes, "yes" if backups else "no", f"{median:.2f}", f"{late:.2f}", f"{100 * extra:.2f} %"))
    parts.append(table(("nodes", "backups", "median", "95th percentile", "done twice"), rows))
    parts.append(
        _LIMITS.format(rate=f"{lines_per_second:,.0f}", saturation=int(10 * lines_per_second / (4 * QUERIES * 100)))
    )
    return "\n".join(parts)


_HEADER = (
    "d", "c", "encoding", "examples", "bytes each", "segments", "nodes (disk)", "nodes (memory)", "nodes (1 min)",
    "curvature", "scan", "send", "merge", "fit: products", "fit: reduce", "fit: eigen",
)  # fmt: skip

_INTRODUCTION = """\
# A cluster in numbers

Written by `Tools/bench/cluster_plan.py`. Every figure below the first table is computed and not measured: from
rates of one node ([query.md](query.md), [fit.md](fit.md)), sizes by `lorif estimate`, and the rate of the merge,
timed where this page was written. The formulas, beside measured figures that they were not made from:
"""

_NODE = """\
Planned nodes have {machine.processors} processors of the measured kind, {memory} of memory, {disk} of disks that
read 5 GB/s, and a network of 25 Gbit/s; rates are taken to grow with the processors, which holds until memory
limits: so far it was measured on two. A row is a collection: nodes whose disks, or whose memory, hold it at four
fifths; nodes on which the scan takes a minute; curvature of rank 64 per layer; one scan for 16 full-rank queries on
the nodes of "disk" (arithmetic, or reading where a node's share exceeds its memory); sending the queries; merging
the best 100 of four units a node; a fit of all layers in Gram form, at the rate of the program's own fits (those of
`lorif.ray` take the products by NumPy). Rates were measured for int8 (c = 1) and q2 (c = 4), d = 64; others are taken
to cost in proportion to c, d² and, of low-bit codes, bits.
"""

_LIMITS = """\
## Where it ends

- **Arithmetic is the limit of full-rank queries**, not disks and not the network: it falls with the number of
  nodes, with d² and with c, and `--guarantee none` divides it by 1.6 to 4 (query.md). Queries of few singular
  pairs are limited by reading.
- **The network** carries queries (once a query, to every node), segments (once, when a node first asks for them)
  and ranked lists. Sending takes longer than scanning only where a scan takes less than a few seconds: many nodes,
  few rows. Queries cut to some singular pairs are smaller by d/(2m). Score matrices do not pass through the driver:
  each shard's is written by its worker.
- **The merge** is one process: {rate} lines a second here, so that ten seconds of merging are reached at
  {saturation:,} nodes of four units with 16 queries and 100 examples each. Beyond, merge in a tree: lists merge
  associatively.
- **Fits** cost rows × layers × D². Past some 10⁸ rows of D = 4,096 fit a sample of the rows (a collection of some
  of the shards, `collection use-curvature` for all); what that costs in quality has not been measured. The
  reduction moves D² numbers a layer: from d = 128 on (D = 16,384, 2 GB a layer) iterate over the rows instead,
  which moves D × 1.5 r.
- **The manifest** has some 500 bytes a segment: 10⁵ segments are 50 MB and seconds to parse, which is where a
  collection wants larger segments (at most 2²⁰ rows each).
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lorif", required=True, help="the program")
    parser.add_argument("--output", type=Path, help="write the page here")
    options = parser.parse_args(arguments)
    page = report(options.lorif)
    if options.output:
        options.output.write_text(page, encoding="utf-8")
    else:
        print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
