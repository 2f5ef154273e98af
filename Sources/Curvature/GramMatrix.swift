import LinearAlgebra
import Schema

/// H = Σ_i g_i g_iᵀ of one group as a dense matrix, over reconstructed rows.
///
/// Held as panels of `FitGrain.panelWidth` rows of its lower triangle, which are the units of parallel work; every number is
/// summed in tile order by one worker, so H does not depend on how many there are.
struct GramMatrix: Sendable {
    let order: Int
    /// Panel p: rows p·width ..< end, columns 0 ..< end, row-major.
    private(set) var panels: [[Double]]

    /// One pass. `arithmetic` single sums f32 products over at most `FitGrain.singleRows` rows before flushing them into Double, and
    /// scales every layer by a power of two so that f32 does not overflow.
    init(
        of layers: [Int], source: RowSource, arithmetic: Arithmetic, workers: Int, progress: FitProgress
    ) throws(CurvatureError) {
        let blocks = ColumnBlock.partition(layers, of: source, width: FitGrain.columnBlockWidth)
        order = layers.map { source.layers[$0].gradientLength }.reduce(0, +)
        let starts = Array(stride(from: 0, to: order, by: FitGrain.panelWidth))
        let order = order
        panels = starts.map { start in
            let end = min(start + FitGrain.panelWidth, order)
            return [Double](repeating: 0, count: (end - start) * end)
        }
        switch arithmetic {
        case .double:
            var accumulator = PanelAccumulator<Double>(order: order, scales: nil)
            try accumulator.run(blocks, source: source, workers: workers, progress: progress, flushRows: Int.max) {
                _ in
            }
            panels = accumulator.panels
        case .single:
            let scales = try RowScale.ofLayers(layers, source: source)
            var accumulator = PanelAccumulator<Float>(order: order, scales: scales)
            let factor = 1 / (scales.product * scales.product)
            try accumulator.run(
                blocks, source: source, workers: workers, progress: progress, flushRows: FitGrain.singleRows
            ) { single in
                parallelUpdate(&panels, workers: workers) { index, panel in
                    for position in panel.indices { panel[position] += Double(single[index][position]) * factor }
                }
            }
        }
    }

    var trace: Double {
        var sum = 0.0
        for (index, panel) in panels.enumerated() {
            let start = index * FitGrain.panelWidth
            let end = min(start + FitGrain.panelWidth, order)
            for row in start..<end { sum += panel[(row - start) * end + row] }
        }
        return sum
    }

    /// The full symmetric matrix.
    func assembled() -> [Double] { KernelMatrix.assemble(panels, order: order) }
}

/// Lower panels of Σ g gᵀ in one precision.
private struct PanelAccumulator<Scalar: BLASScalar> {
    let order: Int
    let scales: RowScale?
    var panels: [[Scalar]]

    init(order: Int, scales: RowScale?) {
        self.order = order
        self.scales = scales
        panels = stride(from: 0, to: order, by: FitGrain.panelWidth).map { start in
            let end = min(start + FitGrain.panelWidth, order)
            return [Scalar](repeating: 0, count: (end - start) * end)
        }
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
