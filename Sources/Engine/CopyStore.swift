public import Store

/// Copies a store while it may be in use: consistent, by hard links where possible.
public func copyStore(
    at storePath: String, to destination: String, copiesFiles: Bool = false,
    control: OperationControl = OperationControl()
) throws -> StoreCopySummary {
    let total = try Snapshot.open(at: storePath).verifiedByteCount(level: .full)
    var completed = 0
    return try Snapshot.copyStore(at: storePath, to: destination, copiesFiles: copiesFiles) { count in
        try control.cancellation.check()
        completed += count
        control.report(
            ProgressUpdate(
                stage: "copy", completedCount: min(completed, total), totalCount: total, byteCount: completed,
                unit: .bytes))
    }
}
