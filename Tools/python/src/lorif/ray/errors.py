"""What work over a collection refuses; each has the exit code of the program's own errors."""

from typing import Any


class CollectionError(Exception):
    """Base of them; `code` is the exit code."""

    code = 3

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.args


class CollectionRefusedError(CollectionError):
    """The manifest, or what is to be added to it, cannot be taken; nothing was changed."""


class CollectionDamagedError(CollectionError):
    """The manifest, or a file that it names, is not what it says."""

    code = 4


class IncompleteError(CollectionError):
    """Rows could not be read and the caller wants all or nothing."""

    code = 5


class ClusterError(CollectionError):
    """The cluster cannot do the work: no node, no room, no program."""

    code = 5


class CacheFullError(ClusterError):
    """No room on a node's disk, even after everything unused was evicted."""


class SegmentsUnreadableError(CollectionError):
    """Some segments of a unit cannot be read on this node; the others can.

    `reasons` says why, by the segment's digest.
    """

    code = 4

    def __init__(self, reasons: dict[str, str]) -> None:
        super().__init__(reasons)
        self.reasons = reasons

    def __str__(self) -> str:
        return "; ".join(sorted(set(self.reasons.values())))
