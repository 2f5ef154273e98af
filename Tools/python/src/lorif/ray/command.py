"""`python -m lorif.ray`: collections of stores, asked and filled on a Ray cluster."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from lorif.batch import BatchError
from lorif.ray.collection import Collection
from lorif.ray.coordinates import ENCODINGS, WrittenCoordinates, write_coordinates
from lorif.ray.errors import CollectionError
from lorif.ray.fit import fit
from lorif.ray.ingest import PackOptions, ingest
from lorif.ray.query import Query, connect, explain_query, query
from lorif.ray.settings import Settings
from lorif.ray.whitening import find_whitening
from lorif.store import Method
from lorif.tool import ToolError

__all__ = ["main"]

_EPILOG = """\
examples:
  python -m lorif.ray collection create shards.json
  python -m lorif.ray collection add shards.json /data/a.lorif s3://bucket/b.lorif
  python -m lorif.ray fit shards.json --rank 64
  python -m lorif.ray query shards.json queries.safetensors --top 10
  python -m lorif.ray whiten sample.basis factors/*.safetensors
  python -m lorif.ray ingest shards.json factors/*.safetensors --encoding q4

Without --address (or RAY_ADDRESS) a cluster of this machine alone is started for the command.

exit codes: 0 done; 1 the answer is no: damage was found, or some rows were not read (they are named on standard error);
2 wrong usage; 3 refused, nothing was changed; 4 damaged; 5 the environment failed, or rows were not read and
--require-complete was given; 130 interrupted.
"""
_METHODS = list(get_args(Method))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except CollectionError as error:
        return _complain(error, error.code)
    except ToolError as error:
        return _complain(error, error.code)
    except (BatchError, ValueError) as error:
        return _complain(error, 3)
    except (OSError, MemoryError, RuntimeError) as error:
        return _complain(error, 5)
    except KeyboardInterrupt:
        print("lorif.ray: interrupted; nothing was committed", file=sys.stderr)
        return 130


def _complain(error: BaseException, code: int) -> int:
    print(f"lorif.ray: {error}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lorif.ray", description="Stores on many machines, asked as one.", epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _collection_parser(commands)
    _query_parser(commands)
    _fit_parser(commands)
    _coordinates_parser(commands)
    _ingest_parser(commands)
    _whiten_parser(commands)
    return parser


def _collection_parser(commands: Any) -> None:
    parser = commands.add_parser("collection", help="make, fill, check and describe collections")
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    def verb(name: str, run: Any, summary: str) -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = verbs.add_parser(name, help=summary, description=summary)
        added.add_argument("collection", help="the manifest: a path or URL that ends in .json")
        added.set_defaults(run=run)
        return added

    verb("create", _create, "Make an empty collection.")
    adds = verb("add", _add, "Add stores or segments by one commit; what is there already adds nothing.")
    adds.add_argument(
        "sources", nargs="+", metavar="STORE|SEGMENT|BASIS", help="paths or URLs; of whitened segments the .basis"
    )
    adds.add_argument(
        "--shards", type=int, metavar="N", help="make N shards of each store, or of the segments together"
    )
    checks = verb("verify", _verify, "Check that every file is there and is the one that is meant.")
    checks.add_argument("--full", action="store_true", help="read every byte")
    checks.add_argument("--json", action="store_true", help="print JSON")
    shows = verb("inspect", _inspect, "Show what a collection holds.")
    shows.add_argument("--json", action="store_true", help="print JSON")
    uses = verb("use-curvature", _use_curvature, "Use a curvature file, or a store's, for all shards.")
    uses.add_argument("source", metavar="FILE|STORE", help="a .curvature file, or a store whose active one it is")


def _cluster_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("cluster").add_argument
    defaults = Settings()
    add("--address", help="of the cluster, as ray.init takes it")
    add(
        "--cache",
        default=defaults.cache,
        help="the cache's folder on every node; {node} is the node's id (%(default)s)",
    )
    add("--cache-size", type=_bytes, default=defaults.cache_bytes, metavar="SIZE", help="most bytes of copies (64GiB)")
    add("--copy", action="store_true", help="copy to the cache what is on a node's own disks as well")
    add("--tool", help="the program lorif on every node (LORIF_BIN, or the search path there)")
    add("--cpus", type=float, help="processors of one task, and threads of the program (all of its node)")
    add(
        "--unit-size",
        type=_bytes,
        metavar="SIZE",
        help="bytes of segments in one task (a quarter of a node's, 4GiB or more)",
    )
    add("--attempts", type=int, default=defaults.attempts, help="how often a task is tried (3)")
    add(
        "--straggler", type=float, default=defaults.straggler, help="start again elsewhere after N times the median (3)"
    )


def _query_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "query", help="rank the examples of all shards",
        description="Rank the examples of all shards; the options are those of 'lorif query'. Prints JSON Lines.",
    )  # fmt: skip
    parser.set_defaults(run=_query)
    add = parser.add_argument
    add("collection", help="the manifest: a path or URL that ends in .json")
    add("queries", nargs="?", help="a factor batch; none for self-influence and --by-id")
    add("--method", choices=_METHODS, default="influence", metavar="METHOD", help=", ".join(_METHODS) + " (influence)")
    add("--top", type=int, default=10, metavar="N", help="examples with the highest scores to list (10)")
    add("--bottom", type=int, default=0, metavar="N", help="examples with the lowest scores to list (0)")
    add("--relative-damping", type=_numbers, default=(), metavar="RHO", help="one or several, separated by commas")
    add("--damping", type=_numbers, default=(), metavar="LAMBDA", help="absolute; one or several")
    add("--layers", action="append", default=[], metavar="GLOB", help="score only layers that match; may be repeated")
    add("--per-layer", action="store_true", help="say what each layer adds to the scores of the listed examples")
    add("--aggregate", choices=["sum", "mean", "max"], help="make one answer of several queries")
    add("--aggregate-by", metavar="FIELD", help="one answer for each value of this field of the queries' metadata")
    add("--group-by", metavar="FIELD", help="add up scores by the value of this field of the examples' metadata")
    add("--where", metavar="CONDITION", help="score only examples that pass")
    add("--among", metavar="FILE", help="score only these ids, one on each line or a JSON array")
    add("--by-id", action="append", default=[], metavar="ID", help="ask with a stored example; may be repeated")
    add("--metadata", metavar="FILE", help="JSON Lines with the queries' metadata")
    add("--scores", metavar="FOLDER", help="write all scores there: a file for each shard, and index.json")
    add("--scores-format", choices=["safetensors", "npy"], default="safetensors", help="of these files (safetensors)")
    add("--guarantee", choices=["exact", "none"], help="whether the ranked examples are certainly the best (exact)")
    add(
        "--kernel", choices=["tiles", "pages", "whole-numbers", "tables", "leading-pairs"],
        help="how to compute (what is planned for the largest unit)",
    )  # fmt: skip
    add("--read", choices=["auto", "cache", "direct"], help="how to read what is not in memory (auto)")
    add("--memory", metavar="SIZE", help="for queries and scores, of each task (2GiB)")
    add("--deadline", type=float, metavar="SECONDS", help="answer then, and name what was not read")
    add("--require-complete", action="store_true", help="fail if any row cannot be read")
    add(
        "--explain", nargs="?", const="plan", choices=["plan", "analyze"],
        help="plan: print what would be done, added up over units, and stop; analyze: answer, and print to standard "
        "error what was done: bytes, seconds, the slowest unit",
    )  # fmt: skip
    add("--output", metavar="FILE", help="write the answer here instead of standard output")
    _cluster_options(parser)


def _fit_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "fit", help="fit one curvature over all shards",
        description="Add up each layer's second moments over all shards, find the leading eigenpairs, and make them "
        "the collection's curvature by one commit.",
    )  # fmt: skip
    parser.set_defaults(run=_fit)
    parser.add_argument("collection", help="the manifest: a path or URL that ends in .json")
    parser.add_argument("--rank", type=int, default=256, help="eigenvectors to keep per layer (256)")
    parser.add_argument("--exact", action="store_true", help="keep all; for small layers")
    parser.add_argument(
        "--passes", type=int, default=6, help="over the rows, for layers too large for their moments (6)"
    )
    parser.add_argument("--gram-limit", type=int, default=4096, help="largest d1·d2 whose moments are formed (4096)")
    parser.add_argument("--coordinates", choices=ENCODINGS, help="write the rows' coordinates as well")
    parser.add_argument(
        "--seed", type=int, default=0, help="of the first directions of layers that are iterated over (0)"
    )
    _cluster_options(parser)


def _coordinates_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "coordinates", help="write the rows' coordinates in the curvature",
        description="Keep what self-influence needs of every row, in files beside the manifest, named by one commit. "
        "Segments that have theirs in this encoding are left as they are.",
    )  # fmt: skip
    parser.set_defaults(run=_coordinates)
    parser.add_argument("collection", help="the manifest: a path or URL that ends in .json")
    parser.add_argument("--encoding", choices=ENCODINGS, default="int8", help="of the numbers (int8)")
    _cluster_options(parser)


def _ingest_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "ingest", help="pack batches in parallel",
        description="Pack factor batches to segments in parallel and add them by one commit. Can be repeated.",
    )  # fmt: skip
    parser.set_defaults(run=_ingest)
    add = parser.add_argument
    add("target", help="a collection (.json), made if there is none, or a store on this machine")
    add("batches", nargs="+", help="factor batches, paths or URLs")
    add("--segments", metavar="FOLDER", help="where segments go, seen by all nodes (beside the collection)")
    add("--per-segment", type=int, default=1, metavar="N", help="batches in one segment (1)")
    add("--encoding", help="as of 'lorif pack'")
    add("--rank", help="factors kept of each layer, as of 'lorif pack'")
    add("--energy", type=float, help="share of the energy to keep, instead of --rank")
    add("--layers-of", metavar="STORE", help="a path that all nodes see")
    add("--basis-from", metavar="FILE", help="a path that all nodes see")
    _cluster_options(parser)


def _whiten_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "whiten", help="find a whitening basis on batches",
        description="Find the whitening basis of all rows of raw batches, in parallel, and write it to a file: for "
        "'ingest --basis-from' and 'lorif create --basis-from'.",
    )  # fmt: skip
    parser.set_defaults(run=_whiten)
    parser.add_argument("output", help="the new file, a path or URL that ends in .basis")
    parser.add_argument("batches", nargs="+", help="factor batches, paths or URLs")
    parser.add_argument("--epsilon", type=float, help="part of the mean eigenvalue that is added to every one (0.03)")
    _cluster_options(parser)


def _bytes(text: str) -> int:
    units = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
    for name, size in units.items():
        if text.endswith(name):
            return int(float(text.removesuffix(name)) * size)
    return int(text)


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(each) for each in text.split(","))


def _settings(options: argparse.Namespace) -> Settings:
    return Settings(
        cache=options.cache, cache_bytes=options.cache_size, copies_all=options.copy, tool=options.tool,
        cpus=options.cpus, unit_bytes=options.unit_size, attempts=options.attempts, straggler=options.straggler,
    )  # fmt: skip


def _create(options: argparse.Namespace) -> int:
    Collection(options.collection).create()
    return 0


def _add(options: argparse.Namespace) -> int:
    manifest = Collection(options.collection).add(*options.sources, shards=options.shards)
    print(f"{manifest.live_rows:,} rows in {len(manifest.shards):,} shards; generation {manifest.generation}")
    return 0


def _use_curvature(options: argparse.Namespace) -> int:
    manifest = Collection(options.collection).use_curvature(options.source)
    assert manifest.curvature is not None  # noqa: S101 - just set
    current = "all of them" if manifest.curvature_is_current else f"{manifest.curvature.fitted_rows:,} rows"
    print(f"curvature {manifest.curvature.digest[:12]} fitted on {current}; generation {manifest.generation}")
    return 0


def _verify(options: argparse.Namespace) -> int:
    damages = Collection(options.collection).verify(full=options.full)
    if options.json:
        print(json.dumps({"sound": not damages, "damages": [each.__dict__ for each in damages]}, indent=1))
        return 1 if damages else 0
    for each in damages:
        print(f"damaged: {each.url}: {each.reason}")
    print(f"{len(damages)} damaged files" if damages else "sound")
    return 1 if damages else 0


def _inspect(options: argparse.Namespace) -> int:
    held = Collection(options.collection).inspect()
    if options.json:
        print(json.dumps(held, indent=1))
        return 0
    shards = held.pop("shards")
    for name, value in held.items():
        print(
            f"{name:20} {value:,}" if isinstance(value, int) and not isinstance(value, bool) else f"{name:20} {value}"
        )
    for shard in shards:
        size = f"{shard['segments']:>6,} segments {shard['bytes']:>16,} bytes"
        print(f"shard {shard['name']:24} {shard['rows']:>12,} rows {size}")
    return 0


def _query(options: argparse.Namespace) -> int:
    request = Query(
        queries=options.queries, method=options.method, top=options.top, bottom=options.bottom,
        relative_dampings=options.relative_damping, dampings=options.damping, layers=options.layers,
        per_layer=options.per_layer, aggregate=options.aggregate, aggregate_by=options.aggregate_by,
        group_by=options.group_by, where=options.where,
        among=_ids(options.among) if options.among is not None else None, by_id=options.by_id,
        metadata=options.metadata, scores=options.scores, scores_format=options.scores_format,
        guarantee=options.guarantee, kernel=options.kernel, read=options.read, memory=options.memory,
        deadline=options.deadline,
    )  # fmt: skip
    connect(options.address)
    if options.explain == "plan":
        print(json.dumps(explain_query(options.collection, request, settings=_settings(options)), indent=1))
        return 0
    answer = query(
        options.collection, request, settings=_settings(options), progress=_progress("rows"),
        require_complete=options.require_complete,
    )  # fmt: skip
    for remark in answer.remarks:
        print(f"lorif.ray: note: {remark}", file=sys.stderr)
    for unread in answer.unread:
        print(f"lorif.ray: not read: {unread}", file=sys.stderr)
    if options.explain == "analyze":
        print(json.dumps(answer.totals.report(), indent=1), file=sys.stderr)
    if options.output:
        Path(options.output).write_text(answer.text, encoding="utf-8")
    else:
        sys.stdout.write(answer.text)
    return 0 if answer.is_complete else 1


def _ids(path: str) -> list[str]:
    text = Path(path).read_text(encoding="utf-8")
    if text.lstrip()[:1] == "[":
        return [str(each) for each in json.loads(text)]
    return [line for line in text.splitlines() if line]


def _fit(options: argparse.Namespace) -> int:
    connect(options.address)
    fitted = fit(
        options.collection, rank=options.rank, exact=options.exact, passes=options.passes, seed=options.seed,
        gram_limit=options.gram_limit, coordinates=options.coordinates, settings=_settings(options),
        progress=_progress("layers"),
    )  # fmt: skip
    print(
        f"curvature {fitted.digest[:12]} fitted on {fitted.rows:,} rows in {fitted.seconds:.2f} s, "
        f"{100 * fitted.captured_energy:.1f} % of the energy; generation {fitted.generation}"
    )
    if fitted.coordinates is not None:
        _print_coordinates(fitted.coordinates)
    return 0


def _coordinates(options: argparse.Namespace) -> int:
    connect(options.address)
    _print_coordinates(
        write_coordinates(options.collection, options.encoding, settings=_settings(options), progress=_progress("rows"))
    )
    return 0


def _print_coordinates(done: WrittenCoordinates) -> None:
    for remark in done.remarks:
        print(f"lorif.ray: {remark}", file=sys.stderr)
    print(
        f"coordinates of {done.rows:,} rows written in {done.seconds:.2f} s; {done.covered_rows:,} rows have theirs, "
        f"{done.bytes:,} bytes; generation {done.generation}"
    )


def _ingest(options: argparse.Namespace) -> int:
    connect(options.address)
    pack = PackOptions(options.encoding, options.rank, options.energy, options.layers_of, options.basis_from)
    done = ingest(
        options.target, options.batches, folder=options.segments, options=pack, batches_per_segment=options.per_segment,
        settings=_settings(options), progress=_progress("segments"),
    )  # fmt: skip
    print(
        f"{done.rows:,} rows in {len(done.segments):,} segments, {done.already_there} of them packed before, in "
        f"{done.seconds:.2f} s; generation {done.generation}"
    )
    return 0


def _whiten(options: argparse.Namespace) -> int:
    connect(options.address)
    done = find_whitening(
        options.batches, options.output, epsilon=options.epsilon, settings=_settings(options),
        progress=_progress("batches"),
    )  # fmt: skip
    print(f"basis {done.digest[:12]} found on {done.rows:,} rows in {done.seconds:.2f} s")
    return 0


def _progress(what: str) -> Any:
    if not sys.stderr.isatty():
        return None

    def show(done: int, total: int) -> None:
        print(f"\r{done:,} of {total:,} {what}", end="\n" if done >= total else "", file=sys.stderr, flush=True)

    return show
