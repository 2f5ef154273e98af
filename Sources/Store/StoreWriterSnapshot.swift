import Format
import Glibc

extension StoreWriter {
    /// The named snapshots, by name.
    public var namedSnapshots: [SnapshotRecord] { contents.snapshots.values.sorted { $0.name < $1.name } }

    /// Gives the last commit a name, in a commit of its own: it can be opened by that name until the name is dropped.
    ///
    /// Nothing may be pending. Throws `.snapshotName` or `.snapshotTaken`.
    @discardableResult
    public func nameSnapshot(_ name: String) throws(StoreError) -> SnapshotRecord {
        try checkAlive()
        precondition(!hasPendingChanges, "rows or deletions are pending: commit or abandon them first")
        guard SnapshotRecord.isName(name) else { throw .snapshotName(name: name) }
        guard contents.snapshots[name] == nil else { throw .snapshotTaken(name: name) }
        let record = SnapshotRecord(name: name, of: contents)
        var next = contents
        next.snapshots[name] = record
        var changes = CatalogChanges()
        changes.put(try record.payload(), CatalogKey(snapshot: name))
        try publish(changes, next)
        return record
    }

    /// Forgets a named snapshot and removes the files that only it still had. Throws `.snapshotUnknown`.
    public func dropSnapshot(_ name: String) throws(StoreError) {
        try checkAlive()
        precondition(!hasPendingChanges, "rows or deletions are pending: commit or abandon them first")
        guard let record = contents.snapshots[name] else {
            throw .snapshotUnknown(name: name, known: contents.snapshots.keys.sorted())
        }
        var next = contents
        next.snapshots[name] = nil
        var changes = CatalogChanges()
        changes.removals.insert(CatalogKey(snapshot: name))
        try publish(changes, next)
        removeUnnamed(record.segments)
        if let curvature = record.curvature, !contents.curvatureFileNames.contains(curvature.fileName) {
            unlink(directory.curvaturePath(curvature.digest))
        }
    }
}
