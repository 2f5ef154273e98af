import LinearAlgebra
import Schema

/// H = Σ_i g_i g_iᵀ of one group as a dense matrix, over reconstructed rows. One pass.
///
/// Every number is summed in tile order by one worker, so H does not depend on how many there are. `arithmetic` single sums f32
/// products over at most `FitGrain.singleRows` rows before flushing them into Double, and scales every layer by a power of two so
/// that f32 does not overflow.
func gramMatrix(
    of layers: [Int], source: RowSource, arithmetic: Arithmetic, workers: Int, progress: FitProgress
) throws(CurvatureError) -> PanelMatrix {
    let blocks = ColumnBlock.partition(layers, of: source, width: FitGrain.columnBlockWidth)
    let order = layers.map { source.layers[$0].gradientLength }.reduce(0, +)
    switch arithmetic {
    case .double:
        var accumulator = PanelAccumulator<Double>(order: order, scales: nil)
        try accumulator.run(blocks, source: source, workers: workers, progress: progress, flushRows: Int.max) { _ in }
        return PanelMatrix(order: order, panels: accumulator.panels)
    case .single:
        let scales = try RowScale.ofLayers(layers, source: source)
        var matrix = PanelMatrix(order: order)
        var accumulator = PanelAccumulator<Float>(order: order, scales: scales)
        let factor = 1 / (scales.product * scales.product)
        try accumulator.run(
            blocks, source: source, workers: workers, progress: progress, flushRows: FitGrain.singleRows
        ) { single in
            parallelUpdate(&matrix.panels, workers: workers) { index, panel in
                for position in panel.indices { panel[position] += Double(single[index][position]) * factor }
            }
        }
        return matrix
    }
}

/// Lower panels of Σ g gᵀ in one precision.
private struct PanelAccumulator<Scalar: BLASScalar> {
    let order: Int
    let scales: RowScale?
    var panels: [[Scalar]]

    init(order: Int, scales: RowScale?) {
        self.order = order
        self.scales = scales
        panels = PanelMatrix.shapes(order: order).map { [Scalar](repeating: 0, count: $0) }
    }

    mutating func run(
        _ blocks: [ColumnBlock], source: RowSource, workers: Int, progress: FitProgress, flushRows: Int,
        flush: ([[Scalar]]) -> Void
    ) throws(CurvatureError) {
        let order = order
        let chunkRows = FitGrain.chunkRowCount(width: order, bytesPerNumber: MemoryLayout<Scalar>.stride)
        var chunk = [Scalar](repeating: 0, count: 0)
        var pending = 0
        for tileIndex in source.tileRowCounts.indices {
            let tiles = try GroupTile(tileIndex, blocks: blocks, source: source, workers: workers)
            let rowCount = source.tileRowCounts[tileIndex]
            for start in stride(from: 0, to: rowCount, by: chunkRows) {
                let rows = start..<min(start + chunkRows, rowCount)
                tiles.reconstruct(rows: rows, blocks: blocks, scales: scales, into: &chunk)
                let gradients = chunk
                let fresh = pending == 0
                parallelUpdate(&panels, workers: workers) { index, panel in
                    let first = index * FitGrain.panelWidth
                    let end = min(first + FitGrain.panelWidth, order)
                    var target = panel.mutableSpan
                    multiply(
                        gradients.span.extracting(first..<gradients.count), strideA: order, transposeA: true,
                        gradients.span, strideB: order, into: &target, m: end - first, n: end, k: rows.count,
                        beta: fresh && flushRows != Int.max ? 0 : 1)
                }
                pending += rows.count
                if pending >= flushRows {
                    flush(panels)
                    pending = 0
                }
                progress.advance(
                    by: Double(rows.count) * Double(order) * Double(order) * (flushRows == Int.max ? 2 : 1))
            }
        }
        if pending > 0 { flush(panels) }
    }
}

/// The tiles of one row block for all layers of a group.
struct GroupTile: Sendable {
    let rowCount: Int
    private let tiles: [Int: LayerTile]

    init(_ index: Int, blocks: [ColumnBlock], source: RowSource, workers: Int) throws(CurvatureError) {
        rowCount = source.tileRowCounts[index]
        var layers: [Int] = []
        for block in blocks where layers.last != block.layer { layers.append(block.layer) }
        let members = layers
        let read = try parallelMap(count: members.count, workers: workers) { position throws(CurvatureError) in
            try source.tile(index, layer: members[position])
        }
        tiles = Dictionary(uniqueKeysWithValues: zip(members, read))
    }

    /// Σ ‖g‖² over the tile's rows and layers, from the factors.
    func squaredNorm(workers: Int) -> Double {
        let layers = tiles.keys.sorted()
        return parallelMap(count: layers.count, workers: workers) { index in
            tiles[layers[index]].map { squaredNorms(of: $0).reduce(0, +) } ?? 0
        }
        .reduce(0, +)
    }

    /// rows × D, all blocks of the group side by side.
    func reconstruct<Scalar: BLASScalar>(
        rows: Range<Int>, blocks: [ColumnBlock], scales: RowScale?, into chunk: inout [Scalar]
    ) {
        if blocks.count == 1 {
            reconstruct(rows: rows, block: blocks[0], scales: scales, into: &chunk)
            return
        }
        let length = blocks.last.map { $0.groupOffset + $0.width } ?? 0
        if chunk.count != rows.count * length { chunk = [Scalar](repeating: 0, count: rows.count * length) }
        var part: [Scalar] = []
        for block in blocks {
            reconstruct(rows: rows, block: block, scales: scales, into: &part)
            for row in 0..<rows.count {
                let target = row * length + block.groupOffset
                let origin = row * block.width
                for column in 0..<block.width { chunk[target + column] = part[origin + column] }
            }
        }
    }

    /// rows × width of one block.
    func reconstruct<Scalar: BLASScalar>(
        rows: Range<Int>, block: ColumnBlock, scales: RowScale?, into chunk: inout [Scalar]
    ) {
        guard let tile = tiles[block.layer] else { preconditionFailure("a block of another group") }
        if chunk.count != rows.count * block.width {
            chunk = [Scalar](repeating: 0, count: rows.count * block.width)
        }
        let (left, right) = scales?.sides(of: block.layer) ?? (1, 1)
        var span = chunk.mutableSpan
        LinearAlgebra.reconstruct(
            tile, rows: rows, columns: block.columns, leftScale: Scalar(left), rightScale: Scalar(right),
            into: &span)
    }
}
