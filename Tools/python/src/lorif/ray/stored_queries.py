"""Stored examples as queries: found in whichever shard has them, exported there, joined here."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lorif.batch import FactorBatch, Factors, write_batch
from lorif.ray.cache import Common, Unit
from lorif.ray.errors import IncompleteError
from lorif.ray.scheduler import Job
from lorif.ray.settings import Settings
from lorif.ray.worker import among_unit, export
from lorif.tool import InputRefusedError


def export_found(unit: Unit, common: Common, ids: Sequence[str], settings: Settings) -> tuple[tuple[str, ...], bytes]:
    """Those of the ids that a unit has, and their rows as a batch."""
    found = among_unit(unit, ids)
    return found, export(unit, common, found, settings) if found else b""


def gather_examples(session: Any, jobs: Sequence[Job], ids: Sequence[str]) -> bytes:
    """A batch of the examples with these ids, in their order, with the numbers that the store has."""
    parts: list[FactorBatch] = []
    with tempfile.TemporaryDirectory(prefix="lorif-examples-") as folder:

        def collect(_: Job, answer: tuple[tuple[str, ...], bytes]) -> None:
            if answer[0]:
                path = Path(folder) / f"{len(parts)}.safetensors"
                path.write_bytes(answer[1])
                parts.append(FactorBatch(path))

        failed = session.run(export_found, jobs, session.common, tuple(ids), session.settings, on_result=collect)
        places = {name: (part, row) for part in parts for row, name in enumerate(part.ids or [])}
        missing = [name for name in ids if name not in places]
        if missing and failed:
            raise IncompleteError(f"'{missing[0]}' was not found in what could be read: {failed[0].reason}")
        if missing:
            raise InputRefusedError(f"no example has the id '{missing[0]}'", 3)
        chosen = [places[name] for name in ids]
        layers: dict[str, Any] = {}
        for layer in parts[0].layers:
            if layer.rank is None:
                layers[layer.name] = np.concatenate(
                    [part.gradients(layer.name, slice(row, row + 1)) for part, row in chosen]
                )
            else:
                factors = [part.factors(layer.name, slice(row, row + 1)) for part, row in chosen]
                layers[layer.name] = Factors(*(np.concatenate(side) for side in zip(*factors, strict=True)))
        path = Path(folder) / "queries.safetensors"
        write_batch(path, layers, ids=list(ids), basis=parts[0].basis)
        return path.read_bytes()
