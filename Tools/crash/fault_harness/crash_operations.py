"""The commands whose crashes are enumerated, and the stores that they begin with."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fault_harness.sample_store import Inputs, batch, identifiers, make_store, must
from fault_harness.shim import ForkServer

Arguments = tuple[object, ...]


@dataclass(frozen=True)
class Operation:
    """A command in a folder that has `store`, and perhaps more, in it."""

    name: str
    command: Callable[[Path, Inputs], Arguments]
    prepare: Callable[[ForkServer, Path, Inputs], None]
    # Commands that give states which are allowed too: what is visible in between.
    between: tuple[Callable[[Path, Inputs], Arguments], ...] = ()
    # A repair begins with a damaged store: only what it ends with can be compared.
    is_repair: bool = False


def make_inputs(server: ForkServer, folder: Path) -> Inputs:
    """The files that the commands below take."""
    inputs = Inputs(folder)
    batch(folder / "extra.safetensors", 12, identifiers(40, 44))
    batch(folder / "unnamed.safetensors", 13, [], rows=3)
    must(server, "pack", folder / "packed.segment", inputs.path("batch-3"), "--encoding", "f32")
    return inputs


def _nothing(server: ForkServer, root: Path, inputs: Inputs) -> None:
    """No store at all."""


def _store(server: ForkServer, root: Path, inputs: Inputs) -> None:
    make_store(server, root / "store", inputs, whitened=False)
    # The one that is not in use.
    listed = json.loads(must(server, "fit", root / "store", "--list", "--json").stdout)
    chosen = next(curvature["curvature"] for curvature in listed if not curvature["active"])
    (inputs.folder / "curvature-id").write_text(chosen)


def _whitened(server: ForkServer, root: Path, inputs: Inputs) -> None:
    make_store(server, root / "store", inputs)


def _flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 0x10
    path.write_bytes(content)


def _damaged(pattern: str, offset: int) -> Callable[[ForkServer, Path, Inputs], None]:
    """A store with a flipped bit in the first file that matches."""

    def prepare(server: ForkServer, root: Path, inputs: Inputs) -> None:
        _store(server, root, inputs)
        _flip(sorted((root / "store").glob(pattern))[0], offset)

    return prepare


def _curvatures_damaged(server: ForkServer, root: Path, inputs: Inputs) -> None:
    """A store with a flipped bit in every curvature, that of the named snapshot included."""
    _store(server, root, inputs)
    for path in (root / "store" / "curvature").iterdir():
        _flip(path, 4100)


def _field_damaged(server: ForkServer, root: Path, inputs: Inputs) -> None:
    """A store with a flipped bit in a page of metadata: every row can be saved."""
    _store(server, root, inputs)
    pages = json.loads(must(server, "inspect", root / "store", "--pages", "--json").stdout)
    last = [page for page in pages if page["file"] == pages[0]["file"]][-1]
    _flip(root / "store" / "segments" / last["file"], last["offset"])


def _catalog_lost(server: ForkServer, root: Path, inputs: Inputs) -> None:
    _store(server, root, inputs)
    (root / "store" / "catalog" / "data.mdb").write_bytes(bytes(8192))


def _on_store(*words: str) -> Callable[[Path, Inputs], Arguments]:
    """A command: `%NAME` stands for a path in the folder of the store, `@NAME` for an input."""

    def command(root: Path, inputs: Inputs) -> Arguments:
        places = {"@": inputs.path, "%": lambda name: root / name}
        return tuple(places[word[0]](word[1:]) if word[0] in places else word for word in words)

    return command


def _curvature(option: str) -> Callable[[Path, Inputs], Arguments]:
    return lambda root, inputs: ("fit", root / "store", option, (inputs.folder / "curvature-id").read_text())


OPERATIONS = (
    Operation("create", _on_store("create", "%store", "--layers", "@batch-0", "--encoding", "f32"), _nothing),
    Operation("create whitened", _on_store("create", "%store", "--whiten-from", "@sample"), _nothing),
    Operation(
        "first ingest",
        _on_store("ingest", "%store", "@batch-0", "--encoding", "f32"),
        _nothing,
        (_on_store("create", "%store", "--layers", "@batch-0", "--encoding", "f32"),),
    ),
    Operation("ingest", _on_store("ingest", "%store", "@batch-3"), _store),
    Operation("ingest without ids", _on_store("ingest", "%store", "@unnamed"), _store),
    Operation("ingest whitened", _on_store("ingest", "%store", "@batch-3"), _whitened),
    Operation(
        "ingest file by file",
        _on_store("ingest", "%store", "@batch-3", "@extra", "--atomic", "file"),
        _store,
        (_on_store("ingest", "%store", "@batch-3"),),
    ),
    Operation("replace", _on_store("ingest", "%store", "@replacing", "--on-duplicate", "replace"), _store),
    Operation("attach", _on_store("attach", "%store", "@packed"), _store),
    Operation("delete", _on_store("delete", "%store", "--where", "source = 'b'"), _store),
    Operation("compact", _on_store("compact", "%store"), _store),
    Operation("compact to int8", _on_store("compact", "%store", "--encoding", "int8"), _store),
    Operation("fit", _on_store("fit", "%store", "--rank", "1"), _store),
    Operation("fit with coordinates", _on_store("fit", "%store", "--rank", "1", "--coordinates", "int8"), _store),
    Operation("use a curvature", _curvature("--use"), _store),
    Operation("drop a curvature", _curvature("--drop"), _store),
    Operation("snapshot", _on_store("snapshot", "%store", "second"), _store),
    Operation("drop a snapshot", _on_store("snapshot", "%store", "--drop", "named"), _store),
    Operation("copy", _on_store("copy", "%store", "%copy"), _store),
    Operation("full copy", _on_store("copy", "%store", "%copy", "--full"), _store),
    Operation("pack", _on_store("pack", "%out.segment", "@batch-3", "--encoding", "f32"), _nothing),
    Operation("repair a field", _on_store("repair", "%store"), _field_damaged, is_repair=True),
    Operation("repair a page", _on_store("repair", "%store"), _damaged("segments/*", 4100), is_repair=True),
    Operation("repair a curvature", _on_store("repair", "%store"), _curvatures_damaged, is_repair=True),
    Operation("repair the identity", _on_store("repair", "%store"), _damaged("lorif.store", 44), is_repair=True),
    Operation("repair a lost catalog", _on_store("repair", "%store"), _catalog_lost, is_repair=True),
)
