"""Finds flipped labels and planted near-duplicates with gradient factors, and measures how well.

    python Tools/python/examples/find_mislabeled.py [OUT]

The task: from a snippet of 24 characters, say whether it is from the King James Bible (the demo set's texts) or from
Python's manual (which comes with Python). A tenth of the training labels are flipped, and some rows are near-copies of
the queries. Then, from the batches that the recorder wrote and nothing else:

1. which labels are wrong?   self-influence of each training row, and its cosine of influence with a small clean set;
2. what was copied?          the row of the largest cosine of influence with each query.

Against them: chance, the similarity of embeddings (labels that disagree with those of the ten nearest rows; the nearest
row), and the training loss. With a store, 1 is `lorif query … --method self-influence` and 2 `--method relatif`; here
it is a few lines of NumPy, so that the formulas can be seen: per layer, (H + λI)⁻¹ with H = Σ g gᵀ, λ = ρ · tr H / D.

On a classifier this small the training loss and the embedding know as much about flipped labels as self-influence does,
whose advantage is that the same rows answer all of these questions; the table says so.
"""

import json
import random
import sys
import tempfile
from pathlib import Path
from pydoc_data.topics import topics

import lorif.torch
import numpy as np
import torch
from lorif.batch import FactorBatch
from numpy.typing import NDArray
from torch import Tensor, nn

SNIPPET = 24
TRAINING, CLEAN, QUERIES = 2000, 100, 50
FLIPPED = 0.1
DAMPING = 0.1
BUCKETS = 4096
Array = NDArray[np.float64]


class Classifier(nn.Module):
    """Hashed character trigrams, their mean embedding, and two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.EmbeddingBag(BUCKETS, 64)
        self.hidden = nn.Linear(64, 64)
        self.output = nn.Linear(64, 2)

    def forward(self, trigrams: Tensor) -> Tensor:
        """Logits [rows, 2] from bucket numbers [rows, trigrams]."""
        return self.output(torch.relu(self.hidden(self.embed(trigrams))))


def snippets(draw: random.Random) -> list[tuple[str, int]]:
    """Distinct snippets and their class, alternating and shuffled."""
    demo = Path(__file__).resolve().parents[2] / "demo" / "train.jsonl"
    records = [json.loads(line) for line in demo.read_text(encoding="utf-8").splitlines()]
    bible = " ".join(record["text"] for record in records if record["source"] == "King James Bible")
    result: dict[str, int] = {}
    for label, text in enumerate((bible, " ".join(topics.values()))):
        letters = "".join(sign if sign.isalpha() else " " for sign in text.lower())
        flat = " ".join(letters.split())
        wanted = (TRAINING + CLEAN + QUERIES) * (label + 1) // 2
        while len(result) < wanted:
            start = draw.randrange(len(flat) - SNIPPET)
            result.setdefault(flat[start : start + SNIPPET], label)
    rows = list(result.items())
    draw.shuffle(rows)
    return rows


def trigrams(texts: list[str]) -> Tensor:
    """Bucket numbers [texts, trigrams], the same in every run."""
    powers = (1, 31, 31 * 31)
    places = range(SNIPPET - 2)
    return torch.tensor(
        [
            [sum(ord(text[at + k]) * powers[k] for k in range(3)) * 2654435761 % 2**32 % BUCKETS for at in places]
            for text in texts
        ]
    )


def train(inputs: Tensor, labels: Tensor) -> Classifier:
    """Five epochs of Adam."""
    torch.manual_seed(0)
    model = Classifier()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(5):
        for rows in torch.randperm(len(inputs)).split(50):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs[rows]), labels[rows]).backward()
            optimizer.step()
    return model


def record(model: Classifier, inputs: Tensor, labels: Tensor, out: Path, like: Path | None = None) -> list[Array]:
    """Records rows and reads them back: each layer's gradients [rows, D]."""
    choice = {"layers": ["hidden", "output"], "d": 16, "rank": 1} if like is None else {"like": like, "full": True}
    with lorif.torch.Recorder(model, out=out, **choice) as recorder:
        for rows in torch.arange(len(inputs)).split(100):
            recorder.step(rows, nn.functional.cross_entropy(model(inputs[rows]), labels[rows]))
    (path,) = out.glob("*.safetensors")
    batch = FactorBatch(path)
    return [batch.gradients(layer.name).reshape(len(inputs), -1).astype(float) for layer in batch.layers]


