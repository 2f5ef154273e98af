"""Gradient factors from Python: writes, reads and asks stores of lorif, a database for gradient factors.

- `lorif.Store`: the client; ingest, fit, query, verify through the program `lorif`.
- `lorif.batch`: factor batches, the files that go into a store.
- `lorif.torch`: the recorder of PyTorch models (needs the extra `torch`).
- `lorif.importers`: gradient stores of other programs, taken over.
- `lorif.segment`: a reader of segment files, written from the format's description alone (needs the extra `segment`).
"""

from lorif.batch import BatchError, FactorBatch, Factors
from lorif.store import RemarkWarning, Store
from lorif.tool import (
    EnvironmentFailedError,
    InputRefusedError,
    NegativeAnswerError,
    StoreDamagedError,
    Tool,
    ToolError,
    ToolInterruptedError,
    WrongUsageError,
)
from lorif.version import VERSION

__version__ = VERSION

__all__ = [
    "BatchError",
    "EnvironmentFailedError",
    "FactorBatch",
    "Factors",
    "InputRefusedError",
    "NegativeAnswerError",
    "RemarkWarning",
    "Store",
    "StoreDamagedError",
    "Tool",
    "ToolError",
    "ToolInterruptedError",
    "WrongUsageError",
    "__version__",
]
