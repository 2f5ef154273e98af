"""Copies the reference gradients and their expected scores into this folder.

    python3 Tests/Data/reference/make.py SOURCE

SOURCE is a folder with a reference experiment: train_c1, train_c4, query_c1, query_c4, query_full (factor batches),
expected_c1, expected_c4 (float64 scores, computed from the float32 factors by dense linear algebra), meta.json,
train.jsonl and query.jsonl. Numbers are copied as they are. Of the JSON Lines files only id and source are kept: most
of the texts are not in the public domain.
"""

import argparse
import json
import shutil
from pathlib import Path

NUMBERS = ("train_c1", "train_c4", "query_c1", "query_c4", "query_full", "expected_c1", "expected_c4")


def without_text(source: Path, destination: Path) -> None:
    """Keeps `id` and `source` of every record of a JSON Lines file."""
    with destination.open("w", encoding="utf-8") as output:
        for line in source.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            output.write(json.dumps({"id": record["id"], "source": record["source"]}) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    source: Path = parser.parse_args().source
    here = Path(__file__).resolve().parent
    for name in NUMBERS:
        shutil.copyfile(source / f"{name}.safetensors", here / f"{name}.safetensors")
    meta = json.loads((source / "meta.json").read_text(encoding="utf-8"))
    (here / "meta.json").write_text(json.dumps(meta) + "\n", encoding="utf-8")
    for rank in (1, 4):
        without_text(source / "train.jsonl", here / f"train_c{rank}.jsonl")
    without_text(source / "query.jsonl", here / "query.jsonl")
    size = sum(path.stat().st_size for path in here.iterdir() if path.is_file())
    print(f"{here}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
