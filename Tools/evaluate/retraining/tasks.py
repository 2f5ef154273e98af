"""The two tasks: handwritten digits cut into patches, and sequences of real text."""

import random
import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from retraining.patches import PatchTransformer, patches
from retraining.plans import Plan
from retraining.workshop import Workshop

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "demo"))
from model import GPT
from sources import SOURCES, passages
from words import Pieces

__all__ = ["SEED", "Task", "open_task"]

VOCABULARY = 1024
SEED = 20261122
#: Standard deviation of what is added to the pixels (0 to 1) of a near copy, and the share of a text's pieces replaced.
NOISE, REPLACED = 0.08, 0.1
DIGITS = 10


class Task:
    """Data and the shape of the model.

    Attributes:
        train, query, copy, before: Inputs and targets; `copy` are near copies of training examples.
        copied: [copies], which training example each is a copy of.
        spoiled: [train], whether the label is wrong or the text shuffled.
    """

    def __init__(self, plan: Plan, arrays: dict[str, NDArray]) -> None:
        def pair(name: str) -> tuple[Tensor, Tensor]:
            return torch.from_numpy(arrays[f"{name}_inputs"]), torch.from_numpy(arrays[f"{name}_targets"])

        self.plan = plan
        self.train, self.query, self.copy, self.before = map(pair, ("train", "query", "copy", "before"))
        self.copied, self.spoiled = arrays["copied"], arrays["spoiled"]
        self.vocabulary = int(arrays["vocabulary"])

    @property
    def train_ids(self) -> list[str]:
        """Names of the training examples."""
        return [f"train-{row:05}" for row in range(len(self.train[0]))]

    @staticmethod
    def query_ids(data: tuple[Tensor, Tensor]) -> list[str]:
        """Names of queries."""
        return [f"query-{row:05}" for row in range(len(data[0]))]

    def model(self) -> nn.Module:
        """A model as it is before anything is learnt."""
        torch.manual_seed(SEED)
        plan = self.plan
        shape = {"width": plan.width, "heads": plan.heads, "depth": plan.depth}
        if plan.task == "digits":
            return PatchTransformer(self.train[0].shape[2], plan.tokens, DIGITS, **shape)
        return GPT(self.vocabulary, plan.tokens, **shape)


def open_task(workshop: Workshop, texts: Path | None) -> Task:
    """The task of a plan, made in the first run and read in later ones."""
    if not workshop.has("data"):
        workshop.begin()
        plan = workshop.plan
        make = {"digits": lambda: _digits(plan), "text": lambda: _texts(plan, texts or workshop.path("texts"))}
        workshop.save("data", make[plan.task]())
        workshop.done("data")
    return Task(workshop.plan, workshop.load("data"))


def _parts(plan: Plan, count: int, draw: np.random.Generator) -> dict[str, NDArray]:
    """Which of `count` examples are used for what."""
    wanted = {"train": plan.train, "query": plan.queries, "before": plan.before}
    if sum(wanted.values()) > count:
        raise ValueError(f"expected at least {sum(wanted.values())} examples for this plan, found {count}")
    ends = np.cumsum([0, *wanted.values()])
    order = draw.permutation(count)
    return {name: order[ends[place] : ends[place + 1]] for place, name in enumerate(wanted)}


def _marks(plan: Plan, draw: np.random.Generator) -> tuple[NDArray, NDArray]:
    """Which training examples are spoiled, and which others are copied."""
    order = draw.permutation(plan.train)
    count = round(plan.spoiled * plan.train)
    spoiled = np.zeros(plan.train, bool)
    spoiled[order[:count]] = True
    return spoiled, np.sort(order[count : count + plan.copies])


def _digits(plan: Plan) -> dict[str, NDArray]:
    """Images of 8 by 8 pixels in sixteen patches of 2 by 2; a wrong label is one of the nine others."""
    from sklearn.datasets import load_digits  # noqa: PLC0415 - only this task needs it

    draw = np.random.default_rng(SEED)
    found = load_digits()
    images, labels = found.images.astype(np.float32) / 16, found.target.astype(np.int64)
    parts = _parts(plan, len(images), draw)
    spoiled, copied = _marks(plan, draw)
    side = round((64 / plan.tokens) ** 0.5)
    mean, spread = images[parts["before"]].mean(), images[parts["before"]].std()

    def inputs(pictures: NDArray) -> NDArray:
        return patches(torch.from_numpy(((pictures - mean) / spread).astype(np.float32)), side).numpy()

    arrays = {"spoiled": spoiled, "copied": copied, "vocabulary": np.array(0)}
    for name, rows in parts.items():
        arrays |= {f"{name}_inputs": inputs(images[rows]), f"{name}_targets": labels[rows]}
    originals = parts["train"][copied]
    noise = NOISE * draw.standard_normal(images[originals].shape)
    arrays |= {"copy_inputs": inputs(images[originals] + noise), "copy_targets": labels[originals]}
    others = draw.integers(1, DIGITS, size=int(spoiled.sum()))
    arrays["train_targets"][spoiled] = (arrays["train_targets"][spoiled] + others) % DIGITS
    return arrays


def _texts(plan: Plan, folder: Path) -> dict[str, NDArray]:
    """Sequences of pieces from three sources; a spoiled one has its pieces in random order."""
    draw = np.random.default_rng(SEED)
    texts = {source: passages(source, folder) for source in SOURCES}
    pieces = Pieces((sentence for each in texts.values() for passage in each for sentence in passage), VOCABULARY)
    shuffle = random.Random(SEED)  # noqa: S311 - a draw of examples, not a secret
    groups = []
    for source in SOURCES:
        # Most passages are shorter than a sequence: they follow each other.
        found = _sequences([sentence for passage in texts[source] for sentence in passage], pieces, plan.tokens)
        shuffle.shuffle(found)
        groups.append(found)
    # No source more than twice as often as the scarcest.
    most = 2 * min(len(group) for group in groups)
    rows = np.array([row for group in groups for row in group[:most]], np.int64)
    parts = _parts(plan, len(rows), draw)
    spoiled, copied = _marks(plan, draw)
    arrays = {"spoiled": spoiled, "copied": copied, "vocabulary": np.array(len(pieces.pieces))}
    sets = {name: rows[chosen] for name, chosen in parts.items()}
    sets["copy"] = sets["train"][copied].copy()
    replaced = draw.random(sets["copy"].shape) < REPLACED
    sets["copy"][replaced] = draw.integers(len(pieces.pieces), size=int(replaced.sum()))
    sets["train"][spoiled] = draw.permuted(sets["train"][spoiled], axis=1)
    for name, numbers in sets.items():
        arrays |= {f"{name}_inputs": numbers[:, :-1].copy(), f"{name}_targets": numbers[:, 1:].copy()}
    return arrays


def _sequences(sentences: list[str], pieces: Pieces, length: int) -> list[list[int]]:
    """Every length + 1 pieces from the beginning of a sentence, without overlap."""
    found = []
    numbers: list[int] = []
    for sentence in sentences:
        numbers += pieces.numbers(f" {sentence}" if numbers else sentence)
        if len(numbers) > length:
            found.append(numbers[: length + 1])
            numbers = []
    return found
