"""Man pages from what the program says of itself: one for `lorif` and one for each command.

    lorif --experimental-dump-help | python3 Tools/packaging/manual.py FOLDER RELEASE

Needs nothing but Python's standard library.
"""

import json
import re
import sys
from pathlib import Path


def roff(text: str) -> str:
    """Text in which nothing is a request: backslashes, dashes and dots at the beginning of a line."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^([.'])", r"\\&\1", text, flags=re.M)


def paragraphs(text: str) -> list[str]:
    """Paragraphs filled, examples (indented lines) as they are."""
    lines = []
    for block in text.split("\n\n"):
        if block.startswith("  "):
            lines += [".PP", ".nf", ".RS 4", *(roff(line.strip()) for line in block.splitlines()), ".RE", ".fi"]
        else:
            lines += [".PP", roff(block)]
    return lines


def forms(argument: dict) -> str:
    """How an option is given: `-h, --help`, `--top <top>`."""
    names = [("-" if name["kind"] == "short" else "--") + name["name"] for name in argument["names"]]
    value = f" <{argument['valueName']}>" if argument["kind"] == "option" else ""
    return ", ".join(name + value for name in names)


def synopsis(name: str, arguments: list[dict]) -> str:
    """The command line: options, then what has a place."""
    words = [f"\\fB{roff(name)}\\fR"]
    for argument in arguments:
        if argument["kind"] == "positional":
            word = f"\\fI{roff(argument['valueName'])}\\fR" + (" ..." if argument["isRepeating"] else "")
            words.append(f"[{word}]" if argument["isOptional"] else word)
    return " ".join([words[0], "[\\fIoptions\\fR]", *words[1:]])


def page(command: dict, name: str, release: str) -> str:
    """One command's page."""
    arguments = [each for each in command.get("arguments", []) if each["shouldDisplay"]]
    title = name.replace(" ", "-")
    lines = [
        f'.TH {title.upper()} 1 "" "lorif {release}" "lorif"', ".SH NAME",
        f"{roff(title)} \\- {roff(command['abstract'])}", ".SH SYNOPSIS", synopsis(name, arguments),
    ]  # fmt: skip
    if command.get("discussion"):
        lines += [".SH DESCRIPTION", *paragraphs(command["discussion"])]
    for heading, kinds in (("ARGUMENTS", ("positional",)), ("OPTIONS", ("option", "flag"))):
        chosen = [each for each in arguments if each["kind"] in kinds]
        if not chosen:
            continue
        lines.append(f".SH {heading}")
        for argument in chosen:
            shown = argument["valueName"] if argument["kind"] == "positional" else forms(argument)
            default = f" (default: {argument['defaultValue']})" if argument.get("defaultValue") else ""
            lines += [".TP", f"\\fB{roff(shown)}\\fR", roff(argument.get("abstract", "") + default)]
    below = [each for each in command.get("subcommands", []) if each["shouldDisplay"] and each["commandName"] != "help"]
    if below:
        lines.append(".SH COMMANDS")
        for each in below:
            lines += [".TP", f"\\fB{roff(title)}\\-{roff(each['commandName'])}\\fR(1)", roff(each["abstract"])]
    if name != "lorif":
        lines += [".SH SEE ALSO", "\\fBlorif\\fR(1)"]
    return "\n".join(lines) + "\n"


def write_pages(command: dict, name: str, release: str, folder: Path) -> None:
    """The page of a command, and those of its subcommands."""
    (folder / f"{name.replace(' ', '-')}.1").write_text(page(command, name, release), encoding="utf-8")
    for each in command.get("subcommands", []):
        if each["shouldDisplay"] and each["commandName"] != "help":
            write_pages(each, f"{name} {each['commandName']}", release, folder)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: lorif --experimental-dump-help | manual.py FOLDER RELEASE")
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    write_pages(json.load(sys.stdin)["command"], "lorif", sys.argv[2], target)
