import LinearAlgebra

/// A symmetric matrix in Double, held as panels of `FitGrain.panelWidth` rows of its lower triangle: half the memory of the whole.
///
/// Panel p: rows p·width ..< end, columns 0 ..< end, row-major. Panels are the units of parallel work.
struct PanelMatrix: Sendable {
    let order: Int
    var panels: [[Double]]

    /// Zeros.
    init(order: Int) {
        self.order = order
        panels = Self.shapes(order: order).map { [Double](repeating: 0, count: $0) }
    }

    /// Panels of these shapes.
    init(order: Int, panels: [[Double]]) {
        precondition(panels.map(\.count) == Self.shapes(order: order), "panels of another order")
        self.order = order
        self.panels = panels
    }

    /// Numbers of each panel.
    static func shapes(order: Int) -> [Int] {
        stride(from: 0, to: order, by: FitGrain.panelWidth).map { start in
            let end = min(start + FitGrain.panelWidth, order)
            return (end - start) * end
        }
    }

    /// Numbers of all panels: order·(order + width)/2 at most.
    static func numberCount(order: Int) -> Int {
        let (square, overflow) = order.multipliedReportingOverflow(by: order.addingCapped(FitGrain.panelWidth))
        return overflow ? Int.max : square / 2
    }

    private func rows(_ panel: Int) -> Range<Int> {
        let start = panel * FitGrain.panelWidth
        return start..<min(start + FitGrain.panelWidth, order)
    }

    /// Widths of the panels, which are those of the blocks of ``product(_:workers:)``.
    var widths: [Int] { panels.indices.map { rows($0).count } }

    var diagonal: [Double] {
        panels.indices.flatMap { panel in
            let rows = rows(panel)
            return rows.map { panels[panel][($0 - rows.lowerBound) * rows.upperBound + $0] }
        }
    }

    var trace: Double { diagonal.reduce(0, +) }

    /// X·H for the rows of X, whose blocks are as wide as the panels. 2·count·order² operations.
    ///
    /// Every block of the result is summed over panels in order, so it does not depend on the number of workers.
    func product(_ vectors: RowVectors, workers: Int) -> RowVectors {
        let (widths, count) = (widths, vectors.rowCount)
        let blocks = parallelMap(count: widths.count, workers: workers) { index in
            var part = [Double](repeating: 0, count: count * widths[index])
            var target = part.mutableSpan
            let columns = rows(index)
            for other in widths.indices {
                let block = vectors.blocks[other]
                let panel = panels[max(index, other)]
                if other <= index {
                    // Columns `other` of panel `index`, transposed.
                    let offset = rows(other).lowerBound
                    multiply(
                        block.span, panel.span.extracting(offset..<panel.count), strideB: columns.upperBound,
                        transposeB: true, into: &target, m: count, n: widths[index],
                        k: widths[other], beta: 1)
                } else {
                    // Columns `index` of panel `other`.
                    let offset = columns.lowerBound
                    multiply(
                        block.span, panel.span.extracting(offset..<panel.count), strideB: rows(other).upperBound,
                        into: &target, m: count, n: widths[index], k: widths[other],
                        beta: 1)
                }
            }
            return part
        }
        return RowVectors(widths: widths, rowCount: count, blocks: blocks)
    }

    /// The full matrix, row-major.
    consuming func assembled() -> [Double] {
        var matrix = [Double](repeating: 0, count: order * order)
        for index in panels.indices {
            let rows = rows(index)
            for row in rows {
                let source = (row - rows.lowerBound) * rows.upperBound
                for column in 0...row { matrix[row * order + column] = panels[index][source + column] }
            }
        }
        var span = matrix.mutableSpan
        symmetrizeFromLower(&span, n: order)
        return matrix
    }

    /// The largest ‖H v − s² v‖ over a sample of up to 32 eigenpairs, relative to the largest s²; `weight(k)` multiplies that of pair k.
    func residual(
        values: [Double], vectors: [Double], workers: Int, weight: (Int) -> Double = { _ in 1 }
    ) -> Double {
        guard let first = values.first, first > 0 else { return 0 }
        let chosen = sampled(values.count)
        let probes = RowVectors(rows: chosen.map { vectors[($0 * order)..<(($0 + 1) * order)] }, widths: widths)
        let distances = product(probes, workers: workers).distances(to: probes, scaledBy: chosen.map { values[$0] })
        return zip(chosen, distances).map { weight($0) * $1 }.max().map { $0 / first } ?? 0
    }
}

extension RowVectors {
    /// Rows cut into blocks.
    init(rows: [ArraySlice<Double>], widths: [Int]) {
        var offset = 0
        var blocks: [[Double]] = []
        for width in widths {
            blocks.append(rows.flatMap { $0.dropFirst(offset).prefix(width) })
            offset += width
        }
        self.init(widths: widths, rowCount: rows.count, blocks: blocks)
    }

    /// rows × Σ widths as one row-major matrix.
    var whole: [Double] {
        var whole = [Double](repeating: 0, count: rowCount * length)
        var offset = 0
        for (width, block) in zip(widths, blocks) {
            for row in 0..<rowCount {
                for column in 0..<width { whole[row * length + offset + column] = block[row * width + column] }
            }
            offset += width
        }
        return whole
    }
}
