"""One query over a cluster, event by event: sending it, slow and failing nodes, answers through one link, the merge."""

import heapq
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

UNITS_PER_NODE = 4
SIGMA = 0.15
SLOW_SHARE, SLOWNESS, DEATH_SHARE = 0.01, 5.0, 0.001
#: A unit that takes so many times the median is started elsewhere as well; a dead node is noticed after seconds.
STRAGGLER, NOTICED_SECONDS = 3.0, 2.0
LINK_SIGMA = 0.3


@dataclass(frozen=True)
class Scenario:
    """A query on a cluster: its ideal scan on all nodes, what is sent to each, and what comes back of each unit.

    Rates are in bytes, lines and units a second; `units_per_second` is what one driver hands out and takes back.
    """

    nodes: int
    scan_seconds: float
    query_bytes: float
    answer_bytes: float
    answer_lines: int
    link_rate: float
    lines_per_second: float
    units_per_second: float
    backups: bool = True


@dataclass(frozen=True)
class Outcome:
    """When the query had reached the last node, when the last unit was done, when its answer had come, when merged."""

    sent: float
    scanned: float
    received: float
    merged: float
    done_twice: float


def quantiles(scenario: Scenario, *, seed: int = 0, runs: int = 20) -> tuple[Outcome, float]:
    """The median of each time of some runs, and the 95th percentile of the whole."""
    random = np.random.default_rng(seed)
    outcomes = [simulate(scenario, random) for _ in range(runs)]
    table = np.array([list(outcome.__dict__.values()) for outcome in outcomes])
    medians = Outcome(*np.median(table, axis=0))
    medians = replace(medians, done_twice=float(table[:, 4].mean()))
    return medians, float(np.percentile(table[:, 3], 95))


def simulate(scenario: Scenario, random: np.random.Generator) -> Outcome:
    """One query.

    Queries go from node to node: who has them sends them on, to one at a time, by links whose rates differ (lognormal,
    σ = 0.3). Then units are scanned. Answers come to the driver one after another, by its one link and through its one
    scheduler, and are merged when all have come, as the driver does it.
    """
    arrivals = spread(scenario, random)
    finished, twice = _Scan(scenario, arrivals, random).run()
    service = max(scenario.answer_bytes / scenario.link_rate, 1 / scenario.units_per_second)
    received = 0.0
    for at in sorted(finished):
        received = max(received, at) + service
    merging = len(finished) * scenario.answer_lines / scenario.lines_per_second
    return Outcome(float(arrivals.max()), max(finished), received, received + merging, twice)


def spread(scenario: Scenario, random: np.random.Generator) -> NDArray[np.float64]:
    """When each node has the query."""
    transfer = scenario.query_bytes / scenario.link_rate * random.lognormal(0, LINK_SIGMA, scenario.nodes)
    holders = [0.0]
    arrivals = np.empty(scenario.nodes)
    for node in range(scenario.nodes):
        arrivals[node] = heapq.heappop(holders) + transfer[node]
        heapq.heappush(holders, arrivals[node])
        heapq.heappush(holders, arrivals[node])
    # Units are handed out one by one, too.
    return np.maximum(arrivals, np.arange(1, scenario.nodes + 1) / scenario.units_per_second)


class _Scan:
    """Units on nodes: each node has four of its own, in turn; then it takes waiting ones of others.

    A unit takes a quarter of a node's scan on average. Some nodes are slower, some die at any time before the ideal
    end; what they had waits again when that is noticed. With backups, when nothing waits, what has run for three
    medians is started elsewhere as well, and the first to end counts.
    """

    def __init__(self, scenario: Scenario, arrivals: NDArray[np.float64], random: np.random.Generator) -> None:
        nodes, scan = scenario.nodes, scenario.scan_seconds
        self.backups = scenario.backups
        self.speed = np.where(random.random(nodes) < SLOW_SHARE, SLOWNESS, 1.0)
        self.death = np.where(random.random(nodes) < DEATH_SHARE, arrivals + scan * random.random(nodes), np.inf)
        self.work = scan / UNITS_PER_NODE * random.lognormal(-(SIGMA**2) / 2, SIGMA, UNITS_PER_NODE * nodes)
        self.limit = STRAGGLER * scan / UNITS_PER_NODE
        first = range(0, UNITS_PER_NODE * nodes, UNITS_PER_NODE)
        self.waiting = [list(range(at, at + UNITS_PER_NODE)) for at in first]
        # Of a long queue: those of slow nodes are long when others are through.
        self.left = sorted(range(nodes), key=lambda node: self.speed[node])
        self.orphans: list[int] = []
        self.running: dict[int, tuple[int, float]] = {}
        self.idle: list[int] = []
        self.done: dict[int, float] = {}
        self.events: list[tuple[float, int, int]] = [(float(at), _FREE, node) for node, at in enumerate(arrivals)]
        self.events += [
            (float(at) + NOTICED_SECONDS, _DEAD, node) for node, at in enumerate(self.death) if np.isfinite(at)
        ]
        heapq.heapify(self.events)

    def run(self) -> tuple[list[float], float]:
        """When each unit was done, and the share of work done twice."""
        twice = 0.0
        while len(self.done) < len(self.work):
            now, kind, node = heapq.heappop(self.events)
            if kind == _ENDED:
                unit, _ = self.running.pop(node)
                if unit in self.done:
                    twice += self.work[unit]
                self.done.setdefault(unit, now)
            elif kind == _DEAD:
                lost = [*self.waiting[node], *([self.running.pop(node)[0]] if node in self.running else [])]
                self.orphans += [unit for unit in lost if unit not in self.done]
                self.waiting[node] = []
            elif kind == _LATE:
                self._look_at_late(node, now)
            if kind in (_FREE, _ENDED) and now < self.death[node]:
                self.idle.append(node)
            while self.idle and (unit := self._next(self.idle[-1])) is not None:
                self._begin(self.idle.pop(), unit, now)
        return list(self.done.values()), twice / float(self.work.sum())

    def _look_at_late(self, node: int, now: float) -> None:
        unit, since = self.running.get(node, (-1, now))
        if unit < 0 or unit in self.done or now - since < self.limit * (1 - 1e-9):
            return
        if self.orphans or self._longest() is not None:
            heapq.heappush(self.events, (now + self.limit / 4, _LATE, node))
        else:
            self.orphans.append(unit)

    def _begin(self, node: int, unit: int, now: float) -> None:
        if now >= self.death[node]:
            self.orphans.append(unit)
            return
        self.running[node] = (unit, now)
        end = now + self.work[unit] * self.speed[node]
        if end < self.death[node]:
            heapq.heappush(self.events, (end, _ENDED, node))
        # Nobody is late who ends in time.
        if self.backups and end > now + self.limit:
            heapq.heappush(self.events, (now + self.limit, _LATE, node))

    def _longest(self) -> int | None:
        while self.left and not self.waiting[self.left[-1]]:
            self.left.pop()
        return self.left[-1] if self.left else None

    def _next(self, node: int) -> int | None:
        if self.waiting[node]:
            return self.waiting[node].pop()
        if self.orphans:
            return self.orphans.pop()
        longest = self._longest()
        return None if longest is None else self.waiting[longest].pop()


_FREE, _ENDED, _DEAD, _LATE = range(4)
