"""Full score matrices of a collection: one file a shard, and an index that says which columns are where."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lorif.ray import files
from lorif.ray.cache import Unit
from lorif.ray.manifest import Manifest
from lorif.ray.worker import UnitAnswer

INDEX = "index.json"


def write_index(
    folder: str,
    manifest: Manifest,
    method: str,
    answers: Sequence[tuple[Unit, UnitAnswer]],
    unread: Sequence[Any],
) -> str:
    """Writes the index, last of all, so that a folder with one is whole; gives its URL."""
    parts = []
    column = 0
    for unit, answer in answers:
        if answer.scores is None:
            continue
        parts.append(
            {
                "file": answer.scores.name,
                "shards": list(unit.shards),
                "firstColumn": column,
                "columns": answer.scores.examples if not answer.nothing_passed else 0,
                "firstRow": unit.first_row,
                "rows": sum(segment.rows for segment in unit.segments),
                "bytes": answer.scores.bytes,
                "digest": answer.scores.digest,
            }
        )
        column += answer.scores.examples
    content = {
        "format": "lorif-score-index",
        "version": [1, 0],
        "collectionGeneration": manifest.generation,
        "method": method,
        "columns": column,
        "files": parts,
        "unread": [{"shard": each.shard, "firstRow": each.first_row, "rows": each.rows} for each in unread],
    }
    with tempfile.TemporaryDirectory(prefix="lorif-index-") as temporary:
        path = Path(temporary) / INDEX
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        files.put(path, files.joined(folder, INDEX))
    return files.joined(folder, INDEX)
