"""A second reader of coordinates, written from Formats/coordinates.md alone. Needs the extra `segment`.

coordinates = Coordinates("store/coordinates/<curvature>-<segment>.coordinates")
influence = coordinates.self_influence(0, curvature.groups[0], damping=0.1)
"""

from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lorif.curvature import Group
from lorif.page import SegmentError, decode_vectors, expect
from lorif.paged_file import ENCODINGS, Cursor, PagedFile

DESCRIPTION, OUTSIDE_NORMS, VALUES = 64, 65, 66


class Coordinates(PagedFile):
    """The rows of one segment in the eigenbases of one curvature, read whole; every byte is checked."""

    magic: ClassVar[bytes] = b"LORIFCOO"

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        expect((self.statistics_blob, self.provenance), (b"", {}), "footer: statistics and provenance")
        self._check_page_places()
        self.verify_bytes()
        ((block, raw),) = self.blocks(DESCRIPTION)
        expect(block, 0, "description: block")
        cursor = Cursor(raw, "description")
        words = cursor.fields("QQQQ")
        #: The digests of the curvature and of the segment's footer, as 32 digits.
        self.curvature, self.segment = (f"{high:016x}{low:016x}" for low, high in (words[:2], words[2:]))
        code, count = cursor.fields("QQ")
        expect(ENCODINGS.get(code) in ("f32", "f16", "int8"), True, f"description: encoding {code}")
        self.values_encoding = ENCODINGS[code]
        self.ranks: tuple[int, ...] = cursor.fields(f"{count}Q")
        cursor.finish()
        kinds = [(DESCRIPTION, 0)]
        for group, rank in enumerate(self.ranks):
            kinds += [(kind, group) for kind in ((OUTSIDE_NORMS, VALUES) if rank else (OUTSIDE_NORMS,))]
        expect([(column.kind, column.layer) for column in self.columns], kinds, "columns")
        blocks = range(self.block_count)
        places = [(0, 0), *((column, block) for block in blocks for column in range(1, len(self.columns)))]
        expect([(page.column, page.block) for page in self.pages], places, "pages: block by block, group by group")

    def _read_schema(self, cursor: Cursor) -> None:
        cursor.finish()
        self.layers = []

    def _rows(self, block: int) -> int:
        return min(self.rows_per_block, self.row_count - block * self.rows_per_block)

    def outside_norms(self, group: int) -> NDArray[np.float32]:
        """[rows]: n, the norm of what is outside the basis."""
        parts = [np.frombuffer(raw, "<f4") for _, raw in self.blocks(OUTSIDE_NORMS, group)]
        expect([len(part) for part in parts], [self._rows(block) for block in range(self.block_count)], "norms: rows")
        norms = np.concatenate(parts)
        expect(bool(np.isfinite(norms).all() and (norms >= 0).all()), True, "norms: finite and not negative")
        return norms

    def values(self, group: int) -> NDArray[np.float32]:
        """[rows, r]: c = p/√b of every row, deleted ones included."""
        rank = self.ranks[group]
        if rank == 0:
            return np.zeros((self.row_count, 0), np.float32)
        pages = self.blocks(VALUES, group)
        return np.concatenate([decode_vectors(raw, self._rows(at), rank, self.values_encoding) for at, raw in pages])

    def self_influence(self, number: int, group: Group, damping: float) -> NDArray[np.float64]:
        """[rows]: gᵀ(H + λI)⁻¹g in one group; the outside norm counts unless the basis is complete."""
        values, norms = self.values(number).astype(np.float64), self.outside_norms(number).astype(np.float64)
        if len(group.eigenvalues) != self.ranks[number]:
            raise SegmentError(f"{self.path.name}: another curvature, of rank {len(group.eigenvalues)}")
        if len(group.eigenvalues) == group.gradient_length:
            norms = np.zeros_like(norms)
        weights = group.eigenvalues + group.trace / group.gradient_length
        return norms**2 / damping + values**2 @ (weights / (group.eigenvalues + damping))
