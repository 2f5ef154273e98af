"""What a recording is: layers, projections and units, written beside the batches so that queries repeat it."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from lorif.projection import Kind, Side, Whitening, projection_matrix
from lorif.torch.errors import RecorderError
from lorif.torch.layers import SelectedLayer

__all__ = ["PlannedLayer", "Recording", "plan_layers"]

VERSION = 1
SETTINGS_NAME = "recording.json"
WHITENING_NAME = "whitening.npz"

Projection = tuple[NDArray[np.float64] | None, NDArray[np.float64] | None]


@dataclass(frozen=True)
class PlannedLayer:
    """One layer: true dimensions (a bias is one more input), projected dimensions, rank (None: full matrices)."""

    name: str
    inputs: int
    outputs: int
    bias: bool
    d1: int
    d2: int
    rank: int | None
    energy: float | None = None


@dataclass
class Recording:
    """All that decides what the recorded numbers mean."""

    layers: list[PlannedLayer]
    projection: Kind
    seed: int
    #: ε of the whitening, or None.
    whiten: float | None
    reduction: str
    dtype: str
    full: bool
    per_token: bool
    #: Gradients that the whitening and the ranks were found from.
    calibrated_on: int = 0
    whitenings: dict[str, Whitening] = field(default_factory=dict)

    def is_settled(self) -> bool:
        """Whether nothing is left that a calibration has to find."""
        without_rank = any(layer.rank is None for layer in self.layers) and not self.full
        return not without_rank and (self.whiten is None or bool(self.whitenings))

    def base_projections(self) -> dict[str, Projection]:
        """(P_in, P_out) of each layer before whitening."""
        return {layer.name: (self._base(layer, "in"), self._base(layer, "out")) for layer in self.layers}

    def projections(self) -> dict[str, Projection]:
        """(P_in, P_out) of each layer as recorded, the whitening folded in."""
        result = self.base_projections()
        for name, maps in self.whitenings.items():
            left, right = result[name]
            result[name] = (
                maps.left if left is None else left @ maps.left,
                maps.right if right is None else right @ maps.right,
            )
        return result

    def _base(self, layer: PlannedLayer, side: Side) -> NDArray[np.float64] | None:
        dimension, d = (layer.inputs, layer.d1) if side == "in" else (layer.outputs, layer.d2)
        return projection_matrix(self.projection, self.seed, layer.name, side, dimension=dimension, d=d)

    def projection_digest(self) -> str:
        """Equal for recordings whose gradients may be compared: layers, dimensions, projections, whitening."""
        shapes = [[layer.name, layer.inputs, layer.outputs, layer.bias, layer.d1, layer.d2] for layer in self.layers]
        what = hashlib.sha256(json.dumps([self.projection, self.seed, shapes]).encode())
        for layer in self.layers:
            if layer.name in self.whitenings:
                maps = self.whitenings[layer.name]
                what.update(maps.left.astype("<f8").tobytes() + maps.right.astype("<f8").tobytes())
        return what.hexdigest()

    def settings(self) -> dict[str, Any]:
        """As JSON; without the whitening's matrices, which the digest stands for."""
        fields = {name: value for name, value in self.__dict__.items() if name not in ("layers", "whitenings")}
        digest = {"projection_digest": self.projection_digest()} if self.is_settled() else {}
        return {"lorif.recording": VERSION} | fields | digest | {"layers": [asdict(layer) for layer in self.layers]}

    def provenance(self) -> dict[str, str]:
        """The metadata of every batch file."""
        return {
            "recording": json.dumps(self.settings(), ensure_ascii=False, separators=(",", ":")),
            "projection_digest": self.projection_digest(),
        }

    def save(self, folder: Path) -> None:
        """Writes recording.json, and whitening.npz before it if there is a whitening; whole files only."""
        if self.whitenings:
            arrays = {}
            for index, layer in enumerate(self.layers):
                arrays[f"{index}.left"] = self.whitenings[layer.name].left
                arrays[f"{index}.right"] = self.whitenings[layer.name].right
            temporary = folder / f".{WHITENING_NAME}.{os.getpid()}.tmp"
            with temporary.open("wb") as file:
                np.savez(file, **arrays)
            temporary.replace(folder / WHITENING_NAME)
        temporary = folder / f".{SETTINGS_NAME}.{os.getpid()}.tmp"
        temporary.write_text(json.dumps(self.settings(), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        temporary.replace(folder / SETTINGS_NAME)

    @staticmethod
    def exists(folder: Path) -> bool:
        """Whether a folder has a recording."""
        return (folder / SETTINGS_NAME).exists()

    @classmethod
    def load(cls, folder: Path) -> "Recording":
        """The recording of a folder."""
        path = folder / SETTINGS_NAME
        if not path.exists():
            raise RecorderError(f"{path}: expected the settings of a recording, found no such file")
        try:
            settings = json.loads(path.read_text(encoding="utf-8"))
            version, digest = settings.pop("lorif.recording"), settings.pop("projection_digest")
            layers = [PlannedLayer(**layer) for layer in settings.pop("layers")]
            recording = cls(layers=layers, **settings)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise RecorderError(f"{path}: expected the settings of a recording, found {error!r}") from error
        if version != VERSION:
            raise RecorderError(f"{path}: expected version {VERSION}, found {version!r}")
        if recording.whiten is not None:
            recording._load_whitening(folder / WHITENING_NAME)
        if recording.projection_digest() != digest:
            raise RecorderError(f"{path}: expected projection digest {digest}, found {recording.projection_digest()}")
        return recording

    def _load_whitening(self, path: Path) -> None:
        try:
            with np.load(path, allow_pickle=False) as arrays:
                for index, layer in enumerate(self.layers):
                    self.whitenings[layer.name] = Whitening(arrays[f"{index}.left"], arrays[f"{index}.right"])
        except (OSError, ValueError, KeyError, BadZipFile) as error:
            raise RecorderError(
                f"{path}: expected the whitening of {len(self.layers)} layers, found {error}"
            ) from error

    def like(self, found: Sequence[SelectedLayer], **changes: Any) -> "Recording":
        """This recording with other units or form, for a model that has its layers."""
        dimensions = {layer.name: (layer.inputs, layer.outputs, layer.bias) for layer in found}
        for layer in self.layers:
            expected = (layer.inputs, layer.outputs, layer.bias)
            if dimensions.get(layer.name) != expected:
                raise RecorderError(
                    f"layer {layer.name!r}: expected inputs, outputs and bias {expected} as recorded, "
                    f"found {dimensions.get(layer.name)}"
                )
        return replace(self, **changes)


def plan_layers(
    found: Sequence[SelectedLayer],
    *,
    d: int | tuple[int | None, int | None] | None,
    rank: int | None,
    energy: float | None,
    full: bool,
    per_layer: Mapping[str, Mapping[str, Any]],
) -> list[PlannedLayer]:
    """Dimensions and rank of each layer; of the globs of `per_layer` that match a layer the last one decides."""
    used: set[str] = set()
    result = []
    for layer in found:
        options: dict[str, Any] = {"d": d, "rank": rank, "energy": energy}
        for pattern, given in per_layer.items():
            if fnmatchcase(layer.name, pattern):
                used.add(pattern)
                options |= _checked(pattern, given)
        both = options["d"] if isinstance(options["d"], tuple | list) else (options["d"], options["d"])
        d1, d2 = options.get("d1", both[0]), options.get("d2", both[1])
        for value in (d1, d2):
            if value is not None and value < 1:
                raise RecorderError(f"layer {layer.name!r}: expected d of at least 1, found {value}")
        d1 = layer.inputs if d1 is None else min(d1, layer.inputs)
        d2 = layer.outputs if d2 is None else min(d2, layer.outputs)
        target, wanted = options["energy"], options["rank"]
        if full:
            target = wanted = None
        elif target is not None:
            if not 0 < target <= 1:
                raise RecorderError(
                    f"layer {layer.name!r}: expected an energy target above 0 and up to 1, found {target}"
                )
            wanted = None
        else:
            wanted = 1 if wanted is None else wanted
            if wanted < 1:
                raise RecorderError(f"layer {layer.name!r}: expected a rank of at least 1, found {wanted}")
            wanted = min(wanted, d1, d2)
        result.append(PlannedLayer(layer.name, layer.inputs, layer.outputs, layer.bias, d1, d2, wanted, target))
    unused = [pattern for pattern in per_layer if pattern not in used]
    if unused:
        raise RecorderError(f"per_layer {unused[0]!r}: matches no recorded layer")
    return result


def _checked(pattern: str, given: Mapping[str, Any]) -> dict[str, Any]:
    unknown = set(given) - {"d", "d1", "d2", "rank", "energy"}
    if unknown:
        raise RecorderError(f"per_layer {pattern!r}: expected d, d1, d2, rank or energy, found {sorted(unknown)[0]!r}")
    options = dict(given)
    if "rank" in options:
        options.setdefault("energy", None)
    return options
