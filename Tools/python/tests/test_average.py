"""Means over checkpoints against means of matrices that were computed here, and what does not fit together."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from lorif.average import average, main
from lorif.batch import BatchError, FactorBatch, Factors, write_batch

SHAPES = {"a": (4, 5), "b.1": (3, 2)}
IDS = [f"x{index}" for index in range(7)]

Batch = Callable[..., Path]


@pytest.fixture
def recorded(tmp_path: Path) -> Batch:
    """Writes one batch of a checkpoint: factors of a rank, or matrices."""

    def write(
        folder: str,
        seed: int,
        ids: list[str],
        *,
        name: str = "f-0",
        rank: int | None = 2,
        records: bool = False,
        **more: object,
    ) -> Path:
        random = np.random.default_rng(seed)
        layers: dict[str, Factors | np.ndarray] = {}
        for layer, (d1, d2) in SHAPES.items():
            sides = [random.standard_normal((len(ids), d, rank or 3)).astype(np.float32) for d in (d1, d2)]
            factors = Factors(*sides)
            layers[layer] = factors if rank else np.einsum("nac,nbc->nab", *sides)
        path = tmp_path / folder / f"{name}.safetensors"
        path.parent.mkdir(exist_ok=True)
        metadata = [{"text": f"{each} of {folder}, ü"} for each in ids] if records else None
        write_batch(path, layers, ids=ids, records=metadata, **more)
        return path

    return write


def gradients(path: Path, layer: str) -> dict[str, np.ndarray]:
    """By id, of a batch or a folder of them."""
    found: dict[str, np.ndarray] = {}
    for file in sorted(path.glob("*.safetensors")) if path.is_dir() else [path]:
        batch = FactorBatch(file)
        found |= dict(zip(batch.ids or (), batch.gradients(layer).astype(np.float64), strict=True))
    return found


@pytest.mark.parametrize("ranks", [(2, 2, 2), (2, 1, 3), (None, None, None), (2, None, 2)])
def test_rows_are_means_by_id(recorded: Batch, tmp_path: Path, ranks: tuple) -> None:
    # Other files and another order in every checkpoint.
    recorded("one", 1, IDS[:4], name="f-0", rank=ranks[0])
    recorded("one", 2, IDS[4:], name="f-1", rank=ranks[0])
    two = recorded("two", 3, IDS[::-1], rank=ranks[1])
    recorded("three", 4, IDS[5:] + IDS[2:5], name="g", rank=ranks[2])
    recorded("three", 5, IDS[:2], name="h", rank=ranks[2])
    inputs = [tmp_path / "one", two, tmp_path / "three"]
    assert average(tmp_path / "mean", inputs, weights=[1, 2, 5]) == len(IDS)
    files = sorted(path.name for path in (tmp_path / "mean").iterdir())
    assert files == ["f-0.safetensors", "f-1.safetensors"]
    assert FactorBatch(tmp_path / "mean/f-0.safetensors").ids == IDS[:4]
    for layer in SHAPES:
        each = [gradients(path, layer) for path in inputs]
        for identifier, mean in gradients(tmp_path / "mean", layer).items():
            expected = sum(weight * found[identifier] for weight, found in zip((1, 2, 5), each, strict=True)) / 8
            np.testing.assert_allclose(mean, expected, rtol=2e-6, atol=2e-6)
        rank = FactorBatch(tmp_path / "mean/f-0.safetensors").layer(layer).rank
        assert rank == (None if None in ranks else sum(ranks))


@pytest.mark.parametrize("ranks", [(1, 2), (None, None)])
@pytest.mark.parametrize("rank", [1, 2, 9])
def test_truncation_is_the_best_there_is(recorded: Batch, tmp_path: Path, ranks: tuple, rank: int) -> None:
    """By Eckart and Young: what is lost are the smallest singular values of the mean."""
    inputs = [recorded("one", 1, IDS, rank=ranks[0]), recorded("two", 2, IDS, rank=ranks[1])]
    average(tmp_path / "mean", inputs, rank=rank)
    for layer, (d1, d2) in SHAPES.items():
        found = FactorBatch(tmp_path / "mean/f-0.safetensors").layer(layer).rank
        assert found == min(rank, *((sum(ranks),) if ranks[0] else (d1, d2)))
        one, two, kept = (gradients(path, layer) for path in (*inputs, tmp_path / "mean"))
        for identifier in IDS:
            mean = (one[identifier] + two[identifier]) / 2
            lost = np.linalg.svd(mean, compute_uv=False)[rank:]
            distance = np.linalg.norm(mean - kept[identifier])
            assert distance == pytest.approx(np.linalg.norm(lost), abs=3e-6)


def test_equal_weights_unless_said(recorded: Batch, tmp_path: Path) -> None:
    inputs = [recorded("one", 1, IDS), recorded("two", 2, IDS)]
    average(tmp_path / "mean", inputs)
    one, two, mean = (gradients(path, "a")["x3"] for path in (*inputs, tmp_path / "mean"))
    np.testing.assert_allclose(mean, (one + two) / 2, rtol=1e-6, atol=1e-6)


def test_metadata_is_that_of_the_first(recorded: Batch, tmp_path: Path) -> None:
    one = recorded("one", 1, IDS, records=True, provenance={"model": "m", "projection_digest": "p", "energy": "{}"})
    two = recorded("two", 2, IDS[2:], records=True, provenance={"model": "n", "projection_digest": "p"})
    assert average(tmp_path / "mean", [one, two], common=True, dtype="f16") == 5
    batch = FactorBatch(tmp_path / "mean/f-0.safetensors")
    assert batch.ids == IDS[2:]
    assert batch.provenance == {"model": "m", "projection_digest": "p", "averaged": "2"}
    lines = (tmp_path / "mean/f-0.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [{"id": each, "text": f"{each} of one, ü"} for each in IDS[2:]]


def test_all_metadata_of_all_examples(recorded: Batch, tmp_path: Path) -> None:
    one, two = recorded("one", 1, IDS, records=True), recorded("two", 2, IDS)
    average(tmp_path / "mean", [one, two])
    assert (tmp_path / "mean/f-0.jsonl").read_bytes() == one.with_suffix(".jsonl").read_bytes()


def test_what_does_not_fit(recorded: Batch, tmp_path: Path) -> None:
    one = recorded("one", 1, IDS)
    cases: list[tuple[list[Path], dict, str]] = [
        ([one], {}, "at least two checkpoints, found 1"),
        ([one, one], {"rank": 0}, "expected at least 1, found 0"),
        ([one, one], {"weights": [1]}, "expected 2, one for each input, found 1"),
        ([one, one], {"weights": [1, 0]}, "numbers above 0, found 0"),
        ([one, one], {"weights": [1, float("nan")]}, "numbers above 0, found nan"),
        ([one, recorded("few", 2, IDS[1:])], {}, "1 missing, as 'x0'; --common leaves"),
        ([one, recorded("none", 2, ["y"])], {"common": True}, "expected the examples of the other inputs, found"),
        ([one, recorded("digest", 2, IDS, provenance={"projection_digest": "q"})], {}, "projection_digest (none)"),
        ([one, recorded("basis", 2, IDS, basis="0" * 32)], {}, "expected basis (none) as in"),
    ]
    empty = tmp_path / "empty"
    empty.mkdir()
    cases.append(([one, empty], {}, "expected factor batches"))
    write_batch(tmp_path / "nameless.safetensors", {"a": np.ones((1, 4, 5))})
    cases.append(([one, tmp_path / "nameless.safetensors"], {}, "expected ids"))
    write_batch(tmp_path / "other.safetensors", {"a": np.ones((1, 4, 5))}, ids=["x0"])
    cases.append(([one, tmp_path / "other.safetensors"], {}, "'b.1' of 3×2 among them"))
    recorded("twice", 1, IDS, name="g")
    recorded("twice", 1, IDS, name="h")
    cases.append(([one, tmp_path / "twice"], {}, "found 'x0' in"))
    for inputs, options, words in cases:
        with pytest.raises(BatchError) as raised:
            average(tmp_path / "mean", inputs, **options)
        assert words in str(raised.value)
        assert not (tmp_path / "mean").exists()
        assert not list(tmp_path.glob(".mean*"))


def test_nothing_is_left_of_an_average_that_fails(recorded: Batch, tmp_path: Path) -> None:
    """A number that is infinite is found when it is read, after the first file was written."""
    one = recorded("one", 1, IDS)
    recorded("one", 1, ["late"], name="f-1")
    two = recorded("two", 2, [*IDS, "late"])
    data = bytearray(two.read_bytes())
    data[-4:] = np.float32("inf").tobytes()
    two.write_bytes(data)
    with pytest.raises(BatchError, match="expected a finite number"):
        average(tmp_path / "mean", [one.parent, two])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


def test_the_command(recorded: Batch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = recorded("one", 1, IDS), recorded("two", 2, IDS)
    out = tmp_path / "new/mean"
    assert main([str(out), str(one), str(two), "--weights", "1,3"]) == 0
    assert capsys.readouterr().out == f"7 examples, each the mean of 2 checkpoints, in {out}\n"
    found, first, second = (gradients(path, "b.1")["x6"] for path in (out, one, two))
    np.testing.assert_allclose(found, (first + 3 * second) / 4, rtol=1e-6, atol=1e-6)
    assert main([str(out), str(one), str(two)]) == 3
    assert "expected a folder that does not exist" in capsys.readouterr().err
    assert main([str(tmp_path / "x"), str(one), str(tmp_path / "nowhere.safetensors")]) == 3
    assert "found no such file" in capsys.readouterr().err
    with pytest.raises(SystemExit) as raised:
        main([str(tmp_path / "x"), str(one), str(two), "--weights", "a"])
    assert raised.value.code == 2
