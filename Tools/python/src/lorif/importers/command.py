"""The command line of the importers."""

import argparse
import json
import math
import os
import re
import signal
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType

from lorif.batch import BatchError
from lorif.importers.formats import FORMATS, open_source
from lorif.importers.outcome import Outcome
from lorif.importers.rows import Settings, batch_of_queries
from lorif.importers.source import ImporterError, Options, Source
from lorif.importers.transfer import transfer
from lorif.tool import Tool, ToolError

__all__ = ["main"]

_EPILOG = """\
what SOURCE is:
  logix     the folder of a log: log_rank_0_chunk_0.mmap and so on
  bergson   the folder of an index: gradients.bin and info.json, or sub-folders of shards
  dattri    the cache_dir of a disk cache: batch_metadata.json and grad/; say --layout
  trak      the save_dir; vectors, one layer per checkpoint
  npy       a folder of <layer>.npy [n, d1, d2], or one such file

All rows become visible by one commit, or none does. An interrupted import goes on where it stopped when the same
command is repeated, and adds nothing twice; until then its parts are in STORE.import.

examples:
  lorif import bergson index/ store.lorif --rank 4 --encoding f16 --queries query-index/
  lorif import logix logix/my-project store.lorif --metadata texts.jsonl
  lorif import dattri cache/ store.lorif --layout matrix --rank 2
  lorif import npy gradients/ store.lorif --output-first

exit codes: 0 done; 2 wrong usage; 3 refused, nothing was added; 4 the store is damaged; 5 the environment failed;
130 interrupted.
"""


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; the exit code."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        _run(options)
    except (ImporterError, BatchError) as error:
        return _complain(error, 3)
    except ToolError as error:
        return _complain(error, error.code)
    except (OSError, MemoryError) as error:
        return _complain(error if str(error) else "not enough memory; lower --memory", 5)
    except KeyboardInterrupt:
        print("lorif: interrupted; repeat the command to go on", file=sys.stderr)
        return 130
    return 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _complain(error: object, code: int) -> int:
    print(f"lorif: {error}", file=sys.stderr)
    return code


def _run(chosen: argparse.Namespace) -> None:
    chosen.started = time.monotonic()
    tool = Tool()
    settings = Settings(
        rank=chosen.rank, encoding=chosen.encoding, metadata=chosen.metadata,
        ids=_lines(chosen.ids) if chosen.ids else None, id_prefix=chosen.id_prefix, scale=chosen.scale,
        zero_rows=chosen.zero_rows, memory_bytes=chosen.memory, restart=chosen.restart,
    )  # fmt: skip
    if chosen.metadata is not None and not Path(chosen.metadata).is_file():
        raise ImporterError(f"--metadata: {chosen.metadata} is not a file")
    options = Options(
        layout=chosen.layout, shapes=chosen.shape, loss=chosen.loss, what=chosen.what,
        input_first=not chosen.output_first,
    )  # fmt: skip
    source = open_source(chosen.format, chosen.source, options)
    queries = _open_queries(chosen, options, source) if chosen.queries else None
    query_path = Path(chosen.queries_to or f"{chosen.store.rstrip('/')}.queries.safetensors")
    if queries is not None:
        # Before the rows, so that what is wrong with the queries is known before anything is added.
        batch_of_queries(queries, query_path, replace(settings, ids=None, id_prefix="", zero_rows="keep"))
    outcome = None
    if not chosen.only_queries:
        outcome = transfer(source, chosen.store, settings, tool=tool, progress=_progress())
    _report(chosen, source, outcome, queries.row_count if queries else None, query_path)


def _open_queries(chosen: argparse.Namespace, options: Options, source: Source) -> Source:
    if chosen.format == "trak":
        queries = open_source("trak", chosen.source, replace(options, experiment=chosen.queries, what="grads"))
    else:
        queries = open_source(chosen.format, chosen.queries, options)
    if queries.layers != source.layers:
        raise ImporterError(f"{queries.path}: expected the layers of {source.path}, found others")
    return queries


def _report(
    chosen: argparse.Namespace, source: Source, outcome: Outcome | None, queries: int | None, path: Path
) -> None:
    seconds = time.monotonic() - chosen.started
    if chosen.json:
        report = {
            "store": chosen.store,
            "format": chosen.format,
            "source": str(source.path),
            "seconds": round(seconds, 3),
        }
        if outcome is not None:
            report |= {_camel(key): value for key, value in asdict(outcome).items()}
        if queries is not None:
            report |= {"queries": queries, "queryBatch": str(path)}
        print(json.dumps(report, indent=2, sort_keys=True))
        return
    if outcome is not None:
        _print_outcome(chosen, outcome, seconds)
    if queries is not None:
        print(f"{queries:,} queries written to {path}; ask: lorif query {chosen.store} {path} --method dot")


