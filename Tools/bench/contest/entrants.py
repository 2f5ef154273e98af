"""Who is asked what, and what came of it."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

KINDS = ("full", "rank-1")
WARM, COLD = "warm", "cold"
TOP, ALL = "top 10", "all scores"


@dataclass(frozen=True)
class Entrant:
    """One program on one store, asked one kind of query.

    Attributes:
        name: In tables.
        program: `lorif`, or a contender of contest/contender.py.
        store: File or folder.
        kind: `full` or `rank-1`.
        rows: Examples in the store that are asked about.
        package: The peer that must be installed; empty if torch is enough.
        options: For lorif.
        gives_all: Whether it can give all scores.
        only: Numbers of queries that it is asked; all if empty.
    """

    name: str
    program: str
    store: Path
    kind: str
    rows: int
    package: str = ""
    options: tuple[str, ...] = ()
    gives_all: bool = True
    only: tuple[int, ...] = ()

    @property
    def label(self) -> str:
        """Name and kind of query."""
        return f"{self.name}, {self.kind}"


@dataclass
class Measurement:
    """One entrant at one point.

    Attributes:
        name: The entrant's.
        group: Those measured in turns with it.
        kind: Of the queries.
        queries: Their number.
        answer: `TOP` or `ALL`.
        state: `WARM` or `COLD`.
        rows: Examples asked about.
        process: Seconds from start to end of the process, once per run.
        scan: Seconds of reading and scoring once the store is open.
        opening: Seconds of opening the store.
        imports: Seconds of importing.
        peak: Largest resident set.
        failure: Why there is nothing, if so.
    """

    name: str
    group: str
    kind: str
    queries: int
    answer: str
    state: str
    rows: int
    process: list[float] = field(default_factory=list)
    scan: list[float] = field(default_factory=list)
    opening: list[float] = field(default_factory=list)
    imports: list[float] = field(default_factory=list)
    peak: int = 0
    failure: str = ""

    @property
    def key(self) -> tuple[str, str, str, int, str, str, int]:
        """What makes it the same point."""
        return (self.name, self.group, self.kind, self.queries, self.answer, self.state, self.rows)

    @property
    def process_median(self) -> float | None:
        """Seconds of a whole process."""
        return median(self.process) if self.process else None

    @property
    def scan_median(self) -> float | None:
        """Seconds of the scan."""
        return median(self.scan) if self.scan else None

    def add(self, process: float, scan: float, peak: int) -> None:
        """Another run."""
        self.process.append(process)
        self.scan.append(scan)
        self.peak = max(self.peak, peak)

    def json(self) -> dict[str, object]:
        """With the medians."""
        return {**asdict(self), "process median": self.process_median, "scan median": self.scan_median}


@dataclass(frozen=True)
class Size:
    """Bytes of one representation.

    Attributes:
        name: In tables.
        owner: Whose format.
        number_bytes: Bytes per example without what describes them.
        bytes: Bytes per example of all files; None if it could not be weighed.
        rows: Examples weighed.
        note: How, or why not.
    """

    name: str
    owner: str
    number_bytes: float
    bytes: float | None
    rows: int
    note: str = ""


@dataclass(frozen=True)
class Figure:
    """Anything else: limits of the machine, builds, agreement.

    Attributes:
        part: Its table.
        name: Its line.
        values: Columns and cells.
    """

    part: str
    name: str
    values: dict[str, str | float]


@dataclass
class Results:
    """All that one run found."""

    facts: dict[str, str] = field(default_factory=dict)
    packages: list[dict[str, str]] = field(default_factory=list)
    sizes: list[Size] = field(default_factory=list)
    measurements: list[Measurement] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)

    def json(self) -> dict[str, object]:
        """For a file."""
        return {
            "facts": self.facts,
            "packages": self.packages,
            "sizes": [asdict(size) for size in self.sizes],
            "measurements": [measurement.json() for measurement in self.measurements],
            "figures": [asdict(figure) for figure in self.figures],
        }

    def find(
        self,
        name: str,
        kind: str,
        queries: int,
        *,
        answer: str = TOP,
        state: str = WARM,
        group: str = "",
        rows: int = 0,
    ) -> Measurement | None:
        """The first measurement that fits and has values."""
        for found in self.measurements:
            same = (found.name, found.kind, found.queries, found.answer, found.state)
            if same != (name, kind, queries, answer, state) or not found.process:
                continue
            if (not group or found.group == group) and (not rows or found.rows == rows):
                return found
        return None
