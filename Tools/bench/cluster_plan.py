"""What attribution over a cluster takes: bytes, nodes, seconds and memory, from rates that were measured on one node.

    python Tools/bench/cluster_plan.py --lorif .build/release/lorif --output Tools/bench/results/cluster-plan.md

Formulas are in `Cost`; rates are those of results/query.md and results/fit.md, and of the merge as timed here. The
first table checks the formulas against other measured figures; a simulation of slow and failing nodes comes last.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cluster_simulation import Scenario, quantiles
from processes import machine as this_machine

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
#: A line of an answer with metadata of a few words, and units that one driver hands out and takes back in a second:
#: 4,000 of 1,000 nodes took its scheduler 4.5 s without a cluster; Ray itself is slower where tasks are shorter.
LINE_BYTES = 200
UNITS_PER_SECOND = 900.0
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

    def driver_bytes(self, nodes: int, top: int = 100, units: int = 4) -> float:
        """The lines of all units, which the driver has in memory until they are merged."""
        return nodes * units * QUERIES * top * LINE_BYTES

    @property
    def fit_bytes(self) -> float:
        """Memory of a task of a fit in Gram form: moments of as many layers as take 1 GiB, one layer's product beside
        them, and a tile of 8 Mi numbers with what it is made of, in f32 and f64."""
        moments = self.d**4 * 8
        return max(moments, min(self.layers * moments, 1 << 30)) + moments + (8 << 20) * 16

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

    parts = [part(number) for number in range(400)]
    started = time.process_time()
    merged(parts, {(None, f"q{query}"): 1.0 for query in range(QUERIES)}, top=100, bottom=0, group_by=None)
    return len(parts) * QUERIES * 100 / (time.process_time() - started)


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
    described = "".join(f"- {name}: {value}\n" for name, value in this_machine(Path.cwd()).items())
    parts = [_INTRODUCTION, described, "The formulas, beside measured figures that they were not made from:\n"]
    parts.append(checks(lorif))
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
                        text_bytes(cost.query_bytes), text_bytes(cost.driver_bytes(nodes)), text_bytes(cost.fit_bytes),
                        text_seconds(scan),
                        text_seconds(cost.spreading_seconds(nodes)),
                        text_seconds(cost.merge_seconds(nodes, lines_per_second)),
                        text_seconds(products), text_seconds(reduction), text_seconds(eigen),
                    )
                )  # fmt: skip
        parts += [f"## {model}: {layers} layers\n", table(_HEADER, rows)]
    parts += [_SIMULATION.format(units=UNITS_PER_SECOND), simulation(machine, lines_per_second)]
    parts.append(
        _LIMITS.format(
            rate=f"{lines_per_second:,.0f}",
            saturation=int(10 * lines_per_second / (4 * QUERIES * 100)),
            memory=text_bytes(10 * lines_per_second * LINE_BYTES),
        )
    )
    return "\n".join(parts)


def simulation(machine: Machine, lines_per_second: float) -> str:
    """A table of simulated queries: of the largest collection, and of a scan that has become short."""
    rows = []
    for nodes, scan in ((4, 60), (32, 60), (256, 60), (1024, 60), (256, 5), (1024, 5), (1024, 1)):
        for backups in (False, True):
            scenario = Scenario(
                nodes, scan, QUERIES * MODELS["70B"] * 64**2 * 4, QUERIES * 100 * LINE_BYTES, QUERIES * 100,
                machine.network, lines_per_second, UNITS_PER_SECOND, backups,
            )  # fmt: skip
            median, late = quantiles(scenario)
            spent = (
                median.sent, median.scanned, median.received - median.scanned, median.merged - median.received,
                median.merged, late,
            )  # fmt: skip
            rows.append(
                (
                    f"{nodes:,}", text_seconds(scan), "yes" if backups else "no", *map(text_seconds, spent),
                    f"{100 * median.done_twice:.2f} %",
                )
            )  # fmt: skip
    header = (
        "nodes", "ideal scan", "backups", "sent to the last", "scanned", "waiting for answers", "merge", "whole",
        "whole, 95th percentile", "done twice",
    )  # fmt: skip
    return table(header, rows)


_HEADER = (
    "d", "c", "encoding", "examples", "bytes each", "segments", "nodes (disk)", "nodes (memory)", "nodes (1 min)",
    "curvature", "queries", "driver", "fit task", "scan", "send", "merge", "fit: products", "fit: reduce", "fit: eigen",
)  # fmt: skip

_INTRODUCTION = """\
# A cluster in numbers

Written by `Tools/bench/cluster_plan.py`. Every figure below the first table is computed and not measured: from
rates of one node ([query.md](query.md), [fit.md](fit.md)), sizes by `lorif estimate`, and the rate of the merge,
timed where this page was written:
"""

_NODE = """\
Planned nodes have {machine.processors} processors of the measured kind, {memory} of memory, {disk} of disks that
read 5 GB/s, and a network of 25 Gbit/s; rates are taken to grow with the processors, which holds until memory
limits: so far it was measured on two. A row is a collection: nodes whose disks, or whose memory, hold it at four
fifths; nodes on which the scan takes a minute; memory: of the curvature of rank 64 per layer and of 16 full-rank
queries, on every node; of the answers on the driver, until they are merged; of a task of a fit. Then, on the nodes of
"disk": one scan (arithmetic, or reading where a node's share exceeds its memory); sending the queries; merging the
best 100 of four units a node; a fit of all layers in Gram form, at the rate of the program's own fits (those of
`lorif.ray` take the products by NumPy). Rates were measured for int8 (c = 1) and q2 (c = 4), d = 64; others are taken
to cost in proportion to c, d² and, of low-bit codes, bits.
"""

_SIMULATION = """\
## Slow and failing nodes, and the network

`Tools/bench/cluster_simulation.py`, 20 runs of each: 16 full-rank queries of a 70B model go from node to node over
links of 25 Gbit/s whose rates differ (lognormal, σ = 0.3). Every node has four units; a unit takes a quarter of the
scan on average (lognormal, σ = 0.15). Of all nodes 1 % are five times slower, and 0.1 % die in mid-query, which is
noticed two seconds later; who has nothing left takes what waits for others. With backups, a unit that takes more
than three times the median when nothing waits is started on an idle node as well. Answers come to the driver one
after another, over one link and by one scheduler ({units:,.0f} units a second), and are merged when all are there.
Medians, but for the 95th percentile; each column on its own.
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
  {saturation:,} nodes of four units with 16 queries and 100 examples each, whose lines take the driver
  {memory} of memory. Lists merge associatively: beyond, merge on the nodes first, in a tree.
- **The driver** hands out one unit after another. In the simulation of 1,024 nodes it and the merge take longer than
  a scan of less than some seconds; then fewer units (`--unit-size`), fewer listed examples, or fewer nodes are
  faster. Its rate is that of `lorif.ray` alone; Ray ran 60 empty tasks a second on two processors that were busy
  with other work, tasks and driver together ([ray.md](ray.md)), and has not been measured on many nodes.
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
