"""Workers killed, nodes removed, shards missing or corrupt, caches full: the answer stays, or says what it lacks."""

import pytest

ray = pytest.importorskip("ray", reason="Ray is not installed; faults of clusters stay UNTESTED: pip install '.[ray]'")

import os  # noqa: E402
import shutil  # noqa: E402
import signal  # noqa: E402
import threading  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
from lorif.basis import Basis  # noqa: E402
from lorif.batch import FactorBatch, Factors, SecondMoments, write_batch  # noqa: E402
from lorif.curvature import Curvature  # noqa: E402
from lorif.ray import (  # noqa: E402
    Collection,
    CollectionRefusedError,
    IncompleteError,
    Making,
    PackOptions,
    Query,
    find_whitening,
    fit,
    ingest,
)
from lorif.ray.command import main  # noqa: E402
from lorif.ray.query import CollectionAnswer  # noqa: E402
from lorif.tool import InputRefusedError, Tool  # noqa: E402
from ray_support import (  # noqa: E402
    LAYERS,
    SIZES,
    TOP,
    Library,
    add_node,
    ask,
    run,
    same,
    settings,
    slow_tool,
    wait_until,
)

SHARDS = [[0], [1], [2], [3], [4], [5], [6]]


@pytest.fixture
def collection(library: Library, tmp_path: Path) -> Collection:
    return library.collection(tmp_path / "c.json", SHARDS)


@pytest.fixture
def copies(library: Library, tmp_path: Path) -> tuple[Collection, list[Path]]:
    """A collection of segments that a test may damage."""
    (tmp_path / "copies").mkdir()
    paths = [Path(shutil.copy(each, tmp_path / "copies" / each.name)) for each in library.segments]
    collection = Collection(tmp_path / "copies" / "c.json")
    collection.create()
    collection.add(*paths)
    collection.use_curvature(library.store)
    return collection, paths


class Background:
    """Something that runs beside the test, and what came of it."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._work = work
        self.result: Any = None
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.result = self._work()
        except BaseException as error:
            self.error = error

    def outcome(self) -> Any:
        self._thread.join(120)
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error
        return self.result


def whole(library: Library, answer: CollectionAnswer, method: str = "influence") -> None:
    request = Query(library.queries, method, TOP)
    assert answer.is_complete
    assert same(answer.text, library.alone([str(library.queries), *request.options()], answer.totals.kernel))


def without(library: Library, folder: Path, lost: set[int]) -> Path:
    """A store without the rows of some batches, and with the curvature of all."""
    store = folder / "without.lorif"
    run("copy", library.store, store)
    gone = folder / "gone.txt"
    gone.write_text("\n".join(name for each in sorted(lost) for name in FactorBatch(library.batches[each]).ids or []))
    run("delete", store, "--ids", gone)
    return store


# Processes


def test_a_worker_killed_in_mid_query_costs_nothing_but_time(
    library: Library, collection: Collection, cluster: Any, tmp_path: Path
) -> None:
    tool, marks, gate = slow_tool(tmp_path)
    request = Query(library.queries, top=TOP, kernel="tiles")
    asking = Background(lambda: ask(collection, tmp_path, request, tool=tool))
    wait_until(lambda: len(list(marks.iterdir())) >= 2)
    victim = sorted(marks.iterdir())[0]
    program = int(victim.name)
    os.kill(int(victim.read_text()), signal.SIGKILL)
    # The program that it had started ends with it.
    wait_until(
        lambda: not Path(f"/proc/{program}").exists() or "Z" in Path(f"/proc/{program}/stat").read_text().split()[2]
    )
    gate.touch()
    whole(library, asking.outcome())


def test_a_node_removed_in_mid_query_costs_nothing_but_time(
    library: Library, collection: Collection, cluster: Any, tmp_path: Path
) -> None:
    third = add_node(cluster)
    wait_until(lambda: sum(node["Alive"] for node in ray.nodes()) == 4)
    tool, marks, gate = slow_tool(tmp_path)
    request = Query(library.queries, top=TOP, kernel="tiles")
    asking = Background(lambda: ask(collection, tmp_path, request, tool=tool))
    wait_until(lambda: len(list(marks.iterdir())) >= 3)
    cluster.remove_node(third, allow_graceful=False)
    gate.touch()
    answer = asking.outcome()
    whole(library, answer)
    assert third.node_id not in {unit.node for unit in answer.totals.units}


def test_a_node_removed_in_mid_fit_costs_nothing_but_time(
    library: Library, collection: Collection, cluster: Any, tmp_path: Path
) -> None:
    third = add_node(cluster)
    wait_until(lambda: sum(node["Alive"] for node in ray.nodes()) == 4)
    before = collection.manifest()
    fitting = Background(lambda: fit(collection, rank=12, settings=settings(tmp_path)))
    cache = tmp_path / f"cache-{third.node_id}"
    # The node has begun: its cache is there.
    wait_until(cache.exists)
    cluster.remove_node(third, allow_graceful=False)
    done = fitting.outcome()
    assert done.rows == sum(SIZES)
    assert collection.manifest().generation == before.generation + 1
    check_fit(library, Path(done.url))


def check_fit(library: Library, path: Path) -> None:
    """The eigenpairs against those of the program, through both readers' eyes."""
    theirs, mine = Curvature(library.store / "curvature" / f"{library.curvature}.curvature"), Curvature(path)
    assert (mine.row_digest, mine.fitted_row_count) == (theirs.row_digest, theirs.fitted_row_count)
    for found, wanted in zip(mine.groups, theirs.groups, strict=True):
        assert found.trace == pytest.approx(wanted.trace, rel=1e-9)
        np.testing.assert_allclose(found.eigenvalues, wanted.eigenvalues, rtol=1e-6)
        # Vectors up to their sign.
        assert np.abs(np.abs(np.sum(found.basis * wanted.basis, axis=1)) - 1).max() < 1e-4


