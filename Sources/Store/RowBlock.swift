public import Schema

/// Consecutive rows on their way into a segment: what is known about each example.
public struct RowBlock: Sendable {
    /// The examples' ids, unique in the store.
    public var identifiers: [String]
    /// One tile for each layer of the store, in the store's order, each with as many rows as there are ids.
    public var tiles: [LayerTile]
    /// [layer][row]: the norm of what was lost before the store saw the gradient (as when its rank was cut), if anything was.
    public var residualNorms: [[Float]]?
    /// The user's metadata: one entry for each row, or none at all.
    public var metadata: [MetadataRecord?]

    /// A value of these parts.
    public init(
        identifiers: [String], tiles: [LayerTile], residualNorms: [[Float]]? = nil, metadata: [MetadataRecord?] = []
    ) {
        self.identifiers = identifiers
        self.tiles = tiles
        self.residualNorms = residualNorms
        self.metadata = metadata
    }

    /// How many examples there are.
    public var rowCount: Int { identifiers.count }

    /// Whether everything in the block fits the schema and each other; throws the first thing that does not.
    func validate(against schema: StoreSchema) throws(StoreError) {
        func expect(_ what: @autoclosure () -> String, _ expected: Int, _ found: Int) throws(StoreError) {
            guard expected == found else { throw .blockShape(what: what(), expected: expected, found: found) }
        }
        try expect("tiles", schema.layers.count, tiles.count)
        for (layer, tile) in zip(schema.layers, tiles) {
            let rank = layer.rank ?? 0
            try expect("rows in layer \(layer.name)", rowCount, tile.rowCount)
            try expect("left numbers in layer \(layer.name)", rank * rowCount * layer.inputDimension, tile.left.count)
            try expect(
                "right numbers in layer \(layer.name)", rank * rowCount * layer.outputDimension, tile.right.count)
            try expect(
                "dense numbers in layer \(layer.name)", layer.rank == nil ? rowCount * layer.gradientLength : 0,
                tile.dense.count)
        }
        if let residualNorms {
            try expect("layers of residual norms", schema.layers.count, residualNorms.count)
            for (layer, norms) in zip(schema.layers, residualNorms) {
                try expect("residual norms in layer \(layer.name)", rowCount, norms.count)
                if let row = norms.firstIndex(where: { !($0.isFinite && $0 >= 0) }) {
                    throw .notFinite(layer: layer.name, row: row)
                }
            }
        }
        if !metadata.isEmpty { try expect("metadata records", rowCount, metadata.count) }
        for (row, identifier) in identifiers.enumerated() {
            let byteCount = identifier.utf8.count
            guard byteCount <= Limits.identifierBytes else { throw .identifierTooLong(row: row, byteCount: byteCount) }
        }
    }
}
