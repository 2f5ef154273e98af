public import Store

/// Makes a damaged store whole again: see `StoreRepair`.
public func repairStore(
    at storePath: String, control: OperationControl = OperationControl()
) throws -> RepairReport {
    var count = 0
    return try StoreRepair.run(at: storePath) { _ in
        try control.cancellation.check()
        count += 1
        control.report(ProgressUpdate(stage: "repair", completedCount: count, totalCount: nil, byteCount: 0))
    }
}
