public import Checksum
public import Store
import Synchronization

/// A store that stays open at one generation, for many questions: segments stay mapped, and the curvature used last in memory.
///
/// Answers are those of the same `Database` at that generation, whatever is committed meanwhile. Safe to use from any number of threads.
public final class OpenDatabase: Sendable {
    /// What is asked.
    public let snapshot: Snapshot
    private let curvature = Mutex<(digest: Digest, groups: [CurvatureGroupData])?>(nil)

    /// Opens the newest generation of a store, or the one that was given a name.
    public init(at path: String, snapshotNamed name: String? = nil) throws {
        snapshot = try Snapshot.open(at: path, named: name)
    }

    /// Answers a query; as `Database.answer`.
    public func answer(_ request: QueryRequest, control: OperationControl = OperationControl()) throws -> QueryResult {
        try session(request).run(control: control)
    }

    /// The plan of a query, without running it.
    public func plan(_ request: QueryRequest) throws -> Plan {
        try session(request).plan
    }

    /// The metadata fields that any example has, in alphabetical order.
    public func metadataFieldNames() throws -> [String] {
        try LiveRows(snapshot).fieldNames().sorted()
    }

    /// Ids of live examples that begin so, at most `limit`, in the order of the store. Reads ids until there are as many.
    public func identifiers(startingWith prefix: String, atMost limit: Int) throws -> [String] {
        let rows = try LiveRows(snapshot)
        var found: [String] = []
        for block in rows.blocks.indices where found.count < limit {
            found += try rows.readIdentifiers(block: block).lazy.filter { $0.hasPrefix(prefix) }
        }
        return Array(found.prefix(limit))
    }

    /// The eigenpairs of a curvature, read and checked when it is another than the last one.
    public func readCurvature(_ digest: Digest) throws -> [CurvatureGroupData] {
        if let known = curvature.withLock({ $0 }), known.digest == digest { return known.groups }
        let groups = try snapshot.readCurvature(digest)
        curvature.withLock { $0 = (digest, groups) }
        return groups
    }

    private func session(_ request: QueryRequest) throws -> QuerySession {
        if let name = request.snapshotName, name != snapshot.name {
            throw EngineError.invalidRequest("the store was opened at another state than the snapshot '\(name)'")
        }
        return try QuerySession(request, snapshot: snapshot, readCurvature: readCurvature)
    }
}

extension Database {
    /// Answers a query on a store's current generation.
    ///
    /// Plans first, then scans the rows block by block on all workers. Top-k is exact, ties by id; results do not depend on the
    /// number of workers. Memory: `Plan.memoryBytes` and the bases of the curvature groups used.
    public func answer(
        _ request: QueryRequest, control: OperationControl = OperationControl()
    ) throws -> QueryResult {
        try OpenDatabase(at: path, snapshotNamed: request.snapshotName).answer(request, control: control)
    }

    /// The plan of a query, without running it.
    public func plan(_ request: QueryRequest) throws -> Plan {
        try OpenDatabase(at: path, snapshotNamed: request.snapshotName).plan(request)
    }
}
