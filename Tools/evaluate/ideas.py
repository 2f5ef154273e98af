"""Other ways to keep a gradient in the same bytes, on a finished retraining experiment; computed in NumPy alone.

In the whitened basis, under exact per-layer curvature: learned scalar codebooks, product quantisation (learned
codebooks of several numbers at a time), a random rotation before coding, and the exact coordinates of the unfactored
gradient along the leading eigenvectors with factors of what is left. Each is compared with the store's own encoding of
the same size, on the queries that chose no damping. DATA is that of encodings.py; `retrain.py --data` writes some.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench"))
import experiment as experiments
import numpy as np
from codes import bfloat16, factored, kept, reciprocal, stored
from experiment import Doubles, Experiment, Floats, mean_and_error
from influence import LayerInfluence, total_influence
from measurement import choosing_half
from numpy.typing import NDArray
from processes import machine
from report import table, with_error

EPSILON = 0.1
RHOS = (0.3, 1.0, 3.0, 10.0, 30.0)
#: Vectors that a codebook is learned from, and rounds of Lloyd's algorithm.
SAMPLE, ROUNDS = 40_000, 15
#: Bytes of a vector's scale, and of a layer's two norms.
SCALE, NORMS = 2, 4
EXAMPLE = """\
example:
  python Tools/evaluate/ideas.py DATA --output Tools/evaluate/results/ideas.md
