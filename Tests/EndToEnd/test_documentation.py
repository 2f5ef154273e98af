"""What the documentation names is there: every command with its options, every name of the Python package."""

import ast
import re
import shlex
from functools import cache
from pathlib import Path

import pytest
from conftest import ROOT
from harness import run

PAGES = sorted(
    path
    for pattern in ("*.md", "Formats/*.md", "Tools/**/*.md", "Sources/**/*.md")
    for path in ROOT.glob(pattern)
    if not {part for part in path.relative_to(ROOT).parts if part.startswith(".")} | ({"corpora"} & set(path.parts))
)
PACKAGE = ROOT / "Tools/python/src"


@cache
def commands() -> dict[str, set[str]]:
    """The options of every command, by its name; of those with commands of their own, by both."""
    found = {}
    for line in run("--help").stdout.split("SUBCOMMANDS:")[1].splitlines():
        name = line.strip().split(" ")[0]
        if not re.fullmatch(r"  \S.*", line) or not re.fullmatch(r"[a-z]+", name):
            continue
        if name in ("import", "collection", "help"):
            # Another program's: its own tests look at it.
            found[name] = {"*"}
            continue
        text = run(name, "--help").stdout
        found[name] = set(re.findall(r"--[a-z][a-z0-9-]*", text))
        for inner in (
            re.findall(r"^  ([a-z]+) ", text.split("SUBCOMMANDS:")[1], re.MULTILINE) if "SUBCOMMANDS" in text else ()
        ):
            found[name] |= set(re.findall(r"--[a-z][a-z0-9-]*", run(name, inner, "--help").stdout))
    return found


def named_commands(text: str) -> list[list[str]]:
    """The words of every command in code, with its continuations; comments and what is after a pipe are left out."""
    code = re.findall(r"^```[a-z]*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line.strip().removeprefix("$ ") for block in code for line in block.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"(?<!`)`(lorif [^`]+)`(?!`)", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))
    found = []
    for line in lines:
        # More spaces are those of a table.
        if not re.match(r"lorif \S", line):
            continue
        try:
            words = shlex.split(line.split(" | ")[0], comments=True)
        except ValueError:
            # An elision in the middle of a quoted word.
            words = line.split(" | ")[0].split()
        found.append(words[1:])
    return found


@pytest.mark.parametrize("page", PAGES, ids=[str(path.relative_to(ROOT)) for path in PAGES])
def test_commands_and_options_are_there(page: Path) -> None:
    for words in named_commands(page.read_text(encoding="utf-8")):
        name = words[0]
        if name.startswith("-") or not re.fullmatch(r"[a-z]+", name):
            assert name in ("--help", "--version", "…", "COMMAND", "<command>"), words
            continue
        assert name in commands(), words
        if "*" in commands()[name]:
            continue
        for word in words[1:]:
            if word.startswith("--") and len(word) > 2:
                option = re.match(r"--[a-z0-9-]+", word)
                assert option is not None, words
                assert option.group() in commands()[name], words


def defined(module: Path) -> set[str]:
    """The names at the top of a module: defined, assigned or imported."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {(each.asname or each.name).split(".")[0] for each in node.names}
    return found


def is_there(name: str) -> bool:
    """Whether a dotted name leads to a module, or to something at the top of one, whose own names are not seen."""
    place, names = PACKAGE / "lorif", name.split(".")[1:]
    while names:
        if (place / names[0]).is_dir():
            place = place / names.pop(0)
        elif (place / f"{names[0]}.py").is_file():
            module = place / f"{names.pop(0)}.py"
            return not names or names[0] in defined(module)
        else:
            return names[0] in defined(place / "__init__.py")
    return True


#: Files, keys of metadata and the like, which look like names of the package.
OTHERS = re.compile(r"lorif\.(batch|store|projections?|provenance|record|tensors?)\b$|lorif\.\w+/|lorif\.[a-z]+_")


@pytest.mark.parametrize("page", PAGES, ids=[str(path.relative_to(ROOT)) for path in PAGES])
def test_names_of_the_package_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    code = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE) + re.findall(r"`([^`\n]+)`", text)
    for piece in code:
        for name in re.findall(r"(?<![\w./-])lorif(?:\.[A-Za-z_]\w*)+", piece):
            assert OTHERS.search(name) or is_there(name), name


def test_links_of_all_pages_lead_somewhere() -> None:
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        if "://" not in target and not target.startswith("mailto:") and not (page.parent / target).exists()
    ]
    assert broken == []
