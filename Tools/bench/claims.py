"""The README's figures are those of the committed results: checks them, or writes them.

A block between `<!-- generated: NAME from FILE … -->` and `<!-- end of generated -->` is what the renderer NAME of
rendered.py makes of the files. `--check` fails on any other character, `--write` replaces what is there.
"""

import argparse
import difflib
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from rendered import RENDERERS

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md",)
BLOCK = re.compile(r"^<!-- generated: ([\w-]+) from (\S+(?: \S+)*) -->\n(.*?)^<!-- end of generated -->$", re.M | re.S)
MARK = re.compile(r"^<!-- (?:generated|end of generated)", re.M)
EXAMPLE = """\
examples:
  python Tools/bench/claims.py --check
  python Tools/bench/claims.py --write

Exit code 1: a block differs from its files.
"""


class ClaimError(Exception):
    """A block that cannot be made."""


def rendered(name: str, paths: Sequence[str], root: Path) -> str:
    """What a block has to say."""
    if name not in RENDERERS:
        raise ClaimError(f"expected one of {', '.join(sorted(RENDERERS))}, found '{name}'")
    missing = [path for path in paths if not (root / path).is_file()]
    if missing:
        raise ClaimError(f"{name}: no such file: {', '.join(missing)}")
    try:
        text = RENDERERS[name](*((root / path).read_text(encoding="utf-8") for path in paths))
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ClaimError(f"{name}: {', '.join(paths)}: cannot be rendered: {error!r}") from error
    # Markdown's tables want empty lines around them.
    return f"\n{text.rstrip()}\n\n"


def brought_up(text: str, root: Path) -> str:
    """The page with every block as its files have it."""
    if len(MARK.findall(text)) != 2 * len(BLOCK.findall(text)):
        raise ClaimError("a `<!-- generated: NAME from FILE -->` without its `<!-- end of generated -->`")

    def block(found: re.Match[str]) -> str:
        name, paths, _ = found.groups()
        return (
            f"<!-- generated: {name} from {paths} -->\n{rendered(name, paths.split(), root)}<!-- end of generated -->"
        )

    return BLOCK.sub(block, text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="claims.py", description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--check", action="store_true", help="say what differs, change nothing")
    which.add_argument("--write", action="store_true", help="replace what differs")
    parser.add_argument("--root", type=Path, default=ROOT, help="of the repository")
    options = parser.parse_args(arguments)
    code = 0
    for page in PAGES:
        path = options.root / page
        try:
            text = path.read_text(encoding="utf-8")
            wanted = brought_up(text, options.root)
        except (OSError, ClaimError) as error:
            print(f"claims.py: {page}: {error}", file=sys.stderr)
            return 5
        if wanted == text:
            continue
        if options.write:
            path.write_text(wanted, encoding="utf-8")
            print(f"{page}: written")
        else:
            lines = difflib.unified_diff(text.splitlines(), wanted.splitlines(), page, "the results", "", "", 0, "")
            print("\n".join(lines), "claims.py: Tools/bench/claims.py --write brings it up to date", sep="\n")
            code = 1
    return code


if __name__ == "__main__":
    sys.exit(main())
