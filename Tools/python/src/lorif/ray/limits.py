"""Thresholds that units share: what a score must reach to be among the best of those that are known."""

import heapq
import json
import re
from dataclasses import dataclass, field

#: Of a line of a ranked list. In texts the quotes are escaped, so that no id or metadata looks like a key.
_RANKED = re.compile(r'\{"query":("(?:[^"\\]|\\.)*"),"direction":"(top|bottom)",.*?"score":([^,}]+)')


@dataclass(frozen=True)
class Limits:
    """By query: the least score of the top and the greatest of the bottom that can still be listed."""

    least: dict[str, float] = field(default_factory=dict)
    greatest: dict[str, float] = field(default_factory=dict)


class BestScores:
    """The k best scores of each query in the units that have answered."""

    def __init__(self, top: int, bottom: int) -> None:
        self._counts = {"top": top, "bottom": bottom}
        # With the sign of the order, so that the first is the worst.
        self._best: dict[str, dict[str, list[float]]] = {"top": {}, "bottom": {}}

    def add(self, output: bytes) -> None:
        """Counts a unit's answer (`--format jsonl`), of one damping."""
        names: dict[str, str] = {}
        for line in output.decode().split("\n"):
            found = _RANKED.match(line)
            if found is None:
                continue
            quoted, direction, score = found.groups()
            query = names.get(quoted) or names.setdefault(quoted, json.loads(quoted))
            value = float(score) if direction == "top" else -float(score)
            best = self._best[direction].setdefault(query, [])
            if len(best) < self._counts[direction]:
                heapq.heappush(best, value)
            elif value > best[0]:
                heapq.heapreplace(best, value)

    def limits(self) -> Limits:
        """Those of the lists that are full: a row that ties with the last may still come before it by its id."""
        full = {
            direction: {query: best[0] for query, best in lists.items() if len(best) == self._counts[direction] > 0}
            for direction, lists in self._best.items()
        }
        return Limits(full["top"], {query: -value for query, value in full["bottom"].items()})
