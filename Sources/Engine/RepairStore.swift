public import Store

extension Database {
    /// Makes a damaged store whole again: see `StoreRepair`. `basisFrom` names a whole copy of a whitened store's basis: a basis file, an
    /// exported batch that has one beside it, or another store.
    public func repair(
        basisFrom basisSource: String? = nil, control: OperationControl = OperationControl()
    ) throws -> RepairReport {
        var count = 0
        let basis = try basisSource.map { try StoredBasis(path: basisPath(of: $0)) }
        return try StoreRepair.run(at: path, basis: basis) { _ in
            try control.cancellation.check()
            count += 1
            control.report(ProgressUpdate(stage: "repair", completedCount: count, totalCount: nil, byteCount: 0))
        }
    }
}
