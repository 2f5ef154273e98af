"""Records a causal language model of transformers over a JSON Lines file: `python -m lorif.record --help`."""

import argparse
import json
import random
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

__all__ = ["main"]

_EXAMPLE = """example:
  python -m lorif.record --model gpt2 --data train.jsonl --text-field text --out factors/ --query queries.jsonl
  lorif ingest store.lorif factors/*.safetensors
  lorif query store.lorif factors/queries/*.safetensors

Exit codes: 0 done, 2 wrong usage, 3 input refused, 5 the environment failed. What was written before an error stays; go
on with --resume."""


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
        import torch  # noqa: F401
        import transformers
    except ImportError as error:
        print(f"lorif.record: needs PyTorch and transformers: pip install 'lorif[transformers]' ({error})", file=sys.stderr)
        return 5
    from lorif.batch import BatchError
    from lorif.torch import RecorderError

    transformers.logging.set_verbosity_error()
    try:
        _run(options)
    except (RecorderError, BatchError, _InputError) as error:
        print(f"lorif.record: {error}", file=sys.stderr)
        return 3
    except OSError as error:
        print(f"lorif.record: {error}", file=sys.stderr)
        return 5
    return 0


class _InputError(ValueError):
    """A line that is not an example."""


def _run(options: argparse.Namespace) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from lorif.torch import Recorder
    from lorif.torch.causal import record_examples

    tokenizer = AutoTokenizer.from_pretrained(options.model)
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    model = AutoModelForCausalLM.from_pretrained(options.model).to(device).eval()
    run: dict[str, Any] = {
        "batch_size": options.batch_size,
        "loss": options.loss,
        "autocast": {"bf16": torch.bfloat16, "f16": torch.float16, None: None}[options.autocast],
    }
    common: dict[str, Any] = {
        "dtype": options.dtype,
        "reduction": "sum",
        "resume": options.resume,
        "provenance": {"model": options.model, "loss": options.loss, "writer": "lorif.record"},
    }
    if options.data is not None:
        recorder = Recorder(
            model,
            options.layers or _all_but_the_head(model),
            d=options.d or None,
            rank=options.rank,
            energy=options.energy,
            full=options.full,
            projection=options.projection,
            whiten=options.whiten,
            seed=options.seed,
            bias=options.bias,
            per_token=options.per_token,
            out=options.out,
            **common,
        )
        with recorder:
            if not recorder.recording.is_settled():
                sample = _sample(options.data, options.sample, options.seed)
                chosen = (one for one in _examples(options, options.data, tokenizer, sample))
                record_examples(recorder, model, chosen, calibrate=True, **run)
            started = time.monotonic()
            count = record_examples(recorder, model, _examples(options, options.data, tokenizer), **run)
        _report("examples", count, recorder, time.monotonic() - started)
    if options.query is not None:
        out = options.query_out or options.out / "queries"
        with Recorder(model, like=options.out, full=True, out=out, **common) as queries:
            started = time.monotonic()
            count = record_examples(queries, model, _examples(options, options.query, tokenizer), **run)
        _report("queries", count, queries, time.monotonic() - started)


def _report(what: str, count: int, recorder: Any, seconds: float) -> None:
    size = f"{recorder.byte_count:,} bytes"
    print(f"lorif.record: {count} {what} in {seconds:.1f} s, {recorder.row_count} rows, {size} in {recorder.folder}")


def _all_but_the_head(model: Any) -> list[str]:
    """Every layer that can be recorded, but for the output embedding: as wide as the vocabulary, and often tied."""
    from lorif.torch.layers import refusal

    head = model.get_output_embeddings()
    return [name for name, module in model.named_modules() if name and module is not head and refusal(module) is None]


def _objects(path: str, chosen: set[int] | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers from 0 and objects, of all lines that are not empty, or the chosen ones."""
    with Path(path).open(encoding="utf-8") as file:
        for number, line in enumerate(file):
            if not line.strip() or (chosen is not None and number not in chosen):
                continue
            try:
                value = json.loads(line)
            except ValueError as error:
                raise _InputError(f"{path}, line {number + 1}: expected a JSON object, found {error}") from error
            if not isinstance(value, dict):
                raise _InputError(f"{path}, line {number + 1}: expected a JSON object, found {type(value).__name__}")
            yield number, value


def _examples(options: argparse.Namespace, path: str, tokenizer: Any, chosen: set[int] | None = None) -> Iterator[Any]:
    from lorif.torch.causal import Example

    for number, value in _objects(path, chosen):
        where = f"{path}, line {number + 1}"
        text = value.get(options.text_field)
        if not isinstance(text, str):
            raise _InputError(f"{where}: expected a string {options.text_field!r}, found {type(text).__name__}")
        tokens = tokenizer(text, truncation=True, max_length=options.max_length)["input_ids"]
        if len(tokens) < 2:
            raise _InputError(f"{where}: expected a text of at least two tokens, found {len(tokens)}")
        record = {key: field for key, field in value.items() if key not in (options.text_field, options.id_field)}
        record |= {options.text_field: text[: options.snippet], "tokens": len(tokens)}
        record.pop("id", None)
        yield Example(str(value.get(options.id_field, number)), tokens, None, record)


def _sample(path: str, count: int, seed: int) -> set[int]:
    """Numbers of `count` lines drawn evenly from the file, in one reading (reservoir sampling)."""
    draw = random.Random(seed)  # noqa: S311 - a sample, not a secret
    chosen: list[int] = []
    with Path(path).open(encoding="utf-8") as file:
        lines = (number for number, line in enumerate(file) if line.strip())
        for seen, number in enumerate(lines):
            if seen < count:
                chosen.append(number)
            elif (place := draw.randrange(seen + 1)) < count:
                chosen[place] = number
    return set(chosen)


if __name__ == "__main__":
    sys.exit(main())
