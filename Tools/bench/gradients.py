"""Records real gradients for peers.py: 20,000 texts and 256 queries, 16 layers of 64×64, whole matrices in f16.

    python Tools/bench/gradients.py FOLDER [--texts FOLDER]
    python Tools/bench/peers.py --recorded FOLDER

A GPT of four blocks of width 64 is trained on sequences of 64 pieces of the demo's three texts (Tools/demo), whose
gradients are then recorded, and those of sequences that it has not seen, the queries. Some minutes and 2.7 GB; needs
PyTorch, apt-get and dpkg-deb. Everything is drawn from fixed seeds.
"""

import argparse
import random
import sys
import tempfile
from pathlib import Path

import lorif.torch
import torch
from processes import ROOT

sys.path.insert(0, str(ROOT / "Tools" / "demo"))
from make import CONTEXT, SEED, VOCABULARY, sequences
from model import GPT, losses, train
from sources import SOURCES, passages
from words import Pieces

WIDTH, DEPTH, BATCH = 64, 4, 32


def texts(folder: Path) -> tuple[list[list[int]], int]:
    """Sequences of all three texts, shuffled together, and the number of pieces."""
    found = [passages(source, folder) for source in SOURCES]
    pieces = Pieces((sentence for each in found for passage in each for sentence in passage), VOCABULARY)
    rows = [numbers for each in found for numbers in sequences(each, pieces)]
    random.Random(SEED).shuffle(rows)  # noqa: S311 - a draw of examples, not a secret
    return rows, len(pieces.pieces)


def record(model: GPT, rows: torch.Tensor, kind: str, out: Path, **options: object) -> None:
    """The matrices of some rows, with ids of their own."""
    provenance = {"model": f"GPT of {DEPTH} blocks of width {WIDTH}", "tool": "Tools/bench/gradients.py"}
    with lorif.torch.Recorder(model, out=out, full=True, dtype="f16", provenance=provenance, **options) as recorder:
        for start in range(0, len(rows), BATCH):
            part = rows[start : start + BATCH]
            recorder.step([f"{kind}-{start + row:05}" for row in range(len(part))], losses(model, part))


def main() -> None:
    """Trains and records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "folder", type=Path, metavar="FOLDER", help="gets the batches, and those of queries in queries/"
    )
    parser.add_argument("--texts", type=Path, help="a folder that keeps the packages; a temporary one unless said")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--queries", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()
    torch.manual_seed(SEED)
    with tempfile.TemporaryDirectory() as temporary:
        rows, piece_count = texts(options.texts or Path(temporary))
    if len(rows) < options.rows + options.queries:
        sys.exit(f"expected {options.rows + options.queries:,} sequences of the texts, found {len(rows):,}")
    numbers = torch.tensor(rows[: options.rows + options.queries])
    seen, unseen = numbers[: options.rows], numbers[options.rows :]
    model = GPT(piece_count, CONTEXT, width=WIDTH, depth=DEPTH)
    train(model, seen, epochs=options.epochs)
    model.eval()
    record(model, seen, "text", options.folder, layers="blocks.*", d=WIDTH, seed=SEED)
    record(model, unseen, "query", options.folder / "queries", like=options.folder)
    print(f"{len(seen):,} rows and {len(unseen):,} queries in {options.folder}")


if __name__ == "__main__":
    main()
