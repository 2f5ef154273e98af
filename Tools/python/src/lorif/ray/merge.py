"""Answers of units, made one: exactly as the program would have said it of one store."""

import heapq
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

#: Of a line that the program wrote; in texts the quotes are escaped.
_SHARE = re.compile(r'("share":)[^,}]+')
_RANK = re.compile(r'("rank":)\d+')
#: What the program calls a damping in a line, if there are several.
_DAMPINGS = ("relative_damping", "damping")
#: A damping, if there are several, and a query.
AnswerKey = tuple[tuple[str, float] | None, str]
#: Score with the sign of the order, id, line, and what the line says.
_Entry = tuple[float, bytes, str, dict[str, Any]]


def added_totals(parts: Iterable[Mapping[AnswerKey, float]]) -> dict[AnswerKey, float]:
    """Σ |score| over the examples of all units, by answer, in the order of answers."""
    totals: dict[AnswerKey, float] = {}
    for part in parts:
        for answer, total in part.items():
            totals[answer] = totals.get(answer, 0.0) + total
    return totals


def merged(
    outputs: Sequence[bytes], totals: Mapping[AnswerKey, float], *, top: int, bottom: int, group_by: str | None
) -> str:
    """The lines of all units' answers (`--format jsonl`), in the order of the rows, as those of one answer.

    `totals` are the Σ |score| that shares are of, in the order of answers; a unit may list nothing for one. Ranked
    lines are the units' own with another rank: scores keep their digits. Equal scores are ordered by id, in UTF-8.
    Groups are added up in the order of the rows.
    """
    lists: dict[tuple[Any, str, str], list[Iterator[_Entry]]] = {}
    groups: dict[AnswerKey, dict[str, dict[str, Any]]] = {}
    for output in outputs:
        for lines in _lists(output):
            first = json.loads(lines[0])
            answer = (_damping(first), first["query"])
            if first["direction"] == "group":
                for line in lines:
                    _add(groups.setdefault(answer, {}), json.loads(line))
                continue
            lists.setdefault((*answer, first["direction"]), []).append(_entries(lines, first["direction"]))
    text: list[str] = []
    chosen: dict[AnswerKey, list[dict[str, Any]]] = {}
    for answer, total in totals.items():
        for direction, count in (("top", top), ("bottom", bottom)):
            best = list(islice(heapq.merge(*lists.get((*answer, direction), []), key=lambda entry: entry[:2]), count))
            for place, (_, _, line, fields) in enumerate(best, 1):
                text.append(_with_share(_RANK.sub(rf"\g<1>{place}", line, count=1), fields, total))
            if direction == "top":
                chosen[answer] = [fields for *_, fields in best]
    for answer in totals:
        text += _group_lines(answer, groups.get(answer, {}), chosen[answer], group_by)
    return "".join(line + "\n" for line in text)


def _lists(output: bytes) -> Iterator[list[str]]:
    """The lines of each list: one begins where ranks begin again.

    A metadata field of that name and value cuts a list in two, both of which are in order, and that is all it takes.
    """
    lines: list[str] = []
    for line in output.decode().split("\n"):
        if not line:
            continue
        if lines and '"rank":1,' in line:
            yield lines
            lines = []
        lines.append(line)
    if lines:
        yield lines


def _entries(lines: Sequence[str], direction: str) -> Iterator[_Entry]:
    """A ranked list as what it is ordered by, read no further than it is wanted: most of a unit's lines never are."""
    sign = -1.0 if direction == "top" else 1.0
    for line in lines:
        fields = json.loads(line)
        yield sign * fields["score"], fields["id"].encode(), line, fields


def _with_share(line: str, fields: dict[str, Any], total: float) -> str:
    """A line with the score's share of all units' scores, where the unit's line has one of its own."""
    if "share" not in fields or not total > 0:
        return line
    share = float(f"{abs(fields['score']) / total:.5e}")
    return _SHARE.sub(rf"\g<1>{share!r}", line, count=1)


def _damping(fields: dict[str, Any]) -> tuple[str, float] | None:
    return next(((name, fields[name]) for name in _DAMPINGS if name in fields), None)


def _add(groups: dict[str, dict[str, Any]], fields: dict[str, Any]) -> None:
    known = groups.get(fields["group"])
    if known is None:
        groups[fields["group"]] = dict(fields)
        return
    known["examples"] += fields["examples"]
    known["sum"] += fields["sum"]
    known["highest"] = max(known["highest"], fields["highest"])


def _group_lines(
    answer: AnswerKey, groups: dict[str, dict[str, Any]], top: Sequence[dict[str, Any]], field: str | None
) -> Iterable[str]:
    ranked = sorted(groups.values(), key=lambda group: (-group["sum"], group["group"].encode()))
    names = [_text((hit["metadata"] or {}).get(field)) for hit in top] if field else []
    for place, group in enumerate(ranked, 1):
        content: dict[str, Any] = {"query": answer[1], "direction": "group", "rank": place}
        if answer[0] is not None:
            content[answer[0][0]] = answer[0][1]
        content |= {"group": group["group"], "examples": group["examples"], "sum": group["sum"]}
        content |= {"mean": group["sum"] / group["examples"], "highest": group["highest"]}
        content["top"] = names.count(group["group"])
        yield json.dumps(content, ensure_ascii=False, separators=(",", ":"))


def _text(value: Any) -> str:
    """A metadata value as groups are called: texts as they are, anything else as JSON."""
    if value is None:
        return "(none)"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
