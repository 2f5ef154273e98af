# ruff: noqa: D103, S101
"""Encodings against hand-computed values and their error bounds."""

import numpy as np
import pytest
from codes import (
    BITS,
    ENCODINGS,
    bfloat16,
    bfloat16_up,
    bytes_per_example,
    factored,
    gaussian_levels,
    kept,
    stored,
)

# Max (1960), table I: levels of the optimal quantiser of a normal variable.
PUBLISHED = {1: [0.7980], 2: [0.4528, 1.510], 3: [0.2451, 0.7560, 1.344, 2.152], 4: [0.1284, 0.3881, 0.6568, 0.9424]}


@pytest.mark.parametrize("bits", PUBLISHED)
def test_levels_are_the_published_ones(bits: int) -> None:
    levels = gaussian_levels(bits)
    half = len(levels) // 2
    assert np.allclose(levels[half : half + len(PUBLISHED[bits])], PUBLISHED[bits], atol=6e-4)
    assert np.allclose(levels, -levels[::-1], atol=1e-6)


def test_bfloat16_rounds_to_even_and_up() -> None:
    ulp = 2.0**-7
    values = np.array([1 + ulp / 2, 1 + 1.5 * ulp, 1 + 0.6 * ulp, -1 - 0.6 * ulp, 0], np.float32)
    assert bfloat16(values).tolist() == [1, 1 + 2 * ulp, 1 + ulp, -1 - ulp, 0]
    exact = np.array([1, 1 + 1e-12, 1 + ulp, 0])
    assert bfloat16_up(exact).tolist() == [1, 1 + ulp, 1 + ulp, 0]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_zero_stays_zero(encoding: str) -> None:
    assert not stored(np.zeros((2, 5), np.float32), encoding).any()


@pytest.mark.parametrize(("encoding", "bound"), [("f32", 0), ("f16", 2**-11), ("bf16", 2**-8)])
def test_floats_keep_relative_precision(encoding: str, bound: float) -> None:
    values = np.random.default_rng(1).standard_normal((20, 33)).astype(np.float32) * np.float32(1e-12)
    assert np.all(np.abs(stored(values, encoding) - values) <= bound * np.abs(values))


def test_half_precision_input_is_kept_to_the_bit() -> None:
    values = np.random.default_rng(2).standard_normal((20, 33)).astype(np.float16).astype(np.float32)
    values[0, :3] = [65504, 2**-24, -(2**-14)]
    assert np.array_equal(stored(values, "f16"), values)


def test_int8_never_clips_and_errs_half_a_step() -> None:
    values = np.random.default_rng(3).standard_normal((50, 17)).astype(np.float32)
    step = np.abs(values).max(axis=1, keepdims=True) / 127 * (1 + 2**-7)
    assert np.all(np.abs(stored(values, "int8") - values) <= step / 2 * (1 + 1e-5))


def test_one_bit_is_sign_times_mean_magnitude() -> None:
    values = np.array([[1, -2, 3, -4, 2, 0.5, -1, -0.5]], np.float32)
    expected = np.abs(values).mean()
    assert np.allclose(stored(values, "q1"), np.sign(values) * expected, rtol=2**-8)


def test_error_of_normal_numbers_is_that_of_the_quantiser() -> None:
    values = np.random.default_rng(4).standard_normal((100, 1000)).astype(np.float32)
    for encoding, distortion in (("q1", 0.3634), ("q2", 0.1175), ("q3", 0.03454), ("q4", 0.009497)):
        assert np.mean((stored(values, encoding) - values) ** 2) == pytest.approx(distortion, rel=0.03)


def test_factors_of_full_rank_are_the_matrix() -> None:
    matrices = np.random.default_rng(5).standard_normal((4, 3, 5)).astype(np.float32)
    left, right = factored(matrices, 3)
    assert left.shape == (4, 3, 3)
    assert right.shape == (4, 3, 5)
    assert np.allclose(kept(matrices, (left, right), "f32"), matrices, atol=1e-5)
    assert np.allclose(np.linalg.norm(left, axis=2), np.linalg.norm(right, axis=2), rtol=1e-4)
    truncated = kept(matrices, factored(matrices, 1), "f32")
    lost = np.linalg.norm(matrices - truncated, axis=(1, 2))
    assert np.allclose(lost, np.sqrt((np.linalg.svd(matrices)[1][:, 1:] ** 2).sum(axis=1)), rtol=1e-4)


def test_bytes_of_an_example() -> None:
    shapes = [(64, 64)] * 16
    for encoding in ENCODINGS:
        scale = 0 if encoding in ("f32", "bf16") else 2
        assert bytes_per_example(shapes, 4, encoding, 10) == 16 * (8 * (8 * BITS[encoding] + scale) + 4) + 26
        assert bytes_per_example(shapes, None, encoding, 10) == 16 * (512 * BITS[encoding] + scale + 4) + 26