def preconditioned(layers: list[Array], training: list[Array]) -> Array:
    """(H + λI)^(-1/2) g of every row [rows, Σ D]: their products are influences, summed over the layers."""
    result = []
    for rows, given in zip(layers, training, strict=True):
        values, vectors = np.linalg.eigh(given.T @ given)
        result.append(rows @ (vectors / np.sqrt(np.maximum(values, 0) + DAMPING * values.sum() / len(values))))
    return np.concatenate(result, axis=1)


def unit(rows: Array) -> Array:
    """Rows of length one."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)


def main(out: Path) -> dict[str, float]:
    """Runs it all, prints the table and returns it."""
    draw = random.Random(0)  # noqa: S311 - a draw of examples, not a secret
    rows = snippets(draw)
    texts, truth = [text for text, _ in rows], torch.tensor([label for _, label in rows])
    # A copy has two letters changed; its original is a query, and both have the true label.
    for query in range(QUERIES):
        copy = list(texts[TRAINING + CLEAN + query])
        for place in draw.sample(range(SNIPPET), 2):
            copy[place] = draw.choice("etaoinsh")
        texts[query], truth[query] = "".join(copy), truth[TRAINING + CLEAN + query]
    labels = truth.clone()
    flipped = np.array(draw.sample(range(QUERIES, TRAINING), int(FLIPPED * TRAINING)))
    labels[flipped] = 1 - labels[flipped]

    inputs = trigrams(texts)
    parts = slice(0, TRAINING), slice(TRAINING, TRAINING + CLEAN), slice(TRAINING + CLEAN, None)
    model = train(inputs[parts[0]], labels[parts[0]])
    training = record(model, inputs[parts[0]], labels[parts[0]], out / "train")
    clean, queries = (
        record(model, inputs[part], labels[part], out / name, out / "train")
        for name, part in (("clean", parts[1]), ("queries", parts[2]))
    )
    mapped, mapped_clean, mapped_queries = (preconditioned(each, training) for each in (training, clean, queries))
    with torch.no_grad():
        losses = nn.functional.cross_entropy(model(inputs), labels, reduction="none").numpy()
        hidden = unit(torch.relu(model.hidden(model.embed(inputs))).numpy().astype(float))
    near = np.argsort(-hidden[:TRAINING] @ hidden[:TRAINING].T, axis=1)[:, 1:11]
    disagree = (labels.numpy()[near] != labels.numpy()[:TRAINING, None]).mean(1)

    def precision(suspicion: Array) -> float:
        chosen = np.argsort(-suspicion, kind="stable")[: len(flipped)]
        return float(np.isin(chosen, flipped).mean())

    def found(similarity: Array) -> float:
        return float((similarity.argmax(1) == np.arange(QUERIES)).mean())

    table = {
        "flipped labels: chance": FLIPPED,
        "flipped labels: embedding similarity": precision(disagree + 1e-9 * losses[:TRAINING]),
        "flipped labels: training loss": precision(losses[:TRAINING]),
        "flipped labels: self-influence": precision((mapped**2).sum(1)),
        "flipped labels: harm to the clean set": precision(-(unit(mapped) @ unit(mapped_clean).sum(0))),
        "near-duplicates: chance": 1 / TRAINING,
        "near-duplicates: embedding similarity": found(hidden[parts[2]] @ hidden[:TRAINING].T),
        "near-duplicates: cosine of influence": found(unit(mapped_queries) @ unit(mapped).T),
    }
    accuracy = float((torch.argmax(model(inputs[TRAINING:]), 1) == labels[TRAINING:]).float().mean())
    print(f"accuracy on held-out snippets {accuracy:.3f}")
    print(f"{TRAINING} rows, {len(flipped)} flipped (precision at {len(flipped)}); {QUERIES} near-duplicates (first)")
    for name, value in table.items():
        print(f"  {name:42} {value:.3f}")
    return table


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(Path(folder))
