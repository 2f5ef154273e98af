"""Stores on many machines, asked as one: collections on a Ray cluster (needs the extra `ray`).

    collection = lorif.ray.Collection("shards.json")
    collection.create()
    collection.add("/data/a.lorif", "s3://bucket/b.lorif")
    ray.init(address="auto")
    lorif.ray.fit(collection, rank=64)
    lorif.ray.query(collection, lorif.ray.Query("queries.safetensors", top=10)).text

`Formats/collection.md` says what a collection is, `python -m lorif.ray --help` what the command does.
"""

import os

# Before Ray is loaded: nothing about what is computed here leaves for anywhere unless the user has said so.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

from lorif.ray import requirements  # noqa: F401 - says what is missing before the others fail
from lorif.ray.collection import Collection, Damage
from lorif.ray.coordinates import WrittenCoordinates, write_coordinates
from lorif.ray.errors import (
    CacheFullError,
    ClusterError,
    CollectionDamagedError,
    CollectionError,
    CollectionRefusedError,
    IncompleteError,
)
from lorif.ray.fit import Fitted, fit
from lorif.ray.ingest import Ingested, Making, PackOptions, ingest
from lorif.ray.query import CollectionAnswer, Query, UnreadRows, explain_query, query
from lorif.ray.settings import Settings
from lorif.ray.whitening import Whitened, find_whitening

__all__ = [
    "CacheFullError",
    "ClusterError",
    "Collection",
    "CollectionAnswer",
    "CollectionDamagedError",
    "CollectionError",
    "CollectionRefusedError",
    "Damage",
    "Fitted",
    "IncompleteError",
    "Ingested",
    "Making",
    "PackOptions",
    "Query",
    "Settings",
    "UnreadRows",
    "Whitened",
    "WrittenCoordinates",
    "explain_query",
    "find_whitening",
    "fit",
    "ingest",
    "query",
    "write_coordinates",
]
