"""Records gradient factors of PyTorch models (needs the extra `torch`).

    with lorif.torch.Recorder(model, layers="*.mlp.*", d=64, rank=1, out="factors/") as recorder:
        for batch in loader:
            recorder.step(batch["id"], loss_fn(model, batch))

Queries repeat the projections: `Recorder(model, like="factors/", full=True, out="queries/")`.
"""

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError("lorif.torch needs PyTorch: pip install 'lorif[torch]'") from error

from lorif.torch.errors import RecorderError
from lorif.torch.recorder import Recorder, Reduction

__all__ = ["Recorder", "RecorderError", "Reduction"]
