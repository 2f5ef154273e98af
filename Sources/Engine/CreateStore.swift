import Interchange
public import Schema
import Store

/// Creates an empty store; its layers are those of a batch, or are left to the first ingest.
public func createStore(
    at storePath: String, layersFrom batchPath: String?, rank: Int?, encoding: Encoding
) throws -> StoreSchema {
    let schema: StoreSchema
    if let batchPath {
        schema = try deriveSchema(from: try FactorBatch(path: batchPath), rank: rank, encoding: encoding)
    } else {
        schema = StoreSchema(layers: [], encoding: encoding)
    }
    try StoreWriter.create(at: storePath, schema: schema).abandon()
    return schema
}
