"""Refuses to be imported where packages of the extra `ray` are missing, and says which."""

import importlib.util

_missing = [name for name in ("fsspec", "lmdb", "ray", "xxhash", "zstandard") if importlib.util.find_spec(name) is None]
if _missing:
    raise ImportError(
        f"lorif.ray needs what is not installed ({', '.join(_missing)}): pip install './Tools/python[ray]'"
    )
