"""From a model to answers: time, CPU and bytes of recording, ingesting, fitting and asking, on one thread.

A GPT with random weights (the time does not depend on them) and random tokens; all linear layers of its blocks are
recorded. Before it, some batches with the recorder and then without it, for the ratio.
Needs PyTorch and a built lorif (LORIF_BIN).
"""

import argparse
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import lorif
import lorif.torch
import torch
from processes import ROOT

sys.path.insert(0, str(ROOT / "Tools" / "demo"))
from model import GPT, losses

VOCABULARY, CONTEXT, BATCH, QUERIES = 1024, 64, 32, 5
COMPARED = 40


def spent() -> float:
    """CPU seconds of this process and of the programs that it has run."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


class Report:
    """The lines of the table."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def stage(self, name: str, work: Callable[[], str]) -> None:
        """Runs a stage, which returns a note."""
        started, before = time.monotonic(), spent()
        note = work()
        self.lines.append(f"| {name} | {time.monotonic() - started:.1f} | {spent() - before:.1f} | {note} |")
        print(self.lines[-1], file=sys.stderr, flush=True)


def overhead(model: GPT, rows: torch.Tensor, folder: Path, d: int, rank: int) -> str:
    """The recorder against forward and backward alone: the median over the same batches, in CPU time."""
    ratios = []
    with lorif.torch.Recorder(model, "blocks.*", d=d, rank=rank, out=folder) as recorder:
        recorder.step(["warm"], losses(model, rows[:1]))
        for step in range(COMPARED):
            part = rows[step * BATCH : (step + 1) * BATCH]
            names = [f"{step}-{row}" for row in range(len(part))]
            begun = time.process_time()
            recorder.step(names, losses(model, part))
            between = time.process_time()
            ratios.append(between - begun)
    for step in range(COMPARED):
        part = rows[step * BATCH : (step + 1) * BATCH]
        begun = time.process_time()
        losses(model, part).sum().backward()
        ratios[step] /= time.process_time() - begun
        model.zero_grad()
    return f"{statistics.median(ratios):.2f}"


def measure(options: argparse.Namespace, folder: Path) -> str:
    """The report as Markdown."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = GPT(VOCABULARY, CONTEXT, width=options.width).eval()
    rows = torch.randint(VOCABULARY, (options.rows + QUERIES, CONTEXT + 1))
    load = os.getloadavg()[0]
    ratio = overhead(model, rows, folder / "overhead", options.d, options.rank)
    report, store = Report(), lorif.Store(folder / "store.lorif")

    def record() -> str:
        with lorif.torch.Recorder(
            model, "blocks.*", d=options.d, rank=options.rank, dtype="f16", out=folder / "train"
        ) as recorder:
            for start in range(0, options.rows, BATCH):
                part = rows[start : min(start + BATCH, options.rows)]
                recorder.step([f"row-{start + row}" for row in range(len(part))], losses(model, part))
        return f"{recorder.byte_count / options.rows:,.0f} bytes per example in {len(batches('train'))} files"

    def batches(name: str) -> list[Path]:
        return sorted((folder / name).glob("*.safetensors"))

    def record_queries() -> str:
        with lorif.torch.Recorder(model, like=folder / "train", full=True, out=folder / "query") as recorder:
            recorder.step([f"query-{row}" for row in range(QUERIES)], losses(model, rows[options.rows :]))
        return f"{QUERIES} queries, full matrices"

    def ingest() -> str:
        done = store.ingest(*batches("train"), encoding="f16")
        return f"{done.bytes_per_example:,.0f} bytes per example in f16"

    def fit() -> str:
        kept = [group.captured_energy for group in store.fit(rank=options.fit_rank).groups]
        return f"r = {options.fit_rank} per layer; {100 * min(kept):.0f} to {100 * max(kept):.0f} % of tr(H)"

    def ask() -> str:
        answer = store.query(batches("query")[0], top=10, scores=True)
        return f"influence, {len(answer)} × {len(answer.example_ids or ()):,} scores"

    report.stage("record", record)
    report.stage("record the queries", record_queries)
    report.stage("ingest", ingest)
    report.stage("fit", fit)
    report.stage("query", ask)
    return "\n".join(
        [
            f"# {options.rows:,} examples from a model to answers\n",
            f"`python Tools/bench/record.py --rows {options.rows} --width {options.width} --d {options.d} "
            f"--rank {options.rank} --fit-rank {options.fit_rank}`: a GPT of two blocks of width {options.width}, "
            f"{len(store.layers())} layers, {CONTEXT} tokens per example, d = {options.d}, c = {options.rank}, "
            "PyTorch on one thread.\n",
            f"Load average {load:.1f} before and {os.getloadavg()[0]:.1f} after on {os.cpu_count()} cores: read CPU "
            "seconds rather than elapsed ones when it is above the number of cores.\n",
            "| stage | elapsed s | CPU s | |\n|---|---|---|---|",
            *report.lines,
            f"\nA recorded step takes {ratio} times the CPU time of forward and backward alone (median of {COMPARED} "
            f"steps of {BATCH} examples; weights frozen while recording, as is the default).\n",
        ]
    )


def main() -> None:
    """Measures in a temporary folder and prints or writes the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--width", type=int, default=64, help="of the GPT")
    parser.add_argument("--d", type=int, default=64, help="projected dimensions of both sides")
    parser.add_argument("--rank", type=int, default=1, help="c of the recorded factors")
    parser.add_argument("--fit-rank", type=int, default=64, help="eigenpairs per layer")
    parser.add_argument("--output", type=Path, help="the report, Markdown; printed unless said")
    options = parser.parse_args()
    if options.rows < COMPARED * BATCH:
        parser.error(f"--rows: expected at least {COMPARED * BATCH}, found {options.rows}")
    with tempfile.TemporaryDirectory(prefix="lorif-bench-") as folder:
        text = measure(options, Path(folder))
    if options.output is None:
        print(text)
    else:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
