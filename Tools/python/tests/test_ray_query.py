"""Queries of collections against the store with the same rows, on a cluster of three nodes on the loopback."""

import pytest

pytest.importorskip("ray", reason="Ray is not installed; its queries stay UNTESTED: pip install '.[ray]'")

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
from lorif.batch import write_batch
from lorif.ray import Collection, CollectionRefusedError, Query, explain_query, query
from lorif.ray.command import main
from lorif.ray.query import CollectionAnswer
from lorif.ray.scheduler import alive_nodes, on_every_node
from lorif.tool import InputRefusedError, WrongUsageError
from ray_support import BOTTOM, SIZES, TOP, Library, ask, make_library, run, same, settings
from safetensors import safe_open

SHARDINGS = {
    "one": [[0, 1, 2, 3, 4, 5, 6]],
    "three": [[0, 1], [2, 3], [4, 5, 6]],
    "seven": [[0], [1], [2], [3], [4], [5], [6]],
    "uneven": [[0, 1, 2, 3, 4], [5], [6]],
    "with an empty one": [[0, 1, 2], [], [3, 4, 5, 6]],
}
METHODS = (
    "influence", "dot", "cosine", "normalized-dot", "l2", "whitened-dot", "whitened-cosine", "self-influence",
    "relatif", "influence-cosine",
)  # fmt: skip


@pytest.fixture(scope="module")
def seven(library: Library, cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Collection, Path]:
    folder = tmp_path_factory.mktemp("seven")
    return library.collection(folder / "c.json", SHARDINGS["seven"]), folder


def options(request: Query, queries: Path | None) -> list[str]:
    return [*([str(queries)] if queries else []), *request.options()]


def agree(library: Library, answer: CollectionAnswer, request: Query) -> None:
    queries = None if request.queries is None else Path(request.queries)
    assert same(answer.text, library.alone(options(request, queries), answer.totals.kernel))
    assert answer.is_complete


@pytest.mark.parametrize("name", SHARDINGS)
def test_any_sharding_answers_as_the_one_store(library: Library, cluster: Any, name: str, tmp_path: Path) -> None:
    collection = library.collection(tmp_path / "c.json", SHARDINGS[name])
    for method in ("influence", "relatif"):
        request = Query(library.queries, method, TOP, BOTTOM)
        agree(library, ask(collection, tmp_path, request), request)
    # As few tasks as there are nodes that work: shards are put together.
    request = Query(library.queries, "dot", TOP, BOTTOM)
    answer = ask(collection, tmp_path, request, unit_bytes=None)
    agree(library, answer, request)
    assert len(answer.totals.units) <= 3


@pytest.mark.parametrize("method", METHODS)
def test_every_method_answers_as_the_one_store(library: Library, seven: tuple[Collection, Path], method: str) -> None:
    request = Query(None if method == "self-influence" else library.queries, method, TOP, BOTTOM)
    answer = ask(*seven, request)
    assert len(answer.totals.units) == len(SIZES)
    agree(library, answer, request)
    # Three nodes and seven units: the last ones know what the first have found.
    assert any(unit.is_limited for unit in answer.totals.units)
    assert not all(unit.is_limited for unit in answer.totals.units)


@pytest.mark.parametrize(
    "more",
    [
        {"relative_dampings": (0.1, 10.0), "layers": ("a.*",)},
        {"dampings": (3.0,)},
        {"aggregate": "mean"},
        {"aggregate": "max", "aggregate_by": "task"},
        {"where": "source = 'A' and length > 20"},
        {"where": "length > 250 and length < 260"},
        {"method": "dot", "kernel": "tiles", "top": 1000},
    ],
    ids=str,
)
def test_options_mean_what_they_mean_to_the_program(
    library: Library, seven: tuple[Collection, Path], more: dict[str, Any]
) -> None:
    request = Query(**({"queries": library.queries, "top": TOP, "bottom": BOTTOM} | more))
    agree(library, ask(*seven, request), request)


