"""A program with lorif's command line over the simplest store that survives kills: what the harness is tested on.

    python stand_in.py [--planted BUG] COMMAND ...

The catalog is one JSON file that is replaced by rename; a segment is a JSON file whose digest the catalog knows. Only
the standard library is loaded, except for curvature, because the tests start this program thousands of times. BUG is
one of `catalog-first` (the catalog names a segment before it is there) and `no-sweep` (nobody removes what a kill
left).
"""

import fcntl
import hashlib
import json
import os
import re
import struct
import sys
import time
from pathlib import Path

COMMANDS = {
    "create": "--layers",
    "ingest": "--on-duplicate --atomic --encoding",
    "fit": "--rank --scope --exact",
    "query": "--method --snapshot --output",
    "inspect": "--segments --curvature --json",
    "verify": "--json",
    "pack": "--layers-of",
    "attach": "",
    "delete": "--ids --where",
    "compact": "",
    "snapshot": "--drop",
    "copy": "",
    "repair": "",
    "export": "",
}
FLAGS = {"--exact", "--drop", "--json", "--segments", "--curvature"}
EMPTY = {
    "segment": 0, "row": 0, "layers": None, "segments": [], "dead": [], "taken": [], "snapshots": {}, "fit": None,
}  # fmt: skip


class Refusal(Exception):  # noqa: N818
    """An input that the program does not accept."""


class Damage(Exception):  # noqa: N818
    """A store that is not whole."""


def read_tensors(path: Path) -> tuple[dict, dict, bytes]:
    """Header entries, metadata and data of a safetensors file."""
    content = path.read_bytes()
    (length,) = struct.unpack_from("<Q", content)
    header = json.loads(content[8 : 8 + length])
    metadata = header.pop("__metadata__", {})
    return header, metadata, content[8 + length :]


def write_tensors(path: Path, tensors: dict[str, tuple[list[int], bytes]], metadata: dict[str, str]) -> None:
    header: dict = {"__metadata__": metadata}
    data = b""
    for name, (shape, content) in tensors.items():
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode()
    durable(path, struct.pack("<Q", len(text)) + text + data)


def durable(path: Path, content: bytes, temporary: Path | None = None) -> None:
    """Writes a file whole or not at all."""
    temporary = temporary or path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    directory = os.open(path.parent, os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)


def read_batch(path: Path) -> tuple[dict, list[dict]]:
    """Shapes by tensor name, and rows."""
    header, metadata, data = read_tensors(path)
    shapes = {name: entry["shape"][1:] for name, entry in sorted(header.items())}
    count = next(iter(header.values()))["shape"][0]
    ids = json.loads(metadata["ids"]) if "ids" in metadata else [None] * count
    beside = path.with_suffix(".jsonl")
    records = [json.loads(line) for line in beside.read_text().split("\n") if line] if beside.exists() else [{}] * count
    rows = []
    for index in range(count):
        tensors = {}
        for name in shapes:
            start, end = header[name]["data_offsets"]
            size = (end - start) // count
            tensors[name] = data[start + index * size : start + (index + 1) * size].hex()
        record = {name: value for name, value in records[index].items() if name != "id"}
        rows.append({"id": ids[index], "tensors": tensors, "metadata": record})
    return shapes, rows


