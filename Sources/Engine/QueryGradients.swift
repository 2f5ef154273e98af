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
    /// The whitening of raw queries; nil when they are in the store's coordinates.
    private let whitening: SchemaBasis?

    /// Matches `batch` with the store. Queries may have fewer layers than the store (the others count as zero) but no
    /// unknown ones, in the store's shapes; they may be full or factored at any rank, and raw
    /// (`basis`, the store's, whitens them) or in its basis already.
    init(_ batch: FactorBatch, schema: StoreSchema, basis: SchemaBasis?, selection: [Int]) throws {
        whitening = try SchemaBasis.needed(for: batch, schema: schema, basis: basis)
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

    /// The gradients of some queries at one layer, in the store's coordinates.
    private func readTile(layer: Int, queries: Range<Int>) throws -> LayerTile {
        guard let position = positions[layer] else { preconditionFailure("layer \(layer) is not in the queries") }
        let tile = try batch.readTile(layer: position, rows: queries)
        guard let whitening else { return tile }
        return try whitening.apply(to: tile, layer: layer, path: batch.path, firstRow: queries.lowerBound)
    }

    /// The gradients of some queries at one layer, times `weight`, in the form in which they were given.
    func readForm(layer: Int, queries: Range<Int>, weight: Double) throws -> QueryForm {
        let tile = try readTile(layer: layer, queries: queries)
        func weighted(_ values: [Float]) -> [Float] { weight == 1 ? values : values.map { Float(Double($0) * weight) } }
        switch tile.layer.form {
        case .dense:
            return .full(weighted(tile.dense))
        case .factors(let rank):
            return .factors(
                rank: rank,
                left: queryMajor(
                    weighted(tile.left), queryCount: queries.count, rank: rank, length: tile.layer.inputDimension),
                right: queryMajor(tile.right, queryCount: queries.count, rank: rank, length: tile.layer.outputDimension)
            )
        }
    }

    /// The gradients of some queries at one layer as full matrices, queries × (d1·d2); zeros where the queries lack the layer.
    func readFull(layer: Int, queries: Range<Int>) throws -> [Float] {
        let shape = schema.layers[layer]
        guard positions[layer] != nil, layers.contains(layer) else {
            return Array(repeating: 0, count: queries.count * shape.gradientLength)
        }
        let tile = try readTile(layer: layer, queries: queries)
        guard tile.layer.rank != nil else { return tile.dense }
        var matrices = [Float](repeating: 0, count: queries.count * shape.gradientLength)
        var target = matrices.mutableSpan
        reconstruct(tile, rows: 0..<tile.rowCount, columns: 0..<shape.gradientLength, into: &target)
        return matrices
    }

    /// ‖g_q‖² at one layer.
    func squaredNorms(layer: Int, queries: Range<Int>) throws -> [Double] {
        LinearAlgebra.squaredNorms(of: try readTile(layer: layer, queries: queries))
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
