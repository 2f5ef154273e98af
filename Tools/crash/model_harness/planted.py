"""Bugs that are planted, to see that the model finds them: commands reach the program otherwise than meant."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Words = tuple[str, ...]


@dataclass(frozen=True)
class Bug:
    """What happens to a command's words, and settings of the library that stands before the program."""

    change: Callable[[Words], Words] = lambda words: words
    settings: Mapping[str, object] = field(default_factory=dict)


def _exchanged(old: str, new: str) -> Bug:
    return Bug(lambda words: tuple(new if word == old else word for word in words))


def _without_option(command: str, option: str) -> Bug:
    def change(words: Words) -> Words:
        if words[0] != command or option not in words:
            return words
        place = words.index(option)
        return words[:place] + words[place + 2 :]

    return Bug(change)


def _without_last_file(command: str) -> Bug:
    """Only the first of several files is taken."""

    def change(words: Words) -> Words:
        files = [place for place, word in enumerate(words) if place > 1 and word.startswith("/")]
        return words if words[0] != command or len(files) < 2 else words[: files[-1]] + words[files[-1] + 1 :]

    return Bug(change)


def _smaller_rank(words: Words) -> Words:
    if words[0] != "fit" or "--rank" not in words:
        return words
    place = words.index("--rank") + 1
    return (*words[:place], str(max(1, int(words[place]) - 1)), *words[place + 1 :])


PLANTED = {
    "skip replaces": _exchanged("skip", "replace"),
    "replace skips": _exchanged("replace", "skip"),
    "the last of several files is forgotten": _without_last_file("ingest"),
    "the last of several segments is forgotten": _without_last_file("attach"),
    "a snapshot shows the present": _without_option("query", "--snapshot"),
    "a filter is forgotten": _without_option("export", "--where"),
    "a fit is of a smaller rank": Bug(_smaller_rank),
    "a cosine is an inner product": _exchanged("cosine", "dot"),
    "old segments stay": Bug(settings={"LORIF_PLANT_LEFT_OUT": "unlink:/segments/"}),
    "a killed writer's files stay": Bug(settings={"LORIF_PLANT_LEFT_OUT": "unlink:/tmp/"}),
}
