"""What an experiment is made of, in numbers: everything that its results depend on, but for the code."""

from dataclasses import dataclass

from retraining.training import Recipe

__all__ = ["PLANS", "Plan"]


@dataclass(frozen=True)
class Plan:
    """Settings of one experiment.

    Attributes:
        task: `digits` or `text`.
        train: Training examples.
        queries: Held-out queries; every other one chooses settings, the rest judge.
        copies: Training examples of which a near copy is asked for.
        before: Examples that the common start is trained on, none of them among the others.
        spoiled: Share of training examples with a wrong label (digits) or shuffled pieces (text).
        tokens: Length of a text, or patches of an image.
        width, heads, depth: Of the transformer.
        first: How the start is trained.
        tuning: How every model is trained from it.
        subsets: Random halves.
        seeds: Models per half, in other orders.
        models: How many are trained at once.
        dimensions: d of the projections.
        ranks: c of the factors.
        encodings: Of factors.
        fits: Curvatures beside the exact one: r, per layer.
        epsilons: ε of the whitening; the first is used where others are not compared.
        rhos: Relative dampings to choose from.
        removal_queries: Of how many queries the best examples are removed.
        removal_counts: How many are removed.
    """

    task: str
    train: int
    queries: int
    copies: int
    before: int
    spoiled: float
    tokens: int
    width: int
    heads: int
    depth: int
    first: Recipe
    tuning: Recipe
    subsets: int
    seeds: int
    models: int
    dimensions: tuple[int, ...]
    ranks: tuple[int, ...]
    encodings: tuple[str, ...]
    fits: tuple[int, ...]
    epsilons: tuple[float, ...]
    rhos: tuple[float, ...]
    removal_queries: int
    removal_counts: tuple[int, ...]


PLANS = {
    ("digits", "short"): Plan(
        task="digits",
        train=400,
        queries=100,
        copies=20,
        before=400,
        spoiled=0.1,
        tokens=16,
        width=32,
        heads=4,
        depth=2,
        first=Recipe(20, 32, 6e-3),
        tuning=Recipe(8, 20, 2e-3),
        subsets=40,
        seeds=1,
        models=20,
        dimensions=(24,),
        ranks=(4,),
        encodings=("f32", "int8", "q2"),
        fits=(),
        epsilons=(0.1,),
        rhos=(0.1, 1.0, 10.0),
        removal_queries=6,
        removal_counts=(40,),
    ),
    ("digits", "long"): Plan(
        task="digits",
        train=1000,
        queries=200,
        copies=50,
        before=500,
        spoiled=0.1,
        tokens=16,
        width=48,
        heads=4,
        depth=2,
        first=Recipe(30, 32, 6e-3),
        tuning=Recipe(10, 20, 2e-3),
        subsets=200,
        seeds=2,
        models=20,
        dimensions=(16, 24, 32, 48),
        ranks=(1, 2, 4, 8),
        encodings=("int8", "q4", "q2", "q1"),
        fits=(16, 64),
        epsilons=(0.1, 0.01, 0.03, 0.3),
        rhos=(0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0),
        removal_queries=30,
        removal_counts=(50,),
    ),
    ("text", "short"): Plan(
        task="text",
        train=200,
        queries=120,
        copies=10,
        before=600,
        spoiled=0.1,
        tokens=128,
        width=32,
        heads=4,
        depth=2,
        first=Recipe(4, 20, 5e-3),
        tuning=Recipe(4, 10, 3e-3),
        subsets=30,
        seeds=1,
        models=6,
        dimensions=(24,),
        ranks=(4,),
        encodings=("f32", "int8", "q2"),
        fits=(),
        epsilons=(0.1,),
        rhos=(0.1, 1.0, 10.0),
        removal_queries=0,
        removal_counts=(),
    ),
    ("text", "long"): Plan(
        task="text",
        train=1000,
        queries=200,
        copies=50,
        before=3000,
        spoiled=0.05,
        tokens=128,
        width=64,
        heads=4,
        depth=2,
        first=Recipe(5, 32, 3e-3),
        tuning=Recipe(4, 20, 2e-3),
        subsets=80,
        seeds=1,
        models=4,
        dimensions=(16, 24, 32, 64),
        ranks=(1, 2, 4, 8),
        encodings=("int8", "q4", "q2", "q1"),
        fits=(16, 64),
        epsilons=(0.1, 0.01, 0.03, 0.3),
        rhos=(0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0),
        removal_queries=6,
        removal_counts=(50,),
    ),
}
