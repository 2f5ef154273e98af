"""Byte-pair encoding in its simplest form: words fall into pieces that were merged in the order of their frequency."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import pairwise

__all__ = ["Pieces"]

_WORD = re.compile(r" ?[A-Za-z]+| ?[0-9]+| ?[^A-Za-z0-9 ]+| ")


class Pieces:
    """A vocabulary of at most `size` pieces of text, found in `texts`; ties go to the piece that sorts first."""

    def __init__(self, texts: Iterable[str], size: int) -> None:
        counts = Counter(word for text in texts for word in _WORD.findall(text))
        words = [(list(word), count) for word, count in sorted(counts.items())]
        self.pieces = sorted({letter for word, _ in words for letter in word})
        self._merges: dict[tuple[str, str], int] = {}
        pairs: Counter[tuple[str, str]] = Counter()
        places: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
        for index, (word, count) in enumerate(words):
            for pair in pairwise(word):
                pairs[pair] += count
                places[pair].add(index)
        while len(self.pieces) < size and pairs:
            best = min(pairs, key=lambda pair: (-pairs[pair], pair))
            self._merges[best] = len(self._merges)
            self.pieces.append("".join(best))
            for index in places.pop(best):
                word, count = words[index]
                for pair in pairwise(word):
                    pairs[pair] -= count
                word[:] = _merged(word, best)
                for pair in pairwise(word):
                    pairs[pair] += count
                    places[pair].add(index)
            del pairs[best]
        # Two merges may give the same piece: one number for both.
        self.pieces = list(dict.fromkeys(self.pieces))
        self._numbers = {piece: number for number, piece in enumerate(self.pieces)}
        self._known: dict[str, list[int]] = {}

    def numbers(self, text: str) -> list[int]:
        """The text as numbers of pieces."""
        result = []
        for word in _WORD.findall(text):
            if word not in self._known:
                self._known[word] = [self._numbers[piece] for piece in self._split(word)]
            result += self._known[word]
        return result

    def text(self, numbers: Iterable[int]) -> str:
        """The inverse of `numbers`."""
        return "".join(self.pieces[number] for number in numbers)

    def _split(self, word: str) -> list[str]:
        parts = list(word)
        while len(parts) > 1:
            best = min(pairwise(parts), key=lambda pair: self._merges.get(pair, 1 << 30))
            if best not in self._merges:
                break
            parts = _merged(parts, best)
        return parts


def _merged(parts: list[str], pair: tuple[str, str]) -> list[str]:
    result: list[str] = []
    index = 0
    while index < len(parts):
        if index + 1 < len(parts) and (parts[index], parts[index + 1]) == pair:
            result.append("".join(pair))
            index += 2
        else:
            result.append(parts[index])
            index += 1
    return result
