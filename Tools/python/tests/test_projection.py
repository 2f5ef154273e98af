"""Projections: scaled as said, the same for ever, and the recipe that uses them without PyTorch."""

import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lorif.batch import FactorBatch
from lorif.projection import factor, projection_matrix, whitening

EXAMPLES = Path(__file__).parents[1] / "examples"
RADEMACHER = [-1, 1, -1, -1, -1, 1, -1, -1, -1, -1, 1, -1]
GAUSSIAN = [
    -0.03735760940293868,
    0.13422884611433292,
    -0.1602678941413327,
    -1.3276858531007671,
    -0.13476036465831429,
    0.3938878944894828,
]
KINDS = ["gaussian", "rademacher", "orthogonal"]


@pytest.mark.parametrize("kind", KINDS)
def test_products_are_kept_on_average(kind: Any) -> None:
    total = np.zeros((6, 6))
    for seed in range(2000):
        matrix = projection_matrix(kind, seed, "layer", "in", dimension=6, d=3)
        assert matrix is not None
        total += matrix @ matrix.T
    assert np.abs(total / 2000 - np.eye(6)).max() < 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_names_sides_and_seeds_differ(kind: Any) -> None:
    def make(seed: int, layer: str, side: Any) -> bytes:
        matrix = projection_matrix(kind, seed, layer, side, dimension=40, d=8)
        assert matrix is not None
        assert matrix.shape == (40, 8)
        return matrix.tobytes()

    made = [make(0, "a", "in"), make(0, "a", "out"), make(0, "b", "in"), make(1, "a", "in")]
    assert len(set(made)) == 4
    assert made[0] == make(0, "a", "in")


def test_numbers_do_not_change_between_releases() -> None:
    # From shake_256 and the formulas of the module's description, worked out once with Python's integers and math.
    signs = projection_matrix("rademacher", 5, "h.0", "in", dimension=4, d=3)
    normal = projection_matrix("gaussian", 5, "h.0", "out", dimension=3, d=2)
    assert signs is not None
    assert normal is not None
    assert (np.sign(signs).astype(int).ravel() == RADEMACHER).all()
    assert np.allclose(normal.ravel(), GAUSSIAN, rtol=1e-12)


def test_orthogonal_columns_and_no_projection() -> None:
    matrix = projection_matrix("orthogonal", 0, "a", "in", dimension=20, d=5)
    assert matrix is not None
    assert np.allclose(matrix.T @ matrix, np.eye(5) * 4)
    assert projection_matrix("orthogonal", 0, "a", "in", dimension=20, d=None) is None
    assert projection_matrix("orthogonal", 0, "a", "in", dimension=20, d=20) is None


def test_whitened_gradients_have_unit_variance() -> None:
    random = np.random.default_rng(0)
    left, right = random.normal(size=(5, 5)), random.normal(size=(4, 4))
    gradients = left @ random.normal(size=(20_000, 5, 4)) @ right * 1e-6
    maps = whitening(
        (gradients @ gradients.transpose(0, 2, 1)).mean(0), (gradients.transpose(0, 2, 1) @ gradients).mean(0), 1e-9
    )
    rows = (maps.left @ gradients @ maps.right).reshape(-1, 20)
    assert np.abs(rows.T @ rows / len(rows) - np.eye(20)).max() < 0.05
    with pytest.raises(ValueError, match="not all zero"):
        whitening(np.zeros((2, 2)), np.zeros((2, 2)), 0.1)


def test_factors_are_balanced_and_padded() -> None:
    matrices = np.random.default_rng(1).normal(size=(3, 4, 2))
    left, right = factor(matrices, 3)
    assert (left.shape, right.shape) == ((3, 4, 3), (3, 2, 3))
    assert np.allclose(left @ right.transpose(0, 2, 1), matrices)
    assert np.allclose(np.linalg.norm(left, axis=1), np.linalg.norm(right, axis=1))


def test_the_recipe_without_hooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["jax_recipe.py", str(tmp_path)])
    recipe = runpy.run_path(str(EXAMPLES / "jax_recipe.py"), run_name="__main__")
    random = np.random.default_rng(1)
    weights = recipe["network"](0)
    x, y = random.normal(size=(50, 6, 12)), random.normal(size=(50, 6, 3))
    batch = FactorBatch(tmp_path / "train.safetensors")
    assert batch.ids is not None
    assert batch.ids[7] == "train-7"
    zeros = {"first": np.zeros((1, 6, 10)), "second": np.zeros((1, 6, 3))}
    for layer in batch.layers:
        # The gradient of one example by differences of its loss, entry by entry.
        weight = weights[layer.name]
        gradient = np.zeros_like(weight)
        for place in np.ndindex(weight.shape):
            values = []
            for step in (1e-5, -1e-5):
                moved = weight.copy()
                moved[place] += step
                values.append(recipe["summed_loss"](weights | {layer.name: moved}, x[7:8], y[7:8], zeros)[0])
            gradient[place] = (values[0] - values[1]) / 2e-5
        for side, axis in (("in", 0), ("out", 1)):
            matrix = projection_matrix("orthogonal", 0, layer.name, side, dimension=weight.shape[axis], d=8)  # type: ignore[arg-type]
            if matrix is not None:
                gradient = matrix.T @ gradient if axis == 0 else gradient @ matrix
        left, right = factor(gradient[None], 2)
        wanted = left[0] @ right[0].T
        assert np.allclose(batch.gradients(layer.name)[7], wanted, atol=1e-4 * np.abs(wanted).max())
    assert FactorBatch(tmp_path / "query.safetensors").layers[0].rank is None
