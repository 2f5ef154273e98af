"""The example measures what it claims: far better than chance."""

import pytest

torch = pytest.importorskip(
    "torch", reason="PyTorch is not installed; the recorder stays UNTESTED: pip install '.[torch]'"
)

import runpy  # noqa: E402
from pathlib import Path  # noqa: E402


def test_flipped_labels_and_copies_are_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example = Path(__file__).parents[1] / "examples" / "find_mislabeled.py"
    table = runpy.run_path(str(example))["main"](tmp_path)
    assert table["flipped labels: self-influence"] > 5 * table["flipped labels: chance"]
    assert table["near-duplicates: cosine of influence"] > 100 * table["near-duplicates: chance"]
    assert "2000 rows, 200 flipped" in capsys.readouterr().out
