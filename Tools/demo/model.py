"""A small GPT, and how it is trained: nothing that matters here needs more."""

import math
import time

import torch
from torch import Tensor, nn

__all__ = ["GPT", "Block", "losses", "train"]


class Block(nn.Module):
    """Attention and a two-layer perceptron, each after a layer norm and added to what comes in."""

    def __init__(self, width: int, heads: int, *, causal: bool = True) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[rows, tokens, width] to the same."""
        rows, tokens, width = x.shape
        split = self.qkv(self.norm_1(x)).view(rows, tokens, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        x = x + self.out(mixed.transpose(1, 2).reshape(rows, tokens, width))
        return x + self.down(nn.functional.gelu(self.up(self.norm_2(x))))


class GPT(nn.Module):
    """Logits of the next piece, [rows, tokens, vocabulary], from numbers [rows, tokens]."""

    def __init__(self, vocabulary: int, context: int, *, width: int = 64, heads: int = 4, depth: int = 2) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)
        for weight in self.parameters():
            if weight.dim() == 2:
                nn.init.normal_(weight, std=0.02)

    def forward(self, numbers: Tensor) -> Tensor:
        """The logits."""
        x = self.words(numbers) + self.places.weight[: numbers.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def losses(model: nn.Module, rows: Tensor) -> Tensor:
    """Each row's mean cross entropy of its pieces after the first: [rows]."""
    logits = model(rows[:, :-1])
    return nn.functional.cross_entropy(logits.transpose(1, 2), rows[:, 1:], reduction="none").mean(1)


def train(model: nn.Module, rows: Tensor, *, epochs: int, batch: int = 32, peak: float = 3e-3) -> None:
    """AdamW with a warm-up and a cosine; prints the loss of each epoch."""
    steps = epochs * math.ceil(len(rows) / batch)
    optimizer = torch.optim.AdamW(model.parameters(), peak, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / 100, 0.5 * (1 + math.cos(math.pi * step / steps)))
    )
    started = time.process_time()
    for epoch in range(epochs):
        total = 0.0
        for chosen in torch.randperm(len(rows)).split(batch):
            optimizer.zero_grad()
            loss = losses(model, rows[chosen]).mean()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += loss.item() * len(chosen)
        spent = time.process_time() - started
        print(f"epoch {epoch + 1} of {epochs}: loss {total / len(rows):.3f}, {spent:.0f} s of CPU", flush=True)
