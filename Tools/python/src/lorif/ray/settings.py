"""How work is spread: cache, threads, attempts."""

import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path


def _default_cache() -> str:
    named = os.environ.get("LORIF_RAY_CACHE")
    return named or str(Path(tempfile.gettempdir()) / f"lorif-ray-{os.getuid()}")


@dataclass(frozen=True)
class Settings:
    """How work is spread over the cluster.

    Attributes:
        cache: The cache's folder on every node; `{node}` stands for the node's id.
        cache_bytes: Most bytes of copies there.
        copies_all: Copy also what is on the node's own disks, instead of linking to it.
        tool: The program on every node; None for LORIF_BIN or the search path there.
        cpus: Processors of one task, and threads of the program; None for all of its node.
        unit_bytes: Segments of about so many bytes are one task; None for what gives every node a few.
        attempts: How often a task is tried, on other nodes where there are any.
        straggler: A task that takes so many times the median is started elsewhere as well, when nothing else waits.
        straggler_seconds: But not before so long.
        node_seconds: How long a node may take to say what it has.
    """

    cache: str = field(default_factory=_default_cache)
    cache_bytes: int = 64 << 30
    copies_all: bool = False
    tool: str | None = None
    cpus: float | None = None
    unit_bytes: int | None = None
    attempts: int = 3
    straggler: float = 3.0
    straggler_seconds: float = 10.0
    node_seconds: float = 60.0
