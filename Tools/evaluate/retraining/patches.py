"""A small transformer over the patches of an image: the model that is not one of language."""

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "demo"))
from model import Block

__all__ = ["PatchTransformer", "patches"]


def patches(images: Tensor, side: int) -> Tensor:
    """[rows, h, w] cut into squares: [rows, patches, side²]."""
    rows = images.shape[0]
    cut = images.unfold(1, side, side).unfold(2, side, side)
    return cut.reshape(rows, -1, side * side)


class PatchTransformer(nn.Module):
    """Logits of the classes, [rows, classes], from patches [rows, patches, numbers]; all layers keep the patches."""

    def __init__(self, numbers: int, count: int, classes: int, *, width: int, heads: int, depth: int) -> None:
        super().__init__()
        self.embed, self.places = nn.Linear(numbers, width), nn.Parameter(torch.zeros(count, width))
        self.blocks = nn.ModuleList(Block(width, heads, causal=False) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)
        nn.init.normal_(self.places, std=0.1)

    def hidden(self, images: Tensor) -> Tensor:
        """What the last layer classifies by: [rows, width]."""
        x = self.embed(images) + self.places
        for block in self.blocks:
            x = block(x)
        return self.norm(x).mean(1)

    def forward(self, images: Tensor) -> Tensor:
        """The logits."""
        return self.head(self.hidden(images))
