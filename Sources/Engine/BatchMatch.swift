import Interchange
import LinearAlgebra
import Schema
import Store

/// A factor batch whose layers have been matched with the store's, so that its rows can be read in store order.
struct BatchMatch: Sendable {
    let batch: FactorBatch
    private let schema: StoreSchema
    /// The batch's layer for each layer of the store.
    private let positions: [Int]
    /// The whitening of raw gradients; nil when the batch is in the store's coordinates.
    private let whitening: SchemaBasis?

    /// Checks that the batch holds every layer of the store, no other, in the same shape and form, in its basis or in none.
    ///
    /// Full gradients match a layer of factors: they are factored to its rank on the way. Raw gradients are whitened by
    /// `basis`, which is that of the store.
    init(_ batch: FactorBatch, schema: StoreSchema, basis: SchemaBasis?) throws(EngineError) {
        whitening = try SchemaBasis.needed(for: batch, schema: schema, basis: basis)
        var byName: [String: Int] = [:]
        for (position, layer) in batch.layers.enumerated() { byName[layer.name] = position }
        let storeNames = Set(schema.layers.map(\.name))
        for layer in batch.layers where !storeNames.contains(layer.name) {
            throw .layerUnknown(
                path: batch.path, layer: layer.name,
                nearest: nearestName(to: layer.name, among: schema.layers.map(\.name)))
        }
        var positions: [Int] = []
        for layer in schema.layers {
            guard let position = byName[layer.name] else { throw .layerMissing(path: batch.path, layer: layer.name) }
            let given = batch.layers[position]
            guard given.inputDimension == layer.inputDimension, given.outputDimension == layer.outputDimension else {
                throw .shapeMismatch(
                    path: batch.path, layer: layer.name, expected: [layer.inputDimension, layer.outputDimension],
                    found: [given.inputDimension, given.outputDimension])
            }
            switch (layer.form, given.form) {
            case (.factors(let expected), .factors(let found)) where expected != found:
                throw .rankMismatch(path: batch.path, layer: layer.name, expected: expected, found: found)
            case (.dense, .factors(let rank)):
                throw .formMismatch(
                    path: batch.path, layer: layer.name, expected: "full gradients", found: "factors of rank \(rank)")
            default:
                positions.append(position)
            }
        }
        self.batch = batch
        self.schema = schema
        self.positions = positions
    }

    /// What the user should know about these rows, nil if nothing.
    var note: String? {
        guard whitening != nil, batch.layers.contains(where: { $0.form != .full }) else { return nil }
        return "\(batch.path): factors of raw gradients were carried into the store's whitened basis. Truncated before "
            + "whitening, they lack most of what whitening gains: give full gradients ('<layer>/full')"
    }

    /// Whether any layer is factored on the way in, so that energy may be lost.
    var factorsRows: Bool {
        schema.layers.indices.contains { isFactored(layer: $0) }
    }

    /// How many rows to read at once so that decoded rows stay within `memoryBytes`: a full block if possible.
    ///
    /// The writer holds up to two blocks and encodes one more; each worker holds one layer of the rows being read, as bytes,
    /// as numbers, and once more while it is factored (whitened: twice). Throws `.memoryTooSmall` when not even 32 rows fit.
    func rowsAtOnce(memoryBytes: Int, workers: Int) throws(EngineError) -> Int {
        let rowBytes = 4 * schema.storedNumberCount
        let blockBytes = 3 * schema.rowsPerBlock * rowBytes
        let widestLayer = batch.layers.map { 4 * $0.schema.storedNumberCount }.max() ?? 0
        let bytesPerRow = (whitening == nil ? 3 : 4) * workers * widestLayer + rowBytes
        let rows = (memoryBytes - blockBytes) / bytesPerRow
        guard rows >= 32 else { throw .memoryTooSmall(needed: blockBytes + 32 * bytesPerRow, given: memoryBytes) }
        return min(rows, schema.rowsPerBlock)
    }

    private func isFactored(layer: Int) -> Bool {
        schema.layers[layer].rank != nil && batch.layers[positions[layer]].form == .full
    }

    /// Some rows of all layers, read and factored on up to `workers` threads; without ids if the batch has none.
    func readBlock(_ rows: Range<Int>, workers: Int, energy: inout EnergyTally) throws -> RowBlock {
        let tiles = try mapConcurrently(below: schema.layers.count, workers: workers) { layer in
            try readTile(layer: layer, rows: rows)
        }
        energy.add(tiles)
        var residualNorms: [[Float]]?
        if factorsRows {
            residualNorms = tiles.map { $0.residualNorms ?? Array(repeating: 0, count: rows.count) }
        }
        return RowBlock(
            identifiers: batch.identifiers.map { Array($0[rows]) } ?? [], tiles: tiles.map(\.tile),
            residualNorms: residualNorms, metadata: try batch.metadata(rows: rows))
    }

    /// One store layer's rows, decoded and, where the store keeps factors of given full gradients, factored.
    func readTile(layer: Int, rows: Range<Int>) throws -> FactoredTile {
        var given = try batch.readTile(layer: positions[layer], rows: rows)
        if let whitening {
            given = try whitening.apply(to: given, layer: layer, path: batch.path, firstRow: rows.lowerBound)
        }
        let target = schema.layers[layer]
        guard isFactored(layer: layer), let rank = target.rank else {
            let tile =
                target.rank == nil
                ? LayerTile(layer: target, rowCount: rows.count, dense: given.dense)
                : LayerTile(layer: target, rowCount: rows.count, left: given.left, right: given.right)
            return FactoredTile(tile: tile, residualNorms: nil, energy: 0, lostEnergy: 0)
        }
        let factors = try truncatedFactors(
            of: given.dense.span, count: rows.count, d1: target.inputDimension, d2: target.outputDimension, rank: rank,
            workers: 1)
        var energy = 0.0
        for value in given.dense { energy += Double(value) * Double(value) }
        let lost = factors.residualNorms.reduce(0.0) { $0 + Double($1) * Double($1) }
        return FactoredTile(
            tile: LayerTile(layer: target, rowCount: rows.count, left: factors.left, right: factors.right),
            residualNorms: factors.residualNorms, energy: energy, lostEnergy: lost)
    }
}

/// A tile ready for the store, with what its factorisation lost.
struct FactoredTile: Sendable {
    let tile: LayerTile
    /// ‖G − U Vᵀ‖ per row where rows were factored here; nil otherwise.
    let residualNorms: [Float]?
    /// Σ‖G‖² and Σ‖G − U Vᵀ‖² over the rows; zero where nothing was factored.
    let energy: Double
    let lostEnergy: Double
}

extension FactorBatch {
    /// What the file says about its origin, as JSON text.
    var provenanceText: String {
        JSONText.object(MetadataRecord(fields: provenance.map { ($0.0, .string($0.1)) }))
    }
}
