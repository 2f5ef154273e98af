"""The Python client against the program, with the naive oracle beside it."""

import dataclasses
import pickle
import signal
import sys
import threading
import time
from pathlib import Path

import lorif
import lorif.batch
import numpy as np
import oracle
import pytest
from harness import BINARY
from lorif import Factors, Store, Tool

Layers = dict[str, Factors | np.ndarray]
ROWS, ASKED = 30, 4
IDS = [f"row <{row}> & 'é'" for row in range(ROWS)]
RECORDS = [
    {"source": "even" if row % 2 == 0 else "odd", "text": f"<b>text</b>\u2028 & {row}", "score": row}
    for row in range(ROWS)
]


def layers(random: np.random.Generator, rows: int) -> Layers:
    def normal(*shape: int) -> np.ndarray:
        return random.standard_normal((rows, *shape)).astype(np.float32)

    return {"h.2/mlp": Factors(normal(6, 2), normal(5, 2)), "h.10/mlp": Factors(normal(3, 2), normal(4, 2))}


def plain(given: Layers) -> oracle.Rows:
    return oracle.gradients({name: tuple(value) for name, value in given.items()})


@pytest.fixture
def train(random: np.random.Generator) -> Layers:
    return layers(random, ROWS)


@pytest.fixture
def queries(random: np.random.Generator) -> Layers:
    return {name: left @ right.swapaxes(1, 2) for name, (left, right) in layers(random, ASKED).items()}


@pytest.fixture
def store(train: Layers, tmp_path: Path) -> Store:
    store = Store(tmp_path / "a.lorif")
    done = store.ingest(train, ids=IDS, records=RECORDS, encoding="f32")
    assert (done.rows, done.total_rows, done.created_store) == (ROWS, ROWS, True)
    return store


def test_scores_and_rankings_are_those_of_the_oracle(store: Store, train: Layers, queries: Layers) -> None:
    fitted = store.fit(exact=True)
    assert [group.layers for group in fitted.groups] == [("h.2/mlp",), ("h.10/mlp",)]
    asked = {name: value.astype(np.float64) for name, value in queries.items()}
    expected = oracle.influence(plain(train), asked, [[name] for name in train], relative=0.5)
    names = [f"q{row}" for row in range(ASKED)]
    answer = store.query(queries, ids=names, relative_damping=0.5, top=3, bottom=2, scores=True)
    assert answer.scores is not None
    assert answer.scores.shape == (ASKED, ROWS)
    assert answer.example_ids == tuple(IDS)
    assert answer.query_ids == tuple(names)
    assert np.abs(answer.scores - expected).max() <= 1e-4 * np.abs(expected).max()
    for row, ranking in enumerate(answer):
        order = np.argsort(-expected[row])
        assert [hit.id for hit in ranking.top] == [IDS[i] for i in order[:3]]
        assert [hit.id for hit in ranking.bottom] == [IDS[i] for i in order[::-1][:2]]
        assert [hit.rank for hit in ranking.top] == [1, 2, 3]
        assert np.allclose([hit.score for hit in ranking.top], expected[row][order[:3]], rtol=1e-3)
        assert ranking.top[0].metadata == RECORDS[order[0]]
    assert answer["q2"] is answer[2]
    with pytest.raises(KeyError):
        answer["nobody"]


def test_queries_from_a_file_by_layer_method_and_condition(
    store: Store, train: Layers, queries: Layers, tmp_path: Path
) -> None:
    path = tmp_path / "-q.safetensors"
    records = [{"text": f"query {row}"} for row in range(ASKED)]
    lorif.batch.write_batch(path, queries, ids=list("abcd"), records=records)
    answer = store.query(path, method="dot", layers="h.2*", where="source = 'odd'", top=2, scores=True)
    asked = {name: value.astype(np.float64) for name, value in queries.items()}
    expected = oracle.dot(asked, plain(train), ["h.2/mlp"])[:, 1::2]
    assert answer.scores is not None
    assert answer.example_ids == tuple(IDS[1::2])
    assert np.abs(answer.scores - expected).max() <= 1e-4 * np.abs(expected).max()
    assert [ranking.text for ranking in answer] == [f"query {row}" for row in range(ASKED)]
    unnamed = store.query(queries, method="dot", top=1)
    assert unnamed.query_ids == ("0", "1", "2", "3")
    assert unnamed.scores is None


