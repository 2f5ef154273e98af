"""The recorder around the matrices: choice of layers, ranks, files, resumption, errors, several processes."""

import pytest

torch = pytest.importorskip(
    "torch", reason="PyTorch is not installed; the recorder stays UNTESTED: pip install '.[torch]'"
)

import json  # noqa: E402
import multiprocessing  # noqa: E402
import re  # noqa: E402
import threading  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
from lorif.batch import FactorBatch  # noqa: E402
from lorif.projection import factor, whitening  # noqa: E402
from lorif.torch import Recorder, RecorderError  # noqa: E402
from lorif.torch.factoring import factor_matrices  # noqa: E402
from lorif.torch.recording import Recording  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch_support import TinyLM  # noqa: E402

ROWS, TOKENS = 6, 9


def network() -> nn.Sequential:
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(12, 10), nn.Tanh(), nn.Linear(10, 11), nn.Tanh(), nn.Linear(11, 3))


def inputs(rows: int = ROWS) -> Tensor:
    return torch.randn(rows, TOKENS, 12, generator=torch.Generator().manual_seed(rows))


def loss(model: nn.Module, values: Tensor) -> Tensor:
    return model(values).square().sum((1, 2)).mean()


def batches(folder: Path) -> list[FactorBatch]:
    return [FactorBatch(path) for path in sorted(folder.glob("*.safetensors"))]


# Which layers


def test_globs_types_and_names(tmp_path: Path) -> None:
    model = TinyLM()

    def names(*patterns: str, **options: Any) -> list[str]:
        return [layer.name for layer in Recorder(model, list(patterns), out=tmp_path, **options).recording.layers]

    assert names("blocks.0.*") == [f"blocks.0.{part}" for part in ("qkv", "out", "up", "down")]
    assert names("*.qkv", "head") == ["blocks.0.qkv", "blocks.1.qkv", "head"]
    assert names("blocks.1.*", types=[nn.Linear]) == [f"blocks.1.{part}" for part in ("out", "up", "down")]
    assert len(names("*")) == 9


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (nn.Conv2d(1, 2, 3), "convolution"),
        (nn.Embedding(4, 4), "embedding has token numbers"),
        (nn.LayerNorm(4), "LayerNorm is not nn.Linear"),
        (nn.MultiheadAttention(4, 2), "not modules of their own"),
        (nn.Bilinear(2, 2, 2), "three sides"),
        (nn.LazyLinear(3), "no shape yet"),
    ],
)
def test_what_cannot_be_recorded_is_refused_with_the_reason(module: nn.Module, reason: str, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 4), module)
    with pytest.raises(RecorderError, match=reason):
        Recorder(model, "1", out=tmp_path)
    assert [layer.name for layer in Recorder(model, "*", out=tmp_path).recording.layers] == ["0"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": "nothing.*"}, "no module has such a name; those that can be recorded: 0, 2, 4"),
        ({"layers": "1*"}, "Tanh is not nn.Linear"),
        ({"layers": "*", "types": [nn.Bilinear]}, "none is of the given types"),
        ({}, "or like=, found neither"),
        ({"layers": "*", "rank": 1, "energy": 0.5}, "rank or energy, found both"),
        ({"layers": "*", "rank": 0}, "rank of at least 1"),
        ({"layers": "*", "d": 0}, "d of at least 1"),
        ({"layers": "*", "energy": 1.5}, "energy target"),
        ({"layers": "*", "per_token": True, "rank": 2}, "rank 1, which is exact"),
        ({"layers": "*", "per_token": True, "resume": True}, "expected resume=False"),
        ({"layers": "*", "dtype": "f64"}, "expected f32, f16, bf16, found 'f64'"),
        ({"layers": "*", "reduction": "median"}, "expected mean, sum, token-mean"),
        ({"layers": "*", "whiten": 0.0}, "above 0"),
        ({"layers": "*", "per_layer": {"9": {"d": 2}}}, "matches no recorded layer"),
        ({"layers": "*", "per_layer": {"0": {"depth": 2}}}, "found 'depth'"),
    ],
)
def test_settings_that_do_not_fit(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(RecorderError, match=re.escape(message)):
        Recorder(network(), out=tmp_path, **options)


def test_a_layer_of_multihead_attention_is_skipped_by_globs_and_refused_by_name(tmp_path: Path) -> None:
    model = nn.TransformerEncoderLayer(4, 2, batch_first=True)
    names = [layer.name for layer in Recorder(model, "*", out=tmp_path).recording.layers]
    assert names == ["linear1", "linear2"]
    with pytest.raises(RecorderError, match="the module itself is never called"):
        Recorder(model, "self_attn.out_proj", out=tmp_path)


def test_compiled_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecorderError, match=r"before torch\.compile"):
        Recorder(torch.compile(network(), backend="eager"), "*", out=tmp_path)
    model = network()
    model[0].compile(backend="eager")
    with pytest.raises(RecorderError, match=r"before torch\.compile"):
        Recorder(model, "*", out=tmp_path)


