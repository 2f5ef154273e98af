"""Gradient factors from Python: writes, reads and asks stores of lorif, a database for gradient factors.

- `lorif.Store`: the client; ingest, fit, query, verify through the program `lorif`.
- `lorif.batch`: factor batches, the files that go into a store.
- `lorif.torch`: the recorder of PyTorch models (needs the extra `torch`).
- `lorif.importers`: gradient stores of other programs, taken over.
- `lorif.segment`, `lorif.curvature`, `lorif.coordinates`, `lorif.basis`: readers of the store's files, written from the
  description of the formats alone (need the extra `segment`).
"""

from lorif.answers import Checkpoint
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
    "Checkpoint",
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
