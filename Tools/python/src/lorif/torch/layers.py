"""Which modules of a model are recorded: chosen by glob and type; others are refused with the reason."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from lorif.torch.errors import RecorderError

__all__ = ["SelectedLayer", "select_layers"]


@dataclass(frozen=True)
class SelectedLayer:
    """A layer to record: the modules that share its weight (nearly always one), and its true dimensions.

    `inputs` counts the bias as one more input, a constant 1, if `bias` is set.
    """

    name: str
    modules: tuple[nn.Module, ...]
    inputs: int
    outputs: int
    bias: bool


def _is_conv1d(module: nn.Module) -> bool:
    """Whether it is the Conv1D of GPT-2 (transformers), known by shape so that transformers need not be there."""
    weight = getattr(module, "weight", None)
    named = any(kind.__name__ == "Conv1D" for kind in type(module).__mro__)
    return named and hasattr(module, "nf") and weight is not None and weight.dim() == 2


def refusal(module: nn.Module) -> str | None:
    """Why a module cannot be recorded; None if it can."""
    name = type(module).__name__
    if name == "NonDynamicallyQuantizableLinear":
        return "its weight is used inside nn.MultiheadAttention, and the module itself is never called"
    if isinstance(module, nn.modules.lazy.LazyModuleMixin) and module.has_uninitialized_params():
        return "a lazy module has no shape yet; run the model once first"
    if isinstance(module, nn.Linear) or _is_conv1d(module):
        return None
    reasons: list[tuple[type[nn.Module] | tuple[type[nn.Module], ...], str]] = [
        (
            nn.modules.conv._ConvNd,
            "a convolution's gradient is not one product of two matrices per token; only its patches would be",
        ),
        ((nn.Embedding, nn.EmbeddingBag), "an embedding has token numbers for input; record the layer after it"),
        (nn.MultiheadAttention, "its projections are not modules of their own; use separate nn.Linear layers"),
        (nn.Bilinear, "its gradient is a tensor with three sides"),
    ]
    for kind, reason in reasons:
        if isinstance(module, kind):
            return reason
    return f"{name} is not nn.Linear or GPT-2's Conv1D"


def _dimensions(module: nn.Module) -> tuple[int, int]:
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    shape = module.get_parameter("weight").shape
    return shape[0], shape[1]


def select_layers(
    model: nn.Module, patterns: str | Sequence[str], types: Sequence[type[nn.Module]] | None, bias: bool
) -> list[SelectedLayer]:
    """The layers whose names match a pattern, in the order of the model.

    A pattern without *, ? or [ names one module and is refused if that one cannot be recorded; a pattern with them
    takes what can be recorded of what it matches. Modules that share a weight become one layer under the first name.
    """
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    modules = {name: module for name, module in model.named_modules() if name}
    if not modules:
        modules = {"model": model}
    chosen: set[str] = set()
    for pattern in patterns:
        chosen |= _matches(pattern, modules, types)

    tied: dict[int, list[str]] = {}
    for name, module in modules.items():
        weight = getattr(module, "weight", None)
        if isinstance(weight, nn.Parameter):
            tied.setdefault(id(weight), []).append(name)

    layers: list[SelectedLayer] = []
    done: set[str] = set()
    for name, module in modules.items():
        if name not in chosen or name in done:
            continue
        users = tied.get(id(getattr(module, "weight", None)), [name])
        together = [user for user in users if user in chosen]
        done.update(together)
        inputs, outputs = _dimensions(module)
        others = [user for user in users if user not in chosen]
        if others:
            warnings.warn(
                f"layer {name!r} shares its weight with {', '.join(others)}, not recorded: "
                "what the gradient has from there is left out",
                stacklevel=4,
            )
        biases = {id(getattr(modules[user], "bias", None)) for user in together}
        with_bias = bias and getattr(module, "bias", None) is not None
        if bias and len(biases) > 1:
            raise RecorderError(
                f"layer {name!r}: expected one bias where a weight is shared; record it with bias=False"
            )
        if any(_is_conv1d(modules[user]) != _is_conv1d(module) for user in together):
            raise RecorderError(f"layer {name!r}: a weight shared by nn.Linear and Conv1D cannot be recorded as one")
        shared = tuple(modules[user] for user in together)
        layers.append(SelectedLayer(name, shared, inputs + int(with_bias), outputs, with_bias))
    return layers


def _matches(pattern: str, modules: dict[str, nn.Module], types: Sequence[type[nn.Module]] | None) -> set[str]:
    explicit = not any(sign in pattern for sign in "*?[")
    names = [pattern] if explicit and pattern in modules else [n for n in modules if fnmatchcase(n, pattern)]
    if not names:
        known = [name for name, module in modules.items() if refusal(module) is None]
        shown = ", ".join(known[:8]) + (", …" if len(known) > 8 else "")
        raise RecorderError(f"layers {pattern!r}: no module has such a name; those that can be recorded: {shown}")
    refused = {name: reason for name in names if (reason := refusal(modules[name])) is not None}
    if explicit and refused:
        raise RecorderError(f"layer {pattern!r}: cannot be recorded: {refused[pattern]}")
    result = {n for n in names if n not in refused and (types is None or isinstance(modules[n], tuple(types)))}
    if not result:
        reasons = [f"{name}: {reason}" for name, reason in list(refused.items())[:3]]
        why = "; ".join(reasons) if len(refused) == len(names) else "none is of the given types"
        raise RecorderError(f"layers {pattern!r}: nothing that can be recorded ({why})")
    return result
