import Store

/// What a deletion did.
public struct DeleteReport: Sendable {
    /// Rows deleted.
    public let deletedRowCount: Int
    /// Live rows left.
    public let rowCount: Int
    /// Ids that no live row had, when they were to be ignored.
    public let missingIdentifiers: [String]
    /// The store's generation afterwards.
    public let generation: UInt64
    /// Whether the active curvature still counts the deleted rows.
    public let curvatureIsStale: Bool
}

extension Database {
    /// Deletes rows: they are gone from every later answer; their bytes stay in the segment files until the store is compacted.
    ///
    /// An id that no live row has is an error and nothing is deleted, unless `ignoresMissing`. Twice the same id counts once.
    public func delete(
        _ selection: RowSelection, ignoresMissing: Bool = false,
        workers: Int = availableProcessorCount()
    ) throws -> DeleteReport {
        let writer = try StoreWriter.open(at: path)
        defer { writer.abandon() }
        let snapshot = writer.snapshot()
        let identifiers: [String]
        switch selection {
        case .all:
            identifiers = try LiveRows(snapshot).readAllIdentifiers()
        case .identifiers(let given):
            identifiers = given
        case .filter, .among:
            identifiers = try LiveRows(snapshot).selecting(selection, workers: workers).readAllIdentifiers()
        }
        let missing = try writer.delete(identifiers: identifiers)
        if !missing.isEmpty, !ignoresMissing {
            throw try snapshot.unknownExamples(missing)
        }
        let summary = try writer.commit()
        let after = writer.snapshot()
        let active = after.curvatures.first { $0.digest == after.activeCurvature }
        return DeleteReport(
            deletedRowCount: summary.deletedRowCount, rowCount: writer.rowCount, missingIdentifiers: missing,
            generation: writer.generation,
            curvatureIsStale: active.map { $0.description.fittedRowDigest != after.rowDigest } ?? false)
    }
}