class Store:
    """A store that is open for reading or writing."""

    def __init__(self, path: Path, planted: str, writing: bool = False, creating: bool = False) -> None:
        self.path, self.planted = path, planted
        if creating:
            for folder in ("catalog", "segments", "curvature", "tmp"):
                (path / folder).mkdir(parents=True, exist_ok=True)
        elif not (path / "lorif.store").exists():
            raise Refusal(f"{path}: not a store")
        if writing:
            self.lock = (path / "writer.lock").open("w")
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if creating and not (path / "lorif.store").exists():
            self.catalog = json.loads(json.dumps(EMPTY))
            self.save()
            durable(path / "lorif.store", b"store", path / "tmp/store")
        text, _, digest = (path / "catalog/data.mdb").read_text().rpartition("\n")
        if hashlib.sha256(text.encode()).hexdigest() != digest:
            raise Damage("catalog: wrong digest")
        self.catalog = json.loads(text)
        if writing and planted != "no-sweep":
            self.sweep()

    def save(self) -> None:
        """The commit point."""
        text = json.dumps(self.catalog)
        content = f"{text}\n{hashlib.sha256(text.encode()).hexdigest()}"
        durable(self.path / "catalog/data.mdb", content.encode(), self.path / "tmp/catalog")

    def files(self) -> set[str]:
        """Every file that the catalog names."""
        views = [self.catalog, *self.catalog["snapshots"].values()]
        names = {f"segments/{entry['file']}" for view in views for entry in view["segments"]}
        return names | ({f"curvature/{self.catalog['fit']}"} if self.catalog["fit"] else set())

    def sweep(self) -> None:
        """Removes what the catalog does not name."""
        known = self.files()
        for folder in ("tmp", "segments", "curvature"):
            for file in (self.path / folder).iterdir():
                if f"{folder}/{file.name}" not in known:
                    file.unlink()

    def add_segment(self, rows: list[dict]) -> None:
        """Writes a segment and names it in the catalog, which is not saved yet."""
        if not rows:
            return
        content = json.dumps(rows).encode()
        name = f"{self.catalog['segment']:016x}.segment"
        self.catalog["segment"] += 1
        entry = {"file": name, "digest": hashlib.sha256(content).hexdigest(), "count": len(rows)}
        self.catalog["segments"].append(entry)
        if self.planted == "catalog-first":
            self.save()
            time.sleep(0.05)
        durable(self.path / "segments" / name, content, self.path / "tmp" / name)

    def rows(self, view: dict | None = None) -> list[tuple[list, dict]]:
        """Live rows with their addresses."""
        view = view or self.catalog
        dead = {tuple(address) for address in view["dead"]}
        found = []
        for entry in view["segments"]:
            try:
                content = (self.path / "segments" / entry["file"]).read_bytes()
            except FileNotFoundError as error:
                raise Damage(f"{entry['file']} is missing") from error
            if hashlib.sha256(content).hexdigest() != entry["digest"]:
                raise Damage(f"{entry['file']}: wrong digest")
            rows = enumerate(json.loads(content))
            found += [([entry["file"], index], row) for index, row in rows if (entry["file"], index) not in dead]
        return found


def ingest(store: Store, paths: list[str], options: dict) -> None:
    catalog = store.catalog
    for path in paths:
        digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        if digest in catalog["taken"]:
            continue
        shapes, rows = read_batch(Path(path))
        if catalog["layers"] not in (None, shapes):
            raise Refusal(f"{path}: other layers than the store")
        catalog["layers"] = shapes
        for number, row in enumerate(rows, catalog["row"]):
            row["id"] = row["id"] or str(number)
        catalog["row"] += len(rows)
        present = {row["id"]: address for address, row in store.rows()}
        clashing = [row["id"] for row in rows if row["id"] in present]
        policy = options.get("--on-duplicate", "error")
        if clashing and policy == "error":
            raise Refusal(f"{path}: ids {clashing[:3]} are in the store")
        if policy == "skip":
            rows = [row for row in rows if row["id"] not in present]
        else:
            catalog["dead"] += [present[name] for name in clashing]
        store.add_segment(rows)
        catalog["taken"].append(digest)
        if options.get("--atomic") == "file":
            store.save()
    store.save()


def attach(store: Store, paths: list[str]) -> None:
    for path in paths:
        content = Path(path).read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        if digest not in store.catalog["taken"]:
            store.add_segment(json.loads(content))
            store.catalog["taken"].append(digest)
    store.save()


def delete(store: Store, options: dict) -> None:
    rows = store.rows()
    if "--ids" in options:
        text = Path(options["--ids"]).read_text()
        wanted = set(json.loads(text) if text.startswith("[") else text.split())
        unknown = wanted - {row["id"] for _, row in rows}
        if unknown:
            raise Refusal(f"unknown ids: {sorted(unknown)[:3]}")
        gone = [address for address, row in rows if row["id"] in wanted]
    else:
        match = re.fullmatch(r"kind = '(.*)' and number >= (\d+) and number < (\d+)", options["--where"])
        if match is None:
            raise Refusal("condition not understood")
        kind, low, high = match[1], int(match[2]), int(match[3])
        data = [(address, row["metadata"]) for address, row in rows]
        gone = [a for a, m in data if m.get("kind") == kind and low <= m["number"] < high]
    store.catalog["dead"] += gone
    store.save()


