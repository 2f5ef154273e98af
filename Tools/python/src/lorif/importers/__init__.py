"""Importers: gradient stores of LogIX, bergson, dattri and TRAK, and NumPy files, as stores of lorif.

`lorif import` and `python -m lorif.importers` are the command. From Python:

    source = open_source("bergson", "index/", Options())
    outcome = transfer(source, "store.lorif", Settings(rank=4))

`Tools/python/IMPORTING.md` says what is read, how orientation and scaling are treated, and what is refused.
"""

from lorif.importers.formats import FORMATS, open_source
from lorif.importers.outcome import Outcome
from lorif.importers.rows import Settings
from lorif.importers.source import ImporterError, Options, Source, SourceLayer
from lorif.importers.transfer import transfer
from lorif.tool import Tool, ToolError

__all__ = [
    "FORMATS",
    "ImporterError",
    "Options",
    "Outcome",
    "Settings",
    "Source",
    "SourceLayer",
    "Tool",
    "ToolError",
    "open_source",
    "transfer",
]