def test_a_slow_node_is_not_waited_for(library: Library, collection: Collection, cluster: Any, tmp_path: Path) -> None:
    # The first to come is slow for good; whoever is asked after it is not.
    path, first = tmp_path / "lorif-sometimes-slow", tmp_path / "first"
    path.write_text(
        f'#!/bin/sh\nif [ "$1" = query ] && mkdir {first} 2>/dev/null; then sleep 600; fi\nexec {Tool().path} "$@"\n'
    )
    path.chmod(0o755)
    request = Query(library.queries, top=TOP, kernel="tiles")
    answer = ask(collection, tmp_path, request, tool=str(path), straggler=2.0, straggler_seconds=2.0)
    whole(library, answer)


# Files


def test_a_missing_and_a_corrupt_shard_are_named_and_the_rest_is_answered(
    library: Library, copies: tuple[Collection, list[Path]], cluster: Any, tmp_path: Path
) -> None:
    collection, paths = copies
    paths[2].unlink()
    raw = bytearray(paths[5].read_bytes())
    raw[4100] ^= 1
    paths[5].write_bytes(raw)
    request = Query(library.queries, top=TOP, kernel="tiles")
    store = without(library, tmp_path, {2, 5})
    for changed in ({}, {"copies_all": True}, {"unit_bytes": 1 << 30}):
        answer = ask(collection, tmp_path, request, **changed)
        assert [(each.shard, each.first_row, each.rows) for each in answer.unread] == [
            ("part-2", 73, 130),
            ("part-5", 244, 96),
        ]
        assert "no such file" in answer.unread[0].reason
        assert "checksum" in answer.unread[1].reason
        assert same(answer.text, library.alone([str(library.queries), *request.options()], None, store=store))
    with pytest.raises(IncompleteError, match="shard part-2: rows 73 to 202"):
        from lorif.ray import query  # noqa: PLC0415 - the one use

        query(collection, request, settings=settings(tmp_path), require_complete=True)


def test_a_corrupt_copy_in_a_cache_is_copied_again(
    library: Library, collection: Collection, cluster: Any, tmp_path: Path
) -> None:
    request = Query(library.queries, top=TOP, kernel="tiles")
    whole(library, ask(collection, tmp_path, request, copies_all=True))
    damaged = 0
    for path in tmp_path.glob("cache-*/objects/*"):
        if path.stat().st_size > 4200 and path.read_bytes()[:8] == b"LORIFSEG":
            raw = bytearray(path.read_bytes())
            raw[4100] ^= 1
            # In place: working stores link to it.
            with path.open("r+b") as file:
                file.write(raw)
            damaged += 1
    assert damaged == len(SIZES)
    whole(library, ask(collection, tmp_path, request, copies_all=True, attempts=4))


def test_a_full_cache_is_said_and_nothing_is_lost(
    library: Library, collection: Collection, cluster: Any, tmp_path: Path
) -> None:
    request = Query(library.queries, top=TOP, kernel="tiles")
    sizes = [path.stat().st_size for path in library.segments]
    room = sorted(sizes)[-2] + (library.store / "curvature" / f"{library.curvature}.curvature").stat().st_size
    answer = ask(collection, tmp_path, request, copies_all=True, cache_bytes=room)
    assert [each.rows for each in answer.unread] == [max(SIZES)]
    assert "are needed" in answer.unread[0].reason
    # A node with room is enough.
    whole(library, ask(collection, tmp_path, request, copies_all=True, cache_bytes=2 * sum(sizes) + room))


