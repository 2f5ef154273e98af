"""Causal language models: token batches, each example's loss, and the loop that records them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lorif.torch.errors import RecorderError
from lorif.torch.recorder import Recorder

__all__ = ["Example", "ExampleLoss", "example_losses", "record_examples"]

ExampleLoss = Literal["token-sum", "token-mean"]
#: Target of a token that has no loss, as in PyTorch and transformers.
_NO_TARGET = -100


@dataclass(frozen=True)
class Example:
    """One sequence; `labels` are the tokens themselves, -100 where a token is not to be predicted."""

    id: str
    tokens: Sequence[int]
    labels: Sequence[int] | None = None
    record: Mapping[str, Any] | None = None


def example_losses(logits: Tensor, labels: Tensor, kind: ExampleLoss = "token-sum") -> Tensor:
    """Each example's loss [rows] on its next tokens, their sum or mean; in float32 at least."""
    logits = logits if logits.dtype == torch.float64 else logits.float()
    targets = labels[:, 1:]
    losses = nn.functional.cross_entropy(
        logits[:, :-1].transpose(1, 2), targets, ignore_index=_NO_TARGET, reduction="none"
    )
    summed = losses.sum(1)
    return summed if kind == "token-sum" else summed / (targets != _NO_TARGET).sum(1)


def record_examples(
    recorder: Recorder,
    model: Any,
    examples: Iterable[Example],
    *,
    batch_size: int = 8,
    loss: ExampleLoss = "token-sum",
    calibrate: bool = False,
    autocast: torch.dtype | None = None,
) -> int:
    """Runs a model with the interface of transformers over examples, padded on the right; how many there were.

    Examples that an earlier run has recorded are skipped before the model runs. Within the recorder's `with` block.
    """
    device = next(model.parameters()).device
    count = 0
    for batch in _batches((one for one in examples if calibrate or not recorder.has(one.id)), batch_size):
        tokens, mask, labels = (side.to(device) for side in _padded(batch))
        with torch.autocast(device.type, dtype=autocast, enabled=autocast is not None):
            logits = model(input_ids=tokens, attention_mask=mask, use_cache=False).logits
        losses = example_losses(logits, labels, loss)
        if calibrate:
            recorder.calibrate(losses, mask=mask)
        else:
            records = None if batch[0].record is None else [example.record or {} for example in batch]
            recorder.step([example.id for example in batch], losses, mask=mask, records=records)
        count += len(batch)
    return count


def _batches(examples: Iterable[Example], size: int) -> Iterator[list[Example]]:
    iterator = iter(examples)
    while batch := list(islice(iterator, size)):
        yield batch


def _padded(batch: Sequence[Example]) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, mask and labels [rows, longest]."""
    longest = max(len(example.tokens) for example in batch)
    tokens, mask = (
        torch.zeros(len(batch), longest, dtype=torch.long),
        torch.zeros(len(batch), longest, dtype=torch.long),
    )
    labels = torch.full((len(batch), longest), _NO_TARGET)
    for row, example in enumerate(batch):
        given = example.tokens if example.labels is None else example.labels
        length = len(example.tokens)
        if len(given) != length:
            raise RecorderError(f"example {example.id!r}: expected {length} labels, one per token, found {len(given)}")
        if all(label == _NO_TARGET for label in given[1:]):
            raise RecorderError(f"example {example.id!r}: expected a token to predict after the first, found none")
        tokens[row, :length], mask[row, :length] = torch.tensor(example.tokens), 1
        labels[row, :length] = torch.tensor(given)
    return tokens, mask, labels
