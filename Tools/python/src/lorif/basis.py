"""A second reader of whitening bases, written from Formats/basis.md alone. Needs the extra `segment`.

basis = Basis("store/basis/<digest>.basis")
left, right = basis.maps("h.0.mlp")
whitened = left @ gradients @ right
"""

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lorif.page import SegmentError, expect
from lorif.paged_file import PagedFile

DESCRIPTION, EIGENVALUES, LEFT, RIGHT = 48, 49, 50, 51


class Basis(PagedFile):
    """The two maps of every layer, and how they were found."""

    magic = b"LORIFBAS"

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        expect((self.encoding, self.basis), ("f32", None), "schema: encoding and basis")
        expect({layer.rank for layer in self.layers} <= {1}, True, "schema: layers of rank 1")
        expect((self.row_count, self.statistics_blob), (len(self.layers), b""), "footer: rows and statistics")
        kinds = [(DESCRIPTION, 0)]
        kinds += [(kind, place) for place in range(len(self.layers)) for kind in (EIGENVALUES, LEFT, RIGHT)]
        expect([(column.kind, column.layer) for column in self.columns], kinds, "columns")
        self._check_page_places()
        self.verify_bytes()
        #: ε, and the examples that the moments are means over; 0 when they were given.
        self.epsilon, self.sample_count = struct.unpack("<dQ", self._bytes(DESCRIPTION, 0))

    def maps(self, name: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """W1 [d1, d1] and W2 [d2, d2] of a layer: a gradient G is kept as W1 G W2."""
        place = self._place(name)
        left, right = (np.frombuffer(self._bytes(kind, place), "<f4") for kind in (LEFT, RIGHT))
        d1, d2 = self.layers[place].input_dimension, self.layers[place].output_dimension
        return left.reshape(d1, d1), right.reshape(d2, d2)

    def eigenvalues(self, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The eigenvalues of C1 and C2 of a layer, descending."""
        place = self._place(name)
        values = np.frombuffer(self._bytes(EIGENVALUES, place), "<f8")
        d1 = self.layers[place].input_dimension
        return values[:d1], values[d1:]

    def _place(self, name: str) -> int:
        for place, layer in enumerate(self.layers):
            if layer.name == name:
                return place
        raise SegmentError(f"{self.path}: no layer {name!r}")

    def _bytes(self, kind: int, layer: int) -> bytes:
        return b"".join(raw for _, raw in self.blocks(kind, layer))
