"""The recorder: from forward and backward passes of a PyTorch model to factor batches on disk."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor, nn

from lorif.projection import Kind
from lorif.torch.calibration import Calibration
from lorif.torch.capture import Capture, refuse_compiled
from lorif.torch.errors import RecorderError
from lorif.torch.factoring import Method, factor_matrices, factor_tokens
from lorif.torch.layers import select_layers
from lorif.torch.recording import Recording, plan_layers
from lorif.torch.writer import BatchStream, Rows, recorded_ids

__all__ = ["Recorder", "Reduction"]

Reduction = Literal["mean", "sum", "token-mean"]
_ITEM_BYTES = {"f32": 4, "f16": 2, "bf16": 2}
_ROWS_PER_FILE_LIMIT = 16_384
#: ε of `projection="whitened"`.
_DEFAULT_WHITENING = 0.03


class Recorder:
    """Records each example's projected gradient of chosen linear layers, as rank-c factors or in full.

        with Recorder(model, layers="*.mlp.*", d=64, rank=1, out="factors/") as recorder:
            for batch in loader:
                recorder.step(batch["id"], loss_fn(model, batch))

    layers      glob or globs over module names (`*` also matches dots); a name without wildcards must be recordable
    types       only modules of these types
    out         folder of the batches `factors-<rank>-<number>.safetensors` and of recording.json
    d           projected dimensions of both sides, or (d1, d2); None leaves a side as it is
    rank        c, 1 unless said; or energy, the share of the squared norm that the mean gradient is to keep, which
                calibrate() turns into a rank
    full        d1×d2 matrices instead of factors, as queries should be
    projection  gaussian, rademacher, orthogonal; whitened is orthogonal with whiten=0.03
    whiten      ε of the two-sided whitening folded into the projection; wants calibrate() on a sample first
    per_layer   glob → {d, d1, d2, rank, energy} for some layers; the last glob that matches decides
    bias        counts the bias as the last row of the input side, where a layer has one
    per_token   every token is a row of its own, with the id "<id>/<token>"
    dtype       of the files: f32, f16 or bf16
    reduction   what the loss is: the mean of the examples' losses, their sum, or the mean over all tokens that count
                (then step needs `count`); it is undone, so that rows are gradients of each example's own summed loss
    train       False: weights are frozen within the block and their .grad is left alone, which saves much of the
                backward pass; True: step() also accumulates .grad as loss.backward() does
    like        folder of another recording (the training data's) whose layers and projections this one repeats
    resume      go on in a folder with the same settings; ids that are there already are skipped; not with per_token
    provenance  more metadata for every batch file

    A model that mixes examples (batch norm in training mode) or that is compiled is refused. Settings that do not fit
    raise RecorderError, as does an error of the writing thread, at the next step and at the end of the block.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: str | Sequence[str] | None = None,
        *,
        out: str | Path,
        types: Sequence[type[nn.Module]] | None = None,
        d: int | tuple[int | None, int | None] | None = 64,
        rank: int | None = None,
        energy: float | None = None,
        full: bool = False,
        projection: Kind | Literal["whitened"] = "orthogonal",
        whiten: float | None = None,
        seed: int = 0,
        per_layer: Mapping[str, Mapping[str, Any]] | None = None,
        bias: bool = False,
        per_token: bool = False,
        dtype: Literal["f32", "f16", "bf16"] = "f32",
        reduction: Reduction = "mean",
        train: bool = False,
        like: str | Path | None = None,
        resume: bool = False,
        factoring: Method = "auto",
        file_bytes: int = 64 << 20,
        process: tuple[int, int] | None = None,
        provenance: Mapping[str, str] | None = None,
    ) -> None:
        refuse_compiled(model)
        self._check_options(dtype, reduction)
        if rank is not None and energy is not None:
            raise RecorderError("expected rank or energy, found both")
        if per_token and not full and (energy is not None or (rank or 1) != 1):
            raise RecorderError("per_token: expected rank 1, which is exact for a token")
        if per_token and resume:
            raise RecorderError("per_token: expected resume=False; an example cut by a file's end would pass for whole")
        if isinstance(model, nn.parallel.DistributedDataParallel):
            model = model.module
        self._model = model
        self.folder = Path(out)
        self._train = train
        self._resume = resume
        self._factoring: Method = factoring
        self._file_bytes = file_bytes
        self._extra = dict(provenance or {})
        self._process, self._process_count = _process() if process is None else process

        units: dict[str, Any] = {"reduction": reduction, "dtype": dtype, "full": full, "per_token": per_token}
        if like is None:
            if layers is None:
                raise RecorderError("layers: expected a glob over module names, or like=, found neither")
            found = select_layers(model, layers, types, bias)
            planned = plan_layers(found, d=d, rank=rank, energy=energy, full=full, per_layer=per_layer or {})
            if projection == "whitened":
                projection, whiten = "orthogonal", _DEFAULT_WHITENING if whiten is None else whiten
            if whiten is not None and not whiten > 0:
                raise RecorderError(f"whiten: expected an ε above 0, found {whiten}")
            self.recording = Recording(planned, projection, seed, whiten, **units)
        else:
            if layers is not None or per_layer or types or bias or energy or whiten is not None:
                raise RecorderError("like: expected no other settings of layers or projections beside it")
            base = Recording.load(Path(like))
            found = select_layers(model, [layer.name for layer in base.layers], None, _has_bias(base))
            self.recording = base.like(found, layers=_with_rank(base, rank, full), **units)
        self._capture = Capture(found, self._projections(), per_token=per_token)
        self._calibration: Calibration | None = None
        self._stream: BatchStream | None = None
        self._done: set[str] = set()
        self._frozen: list[nn.Parameter] = []
        self._open = False
        self._with_records: bool | None = None

    @staticmethod
    def _check_options(dtype: str, reduction: str) -> None:
        if dtype not in _ITEM_BYTES:
            raise RecorderError(f"dtype: expected {', '.join(_ITEM_BYTES)}, found {dtype!r}")
        if reduction not in get_args(Reduction):
            raise RecorderError(f"reduction: expected {', '.join(get_args(Reduction))}, found {reduction!r}")

    def _projections(self) -> dict[str, Any]:
        settled = self.recording.whiten is None or bool(self.recording.whitenings)
        return self.recording.projections() if settled else self.recording.base_projections()

    # The block

    def __enter__(self) -> Self:
        if self._open:
            raise RecorderError("expected one `with` block at a time, found the recorder open")
        self.folder.mkdir(parents=True, exist_ok=True)
        prefix = self._prefix()
        if self._resume:
            self._take_up()
        elif any(self.folder.glob(f"{prefix}*.safetensors")):
            raise RecorderError(
                f"{self.folder}: expected a folder without batches {prefix}*, or resume=True, found some"
            )
        self._capture.attach()
        if not self._train:
            self._frozen = [parameter for parameter in self._model.parameters() if parameter.requires_grad]
            for parameter in self._frozen:
                parameter.requires_grad_(False)
        self._open = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except RecorderError as failure:
            if error is None:
                raise
            error.add_note(f"and the recorder could not write what it had: {failure}")

    def close(self) -> None:
        """Writes what is left and gives the model back as it was; raises an error of the writing thread."""
        self._capture.detach()
        while self._frozen:
            self._frozen.pop().requires_grad_(True)
        self._open = False
        if self._stream is not None:
            self._stream.close()

    def _prefix(self) -> str:
        return f"factors-{self._process:05}-"

    def _take_up(self) -> None:
        """Reads what an earlier run left."""
        if not Recording.exists(self.folder):
            return
        earlier = Recording.load(self.folder)
        now, before = self.recording.settings(), earlier.settings()
        if not self.recording.is_settled():
            for settings in (now, before):
                for found in ("calibrated_on", "projection_digest"):
                    settings.pop(found, None)
            now["layers"], before["layers"] = (
                [layer | ({"rank": None} if layer["energy"] is not None else {}) for layer in settings["layers"]]
                for settings in (now, before)
            )
        for name, value in before.items():
            if now.get(name) != value:
                raise RecorderError(
                    f"{self.folder}: expected the settings it was begun with, {name} {_short(value)}, "
                    f"found {_short(now.get(name))}"
                )
        self.recording = earlier
        self._capture.set_projections(self._projections())
        self._done = recorded_ids(self.folder)

    # Steps

    def has(self, identifier: object) -> bool:
        """Whether an earlier run recorded this example; known with resume=True, within the block."""
        return str(identifier) in self._done

    def calibrate(
        self,
        loss: Tensor,
        *,
        examples: int | None = None,
        mask: Tensor | None = None,
        count: float | None = None,
        scale: float = 1.0,
    ) -> None:
        """Takes a batch of a sample, before the first step, to find the whitening and the ranks of an energy target.

        A few hundred examples like those to come will do. `examples` is their number where the first dimension of a
        layer's input does not say it; the rest is as in `step`. Where nothing is to be found it does nothing.
        """
        self._check_open()
        if self.recording.is_settled():
            if self._stream is not None and self._calibration is not None:
                raise RecorderError("calibrate: expected before the first step, found after it")
            return
        if self._calibration is None:
            self._calibration = Calibration(self.recording.layers)
        rows = loss.numel() if loss.dim() == 1 else examples
        if self.recording.per_token:
            if rows is None:
                raise RecorderError("calibrate: expected the number of examples with per_token, found none")
            sides = self._capture.backward_tokens(loss.sum(), rows, mask)
            factor = self._factor(loss, rows, count, scale)
            kept = _kept_tokens(sides, mask)
            self._calibration.add_tokens({name: (a[kept], b[kept] * factor) for name, (a, b) in sides.items()})
            return
        gradients = self._capture.backward(loss.sum(), rows, mask)
        rows = next(iter(gradients.values())).shape[0]
        factor = self._factor(loss, rows, count, scale)
        self._check_finite(gradients, None)
        self._calibration.add({name: matrices * factor for name, matrices in gradients.items()})

    def finish_calibration(self) -> None:
        """Finds whitening and ranks, as the first step does otherwise; with torch.distributed in all processes."""
        if not self.recording.is_settled():
            if self._process_count > 1 and not torch.distributed.is_initialized():
                raise RecorderError(
                    f"calibration in process {self._process} of {self._process_count}: expected torch.distributed, so "
                    "that all find the same; or record the calibration in one process and pass it as like="
                )
            (self._calibration or Calibration(self.recording.layers)).settle(self.recording)
            if self.recording.whiten is not None:
                self._capture.set_projections(self._projections())

    def step(
        self,
        ids: Iterable[object] | Tensor,
        loss: Tensor,
        *,
        mask: Tensor | None = None,
        count: float | None = None,
        scale: float = 1.0,
        records: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        """Runs the backward pass of `loss` and records one row per id.

        loss     a scalar reduced as `reduction` says, or the vector of the examples' losses
        mask     [examples, tokens], zero where a token is left out (padding); layers without tokens ignore it
        count    the number of tokens that the mean was taken over, for reduction="token-mean"
        scale    what else the loss was multiplied by: 1/steps in gradient accumulation, a GradScaler's scale
        records  metadata of each example, for the .jsonl beside each batch
        """
        self._check_open()
        names = [str(item) for item in (ids.tolist() if isinstance(ids, Tensor) else ids)]
        if loss.dim() > 1 or (loss.dim() == 1 and loss.numel() != len(names)):
            raise RecorderError(f"loss: expected a scalar or {len(names)} losses, one per id, found {list(loss.shape)}")
        if records is not None and len(records) != len(names):
            raise RecorderError(f"records: expected {len(names)}, one per id, found {len(records)}")
        # The model ran with the projections of before: those of the calibration are to be applied to what comes out.
        late = self.recording.whiten is not None and not self.recording.whitenings
        stream = None if late else self._begin()
        kept = [row for row, name in enumerate(names) if name not in self._done]
        if not kept:
            if self._train:
                loss.sum().backward()
            return
        if self._with_records not in (None, records is not None):
            raise RecorderError("records: expected with every step or with none")
        factor = self._factor(loss, len(names), count, scale)
        given = None if records is None else [dict(records[row]) for row in kept]
        kept_names = [names[row] for row in kept]
        if self.recording.per_token:
            sides = self._capture.backward_tokens(loss.sum(), len(names), mask)
            stream = stream or self._begin()
            if late:
                sides = {name: (a @ self._map(name, 0, a), b @ self._map(name, 1, b)) for name, (a, b) in sides.items()}
            with torch.no_grad():
                self._put(stream, self._token_rows(names, kept, given, sides=sides, mask=mask, factor=factor))
            return
        gradients = self._capture.backward(loss.sum(), len(names), mask)
        stream = stream or self._begin()
        if late:
            gradients = {name: self._map(name, 0, g) @ g @ self._map(name, 1, g) for name, g in gradients.items()}
        if len(kept) < len(names):
            gradients = {name: matrices[kept] for name, matrices in gradients.items()}
        with torch.no_grad():
            layers, energy = self._rows(gradients, factor, kept_names)
        self._put(stream, Rows(kept_names, layers, given, energy))

    def _map(self, name: str, side: int, like: Tensor) -> Tensor:
        """The whitening of one side of a layer, with the type and device of a tensor."""
        maps = self.recording.whitenings[name]
        return torch.from_numpy((maps.left, maps.right)[side]).to(like.device, like.dtype)

    def _put(self, stream: BatchStream, rows: Rows) -> None:
        self._with_records = rows.records is not None
        stream.put(rows)

    def _begin(self) -> BatchStream:
        """Settles the recording at the first step and starts the writer."""
        if self._stream is None:
            self.finish_calibration()
            recording = self.recording
            if Recording.exists(self.folder) and any(self.folder.glob("*.safetensors")):
                there = Recording.load(self.folder).settings()
                if there != recording.settings():
                    raise RecorderError(f"{self.folder}: expected the settings of the batches in it, found others")
            elif self._process == 0 or not Recording.exists(self.folder):
                recording.save(self.folder)
            numbers = sum(
                layer.d1 * layer.d2 if layer.rank is None else (layer.d1 + layer.d2) * layer.rank
                for layer in recording.layers
            )
            rows = self._file_bytes // (numbers * _ITEM_BYTES[recording.dtype])
            self._stream = BatchStream(
                self.folder,
                self._prefix(),
                recording.provenance() | {"torch": torch.__version__} | self._extra,
                dtype=recording.dtype,
                rows_per_file=min(max(rows, 1), _ROWS_PER_FILE_LIMIT),
            )
        return self._stream

    def _check_open(self) -> None:
        if not self._open:
            raise RecorderError("expected a step within the recorder's `with` block")
        for name, module in self._model.named_modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training:
                raise RecorderError(
                    f"module {name!r}: expected no batch norm in training mode, which mixes the examples; "
                    "call model.eval()"
                )

    def _factor(self, loss: Tensor, rows: int, count: float | None, scale: float) -> float:
        """What gradients are multiplied by to be those of each example's own loss."""
        factor = 1.0
        if loss.dim() == 0 and self.recording.reduction == "mean":
            factor = float(rows)
        elif loss.dim() == 0 and self.recording.reduction == "token-mean":
            if count is None:
                raise RecorderError(
                    "count: expected the number of tokens in the mean, for reduction 'token-mean', found none"
                )
            factor = float(count)
        return factor / scale

    def _check_finite(self, gradients: Mapping[str, Tensor], ids: Sequence[str] | None) -> None:
        squares = torch.stack([matrices.square().sum(dim=(1, 2)) for matrices in gradients.values()])
        finite = torch.isfinite(squares)
        if not bool(finite.all()):
            layer, row = (int(index) for index in (~finite).nonzero()[0])
            who = f"row {row}" if ids is None else f"id {ids[row]!r}"
            raise RecorderError(
                f"layer {list(gradients)[layer]!r}, {who}: expected a finite gradient, found NaN or infinity"
            )

    def _rows(
        self, gradients: Mapping[str, Tensor], factor: float, ids: Sequence[str]
    ) -> tuple[dict[str, tuple[Any, ...]], dict[str, tuple[float, float]]]:
        """What is written of [n, d1, d2]; layers of one shape are factored together."""
        self._check_finite(gradients, ids)
        groups: dict[tuple[Any, ...], list[str]] = {}
        for layer in self.recording.layers:
            matrices = gradients[layer.name]
            groups.setdefault((layer.d1, layer.d2, layer.rank, matrices.device, matrices.dtype), []).append(layer.name)
        rows: dict[str, tuple[Any, ...]] = {}
        energy: dict[str, tuple[float, float]] = {}
        for (_, _, rank, _, _), names in groups.items():
            # Where there are many examples a layer is a batch large enough, and stacking only copies.
            together = max(1, 512 // len(ids))
            for start in range(0, len(names), together):
                part = names[start : start + together]
                stacked = torch.cat([gradients[name] for name in part]) if len(part) > 1 else gradients[part[0]]
                sides, squares = self._reduce(stacked, rank, factor)
                sums = squares.reshape(2, len(part), -1).sum(2).tolist()
                for index, name in enumerate(part):
                    rows[name] = tuple(side[index * len(ids) : (index + 1) * len(ids)] for side in sides)
                    energy[name] = sums[0][index], sums[1][index]
        return {layer.name: rows[layer.name] for layer in self.recording.layers}, energy

    def _reduce(self, matrices: Tensor, rank: int | None, factor: float) -> tuple[tuple[Any, ...], Tensor]:
        """The sides as arrays, and per matrix ‖G‖² and ‖factors‖²."""
        given = matrices.square().sum(dim=(1, 2))
        if rank is None:
            return ((matrices * factor).to("cpu", torch.float32).numpy(),), torch.stack([given, given])
        left, right = factor_matrices(matrices, rank, self._factoring)
        kept = ((left.transpose(1, 2) @ left) * (right.transpose(1, 2) @ right)).sum(dim=(1, 2))
        root = abs(factor) ** 0.5
        sides = left * root, right * (root if factor >= 0 else -root)
        return tuple(side.to("cpu", torch.float32).numpy() for side in sides), torch.stack([given, kept])

    def _token_rows(
        self,
        names: Sequence[str],
        kept: Sequence[int],
        records: Sequence[dict[str, Any]] | None,
        *,
        sides: Mapping[str, tuple[Tensor, Tensor]],
        mask: Tensor | None,
        factor: float,
    ) -> Rows:
        chosen = _kept_tokens(sides, mask)
        chosen &= torch.isin(torch.arange(len(names)), torch.tensor(kept))[:, None]
        places = chosen.nonzero().tolist()
        ids = [f"{names[row]}/{token}" for row, token in places]
        layers: dict[str, tuple[Any, ...]] = {}
        energy: dict[str, tuple[float, float]] = {}
        for layer in self.recording.layers:
            inputs, outputs = (side[chosen.to(side.device)] for side in sides[layer.name])
            outputs = outputs * factor
            self._check_finite({layer.name: inputs[:, :, None] * outputs[:, None, :]}, ids)
            if layer.rank is None:
                pair: tuple[Tensor, ...] = (inputs[:, :, None] * outputs[:, None, :],)
            else:
                pair = factor_tokens(inputs, outputs)
            layers[layer.name] = tuple(side.to("cpu", torch.float32).numpy() for side in pair)
            energy[layer.name] = 1.0, 1.0
        if records is not None:
            by_row = dict(zip(kept, records, strict=True))
            records = [by_row[row] | {"example": names[row], "token": token} for row, token in places]
        return Rows(ids, layers, None if records is None else list(records), energy)

    @property
    def row_count(self) -> int:
        """Rows in files written so far; all of them after the block."""
        return 0 if self._stream is None else self._stream.row_count

    @property
    def byte_count(self) -> int:
        """Bytes of files written so far, without the .jsonl."""
        return 0 if self._stream is None else self._stream.byte_count


def _kept_tokens(sides: Mapping[str, tuple[Tensor, Tensor]], mask: Tensor | None) -> Tensor:
    """[rows, tokens], true where a token is recorded, on the CPU; all layers must have the same tokens."""
    counts = {name: inputs.shape[1] for name, (inputs, _) in sides.items()}
    first, tokens = next(iter(counts.items()))
    for name, count in counts.items():
        if count != tokens:
            raise RecorderError(f"layer {name!r}: expected {tokens} tokens as in layer {first!r}, found {count}")
    shape = next(iter(sides.values()))[0].shape[:2]
    if mask is None:
        return torch.ones(shape, dtype=torch.bool)
    if mask.shape != shape:
        raise RecorderError(f"mask: expected {list(shape)}, examples and tokens, found {list(mask.shape)}")
    return mask.to("cpu").bool().clone()


def _with_rank(base: Recording, rank: int | None, full: bool) -> list[Any]:
    if full:
        return [replace(layer, rank=None) for layer in base.layers]
    if rank is not None:
        return [replace(layer, rank=min(rank, layer.d1, layer.d2), energy=None) for layer in base.layers]
    if any(layer.rank is None for layer in base.layers):
        raise RecorderError("like: expected rank=, or full=True, since that recording has full matrices")
    return base.layers


def _has_bias(recording: Recording) -> bool:
    return any(layer.bias for layer in recording.layers)


def _process() -> tuple[int, int]:
    """This process's number and how many there are: from torch.distributed, else from torchrun's environment."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