def compact(store: Store) -> None:
    rows = [row for _, row in store.rows()]
    store.catalog["segments"], store.catalog["dead"] = [], []
    store.add_segment(rows)
    store.save()
    store.sweep()


def fit(store: Store, options: dict) -> None:
    rank = None if "--exact" in options else int(options["--rank"])
    record = {"rank": rank, "whole": options["--scope"] == "global", "rows": [row for _, row in store.rows()]}
    content = json.dumps(record).encode()
    name = f"{hashlib.sha256(content).hexdigest()}.curvature"
    durable(store.path / "curvature" / name, content, store.path / "tmp" / name)
    store.catalog["fit"] = name
    store.save()
    store.sweep()


def snapshot(store: Store, name: str, options: dict) -> None:
    present = store.catalog["snapshots"]
    if ("--drop" in options) != (name in present):
        raise Refusal(f"snapshot {name}: {'there is one already' if name in present else 'there is none'}")
    if "--drop" in options:
        del present[name]
    else:
        present[name] = {key: store.catalog[key] for key in ("segments", "dead")}
    store.save()


def copy(store: Store, destination: Path) -> None:
    if destination.exists():
        raise Refusal(f"{destination} exists")
    # The name is the same in every run, so that the next one finds and replaces what a kill left.
    temporary = destination.with_name(destination.name + ".part")
    for name in ["lorif.store", "catalog/data.mdb", *sorted(store.files())]:
        (temporary / name).parent.mkdir(parents=True, exist_ok=True)
        (temporary / name).write_bytes((store.path / name).read_bytes())
    for folder in ("segments", "curvature", "tmp"):
        (temporary / folder).mkdir(exist_ok=True)
    temporary.rename(destination)


def export(store: Store, path: Path) -> None:
    rows = [row for _, row in store.rows()]
    if not rows:
        raise Refusal("nothing to export")
    tensors = {}
    for name, shape in store.catalog["layers"].items():
        content = b"".join(bytes.fromhex(row["tensors"][name]) for row in rows)
        tensors[name] = ([len(rows), *shape], content)
    write_tensors(path, tensors, {"ids": json.dumps([row["id"] for row in rows])})
    lines = [json.dumps({"id": row["id"], **row["metadata"]}) + "\n" for row in rows]
    path.with_suffix(".jsonl").write_text("".join(lines))


def numbers(text: str) -> tuple[float, ...]:
    content = bytes.fromhex(text)
    return struct.unpack(f"<{len(content) // 4}f", content)


