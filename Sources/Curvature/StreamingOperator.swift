import LinearAlgebra
import Schema

/// X ↦ H·X = Gᵀ(G X) by one pass over the rows, without holding anything of size N or D².
///
/// Every tile is taken twice from cache: row chunks in parallel give Y = G Xᵀ, then column blocks in parallel add Yᵀ G. The
/// partition is fixed by shapes, so the result does not depend on the number of workers.
struct StreamingOperator<Scalar: BLASScalar> {
    let source: RowSource
    let blocks: [ColumnBlock]
    let scales: RowScale?
    let workers: Int
    let progress: FitProgress

    static var chunkRows: Int { 256 }

    /// Width of column blocks for gradients of a length: enough blocks to share, wide enough for GEMM.
    static func blockWidth(length: Int) -> Int {
        min(FitGrain.columnBlockWidth, max(512, (length / 8 + 63) / 64 * 64))
    }

    struct Pass {
        /// H·X.
        let image: RowVectors
        /// X H Xᵀ = Σ_i (X g_i)(X g_i)ᵀ from the coordinates, which is accurate for small eigenvalues too; if measured.
        let projected: [Double]
        /// Σ_i ‖g_i‖², if measured.
        let trace: Double
    }

    /// What a pass finds out besides H·X.
    enum Measure { case nothing, trace, projection }

    func run(_ vectors: RowVectors, measures: Measure) throws(CurvatureError) -> Pass {
        let count = vectors.rowCount
        let widths = vectors.widths
        let directions = vectors.blocks.map { block in block.map { Scalar($0) } }
        var sums = widths.map { BlockSum<Scalar>(count: count * $0) }
        var projected = [Double](repeating: 0, count: measures == .projection ? count * count : 0)
        var trace = 0.0
        let factor = scales.map { 1 / ($0.product * $0.product) } ?? 1
        for tileIndex in source.tileRowCounts.indices {
            let tile = try GroupTile(tileIndex, blocks: blocks, source: source, workers: workers)
            guard tile.rowCount > 0 else { continue }
            if measures == .trace { trace += tile.squaredNorm(workers: workers) }
            let chunks = stride(from: 0, to: tile.rowCount, by: Self.chunkRows).map {
                $0..<min($0 + Self.chunkRows, tile.rowCount)
            }
            let coordinates = parallelMap(count: chunks.count, workers: workers) { index in
                self.coordinates(
                    of: chunks[index], in: tile, directions: directions, count: count,
                    projects: measures == .projection)
            }
            for part in coordinates {
                for index in projected.indices { projected[index] += part.projected[index] * factor }
            }
            parallelUpdate(&sums, workers: workers) { index, sum in
                let block = blocks[index]
                var gradients: [Scalar] = []
                for (chunk, part) in zip(chunks, coordinates) {
                    tile.reconstruct(rows: chunk, block: block, scales: scales, into: &gradients)
                    sum.add(
                        coordinates: part.values, gradients: gradients, count: count, width: block.width,
                        rowCount: chunk.count)
                }
            }
            progress.advance(
                by: 4 * Double(tile.rowCount) * Double(vectors.length) * Double(count)
                    * (Scalar.self == Double.self ? 2 : 1))
        }
        let image = RowVectors(
            widths: widths, rowCount: count, blocks: sums.map { $0.total(scaledBy: factor) })
        return Pass(image: image, projected: projected, trace: trace)
    }

    private func coordinates(
        of rows: Range<Int>, in tile: GroupTile, directions: [[Scalar]], count: Int, projects: Bool
    ) -> (values: [Scalar], projected: [Double]) {
        var values = [Scalar](repeating: 0, count: rows.count * count)
        var gradients: [Scalar] = []
        for (block, direction) in zip(blocks, directions) {
            tile.reconstruct(rows: rows, block: block, scales: scales, into: &gradients)
            var target = values.mutableSpan
            multiply(
                gradients.span, direction.span, transposeB: true, into: &target, m: rows.count, n: count,
                k: block.width, beta: 1)
        }
        guard projects else { return (values, []) }
        let wide = values.map { Double($0) }
        var projected = [Double](repeating: 0, count: count * count)
        var target = projected.mutableSpan
        multiplyBySelf(wide.span, transpose: true, into: &target, n: count, k: rows.count)
        return (values, projected)
    }
}

/// One column block of H·X: products in the operator's precision, flushed into Double every few thousand rows.
private struct BlockSum<Scalar: BLASScalar>: Sendable {
    private var pending: [Scalar]
    private var pendingRows = 0
    private var sum: [Double]

    init(count: Int) {
        pending = [Scalar](repeating: 0, count: count)
        sum = [Double](repeating: 0, count: count)
    }

    mutating func add(coordinates: [Scalar], gradients: [Scalar], count: Int, width: Int, rowCount: Int) {
        let fresh = pendingRows == 0
        var target = pending.mutableSpan
        multiply(
            coordinates.span, transposeA: true, gradients.span, into: &target, m: count, n: width, k: rowCount,
            beta: fresh ? 0 : 1)
        pendingRows += rowCount
        if pendingRows >= FitGrain.singleRows { flush() }
    }

    private mutating func flush() {
        for index in sum.indices { sum[index] += Double(pending[index]) }
        pendingRows = 0
    }

    consuming func total(scaledBy factor: Double) -> [Double] {
        if pendingRows > 0 { flush() }
        for index in sum.indices { sum[index] *= factor }
        return sum
    }
}
