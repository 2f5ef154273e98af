"""A second reader of fitted curvature, written from Formats/curvature.md alone. Needs the extra `segment`.

curvature = Curvature("store/curvature/<digest>.curvature")
group = curvature.groups[0]
coordinates = gradients @ group.basis.T
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lorif.page import SegmentError, expect
from lorif.paged_file import Cursor, PagedFile

DESCRIPTION, GROUP, EIGENVALUES, BASIS = 32, 33, 34, 35
NUMBERS_PER_PAGE = 4194304
ALGORITHMS, ARITHMETICS = ("gram", "kernel", "krylov"), ("double", "single")
SOLVERS = ("lapack-all", "lapack-largest", "krylov", "krylov-stopped")


@dataclass(frozen=True)
class Group:
    """The eigenpairs of H over some layers.

    Attributes:
        layers: Places in the schema.
        gradient_length: D.
        trace: Of the whole matrix.
        eigenvalues: [r], descending.
        basis: [r, D], row k the eigenvector of eigenvalue k.
        passes: Walks over the rows.
        orthogonality_error: max |V Vᵀ - I|.
        residual: max ‖H v - s² v‖ / s²₁.
        spans_rows: Whether the basis spans every row that it was fitted on.
        algorithm: How H was formed.
        arithmetic: In which precision.
        solver: How the pairs were found.
    """

    layers: tuple[int, ...]
    gradient_length: int
    trace: float
    eigenvalues: NDArray[np.float64]
    basis: NDArray[np.float32]
    passes: int
    orthogonality_error: float
    residual: float
    spans_rows: bool
    algorithm: str
    arithmetic: str
    solver: str


class Curvature(PagedFile):
    """A curvature file, read whole; every byte of it is checked."""

    magic = b"LORIFCRV"

    def __init__(self, path: str | Path, data: Any = None) -> None:
        super().__init__(path, data)
        expect((self.rows_per_block, self.statistics_blob), (NUMBERS_PER_PAGE, b""), "footer: rows and statistics")
        self._check_page_places()
        self.verify_bytes()
        cursor = Cursor(self._bytes(DESCRIPTION, 0), "description")
        self.rank, self.captured_energy, self.generation, self.fitted_row_count = cursor.fields("QdQQ")
        low, high = cursor.fields("QQ")
        #: The digest of the rows that it was fitted on, as 32 digits.
        self.row_digest = f"{high:016x}{low:016x}"
        self.scope, self.algorithm = (cursor.blob().decode() for _ in range(2))
        expect(self.scope in ("per-layer", "global"), True, f"description: scope {self.scope}")
        self.described_provenance = cursor.blob().decode()
        cursor.finish()
        self.groups = tuple(self._read_group(number) for number in range(self.row_count))
        kinds = [(DESCRIPTION, 0)]
        for number, group in enumerate(self.groups):
            kinds += [(kind, number) for kind in ((GROUP, EIGENVALUES, BASIS) if len(group.eigenvalues) else (GROUP,))]
        expect([(column.kind, column.layer) for column in self.columns], kinds, "columns")
        members = [layer for group in self.groups for layer in group.layers]
        expect(len(members), len(set(members)), "groups: a layer in one of them only")
        largest = max((len(group.eigenvalues) for group in self.groups), default=0)
        expect(largest <= self.rank, True, f"description: rank {self.rank} of {largest} eigenpairs")

    def _read_group(self, number: int) -> Group:
        what = f"group {number}"
        cursor = Cursor(self._bytes(GROUP, number), what)
        length, rank, trace, layer_count = cursor.fields("QQdQ")
        layers = cursor.fields(f"{layer_count}I")
        passes, orthogonality_error, residual, spans_rows = cursor.fields("QddQ")
        algorithm, arithmetic, solver = (cursor.blob().decode() for _ in range(3))
        cursor.finish()
        expect(spans_rows in (0, 1), True, f"{what}: flag {spans_rows}")
        expect(algorithm in ALGORITHMS and arithmetic in ARITHMETICS and solver in SOLVERS, True, f"{what}: words")
        if not layers or max(layers) >= len(self.layers):
            raise SegmentError(f"{what}: layers {layers} of {len(self.layers)}")
        shapes = [(self.layers[layer].input_dimension, self.layers[layer].output_dimension) for layer in layers]
        expect(length, sum(d1 * d2 for d1, d2 in shapes), f"{what}: length")
        values = np.frombuffer(self._bytes(EIGENVALUES, number), "<f8")
        basis = np.frombuffer(self._bytes(BASIS, number), "<f4")
        expect((len(values), len(basis)), (rank, rank * length), f"{what}: numbers")
        expect(bool(np.isfinite(basis).all() and (np.diff(values) <= 0).all()), True, f"{what}: finite and descending")
        return Group(
            layers, length, trace, values, basis.reshape(rank, length), passes, orthogonality_error, residual,
            spans_rows == 1, algorithm, arithmetic, solver,
        )  # fmt: skip

    def _bytes(self, kind: int, group: int) -> bytes:
        pages = list(self.blocks(kind, group))
        expect([block for block, _ in pages], list(range(len(pages))), f"pages of column kind {kind}, group {group}")
        return b"".join(raw for _, raw in pages)
