"""The work of `python -m lorif.record`: a model and its tokenizer, texts from JSON Lines, two recorders."""

import argparse
import json
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from lorif.batch import BatchError
from lorif.torch.causal import Example, record_examples
from lorif.torch.errors import RecorderError
from lorif.torch.layers import refusal
from lorif.torch.recorder import Recorder

__all__ = ["run"]


class _InputError(ValueError):
    """A line that is not an example."""


def run(options: argparse.Namespace) -> int:
    """Does what the parsed options of `lorif.record` say; the exit code."""
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


def _run(options: argparse.Namespace) -> None:
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


def _examples(
    options: argparse.Namespace, path: str, tokenizer: Any, chosen: set[int] | None = None
) -> Iterator[Example]:
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
