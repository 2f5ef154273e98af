"""The client: a store of gradient factors, asked from Python through the program `lorif`.

    store = lorif.Store("store.lorif")
    store.ingest("factors/factors-00000-000000.safetensors", encoding="f16")
    store.fit(rank=64)
    answer = store.query("queries/factors-00000-000000.safetensors", top=5, scores=True)
    answer["query 1"].top[0].id, answer.scores

Everything goes through the command line: its rules, its messages, its exit codes as exceptions (`lorif.tool`).
"""

import html
import json
import math
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lorif.answers import (
    Answer,
    Checkpoint,
    Curvature,
    CurvatureVersion,
    Deletion,
    Example,
    Examples,
    Export,
    Hit,
    Ingestion,
    Ranking,
    StoredLayer,
    Summary,
    Verification,
)  # fmt: skip
from lorif.batch import Array, FactorBatch, Factors, write_batch
from lorif.safetensors_header import read_header
from lorif.tool import NegativeAnswerError, Printed, Tool, ToolError

__all__ = ["RemarkWarning", "Store"]

#: What names a batch: a file, or its arrays by layer, `Factors` or full matrices [n, d1, d2].
Batch = str | os.PathLike[str] | Mapping[str, Factors | Array]
Encoding = Literal["f32", "f16", "bf16", "int8", "q4", "q3", "q2", "q1"]
Method = Literal[
    "influence",
    "dot",
    "cosine",
    "normalized-dot",
    "l2",
    "whitened-dot",
    "whitened-cosine",
    "self-influence",
    "relatif",
    "influence-cosine",
]
PathLike = str | os.PathLike[str]


class RemarkWarning(UserWarning):
    """A remark of the program while it did what it was asked, as that a curvature is out of date."""


