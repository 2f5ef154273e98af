"""Tasks over the nodes of a cluster: where the bytes are, again elsewhere when one fails, twice when one is slow.

Ray's own retries are off: it does not know which nodes have the bytes, nor that a node with a damaged copy should not
be asked again.
"""

import contextlib
import statistics
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from lorif.ray.errors import ClusterError, CollectionRefusedError, IncompleteError, SegmentsUnreadableError
from lorif.ray.settings import Settings
from lorif.tool import ToolError

_TICK_SECONDS = 0.25
_NODES_SECONDS = 2.0
#: How long work may wait for any node that takes it.
_NO_NODE_SECONDS = 30.0


@dataclass(frozen=True)
class Node:
    """A node that is alive and has processors."""

    identity: str
    processors: float


@dataclass(eq=False)
class Job:
    """One task; `argument` is what differs between tasks.

    `wanted` are nodes that have its bytes; `able`, if not None, are those that alone can read them.
    """

    argument: Any
    bytes: int
    wanted: frozenset[str] = frozenset()
    able: frozenset[str] | None = None
    failures: list[tuple[str, str]] = field(default_factory=list)
    done: bool = False


@dataclass
class _Running:
    job: Job
    node: str
    started: float
    value: Any = None


@dataclass(frozen=True)
class Failed:
    """A job that was given up, and why."""

    job: Job
    reason: str


class _Pending:
    """Jobs that wait, in one queue for each set of nodes that they want.

    Thousands of jobs and of nodes: taking one looks at the queues and not at every job.
    """

    def __init__(self) -> None:
        self._queues: dict[frozenset[str], deque[Job]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, job: Job) -> bool:
        return any(job is each for each in self.jobs)

    @property
    def jobs(self) -> list[Job]:
        """All of them."""
        return [job for queue in self._queues.values() for job in queue]

    def add(self, job: Job) -> None:
        """Adds a job; one that has failed, or that its nodes cannot read, is not theirs any more than others'."""
        is_theirs = not job.failures and (job.able is None or job.wanted <= job.able)
        self._queues.setdefault(job.wanted if is_theirs else frozenset(), deque()).append(job)
        self._count += 1

    def take(
        self,
        node: str,
        *,
        may: Callable[[Job], bool],
        is_free: Callable[[str], bool],
        is_without_room: Callable[[Job], bool],
        is_slow: Callable[[str], bool],
    ) -> Job | None:
        """A job that wants a node, else one that wants none, else one of the longest queue whose nodes have no room.

        The last job of a queue stays for its own nodes, which have the bytes, unless all of them are slow.
        """
        nobody: frozenset[str] = frozenset()
        alone = frozenset([node])
        if alone in self._queues and (job := self._first(alone, may)) is not None:
            return job
        for wanted in [each for each in self._queues if node in each]:
            if (job := self._first(wanted, may)) is not None:
                return job
        if nobody in self._queues:
            job = self._first(nobody, lambda job: may(job) and (node in job.wanted or is_without_room(job)))
            if job is not None:
                return job
        others = [
            each
            for each, queue in self._queues.items()
            if each and not any(map(is_free, each)) and (len(queue) > 1 or all(map(is_slow, each)))
        ]
        for wanted in sorted(others, key=lambda each: -len(self._queues[each])):
            if (job := self._first(wanted, may)) is not None:
                return job
        return None

    def _first(self, wanted: frozenset[str], suits: Callable[[Job], bool]) -> Job | None:
        queue = self._queues[wanted]
        for place, job in enumerate(queue):
            if suits(job):
                del queue[place]
                self._count -= 1
                if not queue:
                    del self._queues[wanted]
                return job
        return None


