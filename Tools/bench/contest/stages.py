"""The parts of the run, in order: each makes its stores, asks, and removes what is in the way of the next."""

import json
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

from batches import Shape
from processes import ROOT, files_below, flush

from contest.data import DENSE, RANKS, write
from contest.entrants import COLD, WARM, Entrant, Figure, Size
from contest.runner import Point, Runner, failure
from contest.stores import Stores

REFERENCE = {"full": "lorif q2 c=4", "rank-1": "lorif int8 c=1"}
SECONDS_A_NUMBER = 3e-8  # to make, write and ingest it, about
NO_GUARANTEE = ("--guarantee", "none")


@dataclass(frozen=True)
class Extent:
    """How much is measured.

    Attributes:
        queries: Numbers of queries.
        cold: Those also asked with the files evicted.
        scales: Numbers of rows for time against N.
        weighed: Rows that every encoding is weighed on.
        fit_ranks: Of the curvatures that are built.
        fit_layers: Layers that they are built of.
    """

    queries: tuple[int, ...]
    cold: tuple[int, ...]
    scales: tuple[int, ...]
    weighed: int
    fit_ranks: tuple[int, ...]
    fit_layers: int

    @property
    def compared(self) -> int:
        """The number of queries at which answers are kept and compared."""
        return min((count for count in self.queries if count >= 8), default=max(self.queries))


