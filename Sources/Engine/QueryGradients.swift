import Interchange
import LinearAlgebra
import Schema
import Scoring

/// A file of query gradients, matched with the layers that a query selects.
struct QueryGradients: Sendable {
    let batch: FactorBatch
    /// Positions in the store's schema of the layers that the queries have, ascending: the layers that are scored.
    let layers: [Int]
    private let schema: StoreSchema
    private let positions: [Int: Int]

    /// Matches `batch` with the store. Queries may have fewer layers than the store (the others count as zero) but no
    /// unknown ones, in the store's shapes; they may be full or factored at any rank.
    init(_ batch: FactorBatch, schema: StoreSchema, selection: [Int]) throws {
        var positions: [Int: Int] = [:]
        for (position, layer) in batch.layers.enumerated() {
            guard let storeLayer = schema.layerIndex(named: layer.name) else {
                throw EngineError.layerUnknown(
                    path: batch.path, layer: layer.name,
                    nearest: nearestName(to: layer.name, among: schema.layers.map(\.name)))
            }
            let expected = schema.layers[storeLayer]
            guard layer.inputDimension == expected.inputDimension, layer.outputDimension == expected.outputDimension
            else {
                throw EngineError.shapeMismatch(
                    path: batch.path, layer: layer.name, expected: [expected.inputDimension, expected.outputDimension],
                    found: [layer.inputDimension, layer.outputDimension])
            }
            positions[storeLayer] = position
        }
        layers = selection.filter { positions[$0] != nil }
        guard !layers.isEmpty else {
            throw EngineError.invalidRequest("\(batch.path): the queries have none of the selected layers")
        }
        self.batch = batch
        self.schema = schema
        self.positions = positions
    }

    /// The ids of the queries; row numbers where the file has none.
    var identifiers: [String] {
        batch.identifiers ?? (0..<batch.rowCount).map(String.init)
    }

    /// The gradients of some queries at one layer, as given.
    func readForm(layer: Int, queries: Range<Int>) throws -> QueryForm {
        guard let position = positions[layer] else { preconditionFailure("layer \(layer) is not in the queries") }
        let tile = try batch.readTile(layer: position, rows: queries)
        switch batch.layers[position].form {
        case .full:
            return .full(tile.dense)
        case .factors(let rank):
            return .factors(
                rank: rank,
                left: queryMajor(tile.left, queryCount: queries.count, rank: rank, length: tile.layer.inputDimension),
                right: queryMajor(tile.right, queryCount: queries.count, rank: rank, length: tile.layer.outputDimension)
            )
        }
    }

    /// The gradients of some queries at one layer as full matrices, queries × (d1·d2); zeros where the queries lack the layer.
    func readFull(layer: Int, queries: Range<Int>) throws -> [Float] {
        let shape = schema.layers[layer]
        guard let position = positions[layer], layers.contains(layer) else {
            return Array(repeating: 0, count: queries.count * shape.gradientLength)
        }
        let tile = try batch.readTile(layer: position, rows: queries)
        guard tile.layer.rank != nil else { return tile.dense }
        var matrices = [Float](repeating: 0, count: queries.count * shape.gradientLength)
        var target = matrices.mutableSpan
        reconstruct(tile, rows: 0..<tile.rowCount, columns: 0..<shape.gradientLength, into: &target)
        return matrices
    }

    /// ‖g_q‖² at one layer.
    func squaredNorms(layer: Int, queries: Range<Int>) throws -> [Double] {
        guard let position = positions[layer] else { preconditionFailure("layer \(layer) is not in the queries") }
        return LinearAlgebra.squaredNorms(of: try batch.readTile(layer: position, rows: queries))
    }

    /// The largest rank of the factored layers; nil when any layer is full, so that the queries count as full.
    var largestRank: Int? {
        var largest = 0
        for layer in layers {
            guard let position = positions[layer], case .factors(let rank) = batch.layers[position].form else {
                return nil
            }
            largest = max(largest, rank)
        }
        return largest
    }

    /// Component-major [k][query][length] to query-major [query][k][length].
    private func queryMajor(_ values: [Float], queryCount: Int, rank: Int, length: Int) -> [Float] {
        var result: [Float] = []
        result.reserveCapacity(values.count)
        for query in 0..<queryCount {
            for component in 0..<rank {
                let start = (component * queryCount + query) * length
                result.append(contentsOf: values[start..<start + length])
            }
        }
        return result
    }
}