def test_several_dampings(store: Store, train: Layers, queries: Layers) -> None:
    store.fit(exact=True)
    asked = {name: value.astype(np.float64) for name, value in queries.items()}
    names = [f"q{row}" for row in range(ASKED)]
    for kind, values in (("relative", (0.1, 1.0, 10.0)), ("absolute", (0.5, 3.0))):
        given = {"relative_dampings" if kind == "relative" else "dampings": values}
        answers = store.sweep(queries, ids=names, top=2, bottom=1, scores=True, **given)
        assert [answer.relative_damping or answer.damping for answer in answers] == list(values)
        for answer, value in zip(answers, values, strict=True):
            expected = oracle.influence(plain(train), asked, [[name] for name in train], **{kind: value})
            assert answer.scores is not None
            assert answer.example_ids == tuple(IDS)
            assert np.abs(answer.scores - expected).max() <= 1e-4 * np.abs(expected).max()
            for row, ranking in enumerate(answer):
                order = np.argsort(-expected[row])
                assert [hit.id for hit in ranking.top] == [IDS[i] for i in order[:2]]
                assert [hit.id for hit in ranking.bottom] == [IDS[order[-1]]]
    (alone,) = store.sweep(queries, relative_dampings=[0.3], top=1)
    assert alone["0"].top[0] == store.query(queries, relative_damping=0.3, top=1)["0"].top[0]
    assert (alone.relative_damping, alone.damping) == (0.3, None)
    own = store.sweep(method="self-influence", dampings=[1, 2], top=ROWS)
    assert own[0][0].top[0].score > own[1][0].top[0].score
    for wrong in ({}, {"dampings": [1], "relative_dampings": [1]}):
        with pytest.raises(ValueError, match="not both kinds"):
            store.sweep(queries, **wrong)


def test_versions_of_curvature(store: Store, queries: Layers) -> None:
    assert store.versions() == ()
    first = store.fit(rank=2, coordinates="int8")
    second = store.fit(exact=True, scope="global")
    assert {(each.curvature, each.active, each.scope) for each in store.versions()} == {
        (first.curvature, False, "per-layer"),
        (second.curvature, True, "global"),
    }
    store.delete([IDS[0]])
    used = store.use(first.curvature[:10])
    assert (used.curvature, used.active, used.current) == (first.curvature, True, False)
    assert (used.deleted_rows, used.seen_share, used.live_rows, used.fitted_rows) == (1, 1, ROWS - 1, ROWS)
    assert store.inspect().active_curvature == first.curvature
    assert store.drop(second.curvature).curvature == second.curvature
    assert [each.curvature for each in store.versions()] == [first.curvature]
    with pytest.raises(lorif.InputRefusedError, match="nonsense"):
        store.use("nonsense")
    with pytest.raises(lorif.InputRefusedError):
        store.drop(second.curvature)


def test_checkpoints_are_averaged(
    store: Store, train: Layers, queries: Layers, random: np.random.Generator, tmp_path: Path
) -> None:
    later, asked_later = layers(random, ROWS), {name: rows[::-1] for name, rows in queries.items()}
    other = Store(tmp_path / "b.lorif")
    other.ingest(later, ids=IDS, encoding="f32")
    path, names = tmp_path / "later.safetensors", list("abcd")
    lorif.batch.write_batch(path, asked_later, ids=names)
    for each in (store, other):
        each.fit(exact=True)
    unused = other.fit(rank=1)
    chosen = next(each.curvature for each in other.versions() if each.curvature != unused.curvature)
    parts = [
        oracle.influence(
            plain(rows),
            {name: value.astype(np.float64) for name, value in asked.items()},
            [[name] for name in train],
            relative=0.5,
        )
        for rows, asked in ((train, queries), (later, asked_later))
    ]
    checkpoint = lorif.Checkpoint(other.path, path, weight=3, curvature=chosen)
    answer = store.query(queries, ids=names, relative_damping=0.5, scores=True, top=1, checkpoints=[checkpoint])
    expected = (parts[0] + 3 * parts[1]) / 4
    assert answer.scores is not None
    assert answer.query_ids == tuple(names)
    columns = [answer.example_ids.index(name) for name in IDS]
    assert np.abs(answer.scores[:, columns] - expected).max() <= 1e-4 * np.abs(expected).max()
    assert answer["b"].top[0].id == IDS[int(np.argmax(expected[1]))]
    with pytest.raises(ValueError, match="without ','"):
        store.query(queries, checkpoints=[lorif.Checkpoint("a,b", path)])


