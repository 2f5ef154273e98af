"""Moves a source's rows into a store: part by part into segment files, then all of them by one commit.

Beside the store there is a folder `<store>.import` meanwhile. A part is a range of rows; it is written as a batch of
full matrices, packed by `lorif pack`, which factors it, and its segment is renamed when it is whole. When all
parts are there, `lorif attach` takes them by one commit. A repeated import finds its parts by the source's files (sizes
and times) and the settings, and goes on after the last one; a segment that the store has already adds nothing.
"""

import shutil
from pathlib import Path

from lorif.batch import RANK_LIMIT, BatchError
from lorif.importers.outcome import Outcome
from lorif.importers.parts import Parts, Progress, locked
from lorif.importers.rows import Settings, check_given_ids
from lorif.importers.source import ImporterError, Source
from lorif.tool import Tool, ToolError

__all__ = ["transfer"]

#: The exit codes for wrong usage, and for input that is refused.
_USAGE, _REFUSED = 2, 3


def transfer(
    source: Source, store: str, settings: Settings, *, tool: Tool | None = None, progress: Progress | None = None
) -> Outcome:
    """Imports a source; all rows or none. Raises ImporterError, BatchError, ToolError or OSError.

    Memory: `memory_bytes` and what the source keeps of each row (ids), and the memory of `lorif pack`. Disk: the
    segments and one part's batch, beside the store.
    """
    tool = tool or Tool()
    target = Path(store).absolute()
    arguments = _pack_arguments(source, target, settings, tool)
    if settings.ids is not None:
        check_given_ids(settings.ids, source.row_count)
    work = target.with_name(target.name + ".import")
    with locked(work) as lock:
        parts = Parts(work, lock, tool=tool, source=source, settings=settings, arguments=arguments)
        outcome = _made(parts, source, work, progress)
        names = [part.name for part in parts.segments()]
        outcome.store_bytes = sum(part.stat().st_size for part in parts.segments())
        try:
            report = tool.run("attach", str(target), *names, folder=work, held=(lock,))
        except ToolError as error:
            hint = " (--id-prefix keeps the ids of several sources apart)" if error.code == _REFUSED else ""
            raise ToolError.of(f"{error}{hint}; the packed rows are kept in {work}", error.code) from None
        shutil.rmtree(work)
    outcome.segments, outcome.layers = len(names), len(source.layers)
    outcome.total_rows = report["totalRows"]
    outcome.already_present = not report["attached"]
    outcome.rows = report["rows"]
    outcome.source_bytes = sum(path.stat().st_size for path in source.files)
    outcome.notes = [*source.notes, *_remarks(source, settings, outcome)]
    return outcome


def _made(parts: Parts, source: Source, work: Path, progress: Progress | None) -> Outcome:
    """Makes the parts; what is refused will be refused again, so that nothing of it is kept."""
    try:
        outcome = parts.make(progress)
        if not parts.segments():
            raise ImporterError(f"{source.path}: every row is zero, so that nothing is left to import")
    except (ImporterError, BatchError):
        shutil.rmtree(work)
        raise
    except ToolError as error:
        if error.code in (_USAGE, _REFUSED):
            shutil.rmtree(work)
        raise
    return outcome


def _pack_arguments(source: Source, target: Path, settings: Settings, tool: Tool) -> list[str]:
    """How parts are packed: as the store is, or as the caller wants a new one."""
    rank, encoding = settings.rank, settings.encoding
    if rank is not None and not 1 <= rank <= RANK_LIMIT:
        raise ImporterError(f"--rank must be from 1 to {RANK_LIMIT}, not {rank}")
    layers = tool.run("inspect", str(target), "--layers") if target.exists() and any(target.iterdir()) else []
    if layers:
        stored = {layer["name"]: (layer["d1"], layer["d2"], layer.get("rank")) for layer in layers}
        for layer in source.layers:
            d1, d2, stored_rank = stored.pop(layer.name, (None, None, None))
            if (d1, d2) != (layer.input_dimension, layer.output_dimension):
                raise ImporterError(
                    f"{source.path}, layer {layer.name!r}: the store has "
                    + (f"{d1} · {d2}" if d1 is not None else "no such layer")
                    + f", the source {layer.input_dimension} · {layer.output_dimension}"
                )
            if rank is not None and stored_rank != min(rank, d1, d2):
                shown = "full matrices" if stored_rank is None else f"rank {stored_rank}"
                raise ImporterError(f"--rank: the store has {shown} at layer {layer.name!r}, not rank {rank}")
        if stored:
            raise ImporterError(f"{source.path}: expected every layer of the store, found no {next(iter(stored))!r}")
        arguments = ["--layers-of", str(target)]
        if encoding is not None:
            arguments += ["--encoding", encoding]
    else:
        if target.exists() and any(target.iterdir()):
            held = tool.run("inspect", str(target))["encoding"]
            if encoding not in (None, held):
                raise ImporterError(f"--encoding: the store has {held}, not {encoding}")
            encoding = held
        if rank is not None and not any(min(x.input_dimension, x.output_dimension) > 1 for x in source.layers):
            raise ImporterError(f"{source.path}: its layers are vectors, which cannot be factored: leave out --rank")
        arguments = ["--rank", str(rank)] if rank is not None else []
        arguments += ["--encoding", encoding] if encoding is not None else []
    if settings.metadata is not None:
        arguments += ["--metadata", str(Path(settings.metadata).absolute())]
    return arguments


def _remarks(source: Source, settings: Settings, outcome: Outcome) -> list[str]:
    found = []
    if settings.rank is not None:
        useless = [
            layer.name
            for layer in source.layers
            if min(settings.rank, layer.input_dimension, layer.output_dimension)
            * (layer.input_dimension + layer.output_dimension)
            >= layer.length
        ]
        if useless:
            found.append(
                f"{len(useless)} layers take as much in factors of rank {settings.rank} as in full, like {useless[0]!r}"
            )
    if outcome.skipped_rows:
        found.append(f"{outcome.skipped_rows} rows of zeros left out")
    if outcome.rows_with_zero_layers:
        found.append(f"{outcome.rows_with_zero_layers} rows have layers of nothing but zeros: holes, or dead units")
    if outcome.clamped_numbers:
        found.append(f"{outcome.clamped_numbers} numbers are at the end of float16's range: clamped by the writer?")
    return found
