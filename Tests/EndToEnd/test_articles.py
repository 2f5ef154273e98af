"""Every command of the library's articles, run as it is printed."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT
from harness import BINARY, TIMEOUT

ARTICLES = ROOT / "Sources" / "Engine" / "Documentation.docc"


@pytest.mark.parametrize("name", sorted(path.stem for path in ARTICLES.glob("*.md")))
def test_the_commands_of_an_article(name: str, tmp_path: Path) -> None:
    text = (ARTICLES / f"{name}.md").read_text(encoding="utf-8")
    (tmp_path / "Tools").symlink_to(ROOT / "Tools")
    for block in re.findall(r"^```sh\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        for line in block.splitlines():
            program, *arguments = shlex.split(line, comments=True)
            assert program == "lorif"
            done = subprocess.run(
                [BINARY, *arguments], cwd=tmp_path, capture_output=True, timeout=TIMEOUT, check=False, text=True
            )
            assert done.returncode == 0, f"$ {line}\n{done.stdout}{done.stderr}"


def test_every_article_is_linked_and_every_link_leads_somewhere() -> None:
    texts = {path.stem: path.read_text(encoding="utf-8") for path in ARTICLES.glob("*.md")}
    named = set(re.findall(r"<doc:(\w+)>", texts["Engine"]))
    assert named == set(texts) - {"Engine"}
    for text in texts.values():
        assert set(re.findall(r"<doc:(\w+)>", text)) <= set(texts)
