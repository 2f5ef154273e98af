"""The proof of the recorder: every captured matrix is torch.func's per-example gradient, projected in float64."""

import pytest

torch = pytest.importorskip(
    "torch", reason="PyTorch is not installed; the recorder stays UNTESTED: pip install '.[torch]'"
)

from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
from lorif.batch import FactorBatch  # noqa: E402
from lorif.torch import Recorder, RecorderError  # noqa: E402
from lorif.torch.capture import Capture  # noqa: E402
from lorif.torch.layers import select_layers  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch_support import TinyLM, per_example_gradients, projected, token_losses  # noqa: E402

ROWS, TOKENS = 4, 7


def is_conv1d(name: str) -> bool:
    return name.endswith("qkv")


def make(dtype: Any = torch.float64, **options: Any) -> tuple[TinyLM, Tensor]:
    torch.manual_seed(3)
    model = TinyLM(**options).to(dtype)
    return model, torch.randint(0, 11, (ROWS, TOKENS))


def oracle(model: TinyLM, tokens: Tensor, lengths: list[int] | None = None) -> dict[str, np.ndarray]:
    """One example at a time, without padding, without checkpoints."""
    checkpoint, model.checkpoint = model.checkpoint, None
    lengths = lengths or [tokens.shape[1]] * tokens.shape[0]
    rows = [(row[:length],) for row, length in zip(tokens, lengths, strict=True)]
    result = per_example_gradients(model, lambda call, row: token_losses(call(row), row), rows)
    model.checkpoint = checkpoint
    return result


def captured(recorder: Recorder, loss: Callable[[], Tensor], **step: Any) -> dict[str, np.ndarray]:
    """The matrices of one step before they are narrowed to float32 for the file, scaled as the recorder does."""
    rows: dict[str, np.ndarray] = {}
    with recorder:
        kept = recorder._rows

        def keep(gradients: dict[str, Tensor], factor: float, ids: Any) -> Any:
            rows.update({name: (matrices * factor).double().numpy() for name, matrices in gradients.items()})
            return kept(gradients, factor, ids)

        recorder._rows = keep  # type: ignore[method-assign]
        recorder.step(range(ROWS), loss(), **step)
    return rows


