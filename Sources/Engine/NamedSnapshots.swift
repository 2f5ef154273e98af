public import Store

/// Gives the newest generation of a store a name that keeps it readable.
public func nameSnapshot(_ name: String, of storePath: String) throws -> SnapshotRecord {
    try StoreWriter.open(at: storePath).nameSnapshot(name)
}

/// Forgets a named snapshot; files that only it had are removed.
public func dropSnapshot(_ name: String, of storePath: String) throws {
    try StoreWriter.open(at: storePath).dropSnapshot(name)
}

/// The named snapshots of a store.
public func namedSnapshots(of storePath: String) throws -> [SnapshotRecord] {
    try Snapshot.open(at: storePath).namedSnapshots
}
