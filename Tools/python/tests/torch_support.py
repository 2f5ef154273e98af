"""Small models, and the oracle: torch.func's per-example gradients, projected in float64."""

import pytest

torch = pytest.importorskip(
    "torch", reason="PyTorch is not installed; the recorder stays UNTESTED: pip install '.[torch]'"
)

from collections.abc import Callable, Mapping  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
from lorif.torch.recording import Recording  # noqa: E402
from torch import Tensor, nn  # noqa: E402


class Conv1D(nn.Module):
    """As in transformers: a linear layer whose weight is [inputs, outputs]."""

    def __init__(self, nf: int, nx: int) -> None:
        super().__init__()
        self.nf, self.nx = nf, nx
        self.weight = nn.Parameter(torch.randn(nx, nf) * 0.3)
        self.bias = nn.Parameter(torch.randn(nf) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight).view(*x.size()[:-1], self.nf)


class Block(nn.Module):
    """Attention over earlier tokens, then a nonlinear pair, with both kinds of layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = Conv1D(3 * width, width)
        self.out = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, 2 * width)
        self.act = nn.ReLU(inplace=True)
        self.down = nn.Linear(2 * width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).chunk(3, dim=-1)
        scores = q @ k.transpose(-1, -2) / x.shape[-1] ** 0.5
        allowed = torch.ones(x.shape[-2], x.shape[-2], dtype=torch.bool, device=x.device).tril()
        if keep is not None:
            allowed = allowed & keep[..., None, :].bool() | torch.eye(x.shape[-2], dtype=torch.bool)
        x = x + self.out(scores.masked_fill(~allowed, -1e9).softmax(-1) @ v)
        return x + self.down(self.act(self.up(x)))


class TinyLM(nn.Module):
    """A language model of two blocks; `checkpoint` None, True (reentrant) or False (not)."""

    def __init__(self, width: int = 6, words: int = 11, checkpoint: bool | None = None, tied: bool = False) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, width)
        self.blocks = nn.ModuleList([Block(width), Block(width)])
        self.head = nn.Linear(width, words, bias=False)
        self.checkpoint = checkpoint
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor, keep: Tensor | None = None) -> Tensor:
        x = self.embed(tokens)
        for block in self.blocks:
            if self.checkpoint is None:
                x = block(x, keep)
            else:
                x = torch.utils.checkpoint.checkpoint(block, x, keep, use_reentrant=self.checkpoint)
        return self.head(x)


def token_losses(logits: Tensor, tokens: Tensor, keep: Tensor | None = None) -> Tensor:
    """Each example's summed loss on its next tokens [rows]; tokens that are not kept are no targets."""
    logits = logits.float() if logits.dtype == torch.bfloat16 else logits
    chances = logits[..., :-1, :].log_softmax(-1)
    losses = -chances.gather(-1, tokens[..., 1:, None]).squeeze(-1)
    return (losses if keep is None else losses * keep[..., 1:]).sum(-1)


def per_example_gradients(
    model: nn.Module, loss: Callable[..., Tensor], rows: list[tuple[Any, ...]]
) -> dict[str, np.ndarray]:
    """Gradients of each parameter for each row [n, …], by torch.func; `loss(call, *row)` is one example's loss."""
    parameters = {name: value.detach() for name, value in model.named_parameters()}

    def one(values: Mapping[str, Tensor], row: tuple[Any, ...]) -> Tensor:
        return loss(lambda *inputs: torch.func.functional_call(model, dict(values), inputs), *row)

    found = [torch.func.grad(one)(parameters, row) for row in rows]
    return {name: np.stack([gradient[name].double().numpy() for gradient in found]) for name in parameters}


def projected(
    recording: Recording, gradients: dict[str, np.ndarray], conv1d: Callable[[str], bool]
) -> dict[str, np.ndarray]:
    """P_inᵀ G P_out of each recorded layer, with G [inputs (and 1), outputs]."""
    result = {}
    for name, (left, right) in recording.projections().items():
        weight = gradients[f"{name}.weight"]
        matrix = weight if conv1d(name) else weight.transpose(0, 2, 1)
        if next(layer for layer in recording.layers if layer.name == name).bias:
            matrix = np.concatenate([matrix, gradients[f"{name}.bias"][:, None, :]], axis=1)
        matrix = matrix if left is None else np.einsum("ia,nio->nao", left, matrix)
        result[name] = matrix if right is None else matrix @ right
    return result