def gradient(tensors: dict[str, str], shapes: dict[str, list[int]]) -> list[float]:
    """Layer after layer, in order of tensor names."""
    made: list[float] = []
    for name, shape in shapes.items():
        if name.endswith("/full"):
            made += numbers(tensors[name])
        elif name.endswith("/left"):
            left, right = numbers(tensors[name]), numbers(tensors[name.removesuffix("left") + "right"])
            rank = shape[1]
            for a in range(len(left) // rank):
                for b in range(len(right) // rank):
                    made.append(sum(left[a * rank + k] * right[b * rank + k] for k in range(rank)))
    return made


def influence(store: Store, queries: list[list[float]], gradients: list[list[float]]) -> list[list[float]]:
    """By the harness's own formula, because numerics are not what the stand-in is for."""
    import numpy as np  # noqa: PLC0415

    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from kill_harness.batches import Layer  # noqa: PLC0415
    from kill_harness.model import Fit, influence_scores  # noqa: PLC0415

    record = json.loads((store.path / "curvature" / store.catalog["fit"]).read_text())
    shapes = store.catalog["layers"]
    schema = []
    for name, shape in shapes.items():
        if name.endswith("/full"):
            schema.append(Layer(name, shape[0], shape[1], 0))
        elif name.endswith("/left"):
            schema.append(Layer(name, shape[0], shapes[name.removesuffix("left") + "right"][0], shape[1]))
    fitted = np.array([gradient(row["tensors"], shapes) for row in record["rows"]])
    how = Fit(record["rank"], record["whole"], ())
    scores = influence_scores(tuple(schema), how, lambda _: fitted, np.array(queries), np.array(gradients))
    return scores.tolist()


def query(store: Store, path: Path, options: dict) -> None:
    catalog = store.catalog
    view = catalog
    if "--snapshot" in options:
        view = catalog["snapshots"].get(options["--snapshot"])
        if view is None:
            raise Refusal("no such snapshot")
    rows = [row for _, row in store.rows(view)]
    if not rows:
        raise Refusal("the store is empty")
    shapes, probes = read_batch(path)
    queries = [gradient(row["tensors"], shapes) for row in probes]
    gradients = [gradient(row["tensors"], catalog["layers"]) for row in rows]
    if options["--method"] == "influence":
        if catalog["fit"] is None:
            raise Refusal("no curvature: run lorif fit")
        scores = influence(store, queries, gradients)
    else:
        scores = [[sum(map(float.__mul__, q, g)) for g in gradients] for q in queries]
    flat = [score for line in scores for score in line]
    ids = json.dumps([row["id"] for row in rows])
    content = struct.pack(f"<{len(flat)}f", *flat)
    write_tensors(Path(options["scores"]), {"scores": ([len(queries), len(rows)], content)}, {"example_ids": ids})


def inspect(store: Store) -> None:
    print(json.dumps({"files": [Path(name).name for name in sorted(store.files())]}))


def read(command: str, store: Store, arguments: list[str], options: dict) -> None:
    """The commands that change nothing in the store."""
    if command == "query":
        query(store, Path(arguments[1]), options)
    elif command == "export":
        export(store, Path(arguments[1]))
    elif command == "copy":
        copy(store, Path(arguments[1]))
    elif command == "inspect":
        inspect(store)
    else:
        views = [store.catalog, *store.catalog["snapshots"].values()]
        stored = {str(path.relative_to(store.path)) for path in (store.path / "segments").iterdir()}
        # As lorif does: what belongs to no commit is named, and is no damage.
        orphans = sorted(stored - store.files())
        print(json.dumps({"rows": [len(store.rows(view)) for view in views], "orphans": orphans}))


def write(command: str, store: Store, arguments: list[str], options: dict) -> None:
    """The commands that take the lock."""
    if command == "ingest":
        ingest(store, arguments[1:], options)
    elif command == "attach":
        attach(store, arguments[1:])
    elif command == "delete":
        delete(store, options)
    elif command == "compact":
        compact(store)
    elif command == "fit":
        fit(store, options)
    elif command == "snapshot":
        snapshot(store, arguments[1], options)


def main(words: list[str]) -> int:
    planted = ""
    if words[0] == "--planted":
        planted, words = words[1], words[2:]
    if words[0] == "--help" or "--help" in words:
        print("\n".join(f"  {name}  {text}" for name, text in COMMANDS.items() if words[0] in ("--help", name)))
        return 0
    command, arguments, options = words[0], [], {}
    rest = iter(words[1:])
    for word in rest:
        if word in FLAGS:
            options[word] = ""
        elif word.startswith("--"):
            options[word] = next(rest)
            if word == "--output" and options[word].endswith((".npy", ".safetensors")):
                options["scores"] = options[word]
        else:
            arguments.append(word)
    try:
        if command == "pack":
            rows = [row for path in arguments[1:] for row in read_batch(Path(path))[1]]
            durable(Path(arguments[0]), json.dumps(rows).encode())
        elif command in ("query", "export", "copy", "inspect", "verify"):
            read(command, Store(Path(arguments[0]), planted), arguments, options)
        else:
            store = Store(Path(arguments[0]), planted, writing=True, creating=command in ("create", "ingest"))
            write(command, store, arguments, options)
    except Refusal as refusal:
        print(refusal, file=sys.stderr)
        return 3
    except Damage as damage:
        print(damage, file=sys.stderr)
        return 1 if command == "verify" else 4
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
