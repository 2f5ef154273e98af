"""The folder of an import that is under way: finished parts as segment files, and making the rest."""

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lorif.importers.outcome import Outcome
from lorif.importers.rows import COPIES, Settings, read_rows, write_rows
from lorif.importers.source import ImporterError, Source
from lorif.tool import Tool, ToolError

__all__ = ["Parts", "Progress", "locked"]

_PART_ROW_LIMIT = 1 << 20
_VERSION = 1

#: Called with the rows done and all rows.
Progress = Callable[[int, int], None]


class Parts:
    """The folder of parts: what is there of an earlier attempt, and making the rest."""

    def __init__(
        self, work: Path, lock: int, *, tool: Tool, source: Source, settings: Settings, arguments: list[str]
    ) -> None:
        self._work, self._lock, self._tool = work, lock, tool
        self._source, self._settings, self._arguments = source, settings, arguments
        row_bytes = 4 * sum(layer.length for layer in source.layers)
        self._step = max(1, min(settings.memory_bytes // (COPIES * row_bytes), _PART_ROW_LIMIT, source.row_count))

    def segments(self) -> list[Path]:
        """The finished parts, in the order of their rows."""
        return sorted(self._work.glob("part-*.segment"))

    def make(self, progress: Progress | None) -> Outcome:
        """Makes the parts that are missing."""
        self._adopt_or_clear()
        outcome, energy, kept = Outcome(), 0.0, 0.0
        factored = False
        for number, start in enumerate(range(0, self._source.row_count, self._step)):
            stop = min(start + self._step, self._source.row_count)
            description = self._work / f"part-{number:06d}.json"
            if description.exists():
                outcome.resumed_segments += 1
            else:
                self._make_part(number, start, stop)
            part = json.loads(description.read_text(encoding="utf-8"))
            energy += part["energy"]
            share = part["keptEnergy"]
            kept += part["energy"] * (1.0 if share is None else share)
            factored = factored or share is not None
            outcome.skipped_rows += part["skipped"]
            outcome.rows_with_zero_layers += part["withZeroLayers"]
            outcome.clamped_numbers += part["clamped"]
            if progress is not None:
                progress(stop, self._source.row_count)
        if factored and energy > 0:
            outcome.kept_energy = kept / energy
        return outcome

    def _make_part(self, number: int, start: int, stop: int) -> None:
        rows = read_rows(self._source, start, stop, self._settings)
        packed: dict[str, Any] = {}
        if rows.ids:
            # The names are in the segment's provenance; the same names make the same segment, which adds nothing twice.
            batch, packing = self._work / f"batch-{number:06d}.safetensors", f"part-{number:06d}.packing"
            write_rows(rows, self._source, batch)
            del rows.layers
            (self._work / packing).unlink(missing_ok=True)
            packed = self._tool.run(
                "pack", packing, batch.name, *self._arguments, folder=self._work, held=(self._lock,)
            )
            batch.unlink()
            batch.with_suffix(".jsonl").unlink(missing_ok=True)
            (self._work / packing).rename(self._work / f"part-{number:06d}.segment")
        _write_json(
            self._work / f"part-{number:06d}.json",
            {
                "rows": len(rows.ids), "energy": rows.energy, "keptEnergy": packed.get("keptEnergy"),
                "skipped": rows.skipped, "withZeroLayers": rows.with_zero_layers, "clamped": rows.clamped,
            },
        )  # fmt: skip

    def _adopt_or_clear(self) -> None:
        """Keeps the parts of the same import, and drops those of another one and whatever is unfinished."""
        identity = self._identity()
        described = self._work / "import.json"
        try:
            same = json.loads(described.read_text(encoding="utf-8")).get("identity") == identity
        except (FileNotFoundError, ValueError, AttributeError):
            same = False
        finished = set()
        if same and not self._settings.restart:
            finished = {path.stem for path in self._work.glob("part-*.json") if _is_finished(path)}
        for path in self._work.iterdir():
            if path.name not in ("lock", "import.json") and not (
                path.suffix in (".segment", ".json") and path.stem in finished
            ):
                path.unlink()
        _write_json(described, {"identity": identity, "source": str(self._source.path)})

    def _identity(self) -> str:
        paths = [*self._source.files, *([Path(self._settings.metadata)] if self._settings.metadata else [])]
        files = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
        layers = [(layer.name, layer.input_dimension, layer.output_dimension) for layer in self._source.layers]
        chosen = self._settings
        ids = None if chosen.ids is None else hashlib.sha256("\n".join(chosen.ids).encode()).hexdigest()
        content = [
            _VERSION, str(self._source.path.absolute()), files, layers, self._source.provenance, self._step,
            self._arguments,
            [chosen.rank, chosen.encoding, ids, chosen.id_prefix, chosen.scale, chosen.zero_rows],
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(content, default=str).encode()).hexdigest()


def _is_finished(description: Path) -> bool:
    """Whether a part is whole; after a loss of power its description can be there without its segment."""
    rows = json.loads(description.read_text(encoding="utf-8"))["rows"]
    return rows == 0 or description.with_suffix(".segment").exists()


@contextmanager
def locked(work: Path) -> Iterator[int]:
    """Makes the folder and holds its lock; another import into the same store is refused."""
    work.mkdir(parents=True, exist_ok=True)
    if foreign := [path for path in work.iterdir() if not path.is_file()]:
        raise ImporterError(f"{work}: expected the folder of an import, found {foreign[0].name} in it")
    if any(work.iterdir()) and not (work / "lock").exists():
        raise ImporterError(f"{work}: expected the folder of an import or none, found one with other files")
    descriptor = os.open(work / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ToolError.of(f"{work}: another import into this store is at work", 5) from None
        if not (work / "lock").exists() or (work / "lock").stat().st_ino != os.fstat(descriptor).st_ino:
            raise ToolError.of(f"{work}: another import into this store was at work; repeat the command", 5)
        yield descriptor
    finally:
        os.close(descriptor)


def _write_json(path: Path, value: Any) -> None:
    """Whole or not at all, also after a crash."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
