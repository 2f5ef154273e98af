import Interchange
public import Schema
import Store

/// What a creation decided.
public struct CreateReport: Sendable {
    /// The store's layers, encoding and basis.
    public let schema: StoreSchema
    /// What should be known about it, for example layers that could not be whitened.
    public let notes: [String]
}

extension Database {
    /// Creates an empty store; its layers are those of a batch, or of the basis, or are left to the first ingest.
    public func create(
        layersFrom batchPath: String?, rank: RankChoice? = nil, encoding: Encoding,
        basis: BasisChoice = .ofBatches, control: OperationControl = OperationControl()
    ) throws -> CreateReport {
        guard try StoreWriter.isPathFree(path) else { throw StoreError.pathTaken(path: path) }
        let design = try StoreDesign(
            path: path, batch: try batchPath.map { try FactorBatch(path: $0) }, rank: rank, encoding: encoding,
            basis: basis, control: control)
        defer { design.discard() }
        // Not opened: once it has its name, nothing is left that could fail.
        try StoreWriter.make(at: path, schema: design.schema, basis: design.storedBasis)
        return CreateReport(schema: design.schema, notes: design.notes)
    }
}
