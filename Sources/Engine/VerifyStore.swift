public import Store
import Synchronization

/// Checks every byte of a store; goes on after a damage and reports them all.
public func verifyStore(
    at storePath: String, control: OperationControl = OperationControl()
) throws -> VerificationReport {
    let snapshot = try Snapshot.open(at: storePath)
    let total = snapshot.verifiedByteCount
    var done = 0
    let report = snapshot.verify { count in
        done += count
        control.report(
            ProgressUpdate(stage: "verify", completedCount: done, totalCount: total, byteCount: done, unit: .bytes))
    }
    try control.cancellation.check()
    return report
}