def test_stored_examples_as_queries(store: Store, train: Layers) -> None:
    rows = oracle.flat(plain(train), list(train))
    answer = store.query(by_id=[IDS[7], IDS[2]], method="l2", top=4, guarantee="none")
    assert answer.query_ids == (IDS[7], IDS[2])
    for ranking, row in zip(answer, (7, 2), strict=True):
        order = np.argsort(np.linalg.norm(rows - rows[row], axis=1))
        assert [hit.id for hit in ranking.top] == [IDS[k] for k in order[:4]]


def test_self_influence_has_one_ranking(store: Store, train: Layers) -> None:
    store.fit(exact=True)
    answer = store.query(method="self-influence", damping=2.0, top=ROWS)
    expected = oracle.self_influence(plain(train), [[name] for name in train], absolute=2.0)
    found = {hit.id: hit.score for hit in answer[0].top}
    assert np.allclose([found[name] for name in IDS], expected, rtol=1e-4)


def test_what_is_stored_comes_back(store: Store, train: Layers, tmp_path: Path) -> None:
    assert len(store) == ROWS
    held = store.inspect()
    assert (held.rows, held.layers, held.encoding, held.active_curvature) == (ROWS, 2, "f32", None)
    assert [dataclasses.astuple(layer) for layer in store.layers()] == [("h.2/mlp", 6, 5, 2), ("h.10/mlp", 3, 4, 2)]
    rows = store.read([IDS[3], IDS[7]])
    assert rows.ids == (IDS[3], IDS[7])
    assert rows.metadata == (RECORDS[3], RECORDS[7])
    for name, (left, right) in train.items():
        stored = rows.layers[name]
        assert np.allclose(stored.left @ stored.right.swapaxes(1, 2), (left @ right.swapaxes(1, 2))[[3, 7]], atol=1e-5)
    example = store.example(IDS[3])
    assert example.metadata == RECORDS[3]
    left, right = train["h.2/mlp"]
    assert example.norms["h.2/mlp"] == pytest.approx(np.linalg.norm(left[3] @ right[3].T), rel=0.01)
    written = store.export(tmp_path / "part.safetensors", where="score < 5")
    assert (written.rows, lorif.FactorBatch(written.output).ids) == (5, IDS[:5])


def test_deleting_and_the_remark_about_it(store: Store, queries: Layers) -> None:
    store.fit()
    gone = store.delete([IDS[0], IDS[1]])
    assert (gone.deleted_rows, gone.rows, len(store)) == (2, ROWS - 2, ROWS - 2)
    assert store.delete(where="source = 'even'").deleted_rows == ROWS // 2 - 1
    assert store.delete(["nobody"], ignore_missing=True).missing == ("nobody",)
    with pytest.warns(lorif.RemarkWarning, match="the curvature was fitted on 30 rows") as caught:
        answer = store.query(queries, top=ROWS)
    assert caught[0].filename == __file__
    assert {hit.metadata["source"] for hit in answer[0].top} == {"odd"}
    with pytest.raises(TypeError, match="sequence of ids"):
        store.delete(IDS[2])


def test_creating_with_layers(train: Layers, tmp_path: Path) -> None:
    store = Store.create(tmp_path / "new.lorif", train, encoding="int8")
    assert [layer.name for layer in store.layers()] == list(train)
    with pytest.raises(lorif.InputRefusedError, match="exists already"):
        Store.create(store.path)
    store.ingest(train)
    again = store.ingest(train, ids=[f"x{row}" for row in range(ROWS)])
    assert (again.rows, again.created_store, len(Store.open(store.path))) == (ROWS, False, 2 * ROWS)


