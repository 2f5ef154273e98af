import LinearAlgebra
import Schema
import Scoring

/// Everything that a scan needs besides the rows: for each scanned layer the queries in the form that is scored against
/// them, and what turns inner products into the method's scores. Immutable, shared by all workers.
struct PreparedScan: Sendable {
    let method: Method
    /// Queries of this scan; 1 for self-influence, whose one "query" is the example itself.
    let queryCount: Int
    /// Store positions of the layers read, ascending.
    let layers: [Int]
    /// By position in `layers`; empty for self-influence, and where `pageScan` does.
    let scorers: [LayerScorer]
    /// Scores rows in their pages, where that is better than decoding them.
    let pageScan: PageScan?
    /// By position in `layers`: what a layer's inner products count; the queries in `scorers` have it multiplied in already.
    let weights: [Double]
    /// By query: ‖g_q‖ over the selected layers in the weighted inner product, or in the metric (H + λI)⁻¹ for `influence-cosine`;
    /// empty for methods without.
    let queryNorms: [Double]
    /// The damped curvature groups that self-influence sums over, for each damping of the scan.
    let groups: [[DampedGroup]]
    /// Of every query of the scan, its damping's place in `groups`.
    let dampingOfQuery: [Int]
    /// Whether the curvature was fitted on the rows of the store as they are.
    let curvatureIsCurrent: Bool
}

extension PreparedScan {
    /// What a block's rows have besides their inner products.
    private struct RowNumbers {
        /// ‖g_i‖² by row, for methods that need it.
        var squaredNorms: [Double]
        /// By damping and row.
        var selfInfluences: [[Double]]
    }

    /// The scores of one block's live rows, queryCount × rowCount.
    ///
    /// `coordinates` are those of the rows in every group, if the store has them: then self-influence needs no tile.
    /// The arithmetic depends on the block alone, so that results are the same for any number of workers. `check` is called
    /// for each layer and may throw to stop.
    func scores(
        of pages: BlockPages, coordinates: [EigenCoordinates]?, workspace: inout ScoringWorkspace,
        meter: inout ScanMeter, check: () throws -> Void
    ) throws -> [Float] {
        let rowCount = pages.block.rowCount
        var scores = [Float](repeating: 0, count: queryCount * rowCount)
        var numbers = RowNumbers(
            squaredNorms: method.needsRowNorms ? [Double](repeating: 0, count: rowCount) : [],
            selfInfluences: groups.map { _ in [Double](repeating: 0, count: rowCount) })
        meter.timing(\.arithmeticSeconds) {
            for (damping, members) in groups.enumerated() {
                for (group, rows) in zip(members, coordinates ?? []) {
                    let values = group.selfInfluence(of: rows, forFittedRows: curvatureIsCurrent)
                    for (row, value) in values.enumerated() { numbers.selfInfluences[damping][row] += value }
                }
            }
        }
        let projectsTiles = method.needsSelfInfluence && coordinates == nil
        // Tiles of the groups not yet complete; a per-layer group completes with its own layer.
        var pendingTiles: [Int: LayerTile] = [:]

        for (position, layer) in layers.enumerated() where method.needsQueries || projectsTiles {
            try check()
            let tile = try pages.readTile(layer: layer, meter: &meter)
            meter.timing(\.arithmeticSeconds) {
                if !scorers.isEmpty {
                    var block = scores.mutableSpan
                    scorers[position].accumulate(tile, into: &block, workspace: &workspace)
                }
                if method.needsRowNorms {
                    for (row, value) in LinearAlgebra.squaredNorms(of: tile).enumerated() {
                        numbers.squaredNorms[row] += weights[position] * value
                    }
                }
                guard projectsTiles else { return }
                pendingTiles[layer] = tile
                // All dampings have the same groups.
                for (position, group) in (groups.first ?? []).enumerated() where group.layers.last == layer {
                    let tiles = group.layers.compactMap { pendingTiles.removeValue(forKey: $0) }
                    let values = DampedGroup.selfInfluences(
                        groups.map { $0[position] }, of: tiles, forFittedRows: curvatureIsCurrent)
                    for (damping, values) in values.enumerated() {
                        for (row, value) in values.enumerated() { numbers.selfInfluences[damping][row] += value }
                    }
                }
            }
        }
        meter.timing(\.arithmeticSeconds) { finish(&scores, rowCount: rowCount, numbers) }
        return scores
    }

    /// Turns inner products into the method's scores.
    private func finish(_ scores: inout [Float], rowCount: Int, _ numbers: RowNumbers) {
        func forEachScore(_ change: (_ product: Double, _ query: Int, _ row: Int) -> Double) {
            for query in 0..<queryCount {
                for row in 0..<rowCount {
                    let index = query * rowCount + row
                    scores[index] = Float(change(Double(scores[index]), query, row))
                }
            }
        }
        func quotient(_ product: Double, _ divisor: Double) -> Double { divisor > 0 ? product / divisor : 0 }
        switch method {
        case .dot, .whitenedDot, .influence:
            break
        case .cosine, .whitenedCosine:
            let norms = numbers.squaredNorms.map { $0.squareRoot() }
            forEachScore { quotient($0, queryNorms[$1] * norms[$2]) }
        case .normalizedDot:
            let norms = numbers.squaredNorms.map { $0.squareRoot() }
            forEachScore { product, _, row in quotient(product, norms[row]) }
        case .l2:
            forEachScore { product, query, row in
                let squared = queryNorms[query] * queryNorms[query] + numbers.squaredNorms[row] - 2 * product
                return 0 - max(0, squared).squareRoot()
            }
        case .selfInfluence:
            forEachScore { _, query, row in numbers.selfInfluences[dampingOfQuery[query]][row] }
        case .relatif:
            let roots = numbers.selfInfluences.map { $0.map { $0.squareRoot() } }
            forEachScore { product, query, row in quotient(product, roots[dampingOfQuery[query]][row]) }
        case .influenceCosine:
            let roots = numbers.selfInfluences.map { $0.map { $0.squareRoot() } }
            forEachScore { product, query, row in
                quotient(product, queryNorms[query] * roots[dampingOfQuery[query]][row])
            }
        }
    }
}
