"""An experiment from nothing to its results, through the steps that a workshop keeps."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from experiment import Experiment, read_full_gradients, save
from lorif.batch import FactorBatch
from sweeps import Program

from retraining import detection
from retraining.changes import changes
from retraining.judging import between_seeds, judged
from retraining.models import explained, random_halves, retrained
from retraining.removal import removals
from retraining.scoring import Outcome, Scorer
from retraining.summary import Results
from retraining.tasks import open_task
from retraining.ways import logra, ways
from retraining.workshop import Workshop

__all__ = ["run"]


def _picked(outcomes: list[Outcome], workshop: Workshop) -> list[Outcome]:
    """The ways that are also tried at finding things: of the largest d, LoGRA, and factors of the middle rank."""
    plan = workshop.plan
    d, rank = max(plan.dimensions), plan.ranks[len(plan.ranks) // 2]
    result = []
    for outcome in outcomes:
        way = outcome.way
        ours = way.family.startswith("LoRIF") and way.asked == "exact" and way.rank == rank and way.encoding == "q2"
        if way.d == d and (way == logra(d) or ours):
            result.append(outcome)
    return result


def run(
    workshop: Workshop,
    binary: Path,
    *,
    texts: Path | None,
    data: Path | None,
    facts: dict[str, str],
    say: Callable[[str], None],
) -> Results:
    """Does what is not done yet, and puts the results together.

    Args:
        workshop: The folder, its plan and the time.
        binary: The program.
        texts: Folder of the packages with the texts; the workshop's own unless said.
        data: A folder for the experiment as `encodings.py` and `ideas.py` take it, with gradients at the largest d.
        facts: What the report tells about the run.
        say: Is told of every way that was measured.
    """
    plan = workshop.plan
    task = open_task(workshop, texts)
    model = explained(workshop, task)
    halves = random_halves(workshop)
    losses = []
    for seed in range(plan.seeds):
        seeds = [1 + seed * plan.subsets + place for place in range(plan.subsets)]
        losses.append(retrained(workshop, task, f"halves-{seed}", halves, seeds))
        say(f"retrained {plan.subsets} models, order {seed + 1} of {plan.seeds}")
    mean = np.mean(losses, axis=0)
    ids = task.query_ids(task.query)
    experiment = Experiment([], {}, {}, task.train_ids, ids, halves.astype(np.float64), mean)
    scorer = Scorer(workshop, task, model, Program(binary, workshop.folder), experiment)
    outcomes = []
    for way in ways(plan):
        outcomes.append(scorer.measure(way))
        say(f"{way.title}: {outcomes[-1].payload:,.0f} B/example, LDS {outcomes[-1].lds.mean():.3f}")
    if data is not None:
        _, queries, _ = read_full_gradients(scorer.batches(logra(max(plan.dimensions)))["query"])
        layers, train, _ = read_full_gradients(scorer.batches(logra(max(plan.dimensions)))["train"])
        save(data, replace(experiment, layers=layers, train=train, query=queries))
    matrix_bytes = {}
    for d in plan.dimensions:
        shapes = FactorBatch(scorer.batches(logra(d))["query"]).layers
        matrix_bytes[d] = sum(2 * layer.input_dimension * layer.output_dimension for layer in shapes)
    picked = _picked(outcomes, workshop)
    others = [each for each in outcomes if each.way.family in ("random", "embedding")]
    dots = [each for each in outcomes if each.way.family == "dot" and each.way.d == max(plan.dimensions)]
    removed = removals(workshop, task, [*others, *dots, *picked])
    workshop.pause()
    spoiled, copies = detection.spoiled(scorer, picked), detection.copies(scorer, picked)
    say("found what was planted")
    return Results(
        plan, facts, judged(outcomes, mean, matrix_bytes), changes(outcomes, mean, plan),
        between_seeds(np.stack(losses)), removed, spoiled, copies, workshop.spent,
    )  # fmt: skip
