"""Makes the demo set from nothing: texts, a small GPT trained on them, and its gradients as the recorder writes them.

    python Tools/demo/make.py [--out FOLDER] [--texts FOLDER]

Fetches three public-domain texts (Debian packages, see sources.py), cuts them into sequences of 64 pieces, trains a GPT
of two blocks on 7,500 of them for some minutes, and records: 510 of its training sequences as rank-4 factors, and 24
that it has not seen as full matrices, the queries. Needs PyTorch, apt-get and dpkg-deb; runs on one thread, so that the
same machine gives the same bytes. Everything is drawn from fixed seeds.
"""

import argparse
import random
import shutil
import tempfile
from pathlib import Path

import lorif.torch
import torch
from model import GPT, losses, train
from sources import PREFIXES, SOURCES, passages
from words import Pieces

CONTEXT = 64
VOCABULARY = 1024
#: Per source: sequences to train on, how many of them are recorded, and held-out queries.
TRAINED, RECORDED, QUERIES = 2500, 170, 8
EPOCHS = 9
RANK, DIMENSION = 4, 32
SEED = 20261122


def sequences(source: list[list[str]], pieces: Pieces) -> list[list[int]]:
    """Every CONTEXT + 1 pieces from the beginning of a sentence, without overlap."""
    found = []
    for passage in source:
        numbers: list[int] = []
        for sentence in passage:
            numbers += pieces.numbers(f" {sentence}" if numbers else sentence)
            if len(numbers) > CONTEXT:
                found.append(numbers[: CONTEXT + 1])
                numbers = []
    return found


def record(model: GPT, rows: list[tuple[str, str, list[int]]], pieces: Pieces, out: Path, **options: object) -> Path:
    """Records rows (id, source, numbers) and returns the batch; its .jsonl lies beside it."""
    provenance = {"model": "GPT of two blocks of width 64", "tool": "Tools/demo/make.py"}
    with lorif.torch.Recorder(model, out=out, dtype="f16", provenance=provenance, **options) as recorder:
        for start in range(0, len(rows), 34):
            part = rows[start : start + 34]
            recorder.step(
                [identifier for identifier, _, _ in part],
                losses(model, torch.tensor([numbers for _, _, numbers in part])),
                records=[{"source": source, "text": pieces.text(numbers)} for _, source, numbers in part],
            )
    (path,) = out.glob("*.safetensors")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent, help="where the set goes; here")
    parser.add_argument("--texts", type=Path, help="a folder that keeps the packages; a temporary one unless said")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    draw = random.Random(SEED)  # noqa: S311 - a draw of examples, not a secret

    with tempfile.TemporaryDirectory() as temporary:
        texts = {source: passages(source, arguments.texts or Path(temporary)) for source in SOURCES}
        pieces = Pieces((sentence for each in texts.values() for passage in each for sentence in passage), VOCABULARY)
        trained: list[list[int]] = []
        recorded: list[tuple[str, str, list[int]]] = []
        queries: list[tuple[str, str, list[int]]] = []
        for source in SOURCES:
            found = sequences(texts[source], pieces)
            draw.shuffle(found)
            name = PREFIXES[source]
            trained += found[:TRAINED]
            recorded += [(f"{name}-{row:04}", source, found[row]) for row in range(RECORDED)]
            held_out = found[TRAINED : TRAINED + QUERIES]
            queries += [(f"query-{name}-{row}", source, numbers) for row, numbers in enumerate(held_out)]
            print(f"{source}: {len(found)} sequences", flush=True)
            if len(held_out) < QUERIES:
                raise SystemExit(f"{source}: expected {TRAINED + QUERIES} sequences, found {len(found)}")
        # The sources take turns, so that the order of the rows tells nothing.
        recorded.sort(key=lambda row: (row[0].rsplit("-", 1)[1], row[0]))

        model = GPT(len(pieces.pieces), CONTEXT)
        train(model, torch.tensor(trained), epochs=EPOCHS)
        model.eval()
        with torch.no_grad():
            unseen = losses(model, torch.tensor([numbers for _, _, numbers in queries])).mean()
        print(f"loss on the queries {float(unseen):.3f}", flush=True)

        options = {"layers": "blocks.*", "d": DIMENSION, "rank": RANK, "seed": SEED}
        first = record(model, recorded, pieces, Path(temporary) / "train", **options)
        second = record(model, queries, pieces, Path(temporary) / "query", like=first.parent, full=True)
        arguments.out.mkdir(parents=True, exist_ok=True)
        for path, name in ((first, "train"), (second, "query")):
            for suffix in (".safetensors", ".jsonl"):
                shutil.copyfile(path.with_suffix(suffix), arguments.out / f"{name}{suffix}")
        print(f"{len(recorded)} rows and {len(queries)} queries written to {arguments.out}")


if __name__ == "__main__":
    main()
