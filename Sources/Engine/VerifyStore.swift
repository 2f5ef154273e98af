public import Store

extension Database {
    /// Checks a store as thoroughly as `level` says; goes on after a damage and reports them all.
    public func verify(
        level: VerificationLevel = .full, control: OperationControl = OperationControl()
    ) throws -> VerificationReport {
        let snapshot = try Snapshot.open(at: path)
        let total = snapshot.verifiedByteCount(level: level)
        var done = 0
        let report = snapshot.verify(level: level) { count in
            done += count
            control.report(
                ProgressUpdate(stage: "verify", completedCount: done, totalCount: total, byteCount: done, unit: .bytes))
            return !control.cancellation.isCancelled
        }
        try control.cancellation.check()
        return report
    }

    /// Looks for ids that should be gone in every file of a store, the catalog included.
    public func checkErasure(
        of identifiers: [String], control: OperationControl = OperationControl()
    ) throws -> ErasureReport {
        // A path that is no store must not count as proof.
        _ = try Snapshot.open(at: path)
        var done = 0
        return try ErasureCheck(identifiers).run(at: path) { count in
            try control.cancellation.check()
            done += count
            control.report(
                ProgressUpdate(stage: "search", completedCount: done, totalCount: nil, byteCount: done, unit: .bytes))
        }
    }
}
