"""Averages recordings of several checkpoints, example by example: `python -m lorif.average --help`.

The mean of an example's gradients at some checkpoints takes the bytes of one gradient, and foretells retraining better
than the last checkpoint's alone. The mean of matrices is a matrix, that of factors has the sum of the ranks, exactly;
both can be truncated to a rank.
"""

import argparse
import json
import math
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lorif.batch import BatchError, FactorBatch, Factors, write_batch

__all__ = ["average", "main"]

_EPILOG = """example:
  python -m lorif.average mean/    epoch-1/         epoch-2/         epoch-3/ --rank 4
  python -m lorif.average queries/ epoch-1/queries/ epoch-2/queries/ epoch-3/queries/
  lorif ingest store.lorif mean/*.safetensors
  lorif query  store.lorif queries/*.safetensors

Record all of them with the projections of the first (like= in lorif.torch, the same --seed in lorif.record). Means of
matrices (--full) keep more than means of factors that were truncated before, and of matrices 'lorif ingest' can find
the whitening and the ranks. Examples are matched by id; metadata and the order of rows are the first input's.

Exit codes: 0 done, 2 wrong usage, 3 input refused, 5 the environment failed, 130 interrupted. OUT is there when all of
it is."""

#: What says that gradients may be compared: where files say it, all must say the same.
_DIGEST = "projection_digest"

#: What else a file of the first input says of itself that is true of the mean.
_KEPT = ("loss", "model", "recording", _DIGEST)