class Scheduler:
    """Runs jobs with a remote function of (argument, *shared).

    `split` makes jobs of one that failed with SegmentsUnreadableError: those that can go on at once, and those whose
    segments were not read.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        shared: tuple[Any, ...],
        settings: Settings,
        *,
        split: Callable[[Job, SegmentsUnreadableError], tuple[list[Job], list[Job]]] | None = None,
        keeps_values: bool = False,
        latest: Callable[[], Any] | None = None,
    ) -> None:
        """With `keeps_values` the function gives two things; `on_result` gets the first and where the second is.

        `latest` is asked for a last argument of the function whenever a task starts.
        """
        self.remote = ray.remote(max_retries=0, num_returns=2 if keeps_values else 1)(function)
        self.keeps_values = keeps_values
        self.latest = latest
        self.shared = tuple(ray.put(each) for each in shared)
        self.settings = settings
        self.split = split
        self.pending = _Pending()
        self.running: dict[ray.ObjectRef, _Running] = {}
        self._busy: Counter[str] = Counter()
        self.failed: list[Failed] = []
        self.nodes: dict[str, Node] = {}
        self._looked = self._backed_up = 0.0
        self._seconds_per_byte: list[float] = []
        self._seconds: list[float] = []

    def run(
        self,
        jobs: Iterable[Job],
        on_result: Callable[[Job, Any], None],
        *,
        deadline: float | None = None,
    ) -> list[Failed]:
        """Runs all; gives those that were given up. `deadline` is a time of the monotonic clock."""
        for job in sorted(jobs, key=lambda job: -job.bytes):
            self.pending.add(job)
        idle_since = time.monotonic()
        try:
            while self.pending or self.running:
                if deadline is not None and time.monotonic() >= deadline:
                    self._give_up_all("the deadline came first")
                    break
                self._look(force=False)
                self._assign()
                if not self.running:
                    if time.monotonic() - idle_since > _NO_NODE_SECONDS:
                        raise ClusterError("no node of the cluster takes the work; are there any with processors?")
                    time.sleep(_TICK_SECONDS)
                    self._look(force=True)
                    continue
                self._collect(on_result, deadline)
                idle_since = time.monotonic()
        finally:
            for reference in list(self.running):
                self._cancel(reference)
        return self.failed

    # MARK: Nodes

    def _look(self, *, force: bool) -> None:
        now = time.monotonic()
        if not force and now - self._looked < _NODES_SECONDS:
            return
        self._looked = now
        self.nodes = alive_nodes()
        # What ran on a node that is gone is lost; Ray says so only after a while.
        for reference, running in list(self.running.items()):
            if running.node not in self.nodes:
                self._forget(reference)
                self._again(running, "the node is gone")

    def _slots(self, node: Node) -> int:
        return max(1, int(node.processors // self._processors(node))) - self._busy[node.identity]

    def _processors(self, node: Node) -> float:
        return min(self.settings.cpus or node.processors, node.processors)

    # MARK: Assignment

    def _assign(self) -> None:
        if not self.pending:
            self._back_up_slow()
            return
        free = [node for node in self.nodes.values() if self._slots(node) > 0]
        while free and self.pending:
            started = sum(self._choose(node) is not None for node in free)
            if not started:
                break
            free = [node for node in free if self._slots(node) > 0]

    def _choose(self, node: Node) -> Job | None:
        """Starts what wants this node, else what no node that it wants has room for; gives it."""

        def is_without_room(job: Job) -> bool:
            return not any(
                self._slots(self.nodes[each]) > 0 for each in job.wanted if each in self.nodes and self._may(job, each)
            )

        job = self.pending.take(
            node.identity,
            may=lambda job: self._may(job, node.identity),
            is_free=lambda name: name in self.nodes and self._slots(self.nodes[name]) > 0,
            is_without_room=is_without_room,
            is_slow=self._is_slow,
        )
        if job is not None:
            self._start(job, node)
        return job

    def _is_slow(self, name: str) -> bool:
        """Whether a node is gone, or what it runs has taken as long as others took."""
        if name not in self.nodes:
            return True
        if not self._seconds:
            return False
        since = min((each.started for each in self.running.values() if each.node == name), default=time.monotonic())
        return time.monotonic() - since > max(_TICK_SECONDS, statistics.median(self._seconds))

    def _may(self, job: Job, node: str) -> bool:
        if not job.failures and job.able is None:
            return True
        failed_on = {where for where, _ in job.failures}
        able = self.nodes.keys() if job.able is None else self.nodes.keys() & job.able
        able = able or self.nodes.keys()
        fresh = able - failed_on
        return node in (fresh or able)

    def _start(self, job: Job, node: Node) -> None:
        given = self.remote.options(
            num_cpus=self._processors(node),
            scheduling_strategy=NodeAffinitySchedulingStrategy(node.identity, soft=False),
        ).remote(job.argument, *self.shared, *([] if self.latest is None else [self.latest()]))
        reference, value = given if self.keeps_values else (given, None)
        self.running[reference] = _Running(job, node.identity, time.monotonic(), value)
        self._busy[node.identity] += 1

    def _back_up_slow(self) -> None:
        """Starts elsewhere as well what takes much longer than the others did."""
        now = time.monotonic()
        if not self._seconds or now - self._backed_up < _TICK_SECONDS:
            return
        self._backed_up = now
        rate = statistics.median(self._seconds_per_byte)
        usual = statistics.median(self._seconds)
        copies = Counter(id(running.job) for running in self.running.values())
        for running in list(self.running.values()):
            expected = max(usual, rate * running.job.bytes)
            limit = max(self.settings.straggler_seconds, self.settings.straggler * expected)
            if now - running.started < limit or copies[id(running.job)] > 1:
                continue
            free = [node for node in self.nodes.values() if node.identity != running.node and self._slots(node) > 0]
            able = [node for node in free if self._may(running.job, node.identity)]
            if able:
                self._start(running.job, able[0])

    # MARK: Results

    def _collect(self, on_result: Callable[[Job, Any], None], deadline: float | None) -> None:
        patience = _TICK_SECONDS if deadline is None else max(0.0, min(_TICK_SECONDS, deadline - time.monotonic()))
        references = list(self.running)
        # All that is there at once, so that many nodes do not wait for one another's turn.
        ready, _ = ray.wait(references, num_returns=len(references), timeout=0)
        if not ready:
            ready, _ = ray.wait(references, num_returns=1, timeout=patience)
        for reference in ready:
            if reference not in self.running:
                continue
            running = self._forget(reference)
            if running.job.done:
                continue
            try:
                result = ray.get(reference)
            except RayTaskError as error:
                self._failed(running, error.cause if isinstance(error.cause, Exception) else error)
            except RayError as error:
                self._look(force=True)
                self._again(running, f"{type(error).__name__}: the worker or its node is gone")
            else:
                self._done(running)
                on_result(running.job, (result, running.value) if self.keeps_values else result)

    def _done(self, running: _Running) -> None:
        running.job.done = True
        seconds = time.monotonic() - running.started
        self._seconds.append(seconds)
        self._seconds_per_byte.append(seconds / max(1, running.job.bytes))
        for reference, other in list(self.running.items()):
            if other.job is running.job:
                self._cancel(reference)

    def _failed(self, running: _Running, error: Exception) -> None:
        if isinstance(error, SegmentsUnreadableError) and self.split is not None:
            running.job.done = True
            whole, unread = self.split(running.job, error)
            for job in whole:
                self.pending.add(job)
            for job in unread:
                self._again(_Running(job, running.node, running.started), str(error))
            return
        # The question is refused, or answered by no: another node would say the same.
        if isinstance(error, CollectionRefusedError) or (isinstance(error, ToolError) and error.code in (1, 2, 3)):
            raise error
        self._again(running, str(error))

    def _again(self, running: _Running, reason: str) -> None:
        job = running.job
        if job.done:
            return
        job.failures.append((running.node, reason))
        if any(other.job is job for other in self.running.values()) or job in self.pending:
            return
        if len(job.failures) >= self.settings.attempts:
            job.done = True
            self.failed.append(Failed(job, reason))
        else:
            self.pending.add(job)

    def _give_up_all(self, reason: str) -> None:
        jobs = {id(job): job for job in [*self.pending.jobs, *(running.job for running in self.running.values())]}
        self.pending = _Pending()
        self.failed += [Failed(job, reason) for job in jobs.values() if not job.done]

    def _cancel(self, reference: "ray.ObjectRef") -> None:
        # By force: the program that the worker waits for ends with it.
        with contextlib.suppress(Exception):
            ray.cancel(reference, force=True)
        self._forget(reference)

    def _forget(self, reference: "ray.ObjectRef") -> _Running:
        running = self.running.pop(reference)
        self._busy[running.node] -= 1
        return running


def alive_nodes() -> dict[str, Node]:
    """The nodes that can work."""
    found = {}
    for each in ray.nodes():
        processors = float(each["Resources"].get("CPU", 0.0))
        if each["Alive"] and processors > 0:
            found[each["NodeID"]] = Node(each["NodeID"], processors)
    return found


def on_every_node(function: Callable[..., Any], *arguments: Any, seconds: float) -> dict[str, Any]:
    """What a function says on each node, by node; those that do not answer in time, or die, are left out."""
    remote = ray.remote(max_retries=0, num_cpus=0)(function)
    shared = [ray.put(each) for each in arguments]
    asked = {
        remote.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(*shared): node
        for node in alive_nodes()
    }
    deadline = time.monotonic() + seconds
    answers: dict[str, Any] = {}
    waiting = list(asked)
    while waiting:
        ready, waiting = ray.wait(waiting, num_returns=1, timeout=max(0.0, deadline - time.monotonic()))
        if not ready:
            break
        for reference in ready:
            with contextlib.suppress(RayError):
                answers[asked[reference]] = ray.get(reference)
    return answers


def require_complete(failed: Iterable[Failed], what: Mapping[int, str]) -> None:
    """Raises IncompleteError if anything was given up; `what` names jobs by identity."""
    reasons = [f"{what.get(id(each.job), 'a task')}: {each.reason}" for each in failed]
    if reasons:
        raise IncompleteError("; ".join(reasons))
