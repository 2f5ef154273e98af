"""Makes a failing sequence shorter: steps are left out, kills and sizes too, as long as it still fails."""

import time
from collections.abc import Callable
from dataclasses import replace

from model_harness.steps import Step

# What was violated, and the steps until then; None if nothing was.
Play = Callable[[list[Step]], tuple[str | None, list[Step]]]
LIMIT_SECONDS = 600.0


def shrink(steps: list[Step], violation: str, play: Play) -> tuple[list[Step], str, int]:
    """The shortest failing sequence that was found, what it violates, and how many were tried."""
    deadline = time.monotonic() + LIMIT_SECONDS
    best, tried = (steps, violation), 0

    def fails(candidate: list[Step]) -> bool:
        nonlocal best, tried
        if time.monotonic() > deadline:
            return False
        tried += 1
        text, done = play(candidate)
        if text is not None:
            best = (done, text)
        return text is not None

    # Longer pieces first: most steps have nothing to do with it.
    size = max(1, len(steps) // 2)
    while True:
        start, is_shorter = 0, False
        while start < len(best[0]):
            candidate = best[0][:start] + best[0][start + size :]
            if candidate and fails(candidate):
                is_shorter = True
            else:
                start += size
        if size == 1 and not is_shorter:
            break
        size = max(1, size // 2)
    for simpler in (lambda step: replace(step, kills=()), lambda step: replace(step, is_small=True)):
        for place in range(len(best[0])):
            if place < len(best[0]) and simpler(best[0][place]) != best[0][place]:
                fails([*best[0][:place], simpler(best[0][place]), *best[0][place + 1 :]])
    return best[0], best[1], tried