class Store:
    """A store at `path`, which need not exist yet: `ingest` creates it.

    `tool` is the program `lorif` or the path to it; without it, LORIF_BIN, the search path, or the build beside an
    editable checkout. Methods raise the ToolError of the program's exit code, with its message. A store has no open
    state: a command reads the last commit, and other processes may read and write meanwhile.
    """

    def __init__(self, path: PathLike, *, tool: Tool | PathLike | None = None) -> None:
        self.path = Path(path)
        self.tool = tool if isinstance(tool, Tool) else Tool(tool)

    @classmethod
    def open(cls, path: PathLike, *, tool: Tool | PathLike | None = None) -> "Store":
        """A store that exists; raises InputRefusedError if there is none."""
        store = cls(path, tool=tool)
        store.inspect()
        return store

    @classmethod
    def create(
        cls,
        path: PathLike,
        layers: Batch | None = None,
        *,
        encoding: Encoding | None = None,
        rank: int | str | None = None,
        energy: float | None = None,
        whiten_from: PathLike | None = None,
        epsilon: float | None = None,
        basis_from: PathLike | None = None,
        tool: Tool | PathLike | None = None,
    ) -> "Store":
        """A new empty store, with the layers of a batch without its rows; or else the first `ingest` decides.

        `rank` may differ by layer, as in "attn.*=2,*=1". With `whiten_from`, a batch file, the store keeps gradients in
        a basis in which that sample is white; `basis_from` takes over the basis of another store.
        """
        store = cls(path, tool=tool)
        with _files([] if layers is None else [layers]) as files:
            options = _options(
                layers=files[0] if files else None, encoding=encoding, rank=rank, energy=energy, epsilon=epsilon,
                whiten_from=_named(whiten_from), basis_from=_named(basis_from),
            )  # fmt: skip
            store._run("create", *options)
        return store

    def ingest(
        self,
        *batches: Batch,
        ids: Sequence[str] | None = None,
        records: Sequence[Mapping[str, Any]] | None = None,
        encoding: Encoding | None = None,
        rank: int | str | None = None,
        energy: float | None = None,
        whiten_from: PathLike | None = None,
        epsilon: float | None = None,
        basis_from: PathLike | None = None,
        metadata: PathLike | None = None,
        on_duplicate: Literal["error", "skip", "replace"] | None = None,
        atomic: Literal["command", "file"] | None = None,
        memory: str | None = None,
    ) -> Ingestion:
        """Adds batches: files, or one mapping of arrays with `ids` and `records` (metadata, one object per row).

        Arrays are written in float32 to a temporary batch. A file that was ingested before adds nothing. `encoding`,
        `rank` (to which full matrices are factored) and the rest up to `basis_from` count for a new store, as in
        `create`; `memory` is a size as in "512MiB".
        """
        with _files(batches, ids, records) as files:
            options = _options(
                encoding=encoding, rank=rank, energy=energy, epsilon=epsilon, whiten_from=_named(whiten_from),
                basis_from=_named(basis_from), metadata=_named(metadata), on_duplicate=on_duplicate,
                atomic=atomic, memory=memory,
            )  # fmt: skip
            return Ingestion.of(self._run("ingest", *files, *options))

    def fit(
        self,
        *,
        rank: int | None = None,
        scope: Literal["per-layer", "global"] | None = None,
        exact: bool = False,
        memory: str | None = None,
        passes: int | None = None,
        algorithm: Literal["gram", "kernel", "krylov"] | None = None,
        seed: int | None = None,
        threads: int | None = None,
        coordinates: Literal["int8", "f16", "f32"] | None = None,
    ) -> Curvature:
        """Fits the curvature that influence needs: the `rank` leading eigenpairs of H, or all of them (`exact`).

        The rest is how it is done: at most `memory` (as in "4GiB") and `passes` over the rows, with `threads`. With
        `coordinates` self-influence is answered from columns of their own, whatever the damping.
        """
        options = _options(
            rank=rank, scope=scope, memory=memory, passes=passes, algorithm=algorithm, seed=seed, threads=threads,
            coordinates=coordinates,
        )  # fmt: skip
        options += ["--exact"] if exact else []
        return Curvature.of(self._run("fit", *options))

    def versions(self) -> tuple[CurvatureVersion, ...]:
        """Every curvature that the store has, and how much of its rows each has seen."""
        return tuple(CurvatureVersion.of(each) for each in self._run("fit", "--list"))

    def use(self, curvature: str) -> CurvatureVersion:
        """Makes a curvature the one in use; the first digits of its id will do."""
        return CurvatureVersion.of(self._run("fit", f"--use={curvature}"))

    def drop(self, curvature: str) -> CurvatureVersion:
        """Removes a curvature; the first digits of its id will do."""
        return CurvatureVersion.of(self._run("fit", f"--drop={curvature}"))

    def query(
        self,
        queries: Batch | None = None,
        *,
        ids: Sequence[str] | None = None,
        records: Sequence[Mapping[str, Any]] | None = None,
        method: Method = "influence",
        relative_damping: float | None = None,
        damping: float | None = None,
        curvature: str | None = None,
        layers: str | Sequence[str] = (),
        where: str | None = None,
        snapshot: str | None = None,
        top: int = 10,
        bottom: int = 0,
        scores: bool = False,
        metadata: PathLike | None = None,
        checkpoints: Sequence[Checkpoint] = (),
        by_id: Sequence[str] = (),
        guarantee: Literal["exact", "none"] | None = None,
    ) -> Answer:
        """Ranks the examples for each query, a batch file or arrays (with `ids` and `records`), best as full matrices.

        Instead of queries stored examples may be named, `by_id`. With the guarantee "none" full-rank queries are
        scored roughly first, and examples left out by the measured error.

        `self-influence` takes no queries. `layers` are globs of the layers to score, `where` a condition on metadata,
        as in "source = 'bible' and length > 64". With `scores=True` the answer has every score as well, in memory.
        Scores are averaged over `checkpoints`, which have stores of their own; `curvature` may name several of this
        one, separated by commas.
        """
        (answer,) = self._answers(
            queries, ids=ids, records=records, method=method, layers=layers, top=top, bottom=bottom, metadata=metadata,
            scores=scores,
            dampings={"relative_damping": _listed(relative_damping), "damping": _listed(damping)},
            curvature=curvature, where=where, snapshot=snapshot, checkpoints=checkpoints, by_id=by_id,
            guarantee=guarantee,
        )  # fmt: skip
        return answer

    def sweep(
        self,
        queries: Batch | None = None,
        *,
        ids: Sequence[str] | None = None,
        records: Sequence[Mapping[str, Any]] | None = None,
        method: Method = "influence",
        relative_dampings: Sequence[float] = (),
        dampings: Sequence[float] = (),
        curvature: str | None = None,
        layers: str | Sequence[str] = (),
        where: str | None = None,
        snapshot: str | None = None,
        top: int = 10,
        bottom: int = 0,
        scores: bool = False,
        metadata: PathLike | None = None,
    ) -> tuple[Answer, ...]:
        """The same query under several dampings, either relative or absolute ones, in one scan: an answer for each."""
        if bool(relative_dampings) == bool(dampings):
            raise ValueError("expected relative_dampings or dampings, at least one of them, and not both kinds")
        return self._answers(
            queries, ids=ids, records=records, method=method, layers=layers, top=top, bottom=bottom, metadata=metadata,
            scores=scores,
            dampings={"relative_damping": list(relative_dampings), "damping": list(dampings)},
            curvature=curvature, where=where, snapshot=snapshot,
        )  # fmt: skip

    def _answers(
        self,
        queries: Batch | None,
        *,
        ids: Sequence[str] | None,
        records: Sequence[Mapping[str, Any]] | None,
        method: Method,
        layers: str | Sequence[str],
        top: int,
        bottom: int,
        metadata: PathLike | None,
        dampings: Mapping[str, list[float]],
        scores: bool,
        checkpoints: Sequence[Checkpoint] = (),
        by_id: Sequence[str] = (),
        **settings: str | None,
    ) -> tuple[Answer, ...]:
        """An answer for each damping; one if there is none."""
        given = [] if queries is None else [queries]
        with _files(given, ids, records) as files, tempfile.TemporaryDirectory(prefix="lorif-") as folder:
            written = Path(folder) / "scores.safetensors"
            listed = Path(folder) / "answer.jsonl"
            globs = [layers] if isinstance(layers, str) else layers
            options = _options(
                method=method, top=top, bottom=bottom, metadata=_named(metadata), output=listed, **settings,
                **{name: ",".join(map(repr, values)) for name, values in dampings.items() if values},
            )  # fmt: skip
            options += [f"--output={written}"] if scores else []
            options += [f"--layers={glob}" for glob in globs]
            options += [f"--checkpoint={_run_text(checkpoint)}" for checkpoint in checkpoints]
            options += [f"--by-id={identifier}" for identifier in by_id]
            self._call("query", *files, *options, depth=4)
            hits = _hits(listed)
            unasked = (list(by_id) or ["self-influence"], {})
            names, known = _query_names(Path(files[0]), metadata) if files else unasked
            matrices, examples = _scores(written) if scores else (None, None)
        chosen = [(name, value) for name, values in dampings.items() for value in values] or [("damping", None)]
        answers = []
        for place, (setting, value) in enumerate(chosen):
            rankings = []
            for name in names:
                key = value if len(chosen) > 1 else None
                parts = (tuple(hits.get((key, name, direction), ())) for direction in ("top", "bottom"))
                rankings.append(Ranking(name, *parts, metadata=known.get(name, {})))
            matrix = matrices if matrices is None or len(chosen) == 1 else matrices[place]
            answers.append(Answer(method, tuple(rankings), matrix, examples, **{setting: value}))
        return tuple(answers)

    def verify(self, *, level: Literal["quick", "full", "deep"] | None = None, check: bool = False) -> Verification:
        """Checks the store; what it returns is true if the store is sound.

        With `check=True` damage raises NegativeAnswerError. Level full reads every byte, deep also decodes every row.
        """
        printed = self._call("verify", *_options(level=level), "--json", good=(0, 1))
        report = self.tool.decoded(printed.output, "verify")
        found = Verification.of(report, damages=tuple(report["damages"]))
        if check and not found:
            raise NegativeAnswerError("; ".join(found.damages), 1)
        return found

    def delete(
        self, ids: Sequence[str] | None = None, *, where: str | None = None, ignore_missing: bool = False
    ) -> Deletion:
        """Deletes the examples with these ids, or those that pass a condition; gone from every later answer.

        An id that is not there is an error and deletes nothing, unless it is to be ignored.
        """
        with _id_list(ids) as listed:
            options = [*_options(ids=listed, where=where), *(["--ignore-missing"] if ignore_missing else [])]
            report = self._run("delete", *options)
        return Deletion.of(report, missing=tuple(report["missing"]))

    def export(
        self,
        path: PathLike,
        *,
        ids: Sequence[str] | None = None,
        where: str | None = None,
        snapshot: str | None = None,
    ) -> Export:
        """Writes examples as a batch file, with their metadata in the .jsonl beside it."""
        with _id_list(ids) as listed:
            report = self._run("export", _absolute(path), *_options(ids=listed, where=where, snapshot=snapshot))
        return Export.of(report, **({} if "metadata" in report else {"metadata": None}))

    def read(
        self, ids: Sequence[str] | None = None, *, where: str | None = None, snapshot: str | None = None
    ) -> Examples:
        """Examples as arrays in memory, as `export` writes them; in the order of the store."""
        with tempfile.TemporaryDirectory(prefix="lorif-") as folder:
            path = Path(folder) / "rows.safetensors"
            self.export(path, ids=ids, where=where, snapshot=snapshot)
            batch = FactorBatch(path)
            names = batch.ids or [str(row) for row in range(batch.row_count)]
            known = _records(path.with_suffix(".jsonl"))
            arrays = {
                layer.name: batch.gradients(layer.name) if layer.rank is None else batch.factors(layer.name)
                for layer in batch.layers
            }
            return Examples(tuple(names), arrays, tuple(known.get(name, {}) for name in names), batch.basis)

    def inspect(self, *, snapshot: str | None = None) -> Summary:
        """What the store holds."""
        return Summary.of(self._run("inspect", *_options(snapshot=snapshot)))

    def layers(self) -> tuple[StoredLayer, ...]:
        """The layers, in the order of the global vectorisation."""
        return tuple(StoredLayer.of(each) for each in self._run("inspect", "--layers"))

    def curvatures(self) -> tuple[Curvature, ...]:
        """Every fitted curvature."""
        return tuple(Curvature.of(each) for each in self._run("inspect", "--curvature"))

    def example(self, identifier: str) -> Example:
        """One example; raises InputRefusedError if no example has this id."""
        report = self._run("inspect", f"--example={identifier}")
        norms = {layer["layer"]: layer["norm"] for layer in report["layers"]}
        return Example(report["id"], self.read([identifier]).metadata[0], norms)

    def __len__(self) -> int:
        return self.inspect().rows

    def __bool__(self) -> bool:
        """Always true: a handle is not its rows, and asking for a truth must not start a program."""
        return True

    def __repr__(self) -> str:
        return f"Store({str(self.path)!r})"

    def _repr_html_(self) -> str:
        title = f"<b>lorif store</b> {html.escape(str(self.path))}"
        try:
            held = self.inspect()
        except (ToolError, OSError) as error:
            return f"<p>{title}: {html.escape(str(error))}</p>"
        rows = {
            "examples": f"{held.rows:,}", "layers": f"{held.layers:,}", "encoding": held.encoding,
            "bytes": f"{held.bytes:,} ({held.bytes_per_example:,.0f} per example)",
            "curvature": held.active_curvature or "none; call fit()",
        }  # fmt: skip
        cells = "".join(f"<tr><th>{name}</th><td>{html.escape(value)}</td></tr>" for name, value in rows.items())
        return f"<p>{title}</p><table>{cells}</table>"

    def _run(self, command: str, *arguments: str) -> Any:
        return self.tool.decoded(self._call(command, *arguments, "--json", depth=4).output, command)

    def _call(self, command: str, *arguments: str, good: tuple[int, ...] = (0,), depth: int = 3) -> Printed:
        """Runs a command; its remarks become warnings at the line `depth` frames up, that of the user."""
        printed = self.tool.call(command, _absolute(self.path), *arguments, good=good)
        for remark in printed.remarks:
            warnings.warn(remark.removeprefix("note: "), RemarkWarning, stacklevel=depth)
        return printed


