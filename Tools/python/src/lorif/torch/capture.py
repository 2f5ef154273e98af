"""Hooks that turn one forward and backward pass into each example's projected gradient of each layer.

A forward hook projects the layer's input at once, so that no activation is kept, and leaves a hook on the output that
projects its gradient and forms G = (X P_in)ᵀ (dY P_out), summed over the tokens of each example. Every call of a module
has its own pair, which makes reused modules, tied weights and activation checkpointing come out right: what a
recomputed forward captures is used only if the backward pass really goes through it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lorif.torch.errors import RecorderError
from lorif.torch.layers import SelectedLayer

__all__ = ["Capture", "refuse_compiled"]


class _GradientRoot(torch.autograd.Function):
    """Identity whose output requires a gradient even if nothing before it does, as in a model with frozen weights."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, anchor: Tensor) -> Tensor:
        return values.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None]:
        return None, None


def refuse_compiled(model: nn.Module) -> None:
    """Refuses a compiled model: its kernels skip the hooks, or each hook breaks the graph at every layer."""
    for name, module in model.named_modules():
        compiled_in_place = getattr(module, "_compiled_call_impl", None) is not None
        if compiled_in_place or type(module).__name__ == "OptimizedModule":
            raise RecorderError(
                f"model, module {name or type(module).__name__!r}: expected an uncompiled model, since hooks cannot "
                "see into compiled code; record the model before torch.compile, or the original (compiled._orig_mod)"
            )


@dataclass
class _Armed:
    """What the backward pass under way is for."""

    row_count: int | None
    mask: Tensor | None
    #: Per layer: [rows, d1, d2], or with tokens kept apart the two sides [rows, tokens, d1] and [rows, tokens, d2].
    gradients: dict[str, Tensor] = field(default_factory=dict)
    sides: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)


