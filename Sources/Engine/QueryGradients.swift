import Interchange
import LinearAlgebra
import Schema
import Scoring
import Store

/// The gradients of queries, from a file or of stored examples, matched with the layers that a query selects.
struct QueryGradients: Sendable {
    /// Where the gradients are.
    private enum Source: Sendable {
        case file(FactorBatch)
        /// By store position of the layer, in the store's coordinates.
        case stored([Int: LayerTile], identifiers: [String], metadata: [MetadataRecord?])
    }

    private let source: Source
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
        source = .file(batch)
        self.schema = schema
        self.positions = positions
    }

    /// Stored examples as queries, in the given order: their gradients as the store has them.
    init(examples identifiers: [String], of rows: LiveRows, selection: [Int], workers: Int) throws {
        let found = try rows.selecting(.identifiers(identifiers), workers: workers)
        let order = places(of: identifiers, in: try found.readAllIdentifiers())
        var tiles: [Int: LayerTile] = [:]
        for layer in selection { tiles[layer] = try found.readTile(layer: layer).selecting(order) }
        let records = try found.blocks.indices.flatMap { try found.readMetadata(block: $0) }
        source = .stored(tiles, identifiers: identifiers, metadata: order.map { records[$0] })
        layers = selection
        schema = rows.snapshot.schema
        positions = Dictionary(uniqueKeysWithValues: selection.map { ($0, $0) })
        whitening = nil
    }

    /// How many queries there are.
    var count: Int {
        switch source {
        case .file(let batch): batch.rowCount
        case .stored(_, let identifiers, _): identifiers.count
        }
    }

    /// The ids of the queries; row numbers where the file has none.
    var identifiers: [String] {
        switch source {
        case .file(let batch): batch.identifiers ?? (0..<batch.rowCount).map(String.init)
        case .stored(_, let identifiers, _): identifiers
        }
    }

    /// User metadata of some queries.
    func metadata(_ queries: Range<Int>) throws -> [MetadataRecord?] {
        switch source {
        case .file(let batch): try batch.metadata(rows: queries)
        case .stored(_, _, let metadata): Array(metadata[queries])
        }
    }

    /// The gradients of some queries at one layer, in the store's coordinates.
    private func readTile(layer: Int, queries: Range<Int>) throws -> LayerTile {
        guard let position = positions[layer] else { preconditionFailure("layer \(layer) is not in the queries") }
        switch source {
        case .stored(let tiles, _, _):
            guard let tile = tiles[layer] else { preconditionFailure("layer \(layer) was not read") }
            return tile.selecting(Array(queries))
        case .file(let batch):
            let tile = try batch.readTile(layer: position, rows: queries)
            guard let whitening else { return tile }
            return try whitening.apply(to: tile, layer: layer, path: batch.path, firstRow: queries.lowerBound)
        }
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

    /// Σ weight · gradient over some queries at one layer, as a full matrix; summed in Double.
    func readSum(layer: Int, queries: [Int], weights: [Double], atMost chunk: Int) throws -> [Float] {
        var sum = [Double](repeating: 0, count: schema.layers[layer].gradientLength)
        var start = 0
        while start < queries.count {
            // Consecutive queries are read together.
            var end = start + 1
            while end < queries.count, end - start < chunk, queries[end] == queries[end - 1] + 1 { end += 1 }
            let range = queries[start]..<queries[end - 1] + 1
            let values = try readFull(layer: layer, queries: range)
            for query in 0..<range.count {
                let weight = weights[start + query]
                for index in sum.indices { sum[index] += weight * Double(values[query * sum.count + index]) }
            }
            start = end
        }
        return sum.map { Float($0) }
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
            guard let position = positions[layer] else { return nil }
            let rank: Int? =
                switch source {
                case .file(let batch): batch.layers[position].schema.rank
                case .stored: schema.layers[layer].rank
                }
            guard let rank else { return nil }
            largest = max(largest, rank)
        }
        return largest
    }
}

/// Component-major [k][query][length] to query-major [query][k][length].
func queryMajor(_ values: [Float], queryCount: Int, rank: Int, length: Int) -> [Float] {
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
