import Format
import Kernels
public import Schema

/// What a store of a described model will take, before anything is written.
public struct StorageEstimate: Sendable {
    /// What was described.
    public let schema: StoreSchema
    /// Rows.
    public let exampleCount: Int
    /// Codes and scales of the factors of one example.
    public let factorBytesPerExample: Double
    /// Norms and residual norms of one example.
    public let normBytesPerExample: Double
    /// Id, id index and page index of one example, for ids of `identifierBytes`.
    public let indexBytesPerExample: Double
    /// Everything, padding included.
    public let bytesPerExample: Double
    /// All segment files.
    public let storeBytes: Int
    /// One curvature of the given rank per layer.
    public let curvatureBytes: Int
    /// Full d1×d2 matrices in f16, as LoGRA keeps them, per example.
    public let fullMatrixBytesPerExample: Int
    /// Codes and scales of each layer of one example, padded.
    let layerBytesPerExample: [Double]
}

/// Computes the bytes of a store from the page layout (Formats/segment.md); exact but for the lengths of ids and metadata.
///
/// Throws `.invalidRequest` for what no disk could hold.
public func estimateStorage(
    schema: StoreSchema, exampleCount: Int, curvatureRank: Int, identifierBytes: Int = 24
) throws(EngineError) -> StorageEstimate {
    try checkSize(Double(exampleCount) * Double(schema.gradientLength), "numbers in all gradients")
    try checkSize(Double(curvatureRank) * Double(schema.gradientLength), "numbers of curvature")
    let rows = max(1, min(schema.rowsPerBlock, exampleCount))
    var factorBytes = 0
    var storedBytes = 0
    var pageCount = 0
    func addPage(_ byteCount: Int, count: Int = 1) {
        let alignment = FileGeometry.alignment(ofPage: byteCount)
        storedBytes += (byteCount + alignment - 1) / alignment * alignment * count
        pageCount += count
    }
    let layerBytes = schema.layers.map { layer in
        let before = storedBytes
        func addVectors(_ length: Int, count: Int) {
            let bytes = vectorPayloadByteCount(rowCount: rows, length: length, encoding: schema.encoding)
            factorBytes += bytes * count
            addPage(bytes, count: count)
        }
        if let rank = layer.rank {
            addVectors(layer.inputDimension, count: rank)
            addVectors(layer.outputDimension, count: rank)
        } else {
            addVectors(layer.gradientLength, count: 1)
        }
        return Double(storedBytes - before) / Double(rows)
    }
    let normBytes = 2 * schema.layers.count * rows
    addPage(normBytes, count: 2)
    let identifierPageBytes = 4 * (rows + 1) + identifierBytes * rows
    addPage(identifierPageBytes)

    let pageIndexBytesPerRow = 40 * Double(pageCount) / Double(rows)
    let identifierIndexBytesPerRow = 12.0
    let bytesPerExample = Double(storedBytes) / Double(rows) + pageIndexBytesPerRow + identifierIndexBytesPerRow
    let headerBytes = 4096 + 4096
    let segmentCount = max(
        1, (exampleCount + Limits.segmentRowCount - 1) / Limits.segmentRowCount,
        Int(bytesPerExample * Double(exampleCount)) / Limits.segmentBytes)
    let curvatureBytes = schema.layers.reduce(0) { sum, layer in
        let kept = min(curvatureRank, layer.gradientLength, max(1, exampleCount))
        return sum + kept * (4 * layer.gradientLength + 8)
    }
    return StorageEstimate(
        schema: schema, exampleCount: exampleCount, factorBytesPerExample: Double(factorBytes) / Double(rows),
        normBytesPerExample: 2 * Double(normBytes) / Double(rows),
        indexBytesPerExample: Double(identifierPageBytes) / Double(rows) + pageIndexBytesPerRow
            + identifierIndexBytesPerRow,
        bytesPerExample: bytesPerExample,
        storeBytes: Int(bytesPerExample * Double(exampleCount)) + segmentCount * headerBytes,
        curvatureBytes: curvatureBytes, fullMatrixBytesPerExample: 2 * schema.gradientLength,
        layerBytesPerExample: layerBytes)
}

/// Refuses counts that are too large to reckon with.
func checkSize(_ count: Double, _ what: String) throws(EngineError) {
    guard count <= 1e17 else {
        throw .invalidRequest(
            "\(count) \(what) are too many to estimate, at most 1e+17: take fewer examples, layers or dimensions")
    }
}
