"""Batches packed to segments by tasks, and made part of a collection or of a store by one commit.

A segment is named after the digests of the batches that it holds and the options that it was packed with: what is there
already is not packed again, whoever wrote it, and a run that was interrupted is simply repeated.
"""

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import xxhash

from lorif.ray import files
from lorif.ray.collection import Collection, read_segment
from lorif.ray.errors import CollectionDamagedError, CollectionRefusedError, IncompleteError
from lorif.ray.manifest import SegmentEntry, key_of
from lorif.ray.scheduler import Job, Scheduler
from lorif.ray.settings import Settings
from lorif.ray.worker import run_tool, this_node
from lorif.tool import Tool

_PIECE = 8 << 20


@dataclass(frozen=True)
class PackOptions:
    """How batches become a segment; names and meanings are those of `lorif pack`."""

    encoding: str | None = None
    rank: str | int | None = None
    energy: float | None = None
    layers_of: str | None = None
    basis_from: str | None = None

    def arguments(self) -> list[str]:
        """As the program has them."""
        named = {
            "encoding": self.encoding, "rank": self.rank, "energy": self.energy,
            "layers-of": self.layers_of, "basis-from": self.basis_from,
        }  # fmt: skip
        return [f"--{name}={value}" for name, value in named.items() if value is not None]


@dataclass(frozen=True)
class Making:
    """How a task makes a factor batch of something else: records a part of the training set, or converts a file.

    `function` takes a source and the path of the batch to write; ids must be distinct over all sources. `name` stands
    for everything that the gradients depend on besides the source (model, checkpoint, recorder's options): the same
    source by the same name is not made again.
    """

    name: str
    function: Callable[[str, Path], None]


@dataclass(frozen=True)
class Packed:
    """A segment that a task wrote, or found."""

    entry: SegmentEntry
    was_there: bool
    node: str
    seconds: float


@dataclass(frozen=True)
class Ingested:
    """What an ingest did."""

    segments: tuple[str, ...]
    rows: int
    packed: int
    already_there: int
    seconds: float
    generation: int | None = None
    nodes: frozenset[str] = field(default_factory=frozenset)


def pack(
    sources: tuple[str, ...], folder: str, options: PackOptions, settings: Settings, making: Making | None
) -> Packed:
    """Packs batches, or what is made of other sources, into one segment in a folder, unless it is there."""
    started = time.monotonic()
    tool = Tool(settings.tool)
    with tempfile.TemporaryDirectory(prefix="lorif-packing-") as temporary:
        local: list[Path] = []
        if making is None:
            local = [local_batch(url, Path(temporary) / f"{number}") for number, url in enumerate(sources)]
            key = key_of([_digest(path) for path in local], options.arguments(), tool.version)
        else:
            key = key_of(sources, [*options.arguments(), making.name], tool.version)
        url = files.joined(folder, f"{key}.segment")
        if files.exists(url):
            try:
                return Packed(read_segment(url)[0], True, this_node(), time.monotonic() - started)
            except CollectionDamagedError:
                pass  # It is written anew.
        if making is not None:
            local = [Path(temporary) / f"made-{number}.safetensors" for number in range(len(sources))]
            for source, path in zip(sources, local, strict=True):
                making.function(source, path)
        out = Path(temporary) / f"{key}.segment"
        run_tool(tool, "pack", str(out), *map(str, local), *options.arguments())
        files.put(out, url)
    return Packed(read_segment(url)[0], False, this_node(), time.monotonic() - started)


def ingest(
    target: Collection | str | Path,
    batches: Sequence[str | Path],
    *,
    folder: str | Path | None = None,
    options: PackOptions | None = None,
    making: Making | None = None,
    batches_per_segment: int = 1,
    settings: Settings | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Ingested:
    """Packs batches in parallel and adds them all, in their order, by one commit.

    `target` is a collection, made if there is none, or a store on this machine (any path that is no `.json`), which
    takes the segments by `lorif attach`. `folder` is where segments go, on storage that all nodes see; beside the
    collection unless said, and required for a store. Nothing is committed unless everything was packed.

    With `making`, `batches` are whatever it makes batches of, in the tasks that pack them; they need not be files.
    """
    settings, options, started = settings or Settings(), options or PackOptions(), time.monotonic()
    # Packing uses little more than one processor.
    settings = replace(settings, cpus=settings.cpus or 1)
    if not batches:
        raise CollectionRefusedError("no batches given")
    url = target.url if isinstance(target, Collection) else str(target)
    collection = Collection(url) if isinstance(target, Collection) or url.endswith(".json") else None
    if folder is None and collection is None:
        raise CollectionRefusedError("a store needs a folder for the segments until it has them: say --segments")
    where = str(folder) if folder is not None else files.joined(files.folder_of(files.absolute(url)), "segments")
    where = files.absolute(where)
    names = [files.absolute(str(batch)) if making is None else str(batch) for batch in batches]
    groups = [tuple(names[at : at + batches_per_segment]) for at in range(0, len(names), batches_per_segment)]
    jobs = [Job(group, 1 if making is not None else sum(size_of(each) for each in group)) for group in groups]
    packed: dict[tuple[str, ...], Packed] = {}

    def collect(job: Job, result: Packed) -> None:
        packed[job.argument] = result
        if progress is not None:
            progress(len(packed), len(groups))

    failed = Scheduler(pack, (where, options, settings, making), settings).run(jobs, collect)
    if failed:
        raise IncompleteError("; ".join(f"{each.job.argument[0]}: {each.reason}" for each in failed))
    results = [packed[group] for group in groups]
    segments = list(dict.fromkeys(result.entry.url for result in results))
    basis = [options.basis_from] if (options.basis_from or "").endswith(".basis") else []
    generation = _commit(collection, url, [*basis, *segments], settings)
    return Ingested(
        tuple(segments), sum(result.entry.rows for result in results), sum(not each.was_there for each in results),
        sum(each.was_there for each in results), time.monotonic() - started, generation,
        frozenset(each.node for each in results),
    )  # fmt: skip


def _commit(collection: Collection | None, url: str, sources: Sequence[str], settings: Settings) -> int:
    if collection is None:
        local = [str(files.local_path(each) or "") for each in sources if each.endswith(".segment")]
        if not all(local):
            raise CollectionRefusedError("a store takes segments from local paths only; use a collection")
        output = Tool(settings.tool).call("attach", str(Path(url).absolute()), *local, "--json").output
        return int(json.loads(output)["generation"])
    if not files.exists(collection.url):
        collection.create()
    return collection.add(*sources).generation


def size_of(url: str) -> int:
    """Bytes of a batch."""
    try:
        return files.size(url)
    except OSError:
        raise CollectionRefusedError(f"{url}: there is no such batch") from None


def local_batch(url: str, folder: Path) -> Path:
    """A local path of a batch, with its metadata beside it."""
    path = files.local_path(url)
    if path is not None:
        return path
    folder.mkdir()
    target = folder / files.last_part(url)
    target.write_bytes(files.read(url))
    records = url.rsplit(".", 1)[0] + ".jsonl"
    if files.exists(records):
        target.with_suffix(".jsonl").write_bytes(files.read(records))
    return target


def _digest(path: Path) -> str:
    state = xxhash.xxh3_128()
    for each in (path, path.with_suffix(".jsonl")):
        if each.is_file():
            with each.open("rb") as file:
                while piece := file.read(_PIECE):
                    state.update(piece)
        state.update(b"\0")
    return f"{state.intdigest():032x}"