def check(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], tolerance: float) -> None:
    assert set(found) == set(expected)
    for name, wanted in expected.items():
        scale = np.linalg.norm(wanted, axis=(1, 2), keepdims=True)
        assert (scale > 0).all()
        assert np.abs(found[name] - wanted).max() <= tolerance * scale.max(), name


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
@pytest.mark.parametrize("projection", ["gaussian", "rademacher", "orthogonal"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("train", [False, True])
def test_linear_and_conv1d(
    dtype: Any, tolerance: float, projection: Any, bias: bool, train: bool, tmp_path: Path
) -> None:
    model, tokens = make(dtype)
    recorder = Recorder(
        model, ["blocks.*", "head"], d=(5, 4), projection=projection, bias=bias, train=train, out=tmp_path, full=True
    )
    found = captured(recorder, lambda: token_losses(model(tokens), tokens).mean())
    assert len(found) == 9
    check(found, projected(recorder.recording, oracle(model.double(), tokens), is_conv1d), tolerance)


@pytest.mark.parametrize("bias", [False, True])
def test_without_projection(bias: bool, tmp_path: Path) -> None:
    model, tokens = make()
    recorder = Recorder(model, "blocks.*", d=None, bias=bias, out=tmp_path, full=True)
    found = captured(recorder, lambda: token_losses(model(tokens), tokens).mean())
    expected = oracle(model, tokens)
    check(found, projected(recorder.recording, expected, is_conv1d), 1e-10)
    assert found["blocks.0.up"].shape == (ROWS, 6 + bias, 12)


def test_the_file_has_the_matrices(tmp_path: Path) -> None:
    model, tokens = make(torch.float32)
    with Recorder(model, "blocks.*", d=5, out=tmp_path / "full", full=True) as recorder:
        recorder.step(["a", "b", "c", "d"], token_losses(model(tokens), tokens).mean())
    with Recorder(model, like=tmp_path / "full", rank=5, out=tmp_path / "factors") as factors:
        factors.step(["a", "b", "c", "d"], token_losses(model(tokens), tokens).mean())
    expected = projected(recorder.recording, oracle(model.double(), tokens), is_conv1d)
    for folder in ("full", "factors"):
        batch = FactorBatch(tmp_path / folder / "factors-00000-000000.safetensors")
        assert batch.ids == ["a", "b", "c", "d"]
        check({layer.name: batch.gradients(layer.name) for layer in batch.layers}, expected, 1e-4)


@pytest.mark.parametrize(("reduction", "scale"), [("sum", 1.0), ("mean", 0.25), ("token-mean", 128.0), ("none", 3.0)])
def test_loss_reduction_and_scale_are_undone(reduction: str, scale: float, tmp_path: Path) -> None:
    model, tokens = make()
    stated = "mean" if reduction == "none" else reduction
    recorder = Recorder(model, "blocks.*", d=4, reduction=stated, out=tmp_path, full=True)
    count = ROWS * (TOKENS - 1)

    def loss() -> Tensor:
        losses = token_losses(model(tokens), tokens) * scale
        reduced = {"sum": losses.sum(), "mean": losses.mean(), "token-mean": losses.sum() / count, "none": losses}
        return reduced[reduction]

    found = captured(recorder, loss, scale=scale, count=count if reduction == "token-mean" else None)
    check(found, projected(recorder.recording, oracle(model, tokens), is_conv1d), 1e-10)


@pytest.mark.parametrize("with_mask", [False, True])
def test_padding_equals_examples_without_it(with_mask: bool, tmp_path: Path) -> None:
    model, tokens = make()
    lengths = [7, 3, 5, 2]
    keep = (torch.arange(TOKENS)[None, :] < torch.tensor(lengths)[:, None]).double()
    recorder = Recorder(model, ["blocks.*", "head"], d=4, bias=True, out=tmp_path, full=True)
    found = captured(
        recorder, lambda: token_losses(model(tokens, keep), tokens, keep).mean(), mask=keep if with_mask else None
    )
    check(found, projected(recorder.recording, oracle(model, tokens, lengths), is_conv1d), 1e-10)


def test_masked_tokens_are_left_out_even_if_they_have_a_gradient(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 4)).double()
    inputs = torch.randn(ROWS, TOKENS, 3, dtype=torch.float64)
    inputs[1, 2] = torch.inf
    mask = torch.ones(ROWS, TOKENS)
    mask[1, 2] = mask[0, 0] = 0
    # The loss counts one of the two tokens that are left out.
    weights = mask.clone()[..., None]
    weights[0, 0] = 1
    recorder = Recorder(model, "0", d=None, reduction="sum", out=tmp_path, full=True)
    found = captured(recorder, lambda: model(inputs).square().where(weights > 0, 0.0).sum(), mask=mask)["0"]
    kept = torch.where(mask.bool()[..., None], inputs, 0.0)
    outputs = torch.where(mask.bool()[..., None], 2 * model(inputs).detach(), 0.0)
    assert np.allclose(found, (kept.transpose(1, 2) @ outputs).numpy(), rtol=1e-12)


@pytest.mark.parametrize("train", [False, True])
def test_gradient_accumulation(train: bool, tmp_path: Path) -> None:
    model, tokens = make()
    expected = oracle(model, tokens)
    with Recorder(model, "blocks.*", d=4, train=train, out=tmp_path, full=True) as recorder:
        for start in (0, 2):
            part = tokens[start : start + 2]
            loss = token_losses(model(part), part).mean() / 2
            recorder.step([start, start + 1], loss, scale=0.5)
    batch = FactorBatch(tmp_path / "factors-00000-000000.safetensors")
    assert batch.ids == ["0", "1", "2", "3"]
    wanted = projected(recorder.recording, expected, is_conv1d)
    check({layer.name: batch.gradients(layer.name) for layer in batch.layers}, wanted, 1e-6)
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad
        if train:
            assert parameter.grad is not None
            assert np.allclose(parameter.grad.numpy(), expected[name].mean(0), atol=1e-12), name
        else:
            assert parameter.grad is None, name


@pytest.mark.parametrize("train", [False, True])
def test_autocast(train: bool, tmp_path: Path) -> None:
    model, tokens = make(torch.float32)
    recorder = Recorder(model, "blocks.*", d=4, train=train, out=tmp_path, full=True)

    def loss() -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(tokens)
        return token_losses(logits, tokens).mean()

    found = captured(recorder, loss)
    check(found, projected(recorder.recording, oracle(model.double(), tokens), is_conv1d), 0.05)


@pytest.mark.parametrize(("reentrant", "train"), [(False, False), (False, True), (True, True)])
def test_gradient_checkpointing(reentrant: bool, train: bool, tmp_path: Path) -> None:
    model, tokens = make(checkpoint=reentrant)
    recorder = Recorder(model, ["blocks.*", "head"], d=4, train=train, out=tmp_path, full=True)
    found = captured(recorder, lambda: token_losses(model(tokens), tokens).mean())
    check(found, projected(recorder.recording, oracle(model, tokens), is_conv1d), 1e-10)


def test_reentrant_checkpoints_of_frozen_weights_are_refused(tmp_path: Path) -> None:
    model, tokens = make(checkpoint=True)
    with Recorder(model, "blocks.*", d=4, out=tmp_path) as recorder, pytest.warns(UserWarning, match="requires_grad"):
        loss = token_losses(model(tokens), tokens).mean()
        with pytest.raises(RecorderError, match="use_reentrant=False"):
            recorder.step(range(ROWS), loss)


class Reused(nn.Module):
    """One layer called twice, and two layers that share a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 5)
        self.twin = nn.Linear(5, 5, bias=False)
        self.twin.weight = self.first.weight
        self.last = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.twin(torch.tanh(self.first(torch.tanh(self.first(x))))))


def test_tied_weights_and_reused_layers(tmp_path: Path) -> None:
    torch.manual_seed(4)
    model = Reused().double()
    inputs = torch.randn(ROWS, TOKENS, 5, dtype=torch.float64)
    recorder = Recorder(model, "*", d=3, out=tmp_path, full=True)
    assert [layer.name for layer in recorder.recording.layers] == ["first", "last"]
    found = captured(recorder, lambda: model(inputs).square().sum((1, 2)).mean())
    expected = per_example_gradients(model, lambda call, row: call(row).square().sum(), [(row,) for row in inputs])
    check(found, projected(recorder.recording, expected, lambda _: False), 1e-10)


def test_a_weight_tied_to_something_unrecorded_warns(tmp_path: Path) -> None:
    model, tokens = make(tied=True)
    with pytest.warns(UserWarning, match="'head' shares its weight with embed"):
        recorder = Recorder(model, "head", d=4, out=tmp_path, full=True)
    found = captured(recorder, lambda: token_losses(model(tokens), tokens).mean())
    untied, _ = make()
    untied.load_state_dict(model.state_dict())
    check(found, projected(recorder.recording, oracle(untied, tokens), is_conv1d), 1e-10)


class Adapted(nn.Module):
    """A frozen base with an adapter of low rank, as LoRA has."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(6, 6).requires_grad_(False)
        self.lora_A = nn.Linear(6, 2, bias=False)
        self.lora_B = nn.Linear(2, 6, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.base(x) + self.lora_B(self.lora_A(x)))


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("layers", ["*lora*", "*base"])
def test_adapters_on_a_frozen_base(train: bool, layers: str, tmp_path: Path) -> None:
    torch.manual_seed(5)
    model = nn.Sequential(Adapted(), Adapted()).double()
    inputs = torch.randn(ROWS, TOKENS, 6, dtype=torch.float64)
    recorder = Recorder(model, layers, d=4, train=train, out=tmp_path, full=True)
    found = captured(recorder, lambda: model(inputs).square().sum((1, 2)).mean())
    expected = per_example_gradients(model, lambda call, row: call(row).square().sum(), [(row,) for row in inputs])
    check(found, projected(recorder.recording, expected, lambda _: False), 1e-10)
    trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert len(trainable) == 4
    assert all("lora" in name for name in trainable)


def test_examples_without_tokens_and_with_two_token_dimensions(tmp_path: Path) -> None:
    torch.manual_seed(6)
    model = nn.Sequential(nn.Linear(4, 3), nn.LeakyReLU(0.3, inplace=True), nn.Linear(3, 2)).double()
    for index, shape in enumerate([(ROWS, 4), (ROWS, 2, 3, 4)]):
        inputs = torch.randn(shape, dtype=torch.float64)
        recorder = Recorder(model, "*", d=3, bias=True, out=tmp_path / str(index), full=True)
        found = captured(recorder, lambda inputs=inputs: model(inputs).square().flatten(1).sum(1).mean())
        expected = per_example_gradients(model, lambda call, row: call(row).square().sum(), [(row,) for row in inputs])
        check(found, projected(recorder.recording, expected, lambda _: False), 1e-10)


def test_whitened(tmp_path: Path) -> None:
    model, tokens = make()
    epsilon = 0.1
    recorder = Recorder(model, "blocks.*", d=4, whiten=epsilon, out=tmp_path, full=True)
    with recorder:
        for start in (0, 2):
            part = tokens[start : start + 2]
            recorder.calibrate(token_losses(model(part), part).mean())
        recorder.finish_calibration()
    assert recorder.recording.calibrated_on == ROWS
    again = Recorder(model, "blocks.*", d=4, out=tmp_path / "base", full=True)
    raw = projected(again.recording, oracle(model, tokens), is_conv1d)
    recording = recorder.recording
    for name, matrices in raw.items():
        moments = (matrices @ matrices.transpose(0, 2, 1)).mean(0), (matrices.transpose(0, 2, 1) @ matrices).mean(0)
        sides = []
        for moment in moments:
            damped = moment + epsilon * np.trace(moment) / len(moment) * np.eye(len(moment))
            values, vectors = np.linalg.eigh(damped)
            sides.append(vectors @ np.diag(values**-0.5) @ vectors.T)
        whitened = np.sqrt(np.trace(moments[0])) * sides[0] @ matrices @ sides[1]
        left, right = recording.projections()[name]
        base_left, base_right = again.recording.projections()[name]
        given = recording.whitenings[name]
        assert np.allclose(given.left @ matrices @ given.right, whitened, rtol=1e-8, atol=1e-8 * np.abs(whitened).max())
        assert np.allclose(left, base_left @ given.left if base_left is not None else given.left)
        assert np.allclose(right, base_right @ given.right if base_right is not None else given.right)
    found = captured(recorder, lambda: token_losses(model(tokens), tokens).mean())
    check(found, projected(recording, oracle(model, tokens), is_conv1d), 1e-9)


def test_tokens_apart_sum_to_the_example(tmp_path: Path) -> None:
    model, tokens = make()
    lengths = torch.tensor([7, 3, 5, 2])
    keep = (torch.arange(TOKENS)[None, :] < lengths[:, None]).double()
    with Recorder(model, "blocks.*", d=4, per_token=True, out=tmp_path) as recorder:
        loss = token_losses(model(tokens, keep), tokens, keep).mean()
        recorder.step(range(ROWS), loss, mask=keep, records=[{"row": row} for row in range(ROWS)])
    batch = FactorBatch(tmp_path / "factors-00000-000000.safetensors")
    assert batch.ids == [f"{row}/{token}" for row in range(ROWS) for token in range(int(lengths[row]))]
    owner = np.array([int(name.split("/")[0]) for name in batch.ids])
    expected = projected(recorder.recording, oracle(model, tokens, lengths.tolist()), is_conv1d)
    summed = {
        layer.name: np.stack([batch.gradients(layer.name)[owner == row].sum(0) for row in range(ROWS)])
        for layer in batch.layers
    }
    check(summed, expected, 1e-5)
    for layer in batch.layers:
        left, right = batch.factors(layer.name)
        assert np.allclose(np.linalg.norm(left, axis=1), np.linalg.norm(right, axis=1), rtol=1e-3, atol=1e-6)


def test_a_pass_outside_of_a_step_leaves_no_trace(tmp_path: Path) -> None:
    model, tokens = make()
    recorder = Recorder(model, "blocks.*", d=4, out=tmp_path, full=True)

    def loss() -> Tensor:
        token_losses(model(tokens), tokens).mean().backward()
        model(tokens)
        with torch.no_grad():
            model(tokens)
        return token_losses(model(tokens), tokens).mean()

    found = captured(recorder, loss)
    check(found, projected(recorder.recording, oracle(model, tokens), is_conv1d), 1e-10)
    assert not any(module._forward_hooks for module in model.modules())


def test_capture_alone() -> None:
    model, tokens = make()
    layers = select_layers(model, "head", None, False)
    capture = Capture(layers, {"head": (None, None)})
    capture.attach()
    gradients = capture.backward(token_losses(model(tokens), tokens).sum(), None)
    capture.detach()
    assert np.allclose(gradients["head"].transpose(1, 2).numpy(), oracle(model, tokens)["head.weight"], rtol=1e-10)
