import LinearAlgebra
public import Schema
public import Store

/// What a compaction did.
public struct CompactReport: Sendable {
    /// What the store says of it.
    public let summary: CompactionSummary
    /// The layers and encoding afterwards.
    public let schema: StoreSchema
    /// Live rows.
    public let rowCount: Int
    /// Whether values changed, by another encoding or rank, so that the active curvature is out of date because of it.
    public let valuesChanged: Bool
    /// Named snapshots that still hold old files.
    public let snapshotNames: [String]
    /// Whether the active curvature no longer fits the rows.
    public let curvatureIsStale: Bool
    /// Rows whose coordinates in the active curvature are gone with their segments.
    public let lostCoordinatesRowCount: Int
}

extension Database {
    /// Merges small segments, drops the bytes of deleted rows, and on request stores all rows in another encoding or at a lower rank.
    ///
    /// Without `encoding` and `rank` no value changes and fitted curvature stays valid. `rank` cuts factors down by the best approximation
    /// of the gradient that they stand for, and factors full matrices; what that loses goes into the residual norms. Readers go on
    /// with their snapshot; a kill leaves the store as it was.
    public func compact(
        encoding: Encoding? = nil, rank: Int? = nil, workers: Int = availableProcessorCount(),
        control: OperationControl = OperationControl()
    ) throws -> CompactReport {
        let writer = try StoreWriter.open(at: path)
        defer { writer.abandon() }
        let old = writer.schema
        let schema = StoreSchema(
            layers: try old.layers.map { try truncated($0, rank: rank) }, encoding: encoding ?? old.encoding,
            basis: old.basis)
        if let rank, schema.layers == old.layers, !old.layers.contains(where: { $0.rank == rank }),
            let largest = old.layers.compactMap(\.rank).max(), largest < rank
        {
            throw EngineError.settingMismatch(setting: "--rank", expected: "rank \(largest) at most", found: "\(rank)")
        }
        let total = writer.rowCount
        var completed = 0
        let coveredRowCount = writer.snapshot().activeCoordinatesRowCount
        let summary = try writer.compact(
            as: schema == old ? nil : schema,
            transform: { block in try block.truncated(to: schema.layers, workers: workers) },
            progress: { count in
                try control.cancellation.check()
                completed += count
                control.report(
                    ProgressUpdate(stage: "compact", completedCount: completed, totalCount: total, byteCount: 0))
            })
        let after = writer.snapshot()
        let active = after.curvatures.first { $0.digest == after.activeCurvature }
        return CompactReport(
            summary: summary, schema: schema, rowCount: writer.rowCount, valuesChanged: schema != old,
            snapshotNames: after.namedSnapshots.map(\.name),
            curvatureIsStale: active.map { $0.description.fittedRowDigest != after.rowDigest } ?? false,
            lostCoordinatesRowCount: max(0, coveredRowCount - after.activeCoordinatesRowCount))
    }
}

extension Snapshot {
    /// Live rows with coordinates in the active curvature.
    fileprivate var activeCoordinatesRowCount: Int {
        activeCurvature.flatMap { coordinatesCoverage(of: $0) }?.rowCount ?? 0
    }
}

/// The layer with factors of at most this rank; as it is when it has no more.
private func truncated(_ layer: LayerSchema, rank: Int?) throws -> LayerSchema {
    guard let rank, rank < layer.rank ?? .max else { return layer }
    let largest = min(layer.inputDimension, layer.outputDimension)
    return LayerSchema(
        name: layer.name, inputDimension: layer.inputDimension, outputDimension: layer.outputDimension,
        form: .factors(rank: min(rank, largest)))
}

/// Numbers of the matrices that are multiplied out at a time.
private let reconstructedNumberCount = 1 << 22

extension RowBlock {
    /// The block with factors of the layers' ranks; what that loses is added to the residual norms.
    fileprivate func truncated(to layers: [LayerSchema], workers: Int) throws -> RowBlock {
        var block = self
        for (index, layer) in layers.enumerated() where layer != tiles[index].layer {
            guard let rank = layer.rank else { continue }
            let cut = try tiles[index].truncated(to: layer, rank: rank, workers: workers)
            block.tiles[index] = cut.tile
            var norms = block.residualNorms ?? layers.map { _ in [Float](repeating: 0, count: rowCount) }
            // The triangle inequality.
            for (row, lost) in cut.residualNorms.enumerated() where lost > 0 {
                norms[index][row] = (norms[index][row] + lost).nextUp
            }
            block.residualNorms = norms
        }
        return block
    }
}

extension LayerTile {
    fileprivate func truncated(
        to target: LayerSchema, rank: Int, workers: Int
    ) throws -> (tile: LayerTile, residualNorms: [Float]) {
        let (d1, d2) = (target.inputDimension, target.outputDimension)
        var left = [Float](repeating: 0, count: rank * rowCount * d1)
        var right = [Float](repeating: 0, count: rank * rowCount * d2)
        var residualNorms: [Float] = []
        let chunk = max(1, reconstructedNumberCount / target.gradientLength)
        for start in stride(from: 0, to: rowCount, by: chunk) {
            let rows = start..<min(rowCount, start + chunk)
            var matrices = [Float](repeating: 0, count: rows.count * target.gradientLength)
            var span = matrices.mutableSpan
            reconstruct(self, rows: rows, columns: 0..<target.gradientLength, into: &span)
            let factors = try truncatedFactors(
                of: matrices.span, count: rows.count, d1: d1, d2: d2, rank: rank, workers: workers)
            for component in 0..<rank {
                let (from, to) = (component * rows.count, component * rowCount + start)
                left.replaceSubrange(
                    to * d1..<(to + rows.count) * d1, with: factors.left[from * d1..<(from + rows.count) * d1])
                right.replaceSubrange(
                    to * d2..<(to + rows.count) * d2, with: factors.right[from * d2..<(from + rows.count) * d2])
            }
            residualNorms += factors.residualNorms
        }
        return (LayerTile(layer: target, rowCount: rowCount, left: left, right: right), residualNorms)
    }
}