def _absolute(path: PathLike) -> str:
    """Never taken for an option, however it begins."""
    return str(Path(path).absolute())


def _named(path: PathLike | None) -> str | None:
    return None if path is None else _absolute(path)


def _listed(value: float | None) -> list[float]:
    return [] if value is None else [float(value)]


def _run_text(checkpoint: Checkpoint) -> str:
    """A checkpoint as the command line has it."""
    parts = [_absolute(checkpoint.store), _absolute(checkpoint.queries)]
    for part in parts:
        if "," in part or "+" in part:
            raise ValueError(f"checkpoint: expected paths without ',' and '+', found {part!r}")
    if checkpoint.curvature is not None:
        parts.append(f"curvature={checkpoint.curvature}")
    return ",".join([*parts, f"weight={float(checkpoint.weight)!r}"])


def _options(**given: Any) -> list[str]:
    """--name=value of everything that is not None."""
    return [f"--{name.replace('_', '-')}={value}" for name, value in given.items() if value is not None]


@contextmanager
def _files(
    batches: Sequence[Batch],
    ids: Sequence[str] | None = None,
    records: Sequence[Mapping[str, Any]] | None = None,
) -> Iterator[list[str]]:
    """The paths of batches; one that is given as arrays is a temporary file meanwhile."""
    arrays = [batch for batch in batches if isinstance(batch, Mapping)]
    if len(arrays) > 1:
        raise ValueError("expected one mapping of arrays at a time, found several: their ids could not be told apart")
    if not arrays and (ids is not None or records is not None):
        raise ValueError("ids and records: expected with arrays only; a batch file has its own")
    with tempfile.TemporaryDirectory(prefix="lorif-") as folder:
        paths = []
        for batch in batches:
            if isinstance(batch, Mapping):
                path = Path(folder) / "arrays.safetensors"
                write_batch(path, batch, ids=ids, records=records, provenance={"tool": "lorif.Store"})
            else:
                path = Path(batch)
            paths.append(_absolute(path))
        yield paths