def test_groups_are_added_up(library: Library, seven: tuple[Collection, Path]) -> None:
    request = Query(library.queries, "influence", TOP, group_by="source")
    answer = ask(*seven, request)
    expected = library.alone(options(request, library.queries), answer.totals.kernel)
    mine_top, their_top = ("".join(re.findall('.*"direction":"top".*\n', text)) for text in (answer.text, expected))
    assert same(mine_top, their_top)
    assert len(mine_top.splitlines()) == 5 * TOP
    mine, theirs = ([json.loads(line) for line in text.splitlines()] for text in (answer.text, expected))
    for found, wanted in zip(*([x for x in part if x["direction"] == "group"] for part in (mine, theirs)), strict=True):
        for key in ("query", "rank", "group", "examples", "highest", "top"):
            assert found[key] == wanted[key]
        scale = found["examples"] * max(abs(found["highest"]), 1e-30)
        assert abs(found["sum"] - wanted["sum"]) <= 1e-12 * scale
        assert abs(found["mean"] - wanted["mean"]) <= 1e-12 * scale


def test_contributions_of_layers_add_up(library: Library, seven: tuple[Collection, Path]) -> None:
    request = Query(library.queries, top=TOP, per_layer=True, layers=("attention=a.*", "b.up"))
    answer = ask(*seven, request)
    alone = library.alone(options(request, library.queries), answer.totals.kernel)
    for line in alone.splitlines():
        wanted = json.loads(line)
        found = next(
            each for each in answer.lines if (each["query"], each["rank"]) == (wanted["query"], wanted["rank"])
        )
        assert found | {"layers": None, "share": 0} == wanted | {"layers": None, "share": 0}
        # Those of all listed rows are computed together, so that they are rounded otherwise.
        for name, value in wanted["layers"].items():
            assert found["layers"][name] == pytest.approx(value, abs=1e-6 * abs(wanted["score"]))


def test_examples_are_queries_wherever_they_are(library: Library, seven: tuple[Collection, Path]) -> None:
    names = [
        json.loads(library.batches[batch].with_suffix(".jsonl").read_text().splitlines()[row])["id"]
        for batch, row in ((5, 30), (0, 3))
    ]
    request = Query(method="cosine", top=TOP, by_id=names)
    answer = ask(*seven, request)
    alone = [*request.options(), *(f"--by-id={name}" for name in names)]
    assert same(answer.text, library.alone(alone, answer.totals.kernel))
    with pytest.raises(InputRefusedError, match="nobody"):
        ask(*seven, Query(by_id=["nobody"]))


def test_some_examples_only(library: Library, seven: tuple[Collection, Path], tmp_path: Path) -> None:
    names = [
        json.loads(line)["id"]
        for batch in (0, 2, 6)
        for line in library.batches[batch].with_suffix(".jsonl").read_text().splitlines()[::9]
    ]
    listed = tmp_path / "ids.json"
    listed.write_text(json.dumps(names))
    request = Query(library.queries, top=TOP, bottom=BOTTOM, among=names)
    answer = ask(*seven, request)
    alone = [*options(request, library.queries), f"--among={listed}"]
    assert same(answer.text, library.alone(alone, answer.totals.kernel))
    with pytest.raises(InputRefusedError, match="1 ids name no example: 'nobody'"):
        ask(*seven, Query(library.queries, among=[*names, "nobody"]))


def test_all_scores_are_in_a_file_for_each_shard(library: Library, cluster: Any, tmp_path: Path) -> None:
    collection = library.collection(tmp_path / "c.json", SHARDINGS["with an empty one"])
    request = Query(library.queries, top=2, scores=str(tmp_path / "scores"))
    answer = ask(collection, tmp_path, request)
    index = json.loads(Path(answer.index or "").read_text())
    alone = tmp_path / "alone.safetensors"
    library.alone([*options(request, library.queries), f"--output={alone}"], answer.totals.kernel)
    with safe_open(alone, "np") as file:
        expected, ids = file.get_tensor("scores"), json.loads(file.metadata()["example_ids"])
    parts, names = [], []
    for each in index["files"]:
        with safe_open(tmp_path / "scores" / each["file"], "np") as file:
            parts.append(file.get_tensor("scores"))
            names += json.loads(file.metadata()["example_ids"])
        assert each["firstColumn"] == sum(part.shape[1] for part in parts[:-1])
        assert each["columns"] == parts[-1].shape[1]
    assert [each["columns"] for each in index["files"]] == [203, 197]
    assert names == ids
    assert (np.concatenate(parts, axis=1) == expected).all()
    assert index["columns"] == sum(SIZES)


