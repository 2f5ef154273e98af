"""What an import did."""

from dataclasses import dataclass, field

__all__ = ["Outcome"]


@dataclass
class Outcome:
    """What an import did."""

    rows: int = 0
    skipped_rows: int = 0
    total_rows: int = 0
    layers: int = 0
    source_bytes: int = 0
    store_bytes: int = 0
    segments: int = 0
    #: Parts that an earlier attempt had finished.
    resumed_segments: int = 0
    #: Whether the store had every row already.
    already_present: bool = False
    #: Share of Σ‖G‖² that the factors keep; None where nothing was factored.
    kept_energy: float | None = None
    #: Rows with at least one layer of zeros, and numbers at the end of their type's range.
    rows_with_zero_layers: int = 0
    clamped_numbers: int = 0
    notes: list[str] = field(default_factory=list)
