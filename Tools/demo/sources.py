"""The demo's texts: three public-domain sources, from Debian packages, as lists of passages.

A passage is a list of sentences that follow each other: the verses of a chapter, an entry of a dictionary, the
sentences of a page. Packages are fetched by `apt-get download` and unpacked in a folder; nothing is installed.
"""

import gzip
import re
import subprocess
import unicodedata
from html.parser import HTMLParser
from pathlib import Path

__all__ = ["PREFIXES", "SOURCES", "passages"]

#: Name of a source → the Debian packages that it comes from.
PACKAGES = {
    "King James Bible": ("bible-kjv", "bible-kjv-text"),
    "Jargon File": ("dict-jargon",),
    "SQLite documentation": ("sqlite3-doc",),
}
SOURCES = tuple(PACKAGES)
#: What the ids of a source begin with.
PREFIXES = {"King James Bible": "bible", "Jargon File": "jargon", "SQLite documentation": "sqlite"}

# Entries with such words are left out: the set is shown to everybody who tries the program.
_COARSE = re.compile(
    r"fuck|shit|bitch|bastard|piss|cunt|whore|harlot|slut|rape|penis|vagina|masturbat|sexual|erotic|porn|nazi|hitler"
    r"|\bsex\b|\bass\b|\bcrap|\bscrew|\btits?\b|nigg|\bdung\b",
    re.IGNORECASE,
)
# Pages of lists, numbers and links, without sentences.
_NOT_PROSE = re.compile(r"crossref|requirements|keyword_index|changes|releaselog|chronology|hlr|toc_|news|matrix")


def passages(source: str, folder: Path) -> list[list[str]]:
    """The passages of a source, in a fixed order; fetches its packages into `folder` unless they are there."""
    places = [_unpacked(package, folder) for package in PACKAGES[source]]
    read = {"King James Bible": _bible, "Jargon File": _jargon, "SQLite documentation": _sqlite}[source]
    cleaned = [[_plain(sentence) for sentence in passage] for passage in read(*places)]
    return [passage for passage in cleaned if passage and not _COARSE.search(" ".join(passage))]


def _unpacked(package: str, folder: Path) -> Path:
    target = folder.resolve() / package
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        if not any(target.parent.glob(f"{package}_*.deb")):
            subprocess.run(["apt-get", "download", "-q", package], cwd=target.parent, check=True)  # noqa: S607
        (archive,) = target.parent.glob(f"{package}_*.deb")
        subprocess.run(["dpkg-deb", "-x", archive, target], check=True)  # noqa: S607
    return target


def _plain(text: str) -> str:
    """ASCII on one line."""
    for sign, plain in {"“": '"', "”": '"', "‘": "'", "’": "'", "–": "-", "—": "-", "…": "..."}.items():
        text = text.replace(sign, plain)
    folded = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return " ".join(folded.split())


def _sentences(text: str) -> list[str]:
    """Cut where a sentence seems to end; what is wrongly cut or not cut does no harm."""
    return re.split(r"(?<=[.!?])\s+(?=[A-Z(\[\"])", text)


def _bible(program: Path, data: Path) -> list[list[str]]:
    """Chapters of verses, as the package's own program prints them: "Ge1:1 In the beginning …"."""
    command = [program / "usr/bin/bible", "-f", "-p", data / "usr/lib", "gen1:1-rev22:21"]
    printed = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True, text=True).stdout
    chapters: dict[str, list[str]] = {}
    for line in printed.splitlines():
        place, _, verse = line.partition(" ")
        chapters.setdefault(place.split(":")[0], []).append(verse)
    return list(chapters.values())


def _jargon(place: Path) -> list[list[str]]:
    """Entries: a headword at the margin, what it means in indented lines below."""
    text = gzip.decompress((place / "usr/share/dictd/jargon.dict.dz").read_bytes()).decode("utf-8")
    entries = re.split(r"\n\n(?=\S)", text)
    found = []
    for entry in entries[8:]:  # after the packager's headers
        head, _, body = entry.partition("\n")
        if len(body) > 200:
            explained = re.sub(r"\{\s*([^}]*)\}", r"\1", body)
            found.append(_sentences(f"{head.strip()}: {explained.partition(chr(10))[2]}"))
    return found


class _Paragraphs(HTMLParser):
    """The text of the <p> elements of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._text: list[str] | None = None

    def handle_starttag(self, tag: str, attrs: object) -> None:
        """A block ends the paragraph before it."""
        if tag in ("p", "div", "table", "ul", "ol", "pre", "blockquote", "h1", "h2", "h3"):
            self._end()
            self._text = [] if tag == "p" else None

    def handle_endtag(self, tag: str) -> None:
        """The end of a paragraph."""
        if tag in ("p", "div", "body"):
            self._end()

    def handle_data(self, data: str) -> None:
        """Text counts within a paragraph."""
        if self._text is not None:
            self._text.append(data)

    def _end(self) -> None:
        text = " ".join("".join(self._text or []).split())
        if len(text) > 80 and text[-1] in ".!?":
            self.found.append(text)
        self._text = None


def _sqlite(place: Path) -> list[list[str]]:
    """Pages of paragraphs; a paragraph that several pages have counts once."""
    seen: set[str] = set()
    found = []
    for path in sorted((place / "usr/share/doc/sqlite3").rglob("*.html")):
        if not _NOT_PROSE.search(path.name):
            page = _Paragraphs()
            page.feed(path.read_text(encoding="utf-8", errors="replace"))
            found.append([sentence for text in page.found if text not in seen for sentence in _sentences(text)])
            seen.update(page.found)
    return found