def test_deleted_rows_stay_deleted(library: Library, cluster: Any, tmp_path: Path) -> None:
    store = tmp_path / "less.lorif"
    run("copy", library.store, store)
    run("delete", store, "--where", "source = 'B'")
    run("fit", store, "--rank=9")
    collection = Collection(tmp_path / "c.json")
    collection.create()
    collection.add(store, shards=3)
    collection.use_curvature(store)
    for method in ("influence", "relatif", "whitened-dot"):
        request = Query(library.queries, method, TOP, BOTTOM)
        answer = ask(collection, tmp_path, request)
        assert same(answer.text, library.alone(options(request, library.queries), answer.totals.kernel, store=store))


@pytest.mark.parametrize("design", ["q4", "int8", "whitened"])
def test_other_stores(design: str, cluster: Any, tmp_path: Path) -> None:
    made = [f"--encoding={design}"]
    if design == "whitened":
        # The sample is the first batch that the library writes.
        made = ["--encoding=q2", "--rank=2", f"--whiten-from={tmp_path / 'library' / 'batch-0.safetensors'}"]
    fitted: Sequence[str] = ["--exact"] if design == "int8" else ["--rank=12"]
    library = make_library(tmp_path / "library", made, dense=design == "whitened", fit=fitted)
    collection = library.collection(tmp_path / "c.json", SHARDINGS["three"])
    for method in ("influence", "relatif", "whitened-dot", "whitened-cosine"):
        request = Query(library.queries, method, TOP, BOTTOM)
        agree(library, ask(collection, tmp_path, request), request)


def test_segments_elsewhere_are_copied_once(library: Library, cluster: Any, tmp_path: Path) -> None:
    # A file system of fsspec's that all processes see.
    far = f"local://{tmp_path}/far"
    for path in library.segments:
        fsspec.filesystem("local").makedirs(f"{tmp_path}/far", exist_ok=True)
        (tmp_path / "far" / path.name).write_bytes(path.read_bytes())
    collection = Collection(f"{far}/c.json")
    collection.create()
    collection.add(*(f"{far}/{path.name}" for path in library.segments))
    request = Query(library.queries, "cosine", TOP)
    # One unit a node: of several, some may be done elsewhere by a node that is through.
    first = ask(collection, tmp_path, request, unit_bytes=None)
    agree(library, first, request)
    size = sum(path.stat().st_size for path in library.segments)
    assert first.totals.report()["fetchedBytes"] == size
    again = ask(collection, tmp_path, request, unit_bytes=None)
    agree(library, again, request)
    assert again.totals.report()["fetchedBytes"] == 0
    assert {unit.shards: unit.node for unit in again.totals.units} == {
        unit.shards: unit.node for unit in first.totals.units
    }


def test_what_the_program_refuses_is_refused(library: Library, seven: tuple[Collection, Path], tmp_path: Path) -> None:
    with pytest.raises(InputRefusedError, match="no example passes"):
        ask(*seven, Query(library.queries, where="length > 100000"))
    with pytest.raises(InputRefusedError, match="sourse"):
        ask(*seven, Query(library.queries, where="sourse = 'A'"))
    with pytest.raises(WrongUsageError):
        ask(*seven, Query(library.queries, dampings=(1.0,), relative_dampings=(1.0,)))
    other = tmp_path / "other.safetensors"
    write_batch(other, {"elsewhere": np.ones((1, 3, 3), np.float32)})
    with pytest.raises(InputRefusedError, match="elsewhere"):
        ask(*seven, Query(other))
    with pytest.raises(CollectionRefusedError, match="no such collection"):
        ask(Collection(tmp_path / "none.json"), tmp_path, Query(library.queries))
    bare = Collection(tmp_path / "bare.json")
    bare.create()
    with pytest.raises(CollectionRefusedError, match="no rows"):
        ask(bare, tmp_path, Query(library.queries))
    bare.add(library.segments[0])
    with pytest.raises(CollectionRefusedError, match="needs curvature"):
        ask(bare, tmp_path, Query(library.queries))


def test_a_plan_adds_up_what_the_units_would_do(library: Library, seven: tuple[Collection, Path]) -> None:
    collection, folder = seven
    plan = explain_query(collection, Query(library.queries), settings=settings(folder))
    assert (plan["units"], plan["rows"], plan["unread"]) == (7, sum(SIZES), [])
    report = json.loads(run("query", library.store, library.queries, "--explain", "--json"))
    assert plan["flops"] == report["flops"]
    assert plan["bytes"] == report["bytes"]


