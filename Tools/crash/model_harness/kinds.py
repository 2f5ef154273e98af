"""Every kind of operation: its generator, how often it is drawn, and the commands that it needs."""

from model_harness.operations import (
    Generator,
    attach,
    compact,
    copy,
    create,
    delete,
    fit,
    ingest,
    pack,
    repair,
    rerun,
    snapshot,
)
from model_harness.readers import export, query, verify

KINDS: dict[str, tuple[Generator, float, tuple[str, ...]]] = {
    "create": (create, 0, ("create",)),
    "ingest": (ingest, 6, ("ingest",)),
    "rerun": (rerun, 1.5, ("ingest",)),
    "delete": (delete, 3, ("delete",)),
    "compact": (compact, 2.5, ("compact",)),
    "fit": (fit, 1.5, ("fit",)),
    "snapshot": (snapshot, 2, ("snapshot",)),
    "copy": (copy, 1, ("copy",)),
    "repair": (repair, 1, ("repair",)),
    "pack": (pack, 1.5, ("pack", "attach")),
    "attach": (attach, 2, ("pack", "attach")),
    "query": (query, 5, ("query",)),
    "export": (export, 2, ("export",)),
    "verify": (verify, 2, ("verify",)),
}
