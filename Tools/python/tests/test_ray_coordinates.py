"""Coordinates of collections against those of the store with the same rows, on the cluster of the other tests."""

import pytest

pytest.importorskip("ray", reason="Ray is not installed; its coordinates stay UNTESTED: pip install '.[ray]'")

import shutil
from pathlib import Path
from typing import Any

import ray
from lorif.ray import Collection, CollectionRefusedError, IncompleteError, Query, write_coordinates
from lorif.ray.command import main
from lorif.tool import Tool
from ray_support import BOTTOM, SIZES, TOP, Library, ask, run, same, settings

SEVEN = [[0], [1, 2], [], [3], [4, 5, 6]]


@pytest.fixture(scope="module")
def store(library: Library, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library's store with coordinates."""
    path = tmp_path_factory.mktemp("with-coordinates") / "store.lorif"
    shutil.copytree(library.store, path)
    run("fit", path, f"--use={library.curvature}", "--coordinates=int8")
    return path


@pytest.mark.parametrize("copies", [False, True])
def test_they_are_those_of_the_one_store(
    library: Library, store: Path, cluster: Any, tmp_path: Path, copies: bool
) -> None:
    collection = library.collection(tmp_path / "c.json", SEVEN)
    done = write_coordinates(collection, "int8", settings=settings(tmp_path, copies_all=copies))
    assert (done.rows, done.covered_rows) == (sum(SIZES), sum(SIZES))
    wanted = {path.name: path.read_bytes() for path in (store / "coordinates").iterdir()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "coordinates").iterdir()} == wanted
    assert len(wanted) == len(SIZES)
    assert done.bytes == sum(map(len, wanted.values()))
    assert collection.verify(full=True) == []
    for method in ("self-influence", "relatif", "influence-cosine"):
        request = Query(None if method == "self-influence" else library.queries, method, TOP, BOTTOM)
        answer = ask(collection, tmp_path, request, copies_all=copies)
        given = [*([str(library.queries)] if request.queries else []), *request.options()]
        assert same(answer.text, library.alone(given, answer.totals.kernel, store=store))
        # They were used: without them the last digits are others.
        assert not same(answer.text, library.alone(given, answer.totals.kernel))
        assert answer.remarks == ()
    # Other questions do not copy them.
    before = {each.name for each in tmp_path.glob("cache-*/stores/*/coordinates")}
    request = Query(library.queries, top=TOP)
    answer = ask(collection, tmp_path, request)
    given = [str(library.queries), *request.options()]
    assert same(answer.text, library.alone(given, answer.totals.kernel))
    assert {each.name for each in tmp_path.glob("cache-*/stores/*/coordinates")} == before


def test_only_what_is_missing_is_written(library: Library, cluster: Any, tmp_path: Path) -> None:
    collection = library.collection(tmp_path / "c.json", [[0, 1], [2]])
    given = settings(tmp_path)
    first = write_coordinates(collection, "int8", settings=given)
    again = write_coordinates(collection, "int8", settings=given)
    assert (again.rows, again.covered_rows, again.generation) == (0, first.rows, first.generation)
    collection.add(library.segments[3])
    more = write_coordinates(collection, "int8", settings=given)
    assert (more.rows, more.covered_rows) == (SIZES[3], first.rows + SIZES[3])
    # In another encoding they are other files, of the same names.
    other = write_coordinates(collection, "f32", settings=given)
    assert (other.rows, other.bytes > more.bytes) == (more.covered_rows, True)
    assert collection.verify(full=True) == []
    with pytest.raises(CollectionRefusedError, match="q4"):
        write_coordinates(collection, "q4", settings=given)


def test_another_curvature_drops_them(
    library: Library, cluster: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    collection = library.collection(tmp_path / "c.json", [[0, 1], [2]])
    places = [f"--cache={tmp_path}/cache-{{node}}", "--cpus=1"]
    assert main(["coordinates", collection.url, *places]) == 0
    assert f"coordinates of {sum(SIZES[:3]):,} rows written" in capsys.readouterr().out
    assert collection.inspect()["rowsWithCoordinates"] == sum(SIZES[:3])
    collection.use_curvature(library.store)
    assert collection.inspect()["rowsWithCoordinates"] == sum(SIZES[:3])
    assert main(["fit", collection.url, "--rank=5", *places]) == 0
    assert collection.inspect()["rowsWithCoordinates"] == 0
    assert main(["fit", collection.url, "--rank=5", "--coordinates=f16", *places]) == 0
    assert "rows have theirs" in capsys.readouterr().out
    assert collection.inspect()["rowsWithCoordinates"] == sum(SIZES[:3])
    assert {each.coordinates.encoding for each in collection.manifest().segments if each.coordinates} == {"f16"}


def test_damaged_ones_cost_time_and_are_named(library: Library, store: Path, cluster: Any, tmp_path: Path) -> None:
    collection = library.collection(tmp_path / "c.json", SEVEN)
    write_coordinates(collection, "int8", settings=settings(tmp_path))
    segments = [each for each in collection.manifest().segments if each.coordinates]
    paths = [tmp_path / "coordinates" / Path(each.coordinates.url).name for each in segments if each.coordinates]
    paths[1].unlink()
    raw = bytearray(paths[4].read_bytes())
    raw[len(raw) // 2] ^= 1
    paths[4].write_bytes(raw)
    found = collection.verify(full=True)
    assert {Path(each.url).name for each in found} == {paths[1].name, paths[4].name}
    harmed = tmp_path / "harmed.lorif"
    shutil.copytree(store, harmed)
    for place in (1, 4):
        (harmed / "coordinates" / paths[place].name).unlink()
    for copies in (False, True):
        request = Query(None, "self-influence", TOP, BOTTOM)
        answer = ask(collection, tmp_path / str(copies), request, copies_all=copies)
        assert same(answer.text, library.alone(request.options(), answer.totals.kernel, store=harmed))
        assert answer.is_complete
        assert any(paths[1].name in remark and "left out" in remark for remark in answer.remarks)
        # A copy is checked when it is made; a link is checked by the program, page by page.
        assert any(paths[4].name in remark for remark in answer.remarks) or not copies
    # The same command mends what can be mended, and nothing else.
    mended = write_coordinates(collection, "int8", settings=settings(tmp_path))
    assert mended.rows == segments[1].live_rows + segments[4].live_rows
    assert collection.verify(full=True) == []
    assert {each.name: each.read_bytes() for each in paths} == {
        path.name: path.read_bytes() for path in (store / "coordinates").iterdir()
    }


def test_a_failure_changes_nothing(library: Library, cluster: Any, tmp_path: Path) -> None:
    collection = library.collection(tmp_path / "c.json", [[0], [1]])
    before = collection.manifest()
    broken = tmp_path / "broken"
    broken.write_text(
        f'#!/bin/sh\nif [ "$1" = fit ]; then echo "lorif: there is no disk" >&2; exit 5; fi\nexec {Tool().path} "$@"\n'
    )
    broken.chmod(0o755)
    with pytest.raises((IncompleteError, ray.exceptions.RayError), match="there is no disk"):
        write_coordinates(collection, "int8", settings=settings(tmp_path, tool=str(broken)))
    assert collection.manifest() == before
    bare = Collection(tmp_path / "bare.json")
    bare.create()
    bare.add(library.segments[0])
    with pytest.raises(CollectionRefusedError, match="run 'fit'"):
        write_coordinates(bare, "int8", settings=settings(tmp_path))