"""

Coder = Callable[[Floats], Floats]


@dataclass(frozen=True)
class Idea:
    """A way to keep the training gradients.

    Attributes:
        title: In words.
        payload: Bytes per example: codes, scales and norms; codebooks and bases do not grow with the examples.
        rows: Layer -> [examples, d1, d2], what is kept.
    """

    title: str
    payload: float
    rows: dict[str, Floats]


def unit(vectors: Floats) -> Floats:
    """Vectors along the last axis over their root mean square."""
    square = (vectors.astype(np.float64) ** 2).mean(axis=-1, keepdims=True)
    return vectors * reciprocal(np.sqrt(square).astype(np.float32))


def scaled(vectors: Floats, codes: Floats) -> Floats:
    """Codes times the scale that fits best, in bfloat16."""
    wide = codes.astype(np.float64)
    square = (wide * wide).sum(axis=-1, keepdims=True)
    scale = np.divide((vectors * wide).sum(axis=-1, keepdims=True), square, out=np.zeros_like(square), where=square > 0)
    return codes * bfloat16(scale.astype(np.float32))


def nearest(points: Floats, centroids: Floats) -> NDArray[np.int64]:
    """The place of each point's nearest centroid, [n]."""
    half = 0.5 * (centroids * centroids).sum(axis=1)
    parts = np.array_split(points, max(1, len(points) // 50_000))
    return np.concatenate([np.argmax(part @ centroids.T - half, axis=1) for part in parts])


def codebook(points: Floats, count: int) -> Floats:
    """Centroids [count, numbers] by Lloyd's algorithm on a sample of points."""
    random = np.random.default_rng(0)
    sample = points[random.permutation(len(points))[:SAMPLE]]
    centroids = sample[:count].copy()
    for _ in range(ROUNDS):
        chosen = nearest(sample, centroids)
        members = np.bincount(chosen, minlength=len(centroids))
        for number in range(points.shape[1]):
            sums = np.bincount(chosen, sample[:, number], len(centroids))
            centroids[:, number] = np.where(members > 0, sums / np.maximum(members, 1), centroids[:, number])
    return centroids


def learned(numbers: int, bits: int) -> Coder:
    """Codes of `bits` bits for so many numbers at a time, from a codebook of their own for each side of each layer."""

    def code(vectors: Floats) -> Floats:
        points = unit(vectors).reshape(-1, numbers)
        centroids = codebook(points, 1 << bits)
        return scaled(vectors, centroids[nearest(points, centroids)].reshape(vectors.shape))

    return code


def rotated(encoding: str) -> Coder:
    """The store's encoding after a random rotation, which is undone."""

    def code(vectors: Floats) -> Floats:
        normal = np.random.default_rng(1).standard_normal((vectors.shape[-1],) * 2)
        rotation = np.linalg.qr(normal)[0].astype(np.float32)
        return stored(vectors @ rotation, encoding) @ rotation.T

    return code


def factors_by(experiment: Experiment, rank: int, coder: Coder) -> dict[str, Floats]:
    """Factors of rank c, both sides coded."""
    rows = {}
    for layer, gradients in experiment.train.items():
        left, right = (coder(side) for side in factored(gradients, rank))
        rows[layer] = left.transpose(0, 2, 1) @ right
    return rows


def payload(experiment: Experiment, rank: int, bits: float, coordinates: int = 0) -> float:
    """Bytes of factors of rank c in so many bits a number, and of int8 coordinates if there are some."""
    each = [
        rank * ((d1 + d2) * bits / 8 + 2 * SCALE) + NORMS + (coordinates + SCALE if coordinates else 0)
        for d1, d2 in (gradients.shape[1:] for gradients in experiment.train.values())
    ]
    return float(sum(each))


def with_coordinates(experiment: Experiment, count: int, rank: int) -> dict[str, Floats]:
    """Coordinates along the `count` leading eigenvectors of each layer in int8, and q2 factors of what is left."""
    rows = {}
    for layer, gradients in experiment.train.items():
        exact = gradients.reshape(len(gradients), -1).astype(np.float64)
        vectors = np.linalg.eigh(exact.T @ exact)[1][:, ::-1][:, :count]
        coordinates = exact @ vectors
        rest = (exact - coordinates @ vectors.T).astype(np.float32).reshape(gradients.shape)
        along = stored(coordinates.astype(np.float32), "int8") @ vectors.T.astype(np.float32)
        rows[layer] = along.reshape(gradients.shape) + kept(rest, factored(rest, rank), "q2")
    return rows


def ideas(experiment: Experiment, rank: int) -> Iterator[tuple[Idea, list[Idea]]]:
    """The store's own encodings, each with what is to be compared with it."""
    whole = experiment.train
    for encoding, bits in (("q2", 2), ("q1", 1)):
        size = payload(experiment, rank, bits)
        own = {layer: kept(rows, factored(rows, rank), encoding) for layer, rows in whole.items()}
        others = [
            Idea(f"learned levels, {bits} bit each", size, factors_by(experiment, rank, learned(1, bits))),
            Idea("random rotation before coding", size, factors_by(experiment, rank, rotated(encoding))),
            Idea(
                f"product quantisation, {8 // bits} numbers in 8 bits", size,
                factors_by(experiment, rank, learned(8 // bits, 8)),
            ),
        ]  # fmt: skip
        if encoding == "q2" and rank > 1:
            for count, less in ((8, rank - 1), (16, rank - 1), (16, rank)):
                others.append(
                    Idea(
                        f"{count} coordinates in int8, factors of the rest of rank {less}",
                        payload(experiment, less, bits, count), with_coordinates(experiment, count, less),
                    )
                )  # fmt: skip
        yield Idea(f"c = {rank}, {encoding}", size, own), others


def judged(experiment: Experiment, idea: Idea) -> tuple[float, Doubles]:
    """The damping that is best on the choosing half, and the LDS of all queries at it."""
    layers = [
        LayerInfluence(idea.rows[layer], experiment.query[layer], experiment.subsets) for layer in experiment.layers
    ]
    found = [experiment.linear_datamodeling_scores(total_influence(layers, rho)) for rho in RHOS]
    half = choosing_half(len(experiment.query_ids))
    best = max(range(len(RHOS)), key=lambda place: found[place][half].mean())
    return RHOS[best], found[best]


def compared(experiment: Experiment, ranks: Sequence[int]) -> list[list[str]]:
    """A row of the table for each idea."""
    half = choosing_half(len(experiment.query_ids))
    rows = []
    for rank in ranks:
        for base, others in ideas(experiment, rank):
            _, reference = judged(experiment, base)
            rows.append([base.title, f"{base.payload:,.0f}", with_error(*mean_and_error(reference[~half])), "", ""])
            for idea in others:
                _, own = judged(experiment, idea)
                gain, error = mean_and_error(own[~half] - reference[~half])
                verdict = "no difference seen" if abs(gain) <= 2 * error else "helps" if gain > 0 else "harms"
                cells = [with_error(*mean_and_error(own[~half])), with_error(gain, error), verdict]
                rows.append([f"… {idea.title}", f"{idea.payload:,.0f}", *cells])
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Compares and writes the table."""
    parser = argparse.ArgumentParser(
        prog="ideas.py", description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="+", metavar="DATA", help="folders of finished experiments")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 4], help="c (default: 1 4)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="Markdown (default: standard output)")
    options = parser.parse_args(arguments)
    parts = ["# Other ways to keep a gradient", (__doc__ or "").split("\n\n", 1)[1].strip()]
    parts.append("\n".join(f"- {name}: {value}" for name, value in machine(options.data[0].parent).items()))
    for folder in options.data:
        try:
            experiment = experiments.load(folder)
        except (OSError, ValueError) as error:
            sys.exit(f"{folder}: {error}")
        count, queries = len(experiment.train_ids), len(experiment.query_ids)
        shapes = ", ".join(sorted({"×".join(map(str, rows.shape[1:])) for rows in experiment.train.values()}))
        parts.append(
            f"## {experiment.train_ids[0].rsplit('-', 1)[0]}\n\n{count} training examples, {queries} queries, "
            f"{len(experiment.subsets)} subsets, {len(experiment.layers)} layers of {shapes}."
        )
        header = ["kept", "B/example", "LDS", "gain, paired by query", "verdict"]
        rows = compared(experiments.whitened(experiment, EPSILON), options.ranks)
        parts.append(table(header, rows))
    text = "\n\n".join(parts) + "\n"
    if options.output is None:
        print(text, end="")
    else:
        options.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