def test_progress_counts_rows_and_an_answer_says_what_it_took(library: Library, seven: tuple[Collection, Path]) -> None:
    collection, folder = seven
    told: list[tuple[int, int]] = []
    request = Query(library.queries, top=TOP)
    answer = query(collection, request, settings=settings(folder), progress=lambda *each: told.append(each))
    steps = np.diff([0, *(done for done, _ in told)])
    assert sorted(steps) == sorted(SIZES)
    assert {total for _, total in told} == {sum(SIZES)}
    totals = answer.totals.report()
    assert (totals["units"], totals["rows"]) == (7, sum(SIZES))
    assert totals["nodes"] == len({unit.node for unit in answer.totals.units}) > 1
    assert totals["bytes"] == sum(path.stat().st_size for path in library.segments)
    seconds = [unit.store_seconds + unit.tool_seconds for unit in answer.totals.units]
    assert totals["workerSeconds"] == pytest.approx(sum(seconds))
    assert totals["slowest"]["seconds"] == max(seconds) > 0
    assert totals["slowest"]["shards"] == list(answer.totals.units[seconds.index(max(seconds))].shards)


def test_the_command_explains_and_writes_scores(
    library: Library, seven: tuple[Collection, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    collection, folder = seven
    given = ["query", collection.url, str(library.queries), "--top=3", f"--cache={folder}/cache-{{node}}", "--cpus=1"]
    given += ["--unit-size=1", "--kernel=tiles"]
    assert main([*given, "--explain"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["units"], plan["rows"], plan["kernels"]) == (7, sum(SIZES), ["tiles"])
    assert plan["slowest"]["seconds"] <= plan["workerSeconds"]
    written = tmp_path / "answer.jsonl"
    assert main([*given, "--explain=analyze", f"--output={written}", f"--scores={tmp_path / 'scores'}"]) == 0
    captured = capsys.readouterr()
    done = json.loads(captured.err)
    assert (captured.out, done["units"], done["rows"], done["kernel"]) == ("", 7, sum(SIZES), "tiles")
    assert done["slowest"]["shards"]
    assert same(written.read_text(), library.alone([str(library.queries), "--top=3"], "tiles"))
    index = json.loads((tmp_path / "scores" / "index.json").read_text())
    assert (index["columns"], index["unread"]) == (sum(SIZES), [])


def test_nothing_is_said_to_anybody_else(cluster: Any) -> None:
    """Workers have no network but a loopback, where that is permitted; and every connection stays on it anyway."""

    # Inside, since workers cannot import this file.
    def interfaces() -> set[str]:
        rows = Path("/proc/thread-self/net/dev").read_text().splitlines()[2:]
        return {row.split(":")[0].strip() for row in rows}

    names = on_every_node(interfaces, seconds=300.0)
    assert len(names) == len(alive_nodes())
    if cluster.has_only_a_loopback:
        assert set().union(*names.values(), interfaces()) == {"lo"}
    peers = set()
    for process in cluster.list_all_nodes():
        for infos in process.all_processes.values():
            for info in infos:
                peers |= _peers(info.process.pid)
    assert peers
    assert all(peer.startswith("127.") or peer in ("::1", "0.0.0.0", "::") for peer in peers), peers  # noqa: S104


def _peers(process: int) -> set[str]:
    """Remote addresses of a process's TCP sockets."""
    sockets = set()
    for each in Path(f"/proc/{process}/fd").iterdir():
        try:
            name = str(each.readlink())
        except OSError:
            continue
        if name.startswith("socket:["):
            sockets.add(name[8:-1])
    found = set()
    for kind in ("tcp", "tcp6"):
        for row in Path(f"/proc/{process}/net/{kind}").read_text().splitlines()[1:]:
            fields = row.split()
            if fields[9] in sockets:
                raw = bytes.fromhex(fields[2].split(":")[0])
                words = b"".join(raw[at : at + 4][::-1] for at in range(0, len(raw), 4))
                if kind == "tcp6" and words[:12] != bytes(10) + b"\xff\xff":
                    found.add("::1" if words == bytes(15) + b"\1" else "::" if not any(words) else words.hex())
                else:
                    found.add(".".join(map(str, words[-4:])))
    return found
