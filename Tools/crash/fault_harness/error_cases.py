"""Which calls fail, and how; and the commands that meet it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fault_harness.crash_operations import OPERATIONS, Arguments
from fault_harness.sample_store import Inputs, make_store
from fault_harness.shim import ForkServer, Kind

EIO, EINTR, EAGAIN, ENOMEM, EMFILE, ENOSPC, EDQUOT = 5, 4, 11, 12, 24, 28, 122
SHORTENED = -1
READING = (Kind.OPEN, Kind.READ, Kind.STAT, Kind.LIST, Kind.CONTROL, Kind.MAP)
SPACE = (Kind.WRITE, Kind.TRUNCATE, Kind.ALLOCATE, Kind.MKDIR, Kind.LINK, Kind.RENAME, Kind.FSYNC, Kind.FDATASYNC)
CHANGING = (*SPACE, Kind.UNLINK, Kind.RMDIR)


@dataclass(frozen=True)
class Fault:
    """A way of failing: `count` calls of these kinds in a row, or from some call on all of them (0)."""

    name: str
    code: int
    kinds: tuple[Kind, ...]
    count: int

    def settings(self, first: int, report: Path) -> dict[str, object]:
        """For the shim; nothing fails with `first` 0."""
        return {
            "LORIF_FAIL_KINDS": sum(1 << kind for kind in self.kinds),
            "LORIF_FAIL_AT": first,
            "LORIF_FAIL_COUNT": self.count,
            "LORIF_FAIL_CODE": self.code,
            "LORIF_FAIL_REPORT": report,
        }


FAULTS = (
    Fault("EIO once", EIO, (*READING, *CHANGING), 1),
    Fault("EIO from there on", EIO, (*READING, *CHANGING), 0),
    Fault("ENOSPC once", ENOSPC, (Kind.OPEN, *SPACE), 1),
    Fault("ENOSPC from there on", ENOSPC, (*SPACE,), 0),
    Fault("EDQUOT from there on", EDQUOT, (*SPACE,), 0),
    Fault("EINTR once", EINTR, (Kind.OPEN, Kind.READ, Kind.WRITE, Kind.TRUNCATE, Kind.CONTROL, Kind.FSYNC), 1),
    Fault("EINTR three times", EINTR, (Kind.OPEN, Kind.READ, Kind.WRITE, Kind.TRUNCATE), 3),
    Fault("EAGAIN once", EAGAIN, (Kind.OPEN, Kind.READ, Kind.WRITE, Kind.CONTROL), 1),
    Fault("EMFILE once", EMFILE, (Kind.OPEN, Kind.LIST), 1),
    Fault("EMFILE from there on", EMFILE, (Kind.OPEN, Kind.LIST), 0),
    Fault("ENOMEM once", ENOMEM, (Kind.MAP, Kind.LIST), 1),
    Fault("half a read or write, once", SHORTENED, (Kind.READ, Kind.WRITE), 1),
    Fault("half reads and writes", SHORTENED, (Kind.READ, Kind.WRITE), 0),
    Fault("fsync fails once", EIO, (Kind.FSYNC, Kind.FDATASYNC), 1),
    Fault("fsync fails from there on", EIO, (Kind.FSYNC, Kind.FDATASYNC), 0),
)


@dataclass(frozen=True)
class Command:
    """What is run on a fresh copy of a prepared folder."""

    name: str
    arguments: Callable[[Path, Inputs], Arguments]
    prepare: Callable[[ForkServer, Path, Inputs], None]
    between: tuple[Callable[[Path, Inputs], Arguments], ...] = ()
    is_repair: bool = False
    # It changes nothing: what it prints must be right, or nothing.
    is_reading: bool = False


def _whitened(server: ForkServer, root: Path, inputs: Inputs) -> None:
    make_store(server, root / "store", inputs)


def _reading(*words: str, queries: bool = False) -> Callable[[Path, Inputs], Arguments]:
    def arguments(root: Path, inputs: Inputs) -> Arguments:
        asked = (inputs.path("queries"),) if queries else ()
        return (words[0], root / "store", *asked, *words[1:])

    return arguments


READERS = (
    Command("verify", _reading("verify", "--level", "deep"), _whitened, is_reading=True),
    Command("inspect", _reading("inspect", "--pages", "--json"), _whitened, is_reading=True),
    Command("query", _reading("query", "--format", "jsonl", queries=True), _whitened, is_reading=True),
    Command(
        "self-influence",
        _reading("query", "--method", "self-influence", "--format", "jsonl"),
        _whitened,
        is_reading=True,
    ),
    Command(
        "export",
        lambda root, inputs: ("export", root / "store", root / "exported.safetensors"),
        _whitened,
        is_reading=True,
    ),
)
WRITERS = tuple(
    Command(operation.name, operation.command, operation.prepare, operation.between, operation.is_repair)
    for operation in OPERATIONS
)
COMMANDS = (*READERS, *WRITERS)