class _Input:
    """The batches of one checkpoint, with the place of each id."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            raise BatchError(f"{path}: expected a batch or a folder of batches, found no such file")
        files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
        if not files:
            raise BatchError(f"{path}: expected factor batches *.safetensors, found none")
        self.batches = [FactorBatch(file) for file in files]
        self.places: dict[str, tuple[FactorBatch, int]] = {}
        for batch in self.batches:
            if batch.ids is None:
                raise BatchError(f"{batch.path}: expected ids, by which examples are matched, found none")
            for row, identifier in enumerate(batch.ids):
                if identifier in self.places:
                    other = self.places[identifier][0].path
                    raise BatchError(f"{batch.path}: expected distinct ids, found {identifier!r} in {other}, too")
                self.places[identifier] = batch, row

    def rows(self, layer: str, ids: Sequence[str], *, factored: bool) -> tuple[NDArray[np.float32], ...]:
        """Both factors of some examples, or their matrices alone; neighbouring rows are read at once."""
        read: list[tuple[NDArray[np.float32], ...]] = []
        for batch, rows in self._runs(ids):
            read.append(tuple(batch.factors(layer, rows)) if factored else (batch.gradients(layer, rows),))
        return tuple(np.concatenate(side) for side in zip(*read, strict=True))

    def _runs(self, ids: Sequence[str]) -> Iterator[tuple[FactorBatch, slice]]:
        start = 0
        places = [self.places[identifier] for identifier in ids]
        for end in range(1, len(places) + 1):
            if end < len(places) and places[end] == (places[end - 1][0], places[end - 1][1] + 1):
                continue
            batch, row = places[start]
            yield batch, slice(row, row + end - start)
            start = end


def average(
    out: str | Path,
    inputs: Sequence[str | Path],
    *,
    weights: Sequence[float] | None = None,
    rank: int | None = None,
    dtype: str = "f32",
    common: bool = False,
) -> int:
    """Writes a folder of batches with the weighted mean of each example's gradients; the number of examples.

    Args:
        out: A folder that does not exist yet.
        inputs: Of each checkpoint a batch file, or a folder of them.
        weights: One for each input, above 0; equal unless said. They are divided by their sum.
        rank: c, to which means are truncated as well as can be; without it nothing is lost.
        dtype: Of the files: f32, f16 or bf16.
        common: Leaves out examples that are not in all inputs, which is an error otherwise.

    Raises BatchError for inputs that do not fit together. Takes memory for the numbers of one file of the first input,
    and for one layer of the others. Second moments in the files are not those of the mean, and are left out.
    """
    out = Path(out)
    if len(inputs) < 2:
        raise BatchError(f"expected the recordings of at least two checkpoints, found {len(inputs)}")
    given = [1.0] * len(inputs) if weights is None else list(weights)
    if len(given) != len(inputs):
        raise BatchError(f"weights: expected {len(inputs)}, one for each input, found {len(given)}")
    for weight in given:
        if not (math.isfinite(weight) and weight > 0):
            raise BatchError(f"weights: expected numbers above 0, found {weight:g}")
    if rank is not None and rank < 1:
        raise BatchError(f"rank: expected at least 1, found {rank}")
    if out.exists():
        raise BatchError(f"{out}: expected a folder that does not exist, found one")
    opened = [_Input(Path(path)) for path in inputs]
    _check_fit(opened)
    wanted = _wanted(opened, common)
    shares = [weight / math.fsum(given) for weight in given]
    building = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    try:
        count = 0
        for batch in opened[0].batches:
            ids = [identifier for identifier in batch.ids or () if identifier in wanted]
            if not ids:
                continue
            layers: dict[str, Factors | NDArray[np.float64]] = {}
            for name in (layer.name for layer in batch.layers):
                mean = _means(name, ids, opened, shares)
                layers[name] = mean if rank is None else _truncated(mean, rank)
            provenance = {key: text for key, text in batch.provenance.items() if key in _KEPT}
            provenance["averaged"] = str(len(opened))
            path = building / batch.path.name
            write_batch(path, layers, ids=ids, provenance=provenance, dtype=dtype, basis=batch.basis)
            _copy_records(batch, path, set(ids))
            count += len(ids)
        building.rename(out)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return count


def _check_fit(opened: Sequence[_Input]) -> None:
    """Layers, bases and projections of all files must be those of the first."""
    first = opened[0].batches[0]
    shapes = [(layer.name, layer.input_dimension, layer.output_dimension) for layer in first.layers]
    for batch in (batch for each in opened for batch in each.batches):
        found = [(layer.name, layer.input_dimension, layer.output_dimension) for layer in batch.layers]
        if found != shapes:
            name, d1, d2 = next((layer for layer in shapes if layer not in found), shapes[0])
            raise BatchError(
                f"{batch.path}: expected the layers of {first.path} in its order, {name!r} of {d1}×{d2} among them, "
                "found others"
            )
        for key, one, other in (
            ("basis", first.basis, batch.basis),
            (_DIGEST, first.provenance.get(_DIGEST), batch.provenance.get(_DIGEST)),
        ):
            if one != other:
                raise BatchError(
                    f"{batch.path}: expected {key} {one or '(none)'} as in {first.path}, found {other or '(none)'}; "
                    "record all checkpoints with the same projections and whitening"
                )


def _wanted(opened: Sequence[_Input], common: bool) -> set[str]:
    """The ids to write."""
    everything = set().union(*(each.places for each in opened))
    shared = {identifier for identifier in everything if all(identifier in each.places for each in opened)}
    if shared == everything:
        return shared
    if common and shared:
        return shared
    for each in opened:
        missing = sorted(everything - each.places.keys())
        if missing:
            break
    hint = "" if common else "; --common leaves such examples out"
    found = f"{len(missing):,} missing, as {missing[0]!r}{hint}"
    raise BatchError(f"{each.path}: expected the examples of the other inputs, found {found}")


def _means(
    layer: str, ids: Sequence[str], opened: Sequence[_Input], weights: Sequence[float]
) -> Factors | NDArray[np.float64]:
    """The weighted mean of a layer's gradients: factors of all inputs side by side, or matrices."""
    factored = all(batch.layer(layer).rank is not None for each in opened for batch in each.batches)
    if not factored:
        shape = opened[0].batches[0].layer(layer)
        total = np.zeros((len(ids), shape.input_dimension, shape.output_dimension))
        for each, weight in zip(opened, weights, strict=True):
            (matrices,) = each.rows(layer, ids, factored=False)
            total += weight * matrices
        return total
    sides = [
        [side * np.float32(math.sqrt(weight)) for side in each.rows(layer, ids, factored=True)]
        for each, weight in zip(opened, weights, strict=True)
    ]
    left, right = (np.concatenate(side, axis=2) for side in zip(*sides, strict=True))
    return Factors(left, right)


