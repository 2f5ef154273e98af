"""The first pass over a sample: second moments for the whitening, spectra for an energy target."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lorif.projection import Whitening, whitening
from lorif.torch.errors import RecorderError
from lorif.torch.recording import PlannedLayer, Recording

__all__ = ["Calibration"]

#: Gradients per layer that are kept to find the rank of an energy target.
_SPECTRUM_SAMPLE = 64


class Calibration:
    """Sums over the sample, in float64 on the CPU."""

    def __init__(self, layers: Sequence[PlannedLayer]) -> None:
        self.count = 0
        self._left = {layer.name: torch.zeros(layer.d1, layer.d1, dtype=torch.float64) for layer in layers}
        self._right = {layer.name: torch.zeros(layer.d2, layer.d2, dtype=torch.float64) for layer in layers}
        self._kept: dict[str, list[Tensor]] = {layer.name: [] for layer in layers if layer.energy is not None}
        self._kept_count = 0

    def add(self, gradients: Mapping[str, Tensor]) -> None:
        """Takes gradients [n, d1, d2], projected but not whitened."""
        for name, matrices in gradients.items():
            wide, tall = matrices.transpose(0, 1).flatten(1), matrices.flatten(0, 1)
            self._left[name] += (wide @ wide.T).to("cpu", torch.float64)
            self._right[name] += (tall.T @ tall).to("cpu", torch.float64)
        self._keep(gradients)
        self.count += next(iter(gradients.values())).shape[0]

    def add_tokens(self, sides: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Takes the two vectors [n, d1] and [n, d2] of single tokens."""
        for name, (inputs, outputs) in sides.items():
            weighted = inputs * outputs.square().sum(1, keepdim=True)
            self._left[name] += (weighted.T @ inputs).to("cpu", torch.float64)
            weighted = outputs * inputs.square().sum(1, keepdim=True)
            self._right[name] += (weighted.T @ outputs).to("cpu", torch.float64)
        self.count += next(iter(sides.values()))[0].shape[0]

    def _keep(self, gradients: Mapping[str, Tensor]) -> None:
        room = _SPECTRUM_SAMPLE - self._kept_count
        if room <= 0:
            return
        for name, kept in self._kept.items():
            kept.append(gradients[name][:room].to("cpu", torch.float64))
        self._kept_count += min(room, next(iter(gradients.values())).shape[0])

    def settle(self, recording: Recording) -> None:
        """Puts whitening and ranks into the recording; with torch.distributed from the samples of all processes."""
        self.count = round(self._summed(torch.tensor([float(self.count)], dtype=torch.float64)).item())
        if self.count == 0:
            raise RecorderError(
                "step: expected calibrate() on a sample before it, for the whitening or the energy target, found none"
            )
        if recording.whiten is not None:
            for layer in recording.layers:
                recording.whitenings[layer.name] = self._whitening(layer, recording.whiten)
        recording.layers = [
            layer if layer.energy is None else replace(layer, rank=self._rank(layer, recording))
            for layer in recording.layers
        ]
        recording.calibrated_on = self.count

    def _whitening(self, layer: PlannedLayer, epsilon: float) -> Whitening:
        left, right = (self._summed(side[layer.name]).numpy() / self.count for side in (self._left, self._right))
        try:
            maps = whitening(left, right, epsilon)
        except ValueError as error:
            raise RecorderError(f"layer {layer.name!r}, whitening: {error}") from error
        # Rank 0's own numbers, so that all processes have the same to the last bit.
        return Whitening(*(_broadcast(side) for side in (maps.left, maps.right)))

    def _rank(self, layer: PlannedLayer, recording: Recording) -> int:
        """The smallest rank whose mean share of the squared norm reaches the target."""
        smallest = min(layer.d1, layer.d2)
        shares = torch.zeros(smallest + 1, dtype=torch.float64)
        if self._kept[layer.name]:
            matrices = torch.cat(self._kept[layer.name])
            maps = recording.whitenings.get(layer.name)
            if maps is not None:
                matrices = torch.from_numpy(maps.left) @ matrices @ torch.from_numpy(maps.right)
            squares = torch.linalg.svdvals(matrices).square()
            total = squares.sum(1, keepdim=True)
            seen = total[:, 0] > 0
            shares[:-1] = (squares[seen] / total[seen]).cumsum(1).sum(0)
            shares[-1] = float(seen.sum())
        shares = self._summed(shares)
        reached = shares[:-1] >= shares[-1] * (layer.energy or 1.0) * (1 - 1e-12)
        return int(reached.int().argmax()) + 1 if bool(reached.any()) else smallest

    @staticmethod
    def _summed(values: Tensor) -> Tensor:
        """Summed over the processes, if there are several."""
        if not _is_distributed():
            return values
        values = values.to(_communication_device(), copy=True)
        torch.distributed.all_reduce(values)
        return values.cpu()


def _is_distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _communication_device() -> str:
    return "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"


def _broadcast(values: NDArray[np.float64]) -> NDArray[np.float64]:
    if not _is_distributed():
        return values
    tensor = torch.from_numpy(np.ascontiguousarray(values)).to(_communication_device())
    torch.distributed.broadcast(tensor, 0)
    return tensor.cpu().numpy()