class Stages:
    """One run."""

    def __init__(self, runner: Runner, stores: Stores, extent: Extent) -> None:
        self.runner = runner
        self.stores = stores
        self.extent = extent
        self.folder = runner.folder
        self.shape = runner.shape
        self.dense = self.folder / DENSE
        self.row = self.shape.layers * self.shape.d1 * self.shape.d2
        self.ours: list[Entrant] = []
        self.asked: list[Entrant] = []

    def _points(self, entrants: list[Entrant], group: str) -> None:
        """Every number of queries, warm and cold."""
        known = {entrant.label for entrant in self.asked}
        self.asked += [entrant for entrant in entrants if entrant.label not in known]
        for queries in self.extent.queries:
            self.runner.point(entrants, Point(group, queries, WARM, keep=queries == self.extent.compared))
        for queries in self.extent.cold:
            self.runner.point(entrants, Point(group, queries, COLD))

    def _beside(self, kind: str) -> list[Entrant]:
        """The lorif entrant that others are measured in turns with."""
        return [entrant for entrant in self.ours if entrant.name == REFERENCE[kind] and entrant.kind == kind]

    def limits(self) -> None:
        """Disk, memory and arithmetic of the machine."""
        reader = self.folder / "read"
        source = ROOT / "Tools/Benchmarks/reading/read.c"
        subprocess.run(["/usr/bin/cc", "-O3", "-march=native", source, "-o", reader, "-pthread"], check=True)
        values: dict[str, str | float] = {}
        for name, how, threads, state in (
            ("disk, buffered, GB/s", "read", 8, COLD), ("disk, direct, GB/s", "direct", 8, COLD),
            ("memory, plain sum of a map, GB/s", "map", 2, WARM),
        ):  # fmt: skip
            outcome = self.runner.bounded(reader, how, threads, state, self.dense)
            values[name] = float(outcome.stdout) / 1e9 if outcome.code == 0 else failure(outcome, 0)
        outcome, found = self.runner.contend("limits", "run", store=self.folder, rows=0)
        for name, rate in found.items():
            if name != "import":
                values[f"sgemm, {name}, GFLOP/s"] = rate / 1e9
        self.runner.results.figures.append(Figure("limits", "this machine", values))
        reader.unlink()

    def sizes(self) -> None:
        """What lorif takes in every encoding, and what raw memory maps take."""
        self.stores.weigh("f16 matrices, memory map", "LoGRA", 2 * self.row, store=self.dense, rows=self.shape.rows)
        per_rank = self.shape.layers * (self.shape.d1 + self.shape.d2)
        for rank in RANKS:
            numbers = 2.0 * rank * per_rank
            self.runner.results.sizes.append(
                Size(f"f16 factors, c = {rank}, memory map", "NumPy", numbers, numbers, self.shape.rows, "numbers only")
            )
        self.stores.weigh_encodings(min(self.extent.weighed, self.shape.rows))

    def base(self) -> None:
        """torch over memory maps, and every lorif store."""
        parts = {rank: files_below(self.folder / f"factors-c{rank}") for rank in RANKS}
        rows = self.shape.rows
        made = {
            "int8 c=1": self.stores.lorif("int8-c1.lorif", parts[1], "int8"),
            "f16 c=1": self.stores.lorif("f16-c1.lorif", parts[1], "f16"),
            "q2 c=4": self.stores.lorif("q2-c4.lorif", parts[4], "q2"),
            "q1 full": self.stores.lorif_full("q1-full.lorif", self.dense, self.shape, "q1"),
        }
        self.ours = [Entrant(f"lorif {name}", "lorif", store, "full", rows) for name, store in made.items()]
        for name in ("q2 c=4", "int8 c=1"):
            ours = Entrant(f"lorif {name}, no guarantee", "lorif", made[name], "full", rows, options=NO_GUARANTEE)
            self.ours.append(replace(ours, gives_all=False))
        for name in ("int8 c=1", "f16 c=1"):
            self.ours.append(Entrant(f"lorif {name}", "lorif", made[name], "rank-1", rows))
        factors = self.folder / "factors-c1"
        theirs = [
            Entrant("torch, LoGRA f16", "logra", self.dense, "full", rows),
            Entrant("torch, factors reconstructed", "reconstructed", factors, "full", rows),
            Entrant("torch, factors, uᵀGv", "bilinear", factors, "full", rows),
            Entrant("torch, factors", "factored", factors, "rank-1", rows),
        ]
        for kind in ("full", "rank-1"):
            self._points([each for each in theirs + self.ours if each.kind == kind], f"memory maps, {kind}")

    def packages(self) -> None:
        """bergson and LogIX (which share a file of f32), dattri, FAISS, TRAK: one after another for the disk's sake."""
        shape, stores, numbers = self.shape, self.stores, self.row
        wide = stores.peer("bergson", "bergson-f32", 4.0 * numbers * shape.rows, dtype="float32")
        stores.weigh("f32", "bergson", 4.0 * numbers, store=wide, rows=shape.rows)
        self._group("bergson f32", Entrant("bergson, f32 index", "bergson", wide, "full", shape.rows, "bergson"))
        shared = wide / "gradients.bin"
        more = {"shared": shared} if shared.exists() else {}
        needed = (0.0 if more else 4.0) * numbers * shape.rows
        log = stores.peer("logix", "logix", needed, **more)
        stores.weigh("f32 matrices and JSON", "LogIX", 4.0 * numbers, store=log, rows=shape.rows)
        self._group("LogIX", Entrant("LogIX", "logix", log, "full", shape.rows, "logix-ai"))
        stores.remove(log, wide)
        narrow = stores.peer("bergson", "bergson-f16", 2.0 * numbers * shape.rows, dtype="float16")
        stores.weigh("f16", "bergson", 2.0 * numbers, store=narrow, rows=shape.rows)
        self._group(
            "bergson f16",
            Entrant("bergson, f16 index", "bergson", narrow, "full", shape.rows, "bergson"),
            (1, self.extent.compared),
        )
        stores.remove(narrow)
        cache = stores.peer("dattri", "dattri", 4.0 * numbers * shape.rows)
        stores.weigh(
            "f32 gradients and their copies after the Hessian", "dattri", 8.0 * numbers, store=cache, rows=shape.rows
        )
        self._group("dattri", Entrant("dattri, LoGra cache", "dattri", cache, "full", shape.rows, "dattri"))
        stores.remove(cache)
        flat = stores.peer("faiss-flat", "flat.faiss", 4.0 * numbers * shape.rows)
        stores.weigh("flat, f32", "FAISS", 4.0 * numbers, store=flat, rows=shape.rows)
        self._group("FAISS flat", Entrant("FAISS flat", "faiss-flat", flat, "full", shape.rows, "faiss-cpu"))
        stores.remove(flat)
        lists = stores.peer("faiss-ivf", "ivf.faiss", 1.1 * numbers * shape.rows)
        stores.weigh("IVF, 8-bit", "FAISS", 1.0 * numbers, store=lists, rows=shape.rows)
        entrant = Entrant("FAISS IVF-SQ8, 1/8 of the lists", "faiss-ivf", lists, "full", shape.rows, "faiss-cpu")
        self._group("FAISS IVF", replace(entrant, gives_all=False))
        stores.remove(lists)
        features = stores.peer("trak", "features.npy", 2.0 * 4096 * shape.rows)
        note = "one vector of 4,096 per checkpoint; with its gradients twice that"
        stores.weigh("f16 features", "TRAK", 8192.0, store=features, rows=shape.rows, note=note)
        self._group("TRAK", Entrant("TRAK, p = 4,096", "trak", features, "full", shape.rows, "traker"))
        stores.remove(features)

    def _group(self, group: str, entrant: Entrant, only: tuple[int, ...] = ()) -> None:
        self._points([replace(entrant, only=only), *(replace(ours, only=only) for ours in self._beside("full"))], group)

    def scaling(self) -> None:
        """One query against more and fewer rows; with LoGRA's matrices as far as they fit."""
        folder = self.folder / "scaled"
        per_row = 2 * self.shape.layers * (self.shape.d1 + self.shape.d2)
        for rows in self.extent.scales:
            group = f"N = {rows:,}"
            shape = replace(self.shape, rows=rows, seed=self.shape.seed + 2)
            parts = {rank: folder / f"factors-c{rank}" for rank in RANKS}
            matrices = self.stores.disk.refusal(rows * (2.0 * self.row + 6 * per_row))
            if not matrices and self.runner.left > rows * self.row * SECONDS_A_NUMBER:
                write(folder, shape, self.stores.sources)
                flush(files_below(folder))
                logra = Entrant("torch, LoGRA f16", "logra", folder / DENSE, "full", rows)
                self._scale(group, 4, parts[4], logra)
                self._scale(group, 1, parts[1], Entrant("torch, factors", "factored", parts[1], "rank-1", rows))
            else:
                self._absent(rows, group, "torch, LoGRA f16", "full", matrices or "no time left")
                for rank, kind in ((1, "rank-1"), (4, "full")):
                    problem = self.stores.disk.refusal(1.7 * rank * per_row * rows)
                    if problem or self.runner.left < rank * per_row * rows * SECONDS_A_NUMBER:
                        for name in [REFERENCE[kind]] + ["torch, factors"] * (rank == 1):
                            self._absent(rows, group, name, kind, problem or "no time left")
                        continue
                    self.stores.tiled("scaled/" + parts[rank].name, rows, rank)
                    torch = Entrant("torch, factors", "factored", parts[1], "rank-1", rows) if rank == 1 else None
                    self._scale(group, rank, parts[rank], torch)
                    self.stores.remove(parts[rank])
            self.stores.remove(folder)

    def _scale(self, group: str, rank: int, batches: Path, peer: Entrant | None) -> None:
        """A lorif store of the batches, beside a peer if there is one."""
        kind = "rank-1" if rank == 1 else "full"
        files = sorted(batches.glob("*.safetensors"))
        rows = int(group.removeprefix("N = ").replace(",", ""))
        store = self.stores.lorif("scaled.lorif", files, "int8" if rank == 1 else "q2")
        entrants = [Entrant(REFERENCE[kind], "lorif", store, kind, rows)]
        for state in (WARM, COLD):
            self.runner.point([peer, *entrants] if peer else entrants, Point(group, 1, state))
        self.stores.remove(store)

    def _absent(self, rows: int, group: str, name: str, kind: str, reason: str) -> None:
        self.runner.absent(Entrant(name, "", self.folder, kind, rows), Point(group, 1, WARM), reason)

    def builds(self) -> None:
        """Curvature of a few layers: lorif fit, randomised SVD, covariance and inverse."""
        shape = replace(self.shape, layers=min(self.extent.fit_layers, self.shape.layers))
        small = Stores(self._with(shape), self.stores.disk, self.stores.sources, self.stores.tile)
        batches = small.tiled("built", shape.rows, 1)
        flush(batches)
        store = small.lorif("built.lorif", batches, "f16")
        common = {"store": self.folder / "built", "rows": shape.rows, "layers": shape.layer_names}
        for rank in self.extent.fit_ranks:
            outcome = self.runner.bounded(self.runner.lorif, "fit", store, "--rank", rank, "--json", seconds=300)
            values: dict[str, str | float] = {"s": failure(outcome, 300)}
            if outcome.code == 0:
                groups = json.loads(outcome.stdout)["groups"]
                energy = sum(each["capturedEnergy"] * each["trace"] for each in groups)
                values = {"s": outcome.seconds, "energy": energy / sum(each["trace"] for each in groups)}
            self._built(f"lorif fit, r = {rank}", values, outcome.peak_bytes)
            outcome, took = self.runner.contend("svd", "run", seconds=300, **common, rank=rank)
            self._built(f"torch.svd_lowrank, q = {rank}", self._took(outcome, took), outcome.peak_bytes)
        outcome, took = self.runner.contend("covariance", "run", seconds=300, **common)
        self._built("LoGRA: covariance and inverse, torch", self._took(outcome, took), outcome.peak_bytes)
        self.stores.remove(self.folder / "built", store)

    def _took(self, outcome: object, took: dict) -> dict[str, str | float]:
        return {"s": took["seconds"], "energy": took["energy"]} if took else {"s": failure(outcome, 300)}

    def _built(self, name: str, values: dict[str, str | float], peak: int) -> None:
        self.runner.results.figures.append(Figure("builds", name, {**values, "peak": peak}))

    def _with(self, shape: Shape) -> Runner:
        runner = self.runner
        return Runner(
            runner.lorif, runner.python, self.folder, shape=shape, limits=runner.limits, results=runner.results
        )
