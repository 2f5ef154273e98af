"""The report: a page that needs nothing else, says what the store says, and obeys nothing that texts say."""

import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from harness import REFUSED, USAGE, refused, run, write_batch

VOID = {"meta", "link", "br", "hr", "img", "input"}
# Elements that fetch or run something have no place in the page.
FORBIDDEN = {"script", "link", "img", "iframe", "object", "embed", "base", "form", "audio", "video", "source"}
HOSTILE = "</title></style><script>alert(1)</script><img src=x onerror=alert(2)> & \" ' \u202e reversed \x1b[31m \x00"


class Page(HTMLParser):
    """Elements with their attributes, and whether every one that is opened is closed in its place."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert self.open == [], self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, (self.open, tag, self.getpos())
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts.append((self.open[-1], data))

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def text(self) -> str:
        return "".join(data for tag, data in self.texts if tag != "style")


def checked(path: Path) -> Page:
    """The page, which is well formed, fetches nothing, and has names for what it shows."""
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert text.startswith("<!DOCTYPE html>\n")
    tags = [tag for tag, _ in page.elements]
    assert not FORBIDDEN & set(tags)
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name in ("src", "style")], (tag, attributes)
        assert not (attributes.get("href") or "#").removeprefix("#").count(":"), attributes
    assert "url(" not in text and "@import" not in text
    policies = [each["content"] for each in page.named("meta") if each.get("http-equiv")]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'"]
    assert page.named("html") == [{"lang": "en"}]
    assert tags.count("h1") == tags.count("main") == tags.count("title") - svg_titles(text) == 1
    assert tags.count("table") == tags.count("caption")
    identifiers = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    for _, attributes in page.elements:
        for name in ("href", "aria-labelledby", "aria-describedby"):
            for reference in (attributes.get(name) or "").split():
                assert reference.removeprefix("#") in identifiers, reference
    for drawing in re.findall(r"<svg role=.*?</svg>", text, re.DOTALL):
        ET.fromstring(drawing)  # noqa: S314 - our own page
    return page


def svg_titles(text: str) -> int:
    return sum(part.count("<title") for part in re.findall(r"<svg.*?</svg>", text, re.DOTALL))


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("report") / "demo.lorif"
    run("ingest", store, ROOT / "Tools/demo/train.safetensors", "--encoding", "f16")
    run("fit", store, "--rank", 16)
    return store


def test_the_page_says_what_query_says(demo: Path, tmp_path: Path) -> None:
    queries = ROOT / "Tools/demo/query.safetensors"
    path = tmp_path / "report.html"
    said = run("report", demo, queries, "--output", path, "--top", 3, "--bottom", 2)
    assert "24 answers" in said.stdout
    page = checked(path)
    hits = run("query", demo, queries, "--top", 3, "--bottom", 2, "--per-layer", "--format", "jsonl").json_lines()
    groups = run("query", demo, queries, "--group-by", "source", "--format", "jsonl", "--top", 0).json_lines()
    shown = page.text()
    for hit in hits:
        assert hit["id"] in shown
        assert f"{np.float32(hit['score']):+.4g}" in shown
        assert f"{100 * hit['share']:.1f} %" in shown
        for part in hit["layers"].values():
            assert f"{np.float32(part):+.4g}" in shown
    for group in groups:
        assert f"{group['sum']:+.4g}" in shown
    assert "510 examples" in shown and "per-layer curvature" in shown and "exact" in shown
    # Every example is in one bar of the distribution of each query.
    text = path.read_text(encoding="utf-8")
    drawings = re.findall(r'<svg[^>]*"distribution-\d+-t".*?</svg>', text, re.DOTALL)
    assert len(drawings) == 24
    for drawing in drawings:
        counts = [int(count.replace(",", "")) for count in re.findall(r": ([\d,]+) examples</title></rect>", drawing)]
        assert sum(counts) == 510
        assert drawing.count('<path class="helpful"') == 3 and drawing.count('<path class="harmful"') == 2
    assert text.count('"spectrum-drawing-t"') == 2


def test_the_distribution_is_that_of_all_scores(demo: Path, tmp_path: Path) -> None:
    queries = ROOT / "Tools/demo/query.safetensors"
    run("report", demo, queries, "--method", "dot", "--output", tmp_path / "r.html")
    run("query", demo, queries, "--method", "dot", "--output", tmp_path / "scores.npy")
    scores = np.load(tmp_path / "scores.npy").astype(np.float64)
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    drawings = re.findall(r'<svg[^>]*"distribution-\d+-t".*?</svg>', text, re.DOTALL)
    for row, drawing in zip(scores, drawings, strict=True):
        bars = re.findall(r"<title>(\S+) to (\S+): ([\d,]+) examples", drawing)
        for low, high, count in bars:
            # Bounds are printed with four digits; scores that near to one may be on either side.
            slack = 2e-3 * np.abs(row).max()
            inside = ((row >= float(low) + slack) & (row < float(high) - slack)).sum()
            about = ((row >= float(low) - slack) & (row < float(high) + slack)).sum()
            assert inside <= int(count.replace(",", "")) <= about


def test_hostile_texts_stay_texts(random: np.random.Generator, tmp_path: Path) -> None:
    layer = 'l"><script>alert(3)</script>'
    gradients = {layer: tuple(random.standard_normal((6, d, 1)).astype(np.float32) for d in (4, 3))}
    ids = [f"{HOSTILE.replace(chr(0), '')} {row}" for row in range(6)]
    records = [{"id": each, "text": HOSTILE * 9, "source": HOSTILE} for each in ids]
    train = write_batch(tmp_path / "t.safetensors", gradients, ids=ids, records=records)
    store = tmp_path / "<b>store & co.lorif"
    run("ingest", "--encoding", "f32", store, train)
    path = tmp_path / "r.html"
    run("report", store, train, "--method", "dot", "--output", path)
    page = checked(path)
    assert page.text().count("<script>alert(1)</script>") >= 6
    text = path.read_text(encoding="utf-8")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f]", text)
    assert "<script" not in text.replace("&lt;script", "")


def test_other_methods_and_no_queries(demo: Path, tmp_path: Path) -> None:
    queries = ROOT / "Tools/demo/query.safetensors"
    for number, options in enumerate(
        (
            ("--method", "self-influence"),
            ("--by-id", "bible-0090", "--method", "l2"),
            (queries, "--aggregate", "mean", "--aggregate-by", "source"),
            (queries, "--relative-damping", "0.1,10", "--top", 0, "--bottom", 1),
            (queries, "--layers", "attention=*.qkv", "--layers", "*.up", "--group-by", "source"),
        )
    ):
        path = tmp_path / f"{number}.html"
        run("report", demo, *options, "--output", path)
        checked(path)
    assert "λ = " in (tmp_path / "3.html").read_text(encoding="utf-8")
    assert "attention" in (tmp_path / "4.html").read_text(encoding="utf-8")


def test_degenerate_stores(random: np.random.Generator, tmp_path: Path) -> None:
    """One example, all scores zero, no metadata, many layers."""
    layers = {
        f"layer.{place}": (np.zeros((1, 3, 1), np.float32), np.zeros((1, 2, 1), np.float32)) for place in range(90)
    }
    batch = write_batch(tmp_path / "one.safetensors", layers)
    run("ingest", "--encoding", "f32", tmp_path / "one.lorif", batch)
    run("report", tmp_path / "one.lorif", batch, "--method", "dot", "--output", tmp_path / "r.html")
    assert "27 others" in checked(tmp_path / "r.html").text()


def test_bad_arguments(demo: Path, tmp_path: Path) -> None:
    queries = ROOT / "Tools/demo/query.safetensors"
    refused("report", demo, queries, code=USAGE, says=("--output",))
    refused("report", demo, "--output", tmp_path / "r.html", code=USAGE, says=("--by-id",))
    refused(
        "report", demo, queries, "--output", tmp_path / "r.html", "--group-by", "sorce", says=("did you mean 'source'",)
    )
    refused("report", demo, queries, "--output", tmp_path / "no" / "r.html", says=(tmp_path / "no",))
    refused(
        "report", tmp_path / "none", queries, "--output", tmp_path / "r.html", code=REFUSED, says=(tmp_path / "none",)
    )
    assert not (tmp_path / "r.html").exists()


BROWSER = next(
    (found for name in ("chromium", "chromium-headless-shell", "google-chrome") if (found := shutil.which(name))), None
)


@pytest.mark.skipif(BROWSER is None, reason="NO BROWSER: the report is not shown in one; apt-get install chromium")
@pytest.mark.parametrize("width", [360, 1200])
def test_a_browser_shows_it(demo: Path, tmp_path: Path, width: int) -> None:
    """The page lays out without anything wider than the window, and fetches nothing."""
    path = tmp_path / "report.html"
    run("report", demo, ROOT / "Tools/demo/query.safetensors", "--output", path, "--top", 2, "--bottom", 1)
    picture = tmp_path / "report.png"
    done = subprocess.run(
        [
            *(BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"),
            *(f"--window-size={width},900", f"--screenshot={picture}", f"file://{path}"),
        ],
        capture_output=True, timeout=110, check=False, text=True,
    )  # fmt: skip
    assert picture.is_file(), done.stderr
    assert "Refused" not in done.stderr and "violates" not in done.stderr, done.stderr
    probe = tmp_path / "probe.html"
    # What the page measures of itself, by a script that only this copy has.
    script = (
        "<script>document.title = JSON.stringify({wide: document.documentElement.scrollWidth, "
        "headings: document.querySelectorAll('h2').length, bars: [...document.querySelectorAll('rect.bar')]"
        ".filter(e => e.getBoundingClientRect().height > 0).length})</script>"
    )
    text = path.read_text(encoding="utf-8")
    text = re.sub(r"<meta http-equiv=[^>]*>", "", text).replace("</body>", script + "</body>")
    probe.write_text(text, encoding="utf-8")
    dom = subprocess.run(
        [
            *(BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"),
            *(f"--window-size={width},900", "--dump-dom", f"file://{probe}"),
        ],
        capture_output=True, timeout=110, check=False, text=True,
    ).stdout  # fmt: skip
    measured = json.loads(re.search(r"<title>(\{.*?\})</title>", dom)[1])
    assert measured["wide"] <= max(width, 500), measured
    assert measured["headings"] == 24 + 2
    assert measured["bars"] > 24 * 5
