"""Figures as a Markdown table and JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import median


@dataclass(frozen=True)
class Figure:
    """One line of the report.

    Attributes:
        name: What was measured.
        values: One per run; empty if it could not be measured.
        unit: Of the values.
        wanted: The goal, in words, if there is one.
        note: How, or why not.
        command: What was run.
    """

    name: str
    values: Sequence[float]
    unit: str
    wanted: str = ""
    note: str = ""
    command: str = ""

    @property
    def median(self) -> float | None:
        """The middle one of the runs."""
        return median(self.values) if self.values else None


@dataclass
class Summary:
    """Everything one benchmark found."""

    title: str
    facts: dict[str, str]
    figures: list[Figure] = field(default_factory=list)

    def add(self, figure: Figure) -> None:
        """Adds a line."""
        self.figures.append(figure)

    def markdown(self) -> str:
        """Facts as a list, figures as a table."""
        lines = [f"# {self.title}", "", *(f"- {name}: {value}" for name, value in self.facts.items()), ""]
        lines += ["| figure | median | range | runs | wanted | note |", "| --- | ---: | ---: | ---: | --- | --- |"]
        for figure in self.figures:
            middle = figure.median
            if middle is None:
                cells = ["not measured", "", "0"]
            else:
                spread = f"{digits(min(figure.values))}–{digits(max(figure.values))}" if len(figure.values) > 1 else ""
                cells = [f"{digits(middle)} {figure.unit}", spread, str(len(figure.values))]
            lines.append("| " + " | ".join([figure.name, *cells, figure.wanted, figure.note]) + " |")
        return "\n".join(lines) + "\n"

    def json(self) -> str:
        """The same, with every run."""
        figures = [{**asdict(figure), "median": figure.median} for figure in self.figures]
        return json.dumps({"title": self.title, "facts": self.facts, "figures": figures}, indent=1) + "\n"


def digits(value: float) -> str:
    """Three significant digits; whole numbers from 100 on."""
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3g}"
