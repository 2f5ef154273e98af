"""One contender, one process: contender.py SPECIFICATION.json

Run by the interpreter of the peers' environment. Opens a store, reads queries, answers, and writes what each step took
as JSON. A specification names the class, the store, its shape, the queries and what to keep of the answer. A class has
`open`, and either `scores(queries)` for the whole matrix [Q, N] or `search(queries, top)`, or both; `write` makes its
store from the dense file.
"""

import importlib
import json
import sys
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

LONG_SCAN = 3.0  # seconds; a longer one is not repeated
CLASSES = {
    "logra": "dense:LograMatrices",
    "reconstructed": "factored:Reconstructed",
    "bilinear": "factored:Bilinear",
    "factored": "factored:Factored",
    "faiss-flat": "indexes:FaissFlat",
    "faiss-ivf": "indexes:FaissInverted",
    "bergson": "with_bergson:Bergson",
    "logix": "with_logix:Logix",
    "dattri": "with_dattri:Dattri",
    "trak": "with_trak:Trak",
    "svd": "curvature:RandomisedSVD",
    "covariance": "curvature:Covariance",
    "limits": "curvature:Limits",
}


def chosen(name: str, specification: dict) -> object:
    """The contender of a name, imported only now, because importing counts."""
    module, _, kind = CLASSES[name].partition(":")
    return getattr(importlib.import_module(module), kind)(specification)


def answer(contender: object, specification: dict) -> dict:
    """Opens and asks; seconds of each step. The second scan finds torch's threads and buffers there."""
    clock = time.perf_counter
    times: dict[str, object] = {}
    start = clock()
    contender.open()
    times["open"] = clock() - start
    start = clock()
    tensors = load_file(specification["queries"])
    layers = specification["layers"]
    if f"{layers[0]}/full" in tensors:
        queries = [tensors[f"{name}/full"] for name in layers]
    else:
        queries = [(tensors[f"{name}/left"][:, :, 0], tensors[f"{name}/right"][:, :, 0]) for name in layers]
    queries = contender.prepared(queries)
    times["queries"] = clock() - start

    top = specification["top"]
    searches = hasattr(contender, "search")
    for turn in ("scan", "scan again"):
        start = clock()
        if searches:
            values, indices = contender.search(queries, top)
        else:
            scores = contender.scores(queries)
        times[turn] = clock() - start
        if not specification["again"] or times[turn] > LONG_SCAN:
            break
    if not searches:
        start = clock()
        values, indices = contender.best(scores, top)
        times["select"] = clock() - start
    if specification.get("scores"):
        if searches:
            start = clock()
            scores = contender.scores(queries)
            times["scan of all"] = clock() - start
        start = clock()
        np.save(specification["scores"], np.asarray(scores, np.float32))
        times["save"] = clock() - start
    if specification.get("answer"):
        np.savez(specification["answer"], values=np.asarray(values), indices=np.asarray(indices))
    return times


def main() -> None:
    """Does what the specification says."""
    specification = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    start = time.perf_counter()
    contender = chosen(specification["contender"], specification)
    imported = time.perf_counter() - start
    if specification["task"] == "write":
        contender.write()
        report: dict[str, object] = {}
    elif specification["task"] == "run":
        report = contender.run()
    else:
        report = answer(contender, specification)
    report["import"] = imported
    Path(specification["report"]).write_text(json.dumps(report), encoding="utf-8")


if __name__ == "__main__":
    main()