def _truncated(mean: Factors | NDArray[np.float64], rank: int) -> Factors:
    """The best factors of a rank, by singular values; those there are if the rank is no smaller."""
    if not isinstance(mean, Factors):
        u, sigma, v = np.linalg.svd(mean, full_matrices=False)
        bases = u, v.transpose(0, 2, 1)
    elif mean.left.shape[2] <= rank:
        return mean
    else:
        # G = (Q₁R₁)(Q₂R₂)ᵀ: only R₁R₂ᵀ needs a decomposition.
        (left, first), (right, second) = (np.linalg.qr(side.astype(np.float64)) for side in mean)
        u, sigma, v = np.linalg.svd(first @ second.transpose(0, 2, 1), full_matrices=False)
        bases = left @ u, right @ v.transpose(0, 2, 1)
    root = np.sqrt(sigma[:, None, :rank])
    return Factors(*(side[:, :, :rank] * root for side in bases))


def _copy_records(batch: FactorBatch, path: Path, ids: set[str]) -> None:
    """Copies the lines of some examples from the metadata beside a batch to those beside another, if there are any."""
    records = batch.path.with_suffix(".jsonl")
    if not records.exists():
        return
    target = path.with_suffix(".jsonl")
    if ids == set(batch.ids or ()):
        shutil.copyfile(records, target)
        return
    with (
        records.open(encoding="utf-8-sig", newline="\n") as lines,
        path.with_suffix(".jsonl").open("w", encoding="utf-8", newline="\n") as kept,
    ):
        for number, line in enumerate(lines, 1):
            try:
                identifier = json.loads(line)["id"] if line.strip() else None
            except (ValueError, TypeError, KeyError) as error:
                raise BatchError(f"{records}, line {number}: expected an object with an id, found {error!r}") from None
            if str(identifier) in ids:
                kept.write(line)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m lorif.average",
        description="Averages each example's gradients over the recordings of several checkpoints.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("out", type=Path, metavar="OUT", help="folder of the averaged batches; must not exist")
    add("inputs", type=Path, nargs="+", metavar="INPUT", help="of each checkpoint a folder of batches, or a batch")
    add("--rank", type=int, metavar="C", help="truncate the means to factors of this rank (nothing is lost without it)")
    add("--weights", metavar="W,W,…", help="one for each input, as learning rates; divided by their sum (equal)")
    add("--dtype", choices=["f32", "f16", "bf16"], default="f32", help="of the files (f32)")
    add("--common", action="store_true", help="leave out examples that are not in all inputs")
    options = parser.parse_args(arguments)
    weights = None
    if options.weights is not None:
        try:
            weights = [float(weight) for weight in options.weights.split(",")]
        except ValueError:
            parser.error(f"--weights: expected numbers with commas between them, found {options.weights!r}")
    try:
        count = average(
            options.out, options.inputs, weights=weights, rank=options.rank, dtype=options.dtype, common=options.common
        )
    except BatchError as error:
        print(f"lorif.average: {error}", file=sys.stderr)
        return 3
    except (OSError, MemoryError) as error:
        print(f"lorif.average: {error or 'not enough memory'}", file=sys.stderr)
        return 5
    except KeyboardInterrupt:
        print(f"lorif.average: interrupted; {options.out} was not written", file=sys.stderr)
        return 130
    print(f"{count:,} examples, each the mean of {len(options.inputs)} checkpoints, in {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
