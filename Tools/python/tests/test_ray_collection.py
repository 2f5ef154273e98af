"""Collections without a cluster: manifests, catalogs, working stores, caches, merging, planning, curvature files."""

import pytest

pytest.importorskip("ray", reason="Ray is not installed; collections stay UNTESTED: pip install '.[ray]'")

import errno
import fcntl
import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
from lorif.curvature import Curvature
from lorif.ray import files
from lorif.ray.cache import NodeCache, Unit
from lorif.ray.catalog import read_store
from lorif.ray.collection import Collection, read_curvature
from lorif.ray.command import main
from lorif.ray.curvature_file import CurvatureWriter, FittedGroup, basis_pages
from lorif.ray.errors import (
    CacheFullError,
    CollectionDamagedError,
    CollectionRefusedError,
    SegmentsUnreadableError,
)
from lorif.ray.limits import BestScores
from lorif.ray.manifest import Manifest, SegmentEntry, Shard, decode
from lorif.ray.merge import added_totals, merged
from lorif.ray.placement import common_of, located, plan_units
from lorif.ray.scheduler import Job, Node, _Pending
from lorif.ray.settings import Settings
from lorif.ray.worker import NodeReport, among_unit, squared_norms
from ray_support import SIZES, Library, run


@pytest.fixture
def collection(library: Library, tmp_path: Path) -> Collection:
    return library.collection(tmp_path / "shards.json", [[0, 1], [2, 3, 4], [], [5, 6]])


def test_a_manifest_says_what_its_segments_are(library: Library, collection: Collection) -> None:
    held = collection.inspect()
    assert (held["rows"], held["layers"], held["encoding"]) == (sum(SIZES), 3, "f16")
    assert [shard["rows"] for shard in held["shards"]] == [73, 171, 0, 156]
    assert [shard["firstRow"] for shard in held["shards"]] == [0, 73, None, 244]
    assert held["curvature"] == library.curvature
    assert held["curvatureIsCurrent"] is True
    assert collection.verify(full=True) == []


def test_adding_again_adds_nothing_and_several_shards_are_of_about_equal_size(library: Library, tmp_path: Path) -> None:
    collection = Collection(tmp_path / "c.json")
    collection.create()
    first = collection.add(library.store, shards=3)
    assert [len(shard.segments) for shard in first.shards] == [2, 2, 3] or len(first.shards) == 3
    again = collection.add(library.store, shards=3)
    assert again.shards == first.shards
    assert again.generation == first.generation + 1


def test_a_store_brings_its_deleted_rows(library: Library, tmp_path: Path) -> None:
    store = tmp_path / "copy.lorif"
    run("copy", library.store, store)
    run("delete", store, "--where", "length < 10")
    collection = Collection(tmp_path / "c.json")
    collection.create()
    manifest = collection.add(store)
    expected = json.loads(run("inspect", store, "--json"))
    assert manifest.live_rows == expected["rows"]
    assert manifest.rows == sum(SIZES)
    assert manifest.row_digest != decode(Path(collection.url).read_bytes(), collection.url).schema
    assert not collection.use_curvature(library.store).curvature_is_current


def test_a_store_is_read_as_its_catalog_says(library: Library) -> None:
    contents = read_store(str(library.store))
    shown = json.loads(run("inspect", library.store, "--segments", "--json"))
    assert [segment.file.digest for segment in contents.segments] == [each["digest"] for each in shown]
    assert [segment.rows for segment in contents.segments] == list(SIZES)
    assert contents.active_curvature == library.curvature
    assert contents.identity == json.loads(run("inspect", library.store, "--json"))["identity"]


def test_a_torn_or_altered_catalog_is_refused(library: Library, tmp_path: Path) -> None:
    for name in library.store.rglob("*"):
        if name.is_file():
            target = tmp_path / "s" / name.relative_to(library.store)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(name, target)
    data = tmp_path / "s" / "catalog" / "data.mdb"
    digest = bytes.fromhex(library.curvature)[::-1]
    raw = data.read_bytes()
    assert digest in raw
    data.write_bytes(raw.replace(digest, bytes([digest[0] ^ 1]) + digest[1:]))
    with pytest.raises(CollectionDamagedError, match="catalog"):
        read_store(str(tmp_path / "s"))


