"""Brittleness: what a query loses when its best examples by a method are removed and a model is retrained."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from experiment import Doubles
from measurement import choosing_half

from retraining.models import retrained
from retraining.scoring import Outcome
from retraining.tasks import Task
from retraining.workshop import Workshop

__all__ = ["Removal", "removals"]

WHOLE_SEEDS = 4


@dataclass(frozen=True)
class Removal:
    """What was lost.

    Attributes:
        title: By which method.
        count: How many examples were removed.
        increases: [queries], the loss after removal minus that of models trained on everything.
    """

    title: str
    count: int
    increases: Doubles


def removals(workshop: Workshop, task: Task, outcomes: Sequence[Outcome]) -> list[Removal]:
    """Removes and retrains for the first queries of the half that no setting was chosen on."""
    plan = workshop.plan
    if not plan.removal_counts:
        return []
    queries = np.flatnonzero(~choosing_half(plan.queries))[: plan.removal_queries]
    everything = np.ones((WHOLE_SEEDS, plan.train), bool)
    whole = retrained(workshop, task, "whole", everything, range(WHOLE_SEEDS)).mean(axis=0)[queries]
    result = []
    for count in plan.removal_counts:
        for outcome in outcomes:
            kept = np.ones((len(queries), plan.train), bool)
            for row, query in zip(kept, queries, strict=True):
                row[np.argsort(-outcome.scores[query], kind="stable")[:count]] = False
            name = f"without-{count}-{outcome.way.key}"
            found = retrained(workshop, task, name, kept, [0] * len(queries))
            result.append(Removal(outcome.way.title, count, found[np.arange(len(queries)), queries] - whole))
    return result
