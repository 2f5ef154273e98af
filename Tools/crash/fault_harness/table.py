"""Writes what a harness has counted, for readers and for programs."""

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Table:
    """A table of texts."""

    title: str
    columns: list[str]
    rows: list[list[str]]

    def text(self) -> str:
        """As Markdown."""
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def write_results(
    folder: Path, name: str, tables: list[Table], facts: dict[str, object], violations: list[str]
) -> None:
    """Writes NAME.md and NAME.json."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = [f"# {tables[0].title}", ", ".join(f"{key}: {value}" for key, value in facts.items())]
    for number, table in enumerate(tables):
        parts += [f"## {table.title}"] if number else []
        parts.append(table.text())
    if violations:
        parts += ["## Violations", "\n".join(f"- {violation.splitlines()[0]}" for violation in violations[:200])]
    (folder / f"{name}.md").write_text("\n\n".join(parts) + "\n")
    record = {
        **facts,
        "tables": [{"title": table.title, "columns": table.columns, "rows": table.rows} for table in tables],
        "violations": violations,
    }
    (folder / f"{name}.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