def test_every_change_of_a_manifest_is_noticed(collection: Collection) -> None:
    text = Path(collection.url).read_text()
    altered = json.loads(text)
    altered["shards"][0]["segments"][0]["rows"] += 1
    with pytest.raises(CollectionDamagedError, match="checksum"):
        decode(json.dumps(altered).encode(), "x.json")
    with pytest.raises(CollectionRefusedError, match="manifest"):
        decode(b"{}", "x.json")
    newer = json.loads(text) | {"version": [2, 0]}
    with pytest.raises(CollectionRefusedError, match="found lorif-collection"):
        decode(json.dumps(newer).encode(), "x.json")


def test_a_manifest_in_a_folder_that_was_moved_finds_its_files(library: Library, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(library.segments[0], home / "a.segment")
    collection = Collection(home / "c.json")
    collection.create()
    collection.add(home / "a.segment")
    assert collection.manifest().shards[0].segments[0].url == "a.segment"
    home.rename(tmp_path / "moved")
    assert Collection(tmp_path / "moved" / "c.json").verify(full=True) == []


def test_missing_short_and_changed_files_are_named(library: Library, tmp_path: Path) -> None:
    copies = [Path(shutil.copy(each, tmp_path / each.name)) for each in library.segments[:4]]
    collection = Collection(tmp_path / "c.json")
    collection.create()
    collection.add(*copies)
    copies[0].unlink()
    copies[1].write_bytes(copies[1].read_bytes()[:-64])
    shutil.copy(library.segments[5], copies[2])
    raw = bytearray(copies[3].read_bytes())
    raw[4100] ^= 1
    copies[3].write_bytes(raw)
    assert [damage.url for damage in collection.verify()] == [each.name for each in copies[:3]]
    assert [damage.url for damage in collection.verify(full=True)] == [each.name for each in copies]
    assert main(["collection", "verify", collection.url]) == 1


def test_other_layers_and_concurrent_changes_are_refused(
    library: Library, collection: Collection, tmp_path: Path
) -> None:
    other = tmp_path / "other.segment"
    run("pack", other, library.batches[0], "--encoding=int8")
    with pytest.raises(CollectionRefusedError, match="found 3 in int8"):
        collection.add(other)
    before = collection.manifest()
    with pytest.raises(CollectionRefusedError, match="already"):
        collection.create()
    assert collection.manifest() == before
    assert main(["collection", "inspect", str(tmp_path / "none.json")]) == 3


def test_collections_and_segments_of_any_file_system(library: Library) -> None:
    memory = fsspec.filesystem("memory")
    for path in library.segments[:2]:
        memory.pipe(f"/lake/{path.name}", path.read_bytes())
    collection = Collection("memory://lake/c.json")
    collection.create()
    manifest = collection.add("memory://lake/part-0.segment", "memory://lake/part-1.segment")
    assert [segment.url for segment in manifest.segments] == ["part-0.segment", "part-1.segment"]
    assert collection.verify(full=True) == []
    memory.rm("/lake/part-1.segment")
    assert [damage.reason for damage in collection.verify()] == ["there is no such file"]


# The cache and its working stores


def unit_of(manifest: Manifest, *members: int) -> Unit:
    entries = located(manifest)
    return Unit(tuple(entries[each][0] for each in members), tuple(entries[each][1] for each in members))


def test_a_working_store_is_sound_and_knows_its_curvature(
    library: Library, collection: Collection, tmp_path: Path
) -> None:
    manifest = collection.manifest()
    for copies in (False, True):
        cache = NodeCache(tmp_path / f"cache-{copies}", 1 << 30, copies_all=copies)
        with cache.holding(unit_of(manifest, 0, 2, 5), common_of(manifest), with_curvature=True) as held:
            assert run("verify", held.path, "--level=deep").startswith("sound")
            (version,) = json.loads(run("fit", held.path, "--list", "--json"))
            assert (version["curvature"], version["current"]) == (library.curvature, True)
            assert (held.fetched_bytes > 0) is copies
        assert (cache.used() > 0) is copies


def test_copies_are_made_once_and_evicted_by_use(collection: Collection, tmp_path: Path) -> None:
    manifest = collection.manifest()
    segments = [segment for _, segment in located(manifest)]
    room = segments[0].bytes + segments[2].bytes
    cache = NodeCache(tmp_path / "cache", room, copies_all=True)
    common = common_of(manifest)

    def hold(member: int) -> int:
        with cache.holding(unit_of(manifest, member), common, with_curvature=False) as held:
            return held.fetched_bytes

    assert hold(2) == segments[2].bytes
    time.sleep(0.02)
    assert hold(0) == segments[0].bytes
    assert (hold(2), hold(0)) == (0, 0)
    time.sleep(0.02)
    assert hold(2) == 0
    # Segment 0 was used before segment 2.
    assert hold(1) == segments[1].bytes
    assert cache.used() <= room
    assert segments[2].digest in cache.digests()
    assert segments[0].digest not in cache.digests()


def test_what_is_in_use_stays_and_a_full_cache_says_so(collection: Collection, tmp_path: Path) -> None:
    manifest = collection.manifest()
    segments = [segment for _, segment in located(manifest)]
    cache = NodeCache(tmp_path / "cache", segments[2].bytes + 10, copies_all=True)
    with cache.holding(unit_of(manifest, 2), common_of(manifest), with_curvature=False) as held:
        with (
            pytest.raises(CacheFullError, match="are in use"),
            cache.holding(unit_of(manifest, 0), common_of(manifest), with_curvature=False),
        ):
            pass
        assert run("verify", held.path).startswith("sound")
    with cache.holding(unit_of(manifest, 0), common_of(manifest), with_curvature=False):
        assert cache.digests() == {segments[0].digest}


def test_a_full_disk_is_no_damage(collection: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    manifest = collection.manifest()
    cache = NodeCache(tmp_path / "cache", 1 << 30, copies_all=True)
    monkeypatch.setattr("os.posix_fallocate", full)
    with (
        pytest.raises(CacheFullError, match="No space left"),
        cache.holding(unit_of(manifest, 0), common_of(manifest), with_curvature=False),
    ):
        pass
    assert cache.used() == 0


def test_segments_that_cannot_be_had_are_all_named(library: Library, tmp_path: Path) -> None:
    copies = [Path(shutil.copy(each, tmp_path / each.name)) for each in library.segments[:3]]
    collection = Collection(tmp_path / "c.json")
    collection.create()
    manifest = collection.add(*copies)
    copies[0].unlink()
    raw = bytearray(copies[2].read_bytes())
    raw[4100] ^= 1
    copies[2].write_bytes(raw)
    cache = NodeCache(tmp_path / "cache", 1 << 30, copies_all=True)
    with (
        pytest.raises(SegmentsUnreadableError) as caught,
        cache.holding(unit_of(manifest, 0, 1, 2), common_of(manifest), with_curvature=False),
    ):
        pass
    entries = list(manifest.segments)
    assert set(caught.value.reasons) == {entries[0].digest, entries[2].digest}
    assert "no such file" in caught.value.reasons[entries[0].digest]
    assert "checksum" in caught.value.reasons[entries[2].digest]


def test_a_store_that_somebody_asks_is_not_removed(collection: Collection, tmp_path: Path) -> None:
    manifest = collection.manifest()
    cache = NodeCache(tmp_path / "cache", 1 << 30)
    with cache.holding(unit_of(manifest, 0), common_of(manifest), with_curvature=False) as held:
        with (held.path / "writer.lock").open() as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert not cache._remove_idle(held.path)
    assert cache._remove_idle(held.path)


def test_ids_are_found_where_they_live(library: Library, collection: Collection, tmp_path: Path) -> None:
    rows = [json.loads(line)["id"] for line in library.batches[2].with_suffix(".jsonl").read_text().splitlines()]
    manifest = collection.manifest()
    assert among_unit(unit_of(manifest, 2), [rows[5], "nobody", rows[0]]) == (rows[5], rows[0])
    assert among_unit(unit_of(manifest, 0, 1), rows[:3]) == ()
    store = tmp_path / "less.lorif"
    run("copy", library.store, store)
    (tmp_path / "gone.txt").write_text(rows[5] + "\n")
    run("delete", store, "--ids", tmp_path / "gone.txt")
    less = Collection(tmp_path / "less.json")
    less.create()
    entries = located(less.add(store))
    unit = Unit((), tuple(segment for _, segment in entries))
    assert among_unit(unit, [rows[5], rows[0]]) == (rows[0],)


def test_squared_norms_are_those_of_the_program(library: Library, collection: Collection, tmp_path: Path) -> None:
    out = tmp_path / "scores.safetensors"
    run("query", library.store, library.queries, "--method=whitened-dot", f"--output={out}", "--top=0")
    header = json.loads(out.read_bytes()[8 : 8 + int.from_bytes(out.read_bytes()[:8], "little")])
    expected = json.loads(header["__metadata__"]["layer_scales"])
    manifest = collection.manifest()
    sums = squared_norms(unit_of(manifest, *range(7)))
    found = np.cumsum(np.concatenate([sums[row] for row in sorted(sums)]), axis=0)[-1]
    assert found.tolist() == expected


# Merging


def line(query: str, direction: str, rank: int, name: str, score: float, **more: object) -> str:
    return json.dumps(
        {"query": query, "direction": direction, "rank": rank, "id": name, "score": score, **more},
        separators=(",", ":"),
    )


def test_merged_lists_are_by_score_and_then_by_id_in_bytes() -> None:
    parts = [
        "\n".join([line("q", "top", 1, "é", 2.0, metadata=None), line("q", "top", 2, "b", 1.0, metadata=None)]) + "\n",
        "\n".join([line("q", "top", 1, "z", 2.0, metadata=None), line("q", "top", 2, "a", 1.0, metadata=None)]) + "\n",
        line("q", "bottom", 1, "c", -5.0, metadata=None) + "\n",
    ]
    found = [
        json.loads(each)
        for each in merged(
            [part.encode() for part in parts], {(None, "q"): 1.0}, top=3, bottom=1, group_by=None
        ).splitlines()
    ]
    assert [(each["direction"], each["rank"], each["id"]) for each in found] == [
        ("top", 1, "z"),
        ("top", 2, "é"),
        ("top", 3, "a"),
        ("bottom", 1, "c"),
    ]


def test_shares_are_of_all_units() -> None:
    parts = [
        line("q", "top", 1, "a", 2.0, share=0.5, metadata=None),
        line("q", "top", 1, "b", -3.0, share=0.25, metadata={"text": '"share":7,'}),
        line("q", "top", 1, "c", 0.0, share=0.0, metadata=None),
    ]
    # The last unit lists nothing.
    totals = added_totals([{(None, "q"): 3.5}, {(None, "q"): 12.0}, {(None, "q"): 0.0}, {(None, "q"): 0.5}])
    outputs = [*(part.encode() + b"\n" for part in parts), b""]
    text = merged(outputs, totals, top=3, bottom=0, group_by=None)
    found = [json.loads(each) for each in text.splitlines()]
    assert [(each["id"], each["share"]) for each in found] == [("a", 0.125), ("c", 0.0), ("b", 0.1875)]
    assert found[2]["metadata"] == {"text": '"share":7,'}


def test_a_rank_in_an_id_is_left_alone() -> None:
    tricky = line('"rank":7', "top", 4, '{"rank":9}', 1.0, metadata={"text": '"rank":3'})
    (found,) = merged([tricky.encode() + b"\n"], {(None, '"rank":7'): 1.0}, top=1, bottom=0, group_by=None).splitlines()
    assert json.loads(found) == json.loads(tricky) | {"rank": 1}


def test_a_field_called_rank_cuts_a_list_and_changes_nothing() -> None:
    records = [{"rank": 7}, {"rank": 1, "more": 2}, {"rank": 1, "more": 3}]
    parts = [
        "\n".join(
            line("q", "top", place, f"{part}{place}", -part - 10.0 * place, share=0.5, metadata=record)
            for place, record in enumerate(records, 1)
        )
        for part in range(3)
    ]
    text = merged([part.encode() for part in parts], {(None, "q"): 66.0}, top=7, bottom=0, group_by=None)
    assert [json.loads(each)["id"] for each in text.splitlines()] == ["01", "11", "21", "02", "12", "22", "03"]
    assert json.loads(text.splitlines()[-1])["share"] == pytest.approx(30 / 66, abs=1e-5)


def test_answers_come_in_the_order_of_the_queries_whatever_units_list() -> None:
    totals = {(None, "x"): 1.0, (None, "y"): 1.0}
    parts = [line("y", "top", 1, "a", 2.0) + "\n", line("x", "top", 1, "b", 1.0) + "\n"]
    text = merged([part.encode() for part in parts], totals, top=1, bottom=0, group_by=None)
    assert [json.loads(each)["query"] for each in text.splitlines()] == ["x", "y"]


# Limits


def test_limits_are_the_worst_of_full_lists() -> None:
    random = np.random.default_rng(5)
    best = BestScores(3, 2)
    seen: dict[str, list[float]] = {}
    for unit in range(6):
        lines = []
        for query in ('q"score":9,', "é"):
            scores = sorted((float(np.float32(each)) for each in random.standard_normal(unit)), reverse=True)
            for place, score in enumerate(scores[:3], 1):
                lines.append(line(query, "top", place, '"score":7,', score, metadata={"score": 5}))
            for place, score in enumerate(scores[::-1][:2], 1):
                lines.append(line(query, "bottom", place, "b", score, metadata=None))
            seen.setdefault(query, []).extend(scores)
        best.add(("\n".join(lines) + "\n").encode())
        limits = best.limits()
        full = {query: sorted(scores) for query, scores in seen.items()}
        assert limits.least == {query: scores[-3] for query, scores in full.items() if len(scores) >= 3}
        assert limits.greatest == {query: scores[1] for query, scores in full.items() if len(scores) >= 2}


# Scheduling


def test_jobs_wait_for_their_nodes_and_then_go_elsewhere() -> None:
    jobs = [Job(place, 1, frozenset([node])) for place, node in enumerate("aabbb")]
    failed = Job(9, 1, frozenset("a"), failures=[("a", "gone")])
    pending = _Pending()
    for job in (*jobs, failed):
        pending.add(job)

    def take(node: str, free: str, slow: str = "") -> object:
        job = pending.take(
            node,
            may=lambda job: node not in {where for where, _ in job.failures},
            is_free=lambda name: name in free,
            is_without_room=lambda job: not any(each in free for each in job.wanted),
            is_slow=lambda name: name in slow,
        )
        return None if job is None else job.argument

    assert take("a", "ab") == 0
    # While b has room, nobody takes what it wants; then the longest queue gives first.
    assert take("c", "abc") is None
    assert take("c", "c") == 9
    assert [take("c", "c") for _ in range(3)] == [2, 3, None]
    assert [take("c", "c", slow) for slow in ("a", "b")] == [1, 4]
    assert (take("c", "c", "ab"), len(pending), pending.jobs) == (None, 0, [])


# Planning


def big_manifest(shards: int) -> Manifest:
    entries = [
        Shard(
            f"s{place}",
            (SegmentEntry(f"s3://b/{place}.segment", f"{place:032x}", 1 << 28, 0, 0, 1000, 1000 * place, 32),),
        )
        for place in range(shards)
    ]
    return Manifest("s3://b", None, 1, tuple(entries))


def test_units_are_where_the_bytes_are_and_every_row_is_in_one() -> None:
    manifest = big_manifest(100)
    nodes = {name: Node(name, 4.0) for name in ("n1", "n2", "n3")}
    has = frozenset(f"{place:032x}" for place in range(0, 100, 2))
    reports = {name: NodeReport(name, has if name == "n2" else frozenset(), frozenset(), 0) for name in nodes}
    jobs = plan_units(manifest, nodes, reports, Settings(unit_bytes=1 << 30))
    rows = sorted(segment.first_row for job in jobs for segment in job.argument.segments)
    assert rows == [1000 * place for place in range(100)]
    for job in jobs:
        if job.wanted != {"n2"}:
            assert not any(segment.digest in has for segment in job.argument.segments)
        assert job.bytes <= 1 << 30
    again = plan_units(manifest, nodes, reports, Settings(unit_bytes=1 << 30))
    assert [job.argument for job in again] == [job.argument for job in jobs]
    # Without one node the others' segments stay where they are.
    fewer = plan_units(manifest, {name: nodes[name] for name in ("n1", "n2")}, reports, Settings())
    assert {segment.digest for job in fewer if job.wanted == {"n2"} for segment in job.argument.segments} >= has


def test_a_thousand_shards_are_encoded_decoded_and_planned() -> None:
    manifest = big_manifest(1000)
    again = decode(manifest.encoded(), "s3://b/c.json")
    assert replace(again, folder="s3://b") == manifest
    nodes = {f"n{place}": Node(f"n{place}", 8.0) for place in range(50)}
    jobs = plan_units(again, nodes, {}, Settings())
    assert sum(len(job.argument.segments) for job in jobs) == 1000
    loads = [sum(job.bytes for job in jobs if job.wanted == {name}) for name in nodes]
    assert max(loads) <= 1.1 * sum(loads) / len(loads) + (1 << 28)


# The writer of curvature


def test_a_curvature_that_is_written_here_is_read_by_both_readers(
    library: Library, collection: Collection, tmp_path: Path
) -> None:
    manifest = collection.manifest()
    random = np.random.default_rng(3)
    path = tmp_path / "new.curvature"
    groups = []
    with CurvatureWriter(path, manifest.schema or b"") as writer:
        writer.describe(
            rank=4, captured_energy=0.5, generation=7, rows=400, row_digest=manifest.row_digest, algorithm="gram",
            provenance="{}",
        )  # fmt: skip
        for layer, (d1, d2) in enumerate([(8, 6), (5, 7), (6, 6)]):
            count = 0 if layer == 1 else 4
            basis = np.linalg.qr(random.standard_normal((d1 * d2, count)))[0].T.astype(np.float32)
            values = np.arange(count, 0, -1, dtype=np.float64)
            trace = 20.0 if count else 0.0
            groups.append(
                FittedGroup(layer, d1 * d2, trace, values, basis, 1, 0.0, 0.0, False, "gram", "double", "lapack-all")
            )
            writer.append(groups[-1])
        writer.finish(basis_pages([(4, 48)]))
    read = Curvature(path)
    assert (read.row_digest, read.fitted_row_count, read.rank) == (manifest.row_digest, 400, 4)
    for mine, theirs in zip(groups, read.groups, strict=True):
        assert (theirs.basis == mine.basis).all()
        assert (theirs.eigenvalues == mine.eigenvalues).all()
    collection.use_curvature(path)
    cache = NodeCache(tmp_path / "cache", 1 << 30)
    manifest = collection.manifest()
    with cache.holding(unit_of(manifest, 0), common_of(manifest), with_curvature=True) as held:
        assert run("verify", held.path, "--level=deep").startswith("sound")
        run("query", held.path, library.queries)
    assert read_curvature(str(path))[0].row_digest == manifest.row_digest


def test_urls_are_joined_and_made_relative() -> None:
    assert files.joined("/a/b", "c/d") == "/a/b/c/d"
    assert files.joined("s3://x", "y") == "s3://x/y"
    assert files.joined("/a", "s3://x/y") == "s3://x/y"
    assert files.relative("/a/b/c", "/a") == "b/c"
    assert files.relative("/ab/c", "/a") == "/ab/c"
    assert files.local_path("file:///a%20b") == Path("/a b")
    assert files.local_path("s3://x") is None