def whitened(rows: oracle.Rows, sample: oracle.Rows, epsilon: float) -> oracle.Rows:
    """W1 G W2 with the maps of Formats/basis.md, by eigenvectors in float64."""

    def power(moment: np.ndarray) -> np.ndarray:
        values, vectors = np.linalg.eigh(moment + epsilon * np.trace(moment) / len(moment) * np.eye(len(moment)))
        return (vectors / np.sqrt(values)) @ vectors.T

    result = {}
    for name, G in rows.items():
        given = sample[name]
        left = np.einsum("nab,ncb->ac", given, given) / len(given)
        right = np.einsum("nab,nac->bc", given, given) / len(given)
        result[name] = np.sqrt(np.trace(left)) * power(left) @ G @ power(right)
    return result


def test_a_whitened_store(train: Layers, queries: Layers, tmp_path: Path) -> None:
    given = plain(train)
    asked = {name: value.astype(np.float64) for name, value in queries.items()}
    sample = tmp_path / "sample.safetensors"
    lorif.batch.write_batch(sample, {name: rows.astype(np.float32) for name, rows in given.items()})
    white = Store.create(tmp_path / "white.lorif", whiten_from=sample, epsilon=0.2, encoding="f32")
    white.ingest(sample)
    stored = white.read()
    assert stored.basis is not None
    expected = whitened(given, given, 0.2)
    for name, rows in expected.items():
        assert np.abs(stored.layers[name] - rows).max() <= 1e-5 * np.abs(rows).max()
    scores = white.query(queries, method="dot", scores=True).scores
    wanted = oracle.dot(whitened(asked, given, 0.2), expected, list(given))
    assert scores is not None
    assert np.abs(scores - wanted).max() <= 1e-4 * np.abs(wanted).max()
    again = Store.create(tmp_path / "again.lorif", sample, basis_from=white.path, rank="h.2*=2,*=1", encoding="f32")
    assert [layer.rank for layer in again.layers()] == [2, 1]
    with pytest.warns(lorif.RemarkWarning, match="captures only"):
        fitted = white.fit(rank=3, algorithm="krylov", passes=4, seed=5, threads=1, memory="256MiB")
    assert [group.rank for group in fitted.groups] == [3, 3]


