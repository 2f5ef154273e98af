"""What is kept of the explained model: gradients as the recorder writes them, embeddings, losses."""

from pathlib import Path
from shutil import rmtree
from typing import Any

import lorif.torch
import numpy as np
import torch
from experiment import write_full_gradients
from lorif.batch import FactorBatch
from lorif.projection import projection_matrix
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from retraining.tasks import Task
from retraining.training import TINY, Weights, losses
from retraining.workshop import Workshop

__all__ = ["Recorded", "observed", "recorded", "recorded_for_adam"]

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


def recorded_for_adam(
    workshop: Workshop, task: Task, model: nn.Module, squares: Weights, plain: tuple[int, Recorded]
) -> Recorded:
    """Gradients as AdamW sees them: each weight's over the fourth root of its mean square, on both sides of a product.

    ⟨g_q, g_i⟩ is then Σ g_q g_i / √v: the step that an example asks of the optimizer, by the query's slope.

    Args:
        workshop: Keeps the batches.
        task: The data.
        model: The explained model.
        squares: v of every weight.
        plain: d, and the recording whose layers and projections this one repeats.
    """
    d, batches = plain
    folder = workshop.path(f"records/adam-{d}")
    if not folder.exists():
        workshop.begin()
        building = workshop.path(f"records/.adam-{d}")
        rmtree(building, ignore_errors=True)
        building.mkdir()
        layers = [layer.name for layer in FactorBatch(batches["train"]).layers]
        for part in ("train", "query", "copy"):
            data = getattr(task, part)
            ids = task.train_ids if part == "train" else task.query_ids(data)
            rows = _scaled(model, data, layers, squares, d)
            write_full_gradients(building / f"{part}.safetensors", layers, rows, ids)
        building.rename(folder)
        workshop.done("recording")
    return {part: folder / f"{part}.safetensors" for part in ("train", "query", "copy")}


def _scaled(
    model: nn.Module, data: tuple[Tensor, Tensor], layers: list[str], squares: Weights, d: int
) -> dict[str, NDArray[np.float32]]:
    """[rows, d1, d2] of each layer: gradients over the fourth root of `squares`, projected as by the recorder."""
    weights = {name: value.detach() for name, value in model.named_parameters()}
    chosen = {f"{layer}.weight": weights.pop(f"{layer}.weight") for layer in layers}
    sides = {}
    for layer in layers:
        outputs, inputs = chosen[f"{layer}.weight"].shape
        sides[layer] = [
            torch.eye(size) if each is None else torch.from_numpy(each).float()
            for side, size in (("in", inputs), ("out", outputs))
            for each in (projection_matrix("orthogonal", 0, layer, side, dimension=size, d=d),)
        ]

    def loss(own: Weights, x: Tensor, y: Tensor) -> Tensor:
        return losses(functional_call(model, weights | own, (x[None],)), y[None])[0]

    gradient = vmap(grad(loss), in_dims=(None, 0, 0))
    rows: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    for piece in torch.arange(len(data[0])).split(BATCH):
        with sdpa_kernel(SDPBackend.MATH):
            found = gradient(chosen, data[0][piece], data[1][piece])
        for layer, (left, right) in sides.items():
            name = f"{layer}.weight"
            each = found[name] / (squares[name].sqrt() + TINY).sqrt()
            rows[layer].append(left.T @ each.transpose(1, 2) @ right)
    return {layer: torch.cat(each).numpy() for layer, each in rows.items()}


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
