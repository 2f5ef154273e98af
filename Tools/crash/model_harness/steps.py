"""A step of a sequence: which operation, where it is killed, and the number that its random choices come from."""

import re
from dataclasses import dataclass

STEP = re.compile(r"(\d+)\.([a-z]+)((?:!\d+)*)(~?)")


@dataclass(frozen=True)
class Step:
    """One operation; what exactly it does follows from the sequence's seed, `number` and the state that it meets."""

    number: int
    kind: str
    # The calls before which its runs are killed, one run after the other; 0 for a run that is not.
    kills: tuple[int, ...] = ()
    # With one row where it could have many.
    is_small: bool = False

    def __str__(self) -> str:
        return f"{self.number}.{self.kind}" + "".join(f"!{call}" for call in self.kills) + "~" * self.is_small

    @staticmethod
    def parse(text: str) -> "Step":
        """The inverse of `str`."""
        match = STEP.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is no step, as 12.ingest or 7.delete!30!4~ are")
        number, kind, kills, small = match.groups()
        return Step(int(number), kind, tuple(map(int, kills.split("!")[1:])), bool(small))