class Capture:
    """The hooks of the layers to record. `projections` has (P_in, P_out) per layer, None for a side left as it is.

    Numbers are float64 where activations are, else float32, whatever autocast does.
    """

    def __init__(
        self,
        layers: Sequence[SelectedLayer],
        projections: Mapping[str, tuple[NDArray[np.float64] | None, NDArray[np.float64] | None]],
        *,
        per_token: bool = False,
    ) -> None:
        self._layers = layers
        self._projections = dict(projections)
        self._per_token = per_token
        self._version = 0
        self._tensors: dict[tuple[str, int, torch.device, torch.dtype], Tensor] = {}
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._armed: _Armed | None = None
        self._anchors: dict[torch.device, Tensor] = {}

    def set_projections(
        self, projections: Mapping[str, tuple[NDArray[np.float64] | None, NDArray[np.float64] | None]]
    ) -> None:
        """Replaces the projections, from the next forward pass on; the backward pass of an earlier one is refused."""
        self._projections = dict(projections)
        self._tensors.clear()
        self._version += 1

    def attach(self) -> None:
        """Puts the hooks on the modules."""
        for layer in self._layers:
            hook = partial(self._after_forward, layer)
            self._handles += [module.register_forward_hook(hook, with_kwargs=True) for module in layer.modules]

    def detach(self) -> None:
        """Takes the hooks off."""
        while self._handles:
            self._handles.pop().remove()
        self._tensors.clear()

    def backward(self, loss: Tensor, row_count: int | None, mask: Tensor | None = None) -> dict[str, Tensor]:
        """Runs the backward pass of `loss`; gradients [rows, d1, d2] of each layer, as the loss is scaled.

        `row_count` None takes it from the first layer. `mask` [rows, tokens] is zero where a token is left out.
        """
        armed = self._run(loss, row_count, mask)
        self._check_complete(armed.gradients)
        return armed.gradients

    def backward_tokens(
        self, loss: Tensor, row_count: int, mask: Tensor | None = None
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """As `backward`, but each token's two vectors: [rows, tokens, d1] and [rows, tokens, d2] of each layer."""
        armed = self._run(loss, row_count, mask)
        self._check_complete(armed.sides)
        return armed.sides

    def _run(self, loss: Tensor, row_count: int | None, mask: Tensor | None) -> _Armed:
        if not loss.requires_grad:
            raise RecorderError(
                "loss: expected one that depends on a recorded layer, found none to go back to; run the model inside "
                "the `with` block and outside of torch.no_grad; reentrant checkpointing needs an input that requires a "
                "gradient (use_reentrant=False does not)"
            )
        self._armed = armed = _Armed(row_count, mask)
        try:
            loss.backward()
        finally:
            self._armed = None
        return armed

    def _check_complete(self, found: Mapping[str, object]) -> None:
        for layer in self._layers:
            if layer.name not in found:
                raise RecorderError(
                    f"layer {layer.name!r}: expected it in the backward pass of the loss, found no gradient; it was "
                    "not called inside the `with` block, or its output does not reach the loss; leave it out of "
                    "`layers`. With reentrant checkpointing and frozen weights use use_reentrant=False or "
                    "model.enable_input_require_grads()"
                )

    def _after_forward(
        self, layer: SelectedLayer, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor
    ) -> Tensor | None:
        if not torch.is_grad_enabled():
            return None
        if torch.compiler.is_compiling():
            raise RecorderError(
                f"layer {layer.name!r}: expected an uncompiled model; hooks cannot see into compiled code"
            )
        given = args[0] if args else next(iter(kwargs.values()))
        with torch.no_grad(), torch.autocast(given.device.type, enabled=False):
            inputs = self._project(layer, 0, given)
        result = None
        if not output.requires_grad:
            anchor = self._anchors.setdefault(output.device, torch.zeros((), device=output.device, requires_grad=True))
            output = result = _GradientRoot.apply(output, anchor)
        elif output._is_view():
            # A view that is changed in place later (ReLU(inplace=True)) would lose its hook. The base is this call's
            # own, unless a subclass of nn.Linear did something with it.
            alias = type(module) is nn.Linear or not isinstance(module, nn.Linear)
            output = result = torch.ops.aten._unsafe_view(output, output.shape) if alias else output.clone()
        output.register_hook(partial(self._after_backward, layer, inputs, self._version))
        return result

    def _after_backward(self, layer: SelectedLayer, inputs: Tensor, version: int, gradient: Tensor) -> None:
        armed = self._armed
        if armed is None:
            return
        if version != self._version:
            raise RecorderError("step: expected a model that ran after finish_calibration(), found one that ran before")
        with torch.no_grad(), torch.autocast(gradient.device.type, enabled=False):
            outputs = self._project(layer, 1, gradient)
            self._check_rows(armed, layer, inputs)
            if armed.mask is not None and outputs.shape[1] > 1:
                if tuple(armed.mask.shape) != tuple(outputs.shape[:2]):
                    raise RecorderError(
                        f"layer {layer.name!r}: expected a mask of {list(outputs.shape[:2])}, examples and tokens, "
                        f"found {list(armed.mask.shape)}"
                    )
                # Selected, not multiplied: what stands at a padded place may be infinite.
                kept = armed.mask.to(outputs.device).bool().unsqueeze(-1)
                outputs = outputs.where(kept, outputs.new_zeros(()))
                inputs = inputs.where(kept, inputs.new_zeros(()))
            if self._per_token:
                if layer.name in armed.sides:
                    raise RecorderError(f"layer {layer.name!r}: expected one call a pass to record tokens, found more")
                armed.sides[layer.name] = (inputs, outputs)
                return
            matrices = inputs.transpose(1, 2) @ outputs
            earlier = armed.gradients.get(layer.name)
            armed.gradients[layer.name] = matrices if earlier is None else earlier + matrices

    def _check_rows(self, armed: _Armed, layer: SelectedLayer, inputs: Tensor) -> None:
        if armed.row_count is None:
            armed.row_count = inputs.shape[0]
        if inputs.shape[0] != armed.row_count:
            raise RecorderError(
                f"layer {layer.name!r}: expected the {armed.row_count} examples in the first dimension of its input, "
                f"found {inputs.shape[0]}; a layer that sees other things than examples (tokens without their example, "
                "the sequence first) cannot be recorded"
            )

    def _project(self, layer: SelectedLayer, side: int, values: Tensor) -> Tensor:
        """[rows, tokens, d] of an input (side 0) or an output's gradient (side 1); no tokens count as one."""
        dtype = torch.float64 if values.dtype == torch.float64 else torch.float32
        rows, tokens = values.shape[0], values.shape[1:-1].numel()
        values = values.detach().reshape(rows, tokens, values.shape[-1])
        with_bias = side == 0 and layer.bias
        matrix = self._projections[layer.name][side]
        if matrix is None:
            # A copy: the model may change its activation in place after this.
            values = values.to(dtype, copy=True)
            return nn.functional.pad(values, (0, 1), value=1.0) if with_bias else values
        key = (layer.name, side, values.device, dtype)
        projection = self._tensors.get(key)
        if projection is None:
            projection = torch.from_numpy(matrix).to(values.device, dtype)
            self._tensors[key] = projection
        values = values.to(dtype)
        return values @ projection[:-1] + projection[-1] if with_bias else values @ projection
