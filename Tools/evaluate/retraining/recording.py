"""What is kept of the explained model: gradients as the recorder writes them, embeddings, losses."""

from pathlib import Path
from shutil import rmtree
from typing import Any

import lorif.torch
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from retraining.tasks import Task
from retraining.training import losses
from retraining.workshop import Workshop

__all__ = ["Recorded", "observed", "recorded"]

LAYERS = "blocks.*"
BATCH = 50
Recorded = dict[str, Path]


def _record(model: nn.Module, data: tuple[Tensor, Tensor], ids: list[str], out: Path, **options: Any) -> Path:
    """One batch file with a row for each example."""
    whitening = options.get("projection") == "whitened"
    with lorif.torch.Recorder(model, out=out, file_bytes=1 << 40, **options) as recorder:
        for calibrate in (True, False) if whitening else (False,):
            for part in torch.arange(len(ids)).split(BATCH):
                each = losses(model(data[0][part]), data[1][part])
                if calibrate:
                    recorder.calibrate(each)
                else:
                    recorder.step([ids[row] for row in part.tolist()], each)
    (path,) = out.glob("*.safetensors")
    return path


def recorded(workshop: Workshop, task: Task, model: nn.Module, name: str, **options: Any) -> Recorded:
    """Batches `train`, `query` and `copy` of one recording; queries and copies as full matrices.

    Args:
        workshop: Keeps the batches.
        task: The data.
        model: The explained model.
        name: The recording's folder.
        options: Of the recorder, for the training examples.
    """
    folder = workshop.path(f"records/{name}")
    if not folder.exists():
        workshop.begin()
        building = workshop.path(f"records/.{name}")
        rmtree(building, ignore_errors=True)
        _record(model, task.train, task.train_ids, building / "train", layers=LAYERS, **options)
        for part in ("query", "copy"):
            data = getattr(task, part)
            _record(model, data, task.query_ids(data), building / part, like=building / "train", full=True)
        building.rename(folder)
        workshop.done("recording")
    found = {}
    for part in ("train", "query", "copy"):
        (found[part],) = (folder / part).glob("*.safetensors")
    return found


def observed(workshop: Workshop, task: Task, model: nn.Module) -> dict[str, NDArray[np.float64]]:
    """`train`, `query`, `copy`: embeddings [rows, width], the mean of what the last norm gives; `losses` of `train`."""
    if not workshop.has("observed"):
        workshop.begin()
        seen: list[Tensor] = []
        hook = model.norm.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
        found: dict[str, NDArray[np.float64]] = {}
        with torch.no_grad():
            for part in ("query", "copy", "train"):
                inputs, targets = getattr(task, part)
                seen.clear()
                each = [losses(model(inputs[rows]), targets[rows]) for rows in torch.arange(len(inputs)).split(BATCH)]
                states = torch.cat(seen).double()
                found[part] = (states.mean(1) if states.dim() == 3 else states).numpy()
                found["losses"] = torch.cat(each).double().numpy()
        hook.remove()
        workshop.save("observed", found)
        workshop.done("recording")
    return workshop.load("observed")
