"""Save folders of TRAK: one projected vector per example and checkpoint, in NumPy files."""

import re
from pathlib import Path
from typing import Any

import numpy as np

from lorif.importers.npy import open_array
from lorif.importers.source import Array, ImporterError, Options, Source, SourceLayer, integer, read_json

__all__ = ["TrakSource"]


class TrakSource(Source):
    """Every checkpoint is a layer `checkpoint-<id>` of p × 1; there is no matrix to factor."""

    def __init__(self, path: str, options: Options) -> None:
        super().__init__(Path(path))
        described = self.path / "metadata.json"
        description = read_json(described)
        self.files = [described]
        length = integer(f"{described}, 'JL dimension'", description.get("JL dimension"), least=1)
        train_count = integer(f"{described}, 'train set size'", description.get("train set size"), least=1)
        checkpoints = sorted(
            int(child.name) for child in self.path.iterdir() if re.fullmatch(r"[0-9]{1,9}", child.name)
        )
        if not checkpoints:
            raise ImporterError(f"{self.path}: expected a folder per checkpoint, named by a number, found none")
        self.row_count = train_count
        if options.experiment is not None:
            self.row_count = self._target_count(options.experiment)
        self._arrays: list[Array] = []
        self._loss_gradients: list[Array] = []
        for checkpoint in checkpoints:
            folder = self.path / str(checkpoint)
            self._check_complete(folder, checkpoint, train_count)
            if options.experiment is not None:
                name = f"{options.experiment}_grads.mmap"
            else:
                name = f"{options.what}.mmap"
                loss = open_array(folder / "out_to_loss.mmap", (train_count, 1))
                self._loss_gradients.append(loss)
            if not (folder / name).exists():
                raise ImporterError(
                    f"{folder / name} does not exist: TRAK may have deleted it (del_grads); try --what features"
                )
            self._arrays.append(open_array(folder / name, (self.row_count, length)))
            self.files.append(folder / name)
            self.layers.append(SourceLayer(f"checkpoint-{checkpoint}", length, 1))
        self.provenance = {
            "trak.projection": str(description.get("JL matrix type"))[:100],
            "trak.what": options.what,
        }
        self.notes.append(
            f"{options.what} of the model's output, one vector per example: nothing to factor. TRAK multiplies "
            "its scores by out_to_loss, which is kept as metadata, and averages over checkpoints, where lorif sums"
        )
        self.check()

    def read(self, start: int, stop: int) -> dict[str, Array]:
        """Rows of every checkpoint, [n, p, 1]."""
        return {
            layer.name: np.asarray(values[start:stop])[:, :, None]
            for layer, values in zip(self.layers, self._arrays, strict=True)
        }

    def records(self, start: int, stop: int) -> list[dict[str, Any]] | None:
        """out_to_loss of each checkpoint."""
        if not self._loss_gradients:
            return None
        columns = {}
        for layer, values in zip(self.layers, self._loss_gradients, strict=True):
            checkpoint = layer.name.removeprefix("checkpoint-")
            with np.errstate(invalid="ignore"):
                numbers = values[start:stop, 0].astype(float)
            finite = np.isfinite(numbers)
            if not finite.all():
                row = start + int(np.argmin(finite))
                path = self.path / checkpoint / "out_to_loss.mmap"
                raise ImporterError(f"{path}, row {row}: expected a finite number, found another")
            columns[f"out_to_loss-{checkpoint}"] = numbers.tolist()
        return [{key: values[row] for key, values in columns.items()} for row in range(stop - start)]

    def _target_count(self, experiment: str) -> int:
        path = self.path / "experiments.json"
        entry = read_json(path).get(experiment)
        if not isinstance(entry, dict):
            raise ImporterError(f"{path}: expected the experiment {experiment!r}, found none of that name")
        return integer(f"{path}, num_targets", entry.get("num_targets"), least=1)

    def _check_complete(self, folder: Path, checkpoint: int, train_count: int) -> None:
        path = folder / "_is_featurized.mmap"
        flags = open_array(path, (train_count,), (train_count, 1), kinds="iu")
        missing = int(np.count_nonzero(np.asarray(flags) == 0))
        if missing:
            raise ImporterError(
                f"{path}: {missing} of {train_count} examples of checkpoint {checkpoint} have no gradients yet"
            )
