public import Store

extension Database {
    /// Copies a store while it may be in use: consistent, by hard links where possible.
    public func copy(
        to destination: String, copiesFiles: Bool = false,
        control: OperationControl = OperationControl()
    ) throws -> StoreCopySummary {
        let total = try Snapshot.open(at: path).verifiedByteCount(level: .full)
        var completed = 0
        return try Snapshot.copyStore(at: path, to: destination, copiesFiles: copiesFiles) { count in
            try control.cancellation.check()
            completed += count
            control.report(
                ProgressUpdate(
                    stage: "copy", completedCount: min(completed, total), totalCount: total, byteCount: completed,
                    unit: .bytes))
        }
    }
}
