import CLMDB

/// The version of the LMDB library that was loaded, as in "0.9.24".
public var lmdbVersion: String {
    var (major, minor, patch): (CInt, CInt, CInt) = (0, 0, 0)
    _ = unsafe mdb_version(&major, &minor, &patch)
    return "\(major).\(minor).\(patch)"
}
