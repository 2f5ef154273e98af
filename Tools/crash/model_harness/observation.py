"""Reads a store's logical content through the program's own commands, and accounts for its files."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import safe_open

from model_harness.batches import Schema, row_fingerprint
from model_harness.model import RELATIVE_DAMPING, Observation, ObservedRow, ScoreTable, State
from model_harness.program import REFUSED_CODES, Program, Run

# The store that operations work on; copies of it have other names.
STORE_NAME = "s.lorif"
INFLUENCE = ("--method", "influence", "--relative-damping", RELATIVE_DAMPING)
RESULT_FIELDS = {"query", "direction", "rank", "id", "score"}
# More results than a store ever has rows here.
EVERY_ROW = 100_000
# Layers that an interrupted fit has finished: kept for the next one; after a change of the rows a writer sweeps them.
FIT_PART = re.compile(r"tmp/fit-[0-9a-f]{32}-[0-9a-f]{32}\.curvature")
STANDING_FILES = {"lorif.store", "catalog/data.mdb", "catalog/lock.mdb", "writer.lock"}


class ObservationError(Exception):
    """A reading command failed on a store that should be whole."""


@dataclass
class Observer:
    """Observes one store."""

    program: Program
    folder: Path
    schema: Schema
    probes: Path
    query_count: int

    def observe(self, store: Path, snapshot_names: set[str]) -> Observation:
        """Everything that can be asked about the store."""
        can_export = self.program.has_command("export")
        rows = self.exported(store) if can_export else []
        dot = self.scores(store, "--method", "dot")
        if not can_export:
            rows = self._listed(store, dot)
        seen = Observation(rows, dot)
        if self.program.has_command("fit"):
            seen.influence_seen = True
            seen.influence = self.scores(store, *INFLUENCE)
        if self.program.has_option("query", "--snapshot"):
            seen.snapshots = self._snapshots(store, snapshot_names)
        return seen

    def observe_difference(self, store: Path, states: list[State], snapshot_names: set[str]) -> Observation:
        """The rows, and what else tells these states apart."""
        if not self.program.has_command("export"):
            return self.observe(store, snapshot_names)
        seen = Observation(self.exported(store))
        if len({state.fit for state in states}) > 1:
            seen.influence_seen = True
            seen.influence = self.scores(store, *INFLUENCE)
        if len({state.snapshots for state in states}) > 1:
            seen.snapshots = self._snapshots(store, snapshot_names)
        return seen

    def _snapshots(self, store: Path, names: set[str]) -> dict[str, ScoreTable | None]:
        """The content of those snapshots that the program lists; a query of one without rows is refused."""
        listed = {}
        if self.program.has_option("snapshot", "--list"):
            run = self._read("snapshot", store, "--list", "--json")
            listed = {record["snapshot"]: record["rows"] for record in json.loads(run.stdout)}
        tables: dict[str, ScoreTable | None] = {}
        for name in sorted(names):
            table = self.scores(store, "--method", "dot", "--snapshot", name)
            if table is None and listed.get(name) == 0:
                table = ScoreTable([], np.zeros((self.query_count, 0), np.float32))
            tables[name] = table
        return tables

    def _read(self, command: str, store: Path, *options: object) -> Run:
        # Exports and queries of the store itself are asked for again and again.
        run = self.program.ask(command, store, *options, fixed=store.name == STORE_NAME)
        if run.code != 0 and run.code not in REFUSED_CODES:
            raise ObservationError(f"a reader failed\n{run}")
        return run

    def exported(self, store: Path, *options: object) -> list[ObservedRow]:
        """The rows that an export writes; none if there was nothing to export."""
        path = self.folder / "exported.safetensors"
        beside = path.with_suffix(".jsonl")
        path.unlink(missing_ok=True)
        beside.unlink(missing_ok=True)
        if self._read("export", store, path, *options).code != 0:
            # Nothing to export is refused; whether nothing was expected is the comparison's business.
            return []
        with safe_open(path, "np") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            identifiers = json.loads((file.metadata() or {}).get("ids", "[]"))
        expected = {name for layer in self.schema for name in layer.tensor_shapes()}
        if set(tensors) != expected or {str(tensor.dtype) for tensor in tensors.values()} != {"float32"}:
            raise ObservationError(f"export holds {sorted(tensors)}, expected float32 tensors {sorted(expected)}")
        records = {}
        if beside.exists():
            for line in beside.read_text(encoding="utf-8").split("\n"):
                record = json.loads(line) if line else {}
                records[record.pop("id", None)] = record
        return [
            ObservedRow(identifier, row_fingerprint(self.schema, tensors, index), records.get(identifier, {}))
            for index, identifier in enumerate(identifiers)
        ]

    def scores(self, store: Path, *options: object) -> ScoreTable | None:
        """All scores of the probes; None if the program has refused."""
        return self._scores("query", store, self.probes, *options)

    def self_scores(self, store: Path, *options: object) -> ScoreTable | None:
        """Self-influence of all rows, as one query's scores."""
        return self._scores("query", store, "--method", "self-influence", *options)

    def _scores(self, command: str, store: Path, *options: object) -> ScoreTable | None:
        path, listing = self.folder / "scores.safetensors", self.folder / "results.jsonl"
        path.unlink(missing_ok=True)
        listing.unlink(missing_ok=True)
        results = ("--top", 1, "--bottom", 0, "--format", "jsonl", "--output", listing)
        if self._read(command, store, *options, "--output", path, *results).code != 0:
            return None
        with safe_open(path, "np") as file:
            identifiers = json.loads((file.metadata() or {})["example_ids"])
            return ScoreTable(identifiers, file.get_tensor("scores"))

    def ranked(self, store: Path, top: int, bottom: int) -> list[tuple[str, str, int, str, float]]:
        """What a query by inner products lists: query, direction, rank, id, score."""
        options = ("--method", "dot", "--top", top, "--bottom", bottom, "--format", "jsonl")
        run = self._read("query", store, self.probes, *options)
        results = (json.loads(line) for line in run.stdout.splitlines())
        return [(r["query"], r["direction"], r["rank"], r["id"], r["score"]) for r in results]

    def _listed(self, store: Path, dot: ScoreTable | None) -> list[ObservedRow]:
        """The rows as a query reports them, for a program without export."""
        if dot is None:
            return []
        results = ("--method", "dot", "--top", EVERY_ROW, "--bottom", 0, "--format", "jsonl")
        run = self._read("query", store, self.probes, *results)
        if run.code != 0:
            raise ObservationError(f"a query that worked before does not list its results\n{run}")
        records: dict[str, dict[str, object]] = {}
        for line in run.stdout.split("\n"):
            if line:
                result = json.loads(line)
                rest = {name: value for name, value in result.items() if name not in RESULT_FIELDS}
                records[result["id"]] = (rest["metadata"] or {}) if "metadata" in rest else rest
        return [ObservedRow(identifier, None, records.get(identifier)) for identifier in dot.identifiers]

    def unaccounted_files(self, store: Path, snapshot_names: set[str]) -> list[str]:
        """Files that `inspect` does not name as part of the store, when a writer has just finished.

        What `verify` names is no excuse: it also lists what belongs to no commit.
        """
        reports = [
            self.program.ask("inspect", store, option, "--json", fixed=True) for option in ("--segments", "--curvature")
        ]
        if self.program.has_option("inspect", "--snapshot"):
            for name in sorted(snapshot_names):
                for option in ("--segments", "--curvature"):
                    reports.append(self.program.ask("inspect", store, option, "--snapshot", name, "--json", fixed=True))
        for report in reports:
            if report.code != 0:
                raise ObservationError(f"a reader failed\n{report}")
        named = " ".join(report.stdout for report in reports)
        words = set(re.findall(r"[0-9A-Za-z_.-]+", named))
        numbers = {int(number) for number in re.findall(r'"(?:number|segment|id)"\s*:\s*"?(\d+)"?', named)}
        unknown = []
        for path in sorted(store.rglob("*")):
            name = str(path.relative_to(store))
            if path.is_dir() or name in STANDING_FILES or FIT_PART.fullmatch(name):
                continue
            known = path.parent.name in ("segments", "curvature") and (path.name in words or path.stem in words)
            if not known and path.parent.name == "segments" and re.fullmatch(r"[0-9a-f]{16}", path.stem):
                known = int(path.stem, 16) in numbers
            if not known:
                unknown.append(name)
        return unknown
