"""Records a causal language model of transformers over a JSON Lines file: `python -m lorif.record --help`."""

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["main"]

_EXAMPLE = """example:
  python -m lorif.record --model gpt2 --data train.jsonl --text-field text --out factors/ --query queries.jsonl
  lorif ingest store.lorif factors/*.safetensors
  lorif query store.lorif factors/queries/*.safetensors

Exit codes: 0 done, 2 wrong usage, 3 input refused, 5 the environment failed, 130 interrupted. What was recorded stays;
go on with --resume."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lorif.record",
        description="Writes factor batches of each text's gradient; of queries, the whole projected gradient.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--model", required=True, metavar="DIR_OR_NAME", help="a causal language model of transformers")
    add("--data", metavar="FILE", help="JSON Lines, one object per training example")
    add("--query", metavar="FILE", help="JSON Lines of queries, recorded in full with the projections of OUT")
    add("--out", required=True, type=Path, metavar="DIR", help="folder of the batches")
    add("--query-out", type=Path, metavar="DIR", help="folder of the queries' batches (OUT/queries)")
    add("--text-field", default="text", help="key of the text (text)")
    add("--id-field", default="id", help="key of the id (id); lines without it are named by their number from 0")
    add("--layers", action="append", metavar="GLOB", help="module names; several times (all linear ones but the head)")
    add("--d", type=int, default=64, help="projected dimensions of each side (64); 0: no projection")
    add("--rank", type=int, help="rank of the factors (1)")
    add("--energy", type=float, help="share of the squared norm to keep, instead of a rank")
    add("--full", action="store_true", help="whole matrices of the training data, too")
    kinds = ["orthogonal", "gaussian", "rademacher", "whitened"]
    add("--projection", choices=kinds, default="orthogonal", help="(orthogonal); whitened reads a sample first")
    add("--whiten", type=float, metavar="EPSILON", help="whiten with this ε, whatever the projection")
    add("--sample", type=int, default=512, help="examples drawn for the whitening or the energy target (512)")
    add("--seed", type=int, default=0, help="of projections and sample (0)")
    add("--bias", action="store_true", help="the gradients of biases, too")
    add("--per-token", action="store_true", help="one row per token")
    add("--loss", choices=["token-sum", "token-mean"], default="token-sum", help="an example's loss (token-sum)")
    add("--dtype", choices=["f32", "f16", "bf16"], default="f32", help="of the files (f32)")
    add("--batch-size", type=int, default=8, help="(8)")
    add("--max-length", type=int, default=1024, help="tokens after which a text is cut (1024)")
    add("--snippet", type=int, default=200, help="characters of the text kept as metadata (200)")
    add("--device", help="(cuda if there is one, else cpu)")
    add("--autocast", choices=["bf16", "f16"], help="run the model in mixed precision")
    add("--resume", action="store_true", help="skip the ids that OUT has already")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.data is None and options.query is None:
        parser.error("expected --data, --query or both")
    try:
        # Not before: --help needs neither PyTorch nor transformers.
        command = importlib.import_module("lorif.torch.command")
    except ImportError as error:
        message = f"lorif.record: needs PyTorch and transformers (pip install 'lorif[transformers]'): {error}"
        print(message, file=sys.stderr)
        return 5
    try:
        return int(command.run(options))
    except KeyboardInterrupt:
        print("lorif.record: interrupted; go on with --resume", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
