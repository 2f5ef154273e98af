public import Store

extension Database {
    /// Gives the newest generation of a store a name that keeps it readable.
    public func nameSnapshot(_ name: String) throws -> SnapshotRecord {
        try StoreWriter.open(at: path).nameSnapshot(name)
    }

    /// Forgets a named snapshot; files that only it had are removed.
    public func dropSnapshot(_ name: String) throws {
        try StoreWriter.open(at: path).dropSnapshot(name)
    }

    /// The named snapshots of a store.
    public func namedSnapshots() throws -> [SnapshotRecord] {
        try Snapshot.open(at: path).namedSnapshots
    }
}
