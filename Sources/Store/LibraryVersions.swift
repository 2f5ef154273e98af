import LMDB
import Zstd

/// The libraries that stores are kept with, and the versions that were loaded.
public var storageLibraryVersions: [(name: String, version: String)] {
    [("LMDB", lmdbVersion), ("Zstandard", zstdVersion)]
}
