"""The formats by name."""

from collections.abc import Callable

from lorif.importers.bergson import open_bergson
from lorif.importers.dattri import DattriSource
from lorif.importers.logix import LogixSource
from lorif.importers.npy import NpySource
from lorif.importers.source import Options, Source
from lorif.importers.trak import TrakSource

__all__ = ["FORMATS", "open_source"]

#: What opens a store of each format.
FORMATS: dict[str, Callable[[str, Options], Source]] = {
    "logix": LogixSource,
    "bergson": open_bergson,
    "dattri": DattriSource,
    "trak": TrakSource,
    "npy": NpySource,
}


def open_source(format_name: str, path: str, options: Options) -> Source:
    """Opens a store of another program and checks everything but its numbers; raises ImporterError."""
    return FORMATS[format_name](path, options)