def test_a_fit_that_misses_rows_changes_nothing(
    library: Library, copies: tuple[Collection, list[Path]], cluster: Any, tmp_path: Path
) -> None:
    collection, paths = copies
    before = Path(collection.url).read_bytes()
    moved = paths[3].rename(tmp_path / "elsewhere")
    with pytest.raises(IncompleteError, match="a fit needs every row"):
        fit(collection, rank=4, settings=settings(tmp_path))
    assert Path(collection.url).read_bytes() == before
    moved.rename(paths[3])
    check_fit(library, Path(fit(collection, rank=12, settings=settings(tmp_path)).url))


def test_a_deadline_names_what_was_not_read(
    library: Library, collection: Collection, cluster: Any, tmp_path: Path
) -> None:
    tool, _, _ = slow_tool(tmp_path)
    answer = ask(collection, tmp_path, Query(library.queries, kernel="tiles", deadline=6.0), tool=tool)
    assert answer.text == ""
    assert sum(each.live_rows for each in answer.unread) == sum(SIZES)
    assert {each.reason for each in answer.unread} == {"the deadline came first"}


def test_the_command_says_what_was_not_read(
    library: Library,
    copies: tuple[Collection, list[Path]],
    cluster: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    collection, paths = copies
    paths[0].unlink()
    given = ["query", collection.url, str(library.queries), "--top=2", f"--cache={tmp_path}/cache-{{node}}", "--cpus=1"]
    assert main(given) == 1
    captured = capsys.readouterr()
    assert "not read: shard part-0: rows 0 to 69 (70 live)" in captured.err
    assert len(captured.out.splitlines()) == 10
    assert main([*given, "--require-complete"]) == 5
    assert capsys.readouterr().out == ""


# Fits and ingests


def test_a_fit_does_not_depend_on_the_sharding(library: Library, cluster: Any, tmp_path: Path) -> None:
    for name, shards in {
        "one": [[*range(7)]],
        "three": [[0, 1], [2, 3], [4, 5, 6]],
        "empty": [[0, 1, 2], [], [3, 4, 5, 6]],
    }.items():
        collection = library.collection(tmp_path / name / "c.json", shards)
        done = fit(collection, rank=12, settings=settings(tmp_path))
        check_fit(library, Path(done.url))
        # The answers of either curvature, each normalized by the largest score.
        request = Query(library.queries, "influence", sum(SIZES))
        mine = ask(collection, tmp_path, request)
        scores = {(line["query"], line["id"]): line["score"] for line in mine.lines}
        theirs = ask(library.collection(tmp_path / name / "theirs.json", shards), tmp_path, request)
        largest = max(abs(line["score"]) for line in theirs.lines)
        for line in theirs.lines:
            assert scores[line["query"], line["id"]] == pytest.approx(line["score"], abs=1e-5 * largest)


def test_layers_that_are_iterated_over_agree_too(
    library: Library, collection: Collection, cluster: Any, tmp_path: Path
) -> None:
    done = fit(collection, rank=12, passes=30, gram_limit=1, settings=settings(tmp_path))
    theirs = Curvature(library.store / "curvature" / f"{library.curvature}.curvature")
    mine = Curvature(done.url)
    assert {group.algorithm for group in mine.groups} == {"krylov"}
    for found, wanted in zip(mine.groups, theirs.groups, strict=True):
        assert found.trace == pytest.approx(wanted.trace, rel=1e-6)
        assert found.eigenvalues.sum() == pytest.approx(wanted.eigenvalues.sum(), rel=2e-3)
        assert found.eigenvalues[0] == pytest.approx(wanted.eigenvalues[0], rel=1e-3)


def test_rows_that_come_meanwhile_refuse_the_fit(
    library: Library, cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection = library.collection(tmp_path / "c.json", [[0, 1]])

    def interfering(_: int, __: int) -> None:
        if collection.manifest().rows == sum(SIZES[:2]):
            collection.add(library.segments[2])

    with pytest.raises(CollectionRefusedError, match="meanwhile"):
        fit(collection, rank=4, settings=settings(tmp_path), progress=interfering)
    assert collection.manifest().curvature is not None
    assert collection.manifest().curvature.digest == library.curvature


def test_an_ingest_is_one_commit_and_can_be_repeated(library: Library, cluster: Any, tmp_path: Path) -> None:
    options = PackOptions(encoding="f16")
    target = tmp_path / "c.json"
    first = ingest(target, library.batches, options=options, settings=settings(tmp_path))
    assert (first.rows, first.packed, first.already_there, first.generation) == (sum(SIZES), 7, 0, 1)
    manifest = Collection(target).manifest()
    assert [segment.rows for segment in manifest.segments] == list(SIZES)
    again = ingest(target, library.batches, options=options, settings=settings(tmp_path))
    assert (again.packed, again.already_there) == (0, 7)
    assert Collection(target).manifest().rows == sum(SIZES)
    request = Query(library.queries, "cosine", TOP)
    answer = ask(Collection(target), tmp_path, request)
    assert same(answer.text, library.alone([str(library.queries), *request.options()], answer.totals.kernel))
    store = tmp_path / "store.lorif"
    into = ingest(store, library.batches, folder=tmp_path / "parts", options=options, settings=settings(tmp_path))
    assert into.rows == sum(SIZES)
    given = [str(library.queries), *request.options()]
    assert library.alone(given, None, store=store) == library.alone(given, None)


def test_an_ingest_that_fails_commits_nothing(library: Library, cluster: Any, tmp_path: Path) -> None:
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(library.batches[1].read_bytes()[:-10])
    target = tmp_path / "c.json"
    with pytest.raises(InputRefusedError):
        ingest(target, [library.batches[0], bad], options=PackOptions(encoding="f16"), settings=settings(tmp_path))
    assert not target.exists()
    assert set(LAYERS) == {layer.name for layer in FactorBatch(library.batches[0]).layers}


def test_tasks_make_batches_once_and_a_failure_commits_nothing(cluster: Any, tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.mkdir()

    def record(source: str, path: Path) -> None:
        (made / f"{source}-{os.getpid()}").touch()
        if source == "bad":
            raise ValueError("no such part of the training set")
        rows = np.full((4, 3, 2), ord(source), np.float32)
        write_batch(path, {"a": rows}, ids=[f"{source}{row}" for row in range(4)])

    target, making = tmp_path / "c.json", Making("model of step 7", record)
    options = PackOptions(encoding="f32")
    with pytest.raises(IncompleteError, match="no such part"):
        ingest(target, ["x", "bad"], options=options, making=making, settings=settings(tmp_path))
    assert not target.exists()
    done = ingest(target, ["x", "y", "z"], options=options, making=making, settings=settings(tmp_path))
    assert (done.rows, done.packed, done.already_there) == (12, 2, 1)
    assert sorted(path.name[0] for path in made.iterdir() if path.name[1] == "-") == ["x", "y", "z"]
    other = ingest(target, ["x"], options=options, making=Making("of step 8", record), settings=settings(tmp_path))
    assert (other.packed, other.already_there) == (1, 0)


@pytest.mark.parametrize("given", [False, True], ids=["of full gradients", "of the trainer's moments"])
def test_a_whitening_basis_does_not_depend_on_the_batches(cluster: Any, tmp_path: Path, given: bool) -> None:
    random = np.random.default_rng(5)
    left, right = (random.standard_normal((90, d, 2)).astype(np.float32) for d in (8, 6))
    full = (left @ right.swapaxes(1, 2)).astype(np.float64)

    def write(name: str, part: slice, *, moments: bool = given) -> Path:
        rows = Factors(left[part], right[part]) if given else full[part].astype(np.float32)
        both = [np.einsum(form, full[part], full[part]) / len(full[part]) for form in ("nab,ncb->ac", "nab,nac->bc")]
        extra = {"a": SecondMoments(*((each + each.T) / 2 for each in both))} if moments else None
        write_batch(tmp_path / f"{name}.safetensors", {"a": rows}, second_moments=extra)
        return tmp_path / f"{name}.safetensors"

    run("create", tmp_path / "store", f"--whiten-from={write('all', slice(0, 90))}", "--rank=2", "--epsilon=0.05")
    (path,) = (tmp_path / "store" / "basis").glob("*.basis")
    wanted = Basis(path).maps("a")
    parts = [write(f"part-{part.start}", part) for part in (slice(0, 1), slice(1, 60), slice(60, 90))]
    output = tmp_path / "found.basis"
    done = find_whitening(parts, output, epsilon=0.05, settings=settings(tmp_path))
    found = Basis(output)
    assert (done.digest, done.rows, found.epsilon) == (found.digest, 90, 0.05)
    for mine, theirs in zip(found.maps("a"), wanted, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-6 * np.abs(theirs).max())
    if given:
        bare = write("bare", slice(0, 9), moments=False)
        with pytest.raises(CollectionRefusedError, match="cannot be whitened"):
            find_whitening([*parts, bare], tmp_path / "none.basis", settings=settings(tmp_path))
    parts[1].unlink()
    with pytest.raises(CollectionRefusedError, match="there is no such batch"):
        find_whitening(parts, tmp_path / "none.basis", settings=settings(tmp_path))
    assert not (tmp_path / "none.basis").exists()
