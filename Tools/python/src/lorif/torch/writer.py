"""Factor batches written by a background thread: bounded memory, whole files only, no error lost."""

import json
import queue
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lorif.batch import FactorBatch, Factors, write_batch
from lorif.torch.errors import RecorderError

__all__ = ["BatchStream", "Rows", "recorded_ids"]

#: Steps that may wait for the disk before the next one waits with them.
_QUEUE_LENGTH = 4

Side = NDArray[Any]


@dataclass
class Rows:
    """Some examples: per layer left [n, d1, c] and right [n, d2, c], or one full [n, d1, d2]."""

    ids: list[str]
    layers: dict[str, tuple[Side, ...]]
    records: list[dict[str, Any]] | None
    #: Per layer ‖G‖² and ‖factors‖² summed over the rows.
    energy: dict[str, tuple[float, float]]


def recorded_ids(folder: Path) -> set[str]:
    """The ids in all batches of a folder; reads headers only. A file that is no batch is an error."""
    found: set[str] = set()
    for path in sorted(folder.glob("*.safetensors")):
        found.update(FactorBatch(path).ids or ())
    return found


class BatchStream:
    """Collects rows and writes a file `<prefix>NNNNNN.safetensors` whenever `rows_per_file` are there.

    At most `rows_per_file` rows, what waits in the queue and one file being written are in memory. The first error of
    the thread is raised by every later `put` and by `close`; after it nothing more is written.
    """

    def __init__(
        self, folder: Path, prefix: str, provenance: Mapping[str, str], *, dtype: str, rows_per_file: int
    ) -> None:
        self._folder = folder
        self._prefix = prefix
        self._provenance = dict(provenance)
        self._dtype = dtype
        self._rows_per_file = rows_per_file
        self._queue: queue.Queue[Rows | None] = queue.Queue(_QUEUE_LENGTH)
        self._error: BaseException | None = None
        self._waiting: list[Rows] = []
        self._waiting_count = 0
        self.row_count = 0
        self.byte_count = 0
        for leftover in folder.glob(f".{prefix}*.tmp"):
            leftover.unlink()
        numbers = [int(path.stem[len(prefix) :]) for path in folder.glob(f"{prefix}*.safetensors")]
        self._next_number = max(numbers, default=-1) + 1
        # Not a daemon: an interpreter that exits without close() still writes what it was given.
        self._thread = threading.Thread(target=self._run, name="lorif writer")
        self._thread.start()

    def put(self, rows: Rows) -> None:
        """Hands rows over; waits while the disk is behind."""
        self._raise_error()
        self._queue.put(rows)

    def close(self) -> None:
        """Writes what is left and ends the thread; may be called again."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()
        self._raise_error()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise RecorderError(f"{self._folder}: writing failed: {self._error}") from self._error

    def _run(self) -> None:
        while True:
            rows = self._next_rows()
            if self._error is None:
                try:
                    if rows is not None:
                        self._accept(rows)
                    elif self._waiting:
                        self._write(self._waiting)
                except BaseException as error:
                    self._error = error
                    self._waiting = []
            if rows is None:
                if self._error is not None and not threading.main_thread().is_alive():
                    # Nobody is left to call close(): the interpreter prints it.
                    raise self._error
                return

    def _next_rows(self) -> Rows | None:
        """The next rows, or None at the end: after `close`, or when the main thread has ended without it."""
        while True:
            try:
                return self._queue.get(timeout=1)
            except queue.Empty:
                if not threading.main_thread().is_alive():
                    return None

    def _accept(self, rows: Rows) -> None:
        while self._waiting_count + len(rows.ids) >= self._rows_per_file:
            head, rows = _split(rows, self._rows_per_file - self._waiting_count)
            full, self._waiting, self._waiting_count = [*self._waiting, head], [], 0
            self._write(full)
        if rows.ids:
            self._waiting.append(rows)
            self._waiting_count += len(rows.ids)

    def _write(self, parts: Sequence[Rows]) -> None:
        ids = [identifier for part in parts for identifier in part.ids]
        layers: dict[str, Factors | Side] = {}
        energy: dict[str, float] = {}
        for name in parts[0].layers:
            sides = [np.concatenate(side) for side in zip(*(part.layers[name] for part in parts), strict=True)]
            layers[name] = Factors(*sides) if len(sides) == 2 else sides[0]
            given, kept = (sum(part.energy[name][index] for part in parts) for index in (0, 1))
            energy[name] = round(kept / given, 6) if given > 0 else 1.0
        with_records = parts[0].records is not None
        path = self._folder / f"{self._prefix}{self._next_number:06}.safetensors"
        write_batch(
            path,
            layers,
            ids=ids,
            records=[record for part in parts for record in part.records or ()] if with_records else None,
            provenance=self._provenance | {"energy": json.dumps(energy, ensure_ascii=False, separators=(",", ":"))},
            dtype=self._dtype,
        )
        self._next_number += 1
        self.row_count += len(ids)
        self.byte_count += path.stat().st_size


def _split(rows: Rows, count: int) -> tuple[Rows, Rows]:
    """The first `count` rows and the rest; energy is shared out by the number of rows."""
    share = count / len(rows.ids)

    def part(cut: slice, weight: float) -> Rows:
        return Rows(
            rows.ids[cut],
            {name: tuple(side[cut] for side in sides) for name, sides in rows.layers.items()},
            None if rows.records is None else rows.records[cut],
            {name: (given * weight, kept * weight) for name, (given, kept) in rows.energy.items()},
        )

    return part(slice(count), share), part(slice(count, None), 1 - share)
