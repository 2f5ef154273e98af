"""The report: a page that needs nothing else, says what the store says, and obeys nothing that texts say."""

import re
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from browser import PROGRAM, Browser
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


# Of every text that can be seen: the contrast of its colour with what is behind it, by WCAG.
CONTRASTS = """(() => {
  const light = c => c.map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const parts = c => (c.match(/[\\d.]+/g) || []).map(Number);
  const behind = e => { for (; e; e = e.parentElement) { const c = parts(getComputedStyle(e).backgroundColor);
    if (c.length == 3 || c[3] == 1) return c.slice(0, 3); } return [255, 255, 255]; };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; node = walker.nextNode();) {
    const e = node.parentElement;
    if (!node.data.trim() || !e.getClientRects().length || e.closest('svg, title, style')) continue;
    const [a, b] = [light(parts(getComputedStyle(e).color).slice(0, 3)), light(behind(e))];
    found.push([(Math.max(a, b) + .05) / (Math.min(a, b) + .05), node.data.trim().slice(0, 40)]);
  }
  return found;
})()"""


@pytest.fixture(scope="module")
def shown(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Browser, Path]]:
    if PROGRAM is None:
        pytest.skip("NO BROWSER: how reports look stays UNTESTED; Tools/setup --browser installs one")
    folder = tmp_path_factory.mktemp("browser")
    path = folder / "report.html"
    # The page names the file: a name without a place to break must not widen it.
    queries = shutil.copy(ROOT / "Tools/demo/query.safetensors", folder / f"{'a_long_name_' * 8}.safetensors")
    run("report", demo, queries, "--output", path, "--top", 2, "--bottom", 1)
    with Browser(folder / "profile") as browser:
        yield browser, path


def background(browser: Browser) -> int:
    """Brightness of the page's ground, from 0 to 255."""
    colour = browser.value("getComputedStyle(document.documentElement).backgroundColor")
    if colour == "rgba(0, 0, 0, 0)":
        colour = browser.value("getComputedStyle(document.body).backgroundColor")
    return sum(int(part) for part in re.findall(r"\d+", colour)[:3]) // 3


@pytest.mark.parametrize("width", [360, 1200])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_shows_it(shown: tuple[Browser, Path], width: int, scheme: str) -> None:
    """Nothing is wider than the window, everything can be read, and nothing is fetched or complained about."""
    browser, path = shown
    browser.open(path, width=width, scheme=scheme)
    assert browser.value("innerWidth") == width
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.value("document.querySelectorAll('h2').length") == 24 + 2
    heights = browser.value("[...document.querySelectorAll('rect.bar')].map(e => e.getBoundingClientRect().height)")
    assert sum(height > 0 for height in heights) > 24 * 5
    assert background(browser) > 230 if scheme == "light" else background(browser) < 40
    contrasts = browser.value(CONTRASTS)
    assert len(contrasts) > 24 * 20
    assert [each for each in contrasts if each[0] < 4.5] == []
    browser.picture(path.with_name(f"{scheme}-{width}.png"))
    assert path.with_name(f"{scheme}-{width}.png").stat().st_size > 20_000
    assert browser.requests == [f"file://{path}"]
    assert browser.complaints == []


def test_it_prints(shown: tuple[Browser, Path]) -> None:
    """Black on white whatever the screen, an answer to a page, without what only a screen can use."""
    browser, path = shown
    browser.open(path, width=1200, scheme="dark", medium="print")
    assert background(browser) == 255
    assert browser.value("document.querySelectorAll('nav').length") > 0
    assert browser.value("[...document.querySelectorAll('nav')].every(e => !e.getClientRects().length)")
    assert [each for each in browser.value(CONTRASTS) if each[0] < 4.5] == []
    pages = browser.printed()
    assert pages.startswith(b"%PDF-") and len(re.findall(rb"/Type\s*/Page\b", pages)) >= 24
    assert browser.complaints == []