def test_damage_is_an_answer_or_an_exception(store: Store) -> None:
    assert store.verify(level="deep", check=True).sound
    (segment,) = (store.path / "segments").glob("*.segment")
    content = bytearray(segment.read_bytes())
    content[len(content) // 3] ^= 1
    segment.chmod(0o644)
    segment.write_bytes(content)
    found = store.verify()
    assert not found
    assert "damaged" in found.damages[0]
    with pytest.raises(lorif.NegativeAnswerError, match="damaged") as raised:
        store.verify(check=True)
    assert raised.value.code == 1


def test_exit_codes_become_exceptions(store: Store, queries: Layers, tmp_path: Path) -> None:
    with pytest.raises(lorif.InputRefusedError, match="needs curvature") as raised:
        store.query(queries)
    assert raised.value.code == 3
    with pytest.raises(lorif.InputRefusedError, match="there is no store"):
        Store.open(tmp_path / "nowhere")
    assert len(store) == ROWS
    with pytest.raises(lorif.WrongUsageError):
        store.query(queries, method="magic")  # type: ignore[arg-type]
    with pytest.raises(lorif.InputRefusedError, match="no example has a field 'sauce'"):
        store.query(queries, method="dot", where="sauce = 'x'")
    with pytest.raises(lorif.InputRefusedError):
        store.ingest(queries | {"other": np.ones((ASKED, 2, 2))}, ids=list("abcd"))
    with pytest.raises(lorif.BatchError, match="expected 4 ids"):
        store.ingest(queries, ids=["a"])
    with pytest.raises(lorif.BatchError, match="finite"):
        store.ingest({"h.2/mlp": np.full((1, 6, 5), np.nan)})
    with pytest.raises(ValueError, match="arrays only"):
        store.ingest(tmp_path / "x.safetensors", ids=["a"])
    with pytest.raises(ValueError, match="one mapping"):
        store.ingest(queries, queries)
    (store.path / "segments").rename(store.path / "gone")
    with pytest.raises(lorif.StoreDamagedError):
        store.query(queries, method="dot")
    copied = pickle.loads(pickle.dumps(raised.value))  # noqa: S301 - as multiprocessing does
    assert (type(copied), str(copied), copied.code) == (lorif.InputRefusedError, str(raised.value), 3)


def test_tables_are_escaped_and_cut(store: Store, queries: Layers, tmp_path: Path) -> None:
    answer = store.query(queries, ids=["<q>", "b", "c", "d"], method="dot", top=2, bottom=1)
    page = answer._repr_html_()
    assert page.count("<tr>") == 1 + ASKED * (1 + 3)
    assert "&lt;b&gt;text&lt;/b&gt; &amp;" in page
    assert "&lt;q&gt;" in page
    assert "<b>" not in page
    assert "<q>" not in page
    alone = answer["b"]._repr_html_()
    assert alone.count("<tr>") == 1 + 1 + 3
    assert alone.removesuffix("</tbody></table>").partition("<tbody>")[2] in page
    assert repr(answer).startswith("Answer(dot, 4 queries)\n  <q>: ")
    assert repr(store) == f"Store({str(store.path)!r})"
    assert f"<td>{ROWS}</td>" in store._repr_html_()
    assert "there is no store" in Store(tmp_path / "<none>")._repr_html_()
    assert "<none>" not in Store(tmp_path / "<none>")._repr_html_()


def test_data_frames(store: Store, queries: Layers, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = store.query(queries, method="dot", top=2, bottom=1)
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "pandas", None)
        with pytest.raises(ImportError, match=r"pip install 'lorif\[pandas\]'"):
            answer.to_pandas()
    pytest.importorskip("pandas", reason="pandas is not installed; to_pandas stays UNTESTED")
    table = answer.to_pandas()
    assert len(table) == ASKED * 3
    expected = ["query", "direction", "rank", "id", "score", "source", "text", "metadata.score"]
    assert list(table.columns) == expected
    assert list(table[table["query"] == "1"]["id"]) == [hit.id for hit in answer["1"].top + answer["1"].bottom]
    assert list(store.query(queries, method="dot", top=0).to_pandas().columns) == expected[:5]


def test_an_interruption_stops_the_program(tmp_path: Path) -> None:
    """A program that never ends by itself is told to stop, and the interruption goes on."""
    mark = tmp_path / "stopped"
    slow = tmp_path / "lorif"
    slow.write_text(
        f"#!/bin/bash\nif [[ $1 == --version ]]; then exec {BINARY!r} --version; fi\n"
        f"trap 'echo yes >{mark}; kill $child; exit 130' TERM\ntouch {tmp_path}/begun\nsleep 600 &\nchild=$!\nwait\n"
    )
    slow.chmod(0o755)
    store = Store(tmp_path / "s", tool=slow)

    def interrupt() -> None:
        while not (tmp_path / "begun").exists():
            time.sleep(0.01)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    helper = threading.Thread(target=interrupt)
    # Started in the background, as some runners do, Python ignores SIGINT.
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        helper.start()
        with pytest.raises(KeyboardInterrupt):
            store.fit()
    finally:
        signal.signal(signal.SIGINT, previous)
    helper.join()
    assert mark.read_text() == "yes\n"


def test_the_program_is_found_and_its_version_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Tool().path == str(Path(BINARY).resolve())
    assert Tool().version.split(".")[:2] == lorif.__version__.split(".")[:2]
    assert Store(tmp_path / "s", tool=BINARY).tool.path == Tool().path
    fake = tmp_path / "bin" / "lorif"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho 7.0.0\n")
    fake.chmod(0o755)
    monkeypatch.delenv("LORIF_BIN")
    monkeypatch.setenv("PATH", f"{fake.parent}:/usr/bin:/bin")
    with pytest.raises(lorif.EnvironmentFailedError, match=r"expected lorif 0\.\d+, .* found 7\.0\.0"):
        Tool()
    fake.write_text("#!/bin/sh\necho hello\n")
    with pytest.raises(lorif.EnvironmentFailedError, match="is not the program lorif"):
        Tool()
    fake.unlink()
    fake.symlink_to(BINARY)
    assert Tool().path == str(Path(BINARY).resolve())
    with pytest.raises(lorif.EnvironmentFailedError, match=r"no program lorif at .*nothing"):
        Tool(tmp_path / "nothing")
    fake.unlink()
    monkeypatch.setattr("lorif.tool._built", lambda: None)
    with pytest.raises(lorif.EnvironmentFailedError, match="LORIF_BIN"):
        Tool()