def _print_outcome(chosen: argparse.Namespace, outcome: Outcome, seconds: float) -> None:
    if outcome.already_present:
        print(f"{chosen.source}: imported before, nothing added; {outcome.total_rows:,} rows in all")
    else:
        before, after = outcome.source_bytes, outcome.store_bytes
        print(
            f"{outcome.rows:,} rows of {outcome.layers:,} layers added in {seconds:.1f} s, "
            f"{outcome.total_rows:,} in all; "
            f"{before:,} bytes became {after:,} ({after / max(1, outcome.rows):,.0f} bytes/example, "
            f"{before / max(1, after):.1f} times smaller)"
        )
    if outcome.kept_energy is not None:
        print(f"energy kept by the factors: {100 * outcome.kept_energy:.1f} %")
    if outcome.resumed_segments:
        print(f"{outcome.resumed_segments} of {outcome.segments} parts taken from an interrupted import")
    if outcome.segments > 64:
        print(f"{outcome.segments} segments: 'lorif compact {chosen.store}' joins them")
    for note in outcome.notes:
        print(f"note: {note}")


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


def _progress() -> object:
    if not sys.stderr.isatty():
        return None
    started = time.monotonic()

    def show(done: int, total: int) -> None:
        elapsed = time.monotonic() - started
        if elapsed > 2 or done == total:
            end = "\r\033[K" if done == total else ""
            left = elapsed * (total - done) / max(1, done)
            sys.stderr.write(f"\r\033[Kimport  {done:,} of {total:,} rows  {left:.0f} s left{end}")
            sys.stderr.flush()

    return show


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise ImporterError(f"{path}: expected UTF-8") from None


def _shape(text: str) -> tuple[str, int, int]:
    if match := re.fullmatch(r"(.+)=([0-9]{1,7})x([0-9]{1,7})", text):
        return match[1], int(match[2]), int(match[3])
    raise argparse.ArgumentTypeError(f"expected GLOB=OUTPUTxINPUT, as in '*.mlp.up=3072x768', found {text!r}")


def _bytes(text: str) -> int:
    match = re.fullmatch(r"([0-9]{1,12})(KiB|MiB|GiB|TiB)?", text)
    if not match or int(match[1]) == 0:
        raise argparse.ArgumentTypeError(f"expected a size such as 512MiB or 4GiB, found {text!r}")
    return int(match[1]) << {None: 0, "KiB": 10, "MiB": 20, "GiB": 30, "TiB": 40}[match[2]]


def _factor(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if value == 0 or not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"expected a finite number other than zero, found {text!r}")
    return value


def _parser() -> argparse.ArgumentParser:
    name = "lorif import" if os.environ.get("LORIF_BIN") else "python -m lorif.importers"
    parser = argparse.ArgumentParser(
        prog=name, description="Takes over a gradient store of another program.", epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument("format", choices=FORMATS, metavar="FORMAT", help=", ".join(FORMATS))
    parser.add_argument("source", metavar="SOURCE", help="what the other program wrote; it is only read")
    parser.add_argument("store", metavar="STORE", help="the store; created if there is none")
    add = parser.add_argument
    add("--rank", type=int, metavar="C", help="factor to rank C; without it a new store keeps full matrices")
    add(
        "--encoding", metavar="NAME", help="how numbers are stored in a new store: f32, f16, bf16, int8, q4, q3, q2, q1"
    )
    add("--queries", metavar="SOURCE", help="gradients of queries, of the same format (trak: an experiment's name)")
    add("--queries-to", metavar="FILE", help="the factor batch of the queries; STORE.queries.safetensors unless said")
    add("--only-queries", action="store_true", help="write the queries and leave the store as it is")
    add("--metadata", metavar="FILE", help="JSON Lines of user metadata, matched by id")
    add("--ids", metavar="FILE", help="the rows' ids, one per line, in place of the source's")
    add("--id-prefix", default="", metavar="TEXT", help="put before every id, to keep several sources apart")
    add(
        "--scale",
        type=_factor,
        default=1.0,
        metavar="X",
        help="multiply every gradient, as by B for a loss that was a mean over B",
    )
    add("--zero-rows", choices=("refuse", "keep", "skip"), default="refuse", help="rows of nothing but zeros (refuse)")
    add("--layout", choices=("matrix", "vector"), help="dattri, bergson, npy: what a row is where the files do not say")
    add(
        "--shape",
        type=_shape,
        action="append",
        default=[],
        metavar="GLOB=OUTPUTxINPUT",
        help="a layer's shape; may be repeated",
    )
    add("--loss", choices=("mean", "sum"), default="mean", help="dattri: how the loss of a batch was reduced (mean)")
    add("--what", choices=("grads", "features"), default="grads", help="trak: which vectors (grads)")
    add("--output-first", action="store_true", help="npy: the matrices have the output side first")
    add(
        "--memory",
        type=_bytes,
        default=1 << 30,
        metavar="SIZE",
        help="memory for rows (1GiB); packing takes up to 1 GiB of its own",
    )
    add("--restart", action="store_true", help="drop the parts of an interrupted import")
    add("--json", action="store_true", help="print JSON")
    return parser
