# ruff: noqa: S101
"""The table of the benchmarks within a process, from what their library prints."""

import micro
import pytest

PRINTED = """Building...

## Kernels-Benchmark

### decode q2

| Metric | p0 | p25 | p50 | p75 | p90 | p99 | p100 | Samples |
|:---|---:|---:|---:|---:|---:|---:|---:|---:|
| Throughput (# / s) (K) | 30 | 28 | 26 | 24 | 23 | 22 | 22 | 13 |
| Time (wall clock) (μs) * | 33 | 36 | 39 | 42 | 44 | 46 | 47 | 13 |

## Store-Benchmark

### answer 24 queries, dot

| Metric | p0 | p25 | p50 | p75 | p90 | p99 | p100 | Samples |
|:---|---:|---:|---:|---:|---:|---:|---:|---:|
| Time (wall clock) (ms) * | 8 | 16 | 20 | 24 | 28 | 37 | 38 | 82 |
"""


def test_medians_and_units() -> None:
    """Each benchmark of each target is a line."""
    assert micro.table(PRINTED)[2:] == [
        "| decode q2 | 39 μs | 44 μs | 13 |",
        "| answer 24 queries, dot | 20 ms | 28 ms | 82 |",
    ]


def test_other_text_is_no_result() -> None:
    """An error of the package ends the run with its words."""
    with pytest.raises(SystemExit, match="expected tables of swift package"):
        micro.table("error: no such package")