def test_batch_norm_in_training_mode_is_refused(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(12, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    with Recorder(model, "*", out=tmp_path) as recorder:
        values = model(torch.randn(4, 12)).square().mean()
        with pytest.raises(RecorderError, match=r"'1'.*mixes the examples"):
            recorder.step(range(4), values)
        model.eval()
        recorder.step(range(4), model(torch.randn(4, 12)).square().mean())


# Factors


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_block_power_iteration_keeps_the_energy(rank: int) -> None:
    random = torch.Generator().manual_seed(rank)
    decay = torch.linspace(1, 0.1, 48)[None, :, None] ** 2
    left, right = (torch.randn(40, 48, 40, generator=random, dtype=torch.float64) for _ in range(2))
    matrices = (left * decay).transpose(1, 2) @ right

    def lost(sides: tuple[Tensor, Tensor]) -> Tensor:
        return (matrices - sides[0] @ sides[1].transpose(1, 2)).square().sum((1, 2))

    best, found = (lost(factor_matrices(matrices, rank, method)) for method in ("svd", "power"))
    total = matrices.square().sum((1, 2))
    assert ((total - found) / (total - best)).min() > 0.99
    assert ((total - found) / (total - best)).mean() > 0.999
    u, v = factor_matrices(matrices, rank, "power")
    assert torch.allclose(u.norm(dim=1), v.norm(dim=1))
    assert (u.norm(dim=1).diff(dim=1) <= 0).all()


@pytest.mark.parametrize("method", ["svd", "power", "auto"])
@pytest.mark.parametrize("scale", [1.0, 1e-12, 1e12])
def test_matrices_of_less_rank_are_exact(method: Any, scale: float) -> None:
    random = torch.Generator().manual_seed(1)
    exact = torch.randn(5, 30, 2, generator=random) @ torch.randn(5, 2, 40, generator=random) * scale
    exact[3] = 0
    left, right = factor_matrices(exact, 3, method)
    assert left.shape == (5, 30, 3)
    assert torch.allclose(left @ right.transpose(1, 2), exact, rtol=1e-4, atol=1e-5 * scale)
    assert not left[3].any()
    wide, tall = factor_matrices(exact[:, :2], 4, method)
    assert torch.allclose(wide @ tall.transpose(1, 2), exact[:, :2], rtol=1e-4, atol=1e-5 * scale)


def test_factors_agree_with_numpy(tmp_path: Path) -> None:
    model = network()
    for rank in (1, 3):
        with Recorder(model, "*", d=7, out=tmp_path / str(rank), rank=rank, factoring="svd") as recorder:
            recorder.step(range(ROWS), loss(model, inputs()))
        with Recorder(model, like=tmp_path / str(rank), full=True, out=tmp_path / f"full{rank}") as recorder:
            recorder.step(range(ROWS), loss(model, inputs()))
        (found,), (full,) = batches(tmp_path / str(rank)), batches(tmp_path / f"full{rank}")
        energy = json.loads(found.provenance["energy"])
        for layer in found.layers:
            matrices = full.gradients(layer.name)
            left, right = factor(matrices, rank)
            best = left @ right.transpose(0, 2, 1)
            assert np.allclose(found.gradients(layer.name), best, atol=1e-5 * np.abs(matrices).max())
            assert energy[layer.name] == pytest.approx((best**2).sum() / (matrices.astype(float) ** 2).sum(), rel=1e-4)


def test_options_of_single_layers(tmp_path: Path) -> None:
    model = network()
    options = {"*": {"d": (5, 6)}, "2": {"d1": 4, "rank": 2}, "4": {"d": None, "rank": 9}}
    with Recorder(model, "*", rank=1, per_layer=options, out=tmp_path) as recorder:
        recorder.step(range(ROWS), loss(model, inputs()))
    (batch,) = batches(tmp_path)
    shapes = [(layer.input_dimension, layer.output_dimension, layer.rank) for layer in batch.layers]
    assert shapes == [(5, 6, 1), (4, 6, 2), (11, 3, 3)]


@pytest.mark.parametrize("whiten", [None, 0.1])
def test_an_energy_target_finds_the_rank(whiten: float | None, tmp_path: Path) -> None:
    model = network()
    with Recorder(model, "*", d=8, energy=0.9, whiten=whiten, out=tmp_path / "a") as recorder:
        with pytest.raises(RecorderError, match=r"calibrate\(\) on a sample"):
            recorder.step(range(ROWS), loss(model, inputs()))
        recorder.calibrate(loss(model, inputs(40)))
        recorder.step(range(ROWS), loss(model, inputs()))
        with pytest.raises(RecorderError, match="before the first step"):
            recorder.calibrate(loss(model, inputs()))
    with Recorder(model, like=tmp_path / "a", full=True, out=tmp_path / "full") as full:
        full.step(range(40), loss(model, inputs(40)))
    (batch,) = batches(tmp_path / "full")
    ranks = {layer.name: layer.rank for layer in recorder.recording.layers}
    for name, rank in ranks.items():
        squares = np.linalg.svd(batch.gradients(name).astype(float), compute_uv=False) ** 2
        shares = (squares.cumsum(1) / squares.sum(1, keepdims=True)).mean(0)
        assert rank == int(np.argmax(shares >= 0.9)) + 1
    assert len(set(ranks.values())) > 1 or max(ranks.values()) > 1


# Files


@pytest.mark.parametrize(("dtype", "tolerance"), [("f32", 1e-7), ("f16", 2**-10), ("bf16", 2**-7)])
def test_files_roll_over_and_keep_order_types_and_records(dtype: Any, tolerance: float, tmp_path: Path) -> None:
    model = network()
    row_bytes = {"f32": 4, "f16": 2, "bf16": 2}[dtype] * sum((4, 4, 4, 4, 4, 3))
    ids = [f"example {row}" for row in range(25)]
    for name, kind, size in (("a", dtype, 4 * row_bytes), ("b", "f32", 1 << 20)):
        with Recorder(model, "*", d=4, dtype=kind, file_bytes=size, out=tmp_path / name) as recorder:
            for start in range(0, 25, 10):
                part = ids[start : start + 10]
                records = [{"text": f"text of {item}"} for item in part]
                recorder.step(part, loss(model, inputs(25)[start : start + 10]), records=records)
        assert recorder.row_count == 25
    small, (large,) = batches(tmp_path / "a"), batches(tmp_path / "b")
    assert [batch.row_count for batch in small] == [4, 4, 4, 4, 4, 4, 1]
    assert [name for batch in small for name in batch.ids or []] == ids == large.ids
    for layer in large.layers:
        joined = np.concatenate([batch.factors(layer.name).left for batch in small])
        wanted = large.factors(layer.name).left
        assert np.abs(joined - wanted).max() <= tolerance * np.abs(wanted).max()
    lines = (small[1].path.with_suffix(".jsonl")).read_text().splitlines()
    assert json.loads(lines[0]) == {"id": "example 4", "text": "text of example 4"}
    assert not list((tmp_path / "a").glob(".*"))


def test_metadata_says_how_to_repeat_it(tmp_path: Path) -> None:
    model = network()
    with Recorder(
        model, "*", d=4, seed=7, projection="gaussian", out=tmp_path, provenance={"model": "net"}
    ) as recorder:
        recorder.step(torch.arange(ROWS), loss(model, inputs()))
    (batch,) = batches(tmp_path)
    assert batch.ids == [str(row) for row in range(ROWS)]
    assert batch.provenance["model"] == "net"
    settings = json.loads(batch.provenance["recording"])
    assert settings == json.loads((tmp_path / "recording.json").read_text())
    assert (settings["seed"], settings["projection"], settings["reduction"]) == (7, "gaussian", "mean")
    assert settings["layers"][0] | {"energy": None} == {
        "name": "0", "inputs": 12, "outputs": 10, "bias": False, "d1": 4, "d2": 4, "rank": 1, "energy": None,
    }  # fmt: skip
    assert settings["projection_digest"] == batch.provenance["projection_digest"]


def test_queries_repeat_the_projections(tmp_path: Path) -> None:
    model = network()
    with Recorder(model, "*", d=5, projection="whitened", bias=True, seed=3, out=tmp_path / "train") as recorder:
        recorder.calibrate(loss(model, inputs(30)))
        recorder.step(range(ROWS), loss(model, inputs()))
    with Recorder(model, like=tmp_path / "train", full=True, reduction="sum", out=tmp_path / "query") as queries:
        queries.step(["q"], loss(model, inputs(1)))
    (train,), (query,) = batches(tmp_path / "train"), batches(tmp_path / "query")
    assert train.provenance["projection_digest"] == query.provenance["projection_digest"]
    assert json.loads(query.provenance["recording"])["reduction"] == "sum"
    again = Recording.load(tmp_path / "query")
    for name, (left, right) in recorder.recording.projections().items():
        assert np.array_equal(left, again.projections()[name][0])
        assert np.array_equal(right, again.projections()[name][1])
    with pytest.raises(RecorderError, match="no other settings"):
        Recorder(model, "*", like=tmp_path / "train", out=tmp_path / "x")
    with pytest.raises(RecorderError, match=r"layer '4'.*as recorded"):
        other = network()
        other[4] = nn.Linear(11, 5)
        Recorder(other, like=tmp_path / "train", out=tmp_path / "x")
    with pytest.raises(RecorderError, match="full=True"):
        Recorder(model, like=tmp_path / "query", out=tmp_path / "x")
    (tmp_path / "train" / "whitening.npz").write_bytes((tmp_path / "query" / "whitening.npz").read_bytes()[:-200])
    with pytest.raises(RecorderError, match=r"whitening\.npz"):
        Recorder(model, like=tmp_path / "train", out=tmp_path / "x")


@pytest.mark.parametrize("whiten", [None, 0.1])
def test_resuming_skips_what_is_there(whiten: float | None, tmp_path: Path) -> None:
    model = network()
    values = inputs(12)

    def record(out: Path, stop: int, **options: Any) -> list[int]:
        seen = []
        recorder = Recorder(model, "*", d=4, rank=2, whiten=whiten, file_bytes=700, factoring="svd", out=out, **options)
        with recorder:
            if whiten is not None:
                recorder.calibrate(loss(model, values))
            for start in range(0, stop, 3):
                rows = [row for row in range(start, start + 3) if not (options and recorder.has(row))]
                seen += rows
                recorder.step(range(start, start + 3), loss(model, values[start : start + 3]))
        return seen

    record(tmp_path / "whole", 12)
    record(tmp_path / "parts", 6)
    with pytest.raises(RecorderError, match="or resume=True"):
        record(tmp_path / "parts", 12)
    lost = sorted((tmp_path / "parts").glob("*.safetensors"))[-1]
    kept = 6 - FactorBatch(lost).row_count
    lost.unlink()
    (tmp_path / "parts" / ".factors-00000-000009.safetensors.1.tmp").write_bytes(b"half a file")
    assert record(tmp_path / "parts", 12, resume=True) == list(range(kept, 12))
    whole, parts = batches(tmp_path / "whole"), batches(tmp_path / "parts")
    assert [name for batch in parts for name in batch.ids or []] == [str(row) for row in range(12)]
    for name in ("0", "2", "4"):
        one, other = (np.concatenate([batch.gradients(name) for batch in group]) for group in (whole, parts))
        assert np.allclose(one, other, atol=1e-4 * np.abs(one).max())
    assert not list((tmp_path / "parts").glob(".*"))
    with pytest.raises(RecorderError, match="settings it was begun with, seed 0"):
        record(tmp_path / "parts", 12, resume=True, seed=1)


# Errors


def test_an_error_of_the_writer_is_raised_at_the_next_step_and_at_the_end(tmp_path: Path) -> None:
    model = network()
    recorder = Recorder(model, "*", d=4, file_bytes=1, out=tmp_path / "out")
    recorder.__enter__()
    recorder.step(range(ROWS), loss(model, inputs()))
    first = sorted((tmp_path / "out").glob("*"))
    recorder._stream._folder = tmp_path / "gone"  # type: ignore[union-attr]
    with pytest.raises(RecorderError, match="writing failed"):
        for start in range(20, 200, ROWS):
            recorder.step(range(start, start + ROWS), loss(model, inputs()))
            threading.Event().wait(0.05)
    with pytest.raises(RecorderError, match="gone"):
        recorder.close()
    assert first
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_equal_ids_in_a_file_are_an_error_at_the_end(tmp_path: Path) -> None:
    model = network()
    recorder = Recorder(model, "*", d=4, out=tmp_path)
    with pytest.raises(RecorderError, match="distinct ids, found 'a'"), recorder:
        recorder.step(["a", "b"], loss(model, inputs(2)))
        recorder.step(["c", "a"], loss(model, inputs(2)))
    assert not list(tmp_path.glob("*.safetensors"))


def test_an_error_in_the_block_keeps_what_was_recorded(tmp_path: Path) -> None:
    model = network()
    with pytest.raises(ZeroDivisionError), Recorder(model, "*", d=4, out=tmp_path) as recorder:
        recorder.step(range(ROWS), loss(model, inputs()))
        raise ZeroDivisionError
    assert batches(tmp_path)[0].row_count == ROWS
    assert not any(module._forward_hooks for module in model.modules())


def test_steps_that_do_not_fit(tmp_path: Path) -> None:
    model = network()
    recorder = Recorder(model, "*", d=4, out=tmp_path)
    with pytest.raises(RecorderError, match="within the recorder's `with` block"):
        recorder.step(range(ROWS), loss(model, inputs()))
    with recorder:
        with pytest.raises(RecorderError, match="expected the 5 examples in the first dimension"):
            recorder.step(range(5), loss(model, inputs()))
        with pytest.raises(RecorderError, match=r"expected a mask of \[6, 9\]"):
            recorder.step(range(ROWS), loss(model, inputs()), mask=torch.ones(ROWS, 8))
        with pytest.raises(RecorderError, match="expected a scalar or 6 losses"):
            recorder.step(range(ROWS), model(inputs()).sum((0, 1)))
        with pytest.raises(RecorderError, match="found none to go back to"):
            with torch.no_grad():
                values = loss(model, inputs())
            recorder.step(range(ROWS), values)
        with pytest.raises(RecorderError, match="layer '4': expected it in the backward pass"):
            recorder.step(range(ROWS), model[:4](inputs()).square().mean())
        broken = inputs()
        broken[2, 3, 4] = torch.nan
        with pytest.raises(RecorderError, match="id '2': expected a finite gradient"):
            recorder.step(range(ROWS), loss(model, broken))
        recorder.step(range(ROWS), loss(model, inputs()), records=[{}] * ROWS)
        with pytest.raises(RecorderError, match="with every step or with none"):
            recorder.step(range(10, 10 + ROWS), loss(model, inputs()))
    counted = Recorder(model, "*", d=4, reduction="token-mean", out=tmp_path / "b")
    with counted, pytest.raises(RecorderError, match="number of tokens in the mean"):
        counted.step(range(ROWS), loss(model, inputs()))


# Several processes


def _record_part(rank: int, count: int, folder: str, store: str | None) -> None:
    torch.set_num_threads(1)
    if store is not None:
        torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=count)
    model = network()
    values = inputs(12)
    options: dict[str, Any] = {"process": (rank, count)} if store is None else {"whiten": 0.1, "energy": 0.8}
    with Recorder(model, "*", d=4, out=folder, factoring="svd", **options) as recorder:
        rows = list(range(rank, 12, count))
        if store is not None:
            recorder.calibrate(loss(model, values[rows]))
        recorder.step(rows, loss(model, values[rows]))
    if store is not None:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("distributed", [False, True])
def test_each_process_writes_its_own_files(distributed: bool, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    store = str(tmp_path / "rendezvous") if distributed else None
    processes = [context.Process(target=_record_part, args=(rank, 2, str(tmp_path / "a"), store)) for rank in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    paths = sorted(path.name for path in (tmp_path / "a").glob("*.safetensors"))
    assert paths == ["factors-00000-000000.safetensors", "factors-00001-000000.safetensors"]
    even, odd = batches(tmp_path / "a")
    assert even.ids == [str(row) for row in range(0, 12, 2)]
    assert even.provenance["projection_digest"] == odd.provenance["projection_digest"]
    model = network()
    ranks = {layer.name: {"rank": layer.rank} for layer in even.layers}
    with Recorder(
        model, "*", d=4, per_layer=ranks, whiten=0.1 if distributed else None, factoring="svd", out=tmp_path / "b"
    ) as recorder:
        if distributed:
            recorder.calibrate(loss(model, inputs(12)))
        recorder.step(range(12), loss(model, inputs(12)))
    (alone,) = batches(tmp_path / "b")
    for layer in alone.layers:
        for batch, part in ((even, slice(0, 12, 2)), (odd, slice(1, 12, 2))):
            wanted = alone.gradients(layer.name, part)
            assert np.allclose(batch.gradients(layer.name), wanted, atol=1e-4 * np.abs(wanted).max())


def test_a_calibration_in_parts_without_communication_is_refused(tmp_path: Path) -> None:
    model = network()
    with Recorder(model, "*", d=4, whiten=0.1, process=(1, 2), out=tmp_path) as recorder:
        recorder.calibrate(loss(model, inputs()))
        with pytest.raises(RecorderError, match=r"expected torch\.distributed"):
            recorder.step(range(ROWS), loss(model, inputs()))


def test_a_compiled_function_around_the_model_records_the_same(tmp_path: Path) -> None:
    model = network()
    compiled = torch.compile(lambda values: loss(model, values), backend="eager")
    for name, function in (("plain", lambda values: loss(model, values)), ("compiled", compiled)):
        with Recorder(model, "*", d=4, full=True, out=tmp_path / name) as recorder:
            recorder.step(range(ROWS), function(inputs()))
    (plain,), (other,) = batches(tmp_path / "plain"), batches(tmp_path / "compiled")
    for layer in plain.layers:
        assert np.allclose(plain.gradients(layer.name), other.gradients(layer.name), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("explicit", [False, True])
def test_the_first_step_after_a_calibration_is_whitened_whole(explicit: bool, tmp_path: Path) -> None:
    model = network()
    with Recorder(model, "*", d=4, whiten=0.1, full=True, out=tmp_path / "a") as recorder:
        recorder.calibrate(loss(model, inputs(20)))
        if explicit:
            before = loss(model, inputs())
            recorder.finish_calibration()
            with pytest.raises(RecorderError, match="found one that ran before"):
                recorder.step(range(ROWS), before)
        for start in (0, 10):
            recorder.step(range(start, start + ROWS), loss(model, inputs()))
    with Recorder(model, like=tmp_path / "a", full=True, out=tmp_path / "b") as again:
        again.step(range(ROWS), loss(model, inputs()))
    (twice,), (once,) = batches(tmp_path / "a"), batches(tmp_path / "b")
    for layer in once.layers:
        wanted = once.gradients(layer.name)
        for rows in (slice(0, ROWS), slice(ROWS, 2 * ROWS)):
            assert np.allclose(twice.gradients(layer.name, rows), wanted, atol=1e-5 * np.abs(wanted).max())


def test_tokens_are_whitened_by_their_own_moments(tmp_path: Path) -> None:
    model, mask = network(), torch.ones(ROWS, TOKENS)
    mask[2, 4:] = 0
    with Recorder(model, "*", d=4, per_token=True, full=True, out=tmp_path / "raw") as recorder:
        recorder.step(range(ROWS), loss(model, inputs()), mask=mask)
    with Recorder(model, "*", d=4, per_token=True, whiten=0.1, out=tmp_path / "white") as whitened:
        with pytest.raises(RecorderError, match="number of examples"):
            whitened.calibrate(loss(model, inputs()))
        whitened.calibrate(loss(model, inputs()), examples=ROWS, mask=mask)
        whitened.step(range(ROWS), loss(model, inputs()), mask=mask)
    (raw,), (white,) = batches(tmp_path / "raw"), batches(tmp_path / "white")
    assert raw.row_count == white.row_count == whitened.recording.calibrated_on == ROWS * TOKENS - 5
    for layer in raw.layers:
        given = raw.gradients(layer.name).astype(float)
        moments = (given @ given.transpose(0, 2, 1)).mean(0), (given.transpose(0, 2, 1) @ given).mean(0)
        maps = whitening(*moments, 0.1)
        wanted = maps.left @ given @ maps.right
        assert np.allclose(white.gradients(layer.name), wanted, atol=1e-3 * np.abs(wanted).max())
