"""The peers' own Python environment: made once from exact pins, with a word on what does not install."""

import hashlib
import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

# A package of the requirements, and what must be importable for its contenders to take part.
PEERS = {
    "bergson": "bergson.query.attributor",
    "dattri": "dattri.algorithm.logra",
    "faiss-cpu": "faiss",
    "logix-ai": "logix.analysis.influence_function",
    "traker": "trak.score_computers",
}
STAMP = "peers.json"


@dataclass(frozen=True)
class Package:
    """One pinned package.

    Attributes:
        name: As on PyPI.
        version: The pin.
        failure: Why it cannot be used; empty if it can.
    """

    name: str
    version: str
    failure: str = ""


def pins(text: str) -> dict[str, str]:
    """Name and version of every line `name==version` of a requirements file."""
    found = {}
    for number, line in enumerate(text.splitlines(), 1):
        content = line.split("#", 1)[0].strip()
        if not content:
            continue
        name, separator, version = content.partition("==")
        if not separator or not version:
            raise ValueError(f"line {number}: expected name==version, found {content!r}")
        found[name.strip().lower()] = version.strip()
    return found


def last_words(text: str) -> str:
    """The last line that says something, short enough for a table."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:160].replace("|", "/") if lines else "no message"


def _install(python: Path, requirements: list[str]) -> str:
    """Installs pins without what they ask for themselves; the reason if it fails."""
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--ignore-requires-python"]
    outcome = subprocess.run(
        [python, "-m", "pip", "install", *options, *requirements], capture_output=True, text=True, check=False
    )
    return last_words(outcome.stderr) if outcome.returncode else ""


def _import(python: Path, module: str) -> str:
    """Imports a module in a process of its own; the reason if it fails."""
    outcome = subprocess.run([python, "-c", f"import {module}"], capture_output=True, text=True, check=False)
    return f"installed, but: {last_words(outcome.stderr)}" if outcome.returncode else ""


def prepare(folder: Path, requirements: Path) -> tuple[Path, list[Package]]:
    """The interpreter of the environment in a folder, made unless it is there, and how each peer fared."""
    text = requirements.read_text(encoding="utf-8")
    wanted = hashlib.sha256(f"{sys.version} {folder.resolve()} {text}".encode()).hexdigest()
    python, stamp = folder / "bin" / "python", folder / STAMP
    if stamp.exists():
        known = json.loads(stamp.read_text(encoding="utf-8"))
        if known["digest"] == wanted:
            return python, [Package(**entry) for entry in known["packages"]]
    print(f"installing the peers into {folder}", file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
    versions = pins(text)
    failure = _install(python, [f"{name}=={version}" for name, version in versions.items() if name not in PEERS])
    if failure:
        raise RuntimeError(f"what all peers need cannot be installed: {failure}")
    packages = []
    for name, module in PEERS.items():
        reason = _install(python, [f"{name}=={versions[name]}"]) or _import(python, module)
        packages.append(Package(name, versions[name], reason))
    stamp.write_text(json.dumps({"digest": wanted, "packages": [asdict(package) for package in packages]}, indent=1))
    return python, packages