@contextmanager
def _id_list(ids: Sequence[str] | None) -> Iterator[str | None]:
    """A file with the ids as a JSON array, which may hold any character."""
    if ids is None:
        yield None
        return
    if isinstance(ids, str):
        raise TypeError(f"ids: expected a sequence of ids, found the text {ids!r}; write [{ids!r}]")
    with tempfile.TemporaryDirectory(prefix="lorif-") as folder:
        path = Path(folder) / "ids.json"
        path.write_text(json.dumps([str(identifier) for identifier in ids]), encoding="utf-8")
        yield str(path)


def _query_names(path: Path, metadata: PathLike | None) -> tuple[list[str], dict[str, Mapping[str, Any]]]:
    """The queries of a batch in order, and the metadata of those that have some."""
    batch = FactorBatch(path)
    names = batch.ids or [str(row) for row in range(batch.row_count)]
    beside = path.with_suffix(".jsonl") if metadata is None else Path(metadata)
    return names, _records(beside) if beside.is_file() else {}


def _records(path: Path) -> dict[str, Mapping[str, Any]]:
    """Objects of a JSONL file by id; the program has checked it, so that lines without one are passed over here."""
    found = {}
    if path.is_file():
        for record in _objects(path):
            if "id" in record:
                found[str(record.pop("id"))] = record
    return found


def _hits(path: Path) -> dict[tuple[float | None, str, str], list[Hit]]:
    """The lines of an answer by damping (None where there is one only), query and direction, in the order of rank."""
    found: dict[tuple[float | None, str, str], list[Hit]] = {}
    for line in _objects(path):
        hit = Hit(line["id"], line["score"], line["rank"], line["metadata"] or {}, line["share"])
        damping = line.get("relative_damping", line.get("damping"))
        found.setdefault((damping, line["query"], line["direction"]), []).append(hit)
    return found


def _objects(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSONL file. Only a line feed ends a line: texts may hold Unicode's other separators."""
    with path.open(encoding="utf-8-sig", newline="\n") as lines:
        yield from (json.loads(line) for line in lines if line.strip())


def _scores(path: Path) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """The matrix [queries, examples] of a score file, or one for each damping, and the ids of the columns."""
    (tensor,), metadata = read_header(path)
    with path.open("rb") as file:
        file.seek(tensor.start)
        values = np.fromfile(file, "<f4", math.prod(tensor.shape))
    return values.reshape(tensor.shape), tuple(json.loads(metadata["example_ids"]))
