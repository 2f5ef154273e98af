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
    /// By position in `layers`; empty for self-influence.
    let scorers: [LayerScorer]
    /// By position in `layers`: what a layer's inner products count; the queries in `scorers` have it multiplied in already.
    let weights: [Double]
    /// ‖g_q‖ over the selected layers in the weighted inner product, for cosines.
    let queryNorms: [Double]
    /// The damped curvature groups that self-influence sums over, for each damping of the scan.
    let groups: [[DampedGroup]]
    /// Of every query of the scan, its damping's place in `groups`.
    let dampingOfQuery: [Int]
    /// Whether the curvature was fitted on the rows of the store as they are.
    let curvatureIsCurrent: Bool
}

extension PreparedScan {
    /// The scores of one block, queryCount × rowCount.
    ///
    /// `coordinates` are those of the block's rows in every group, if the store has them: then self-influence needs no tile.
    /// The arithmetic depends on the block alone, so that results are the same for any number of workers.
    func scores(
        rowCount: Int, coordinates: [EigenCoordinates]?, readTile: (_ layer: Int) throws -> LayerTile,
        workspace: inout ScoringWorkspace
    ) throws -> [Float] {
        var scores = [Float](repeating: 0, count: queryCount * rowCount)
        var squaredNorms = method.isCosine ? [Double](repeating: 0, count: rowCount) : []
        var selfInfluences = groups.map { _ in [Double](repeating: 0, count: rowCount) }
        for (damping, members) in groups.enumerated() {
            for (group, rows) in zip(members, coordinates ?? []) {
                let values = group.selfInfluence(of: rows, forFittedRows: curvatureIsCurrent)
                for (row, value) in values.enumerated() { selfInfluences[damping][row] += value }
            }
        }
        let projectsTiles = method.needsSelfInfluence && coordinates == nil
        // Tiles of the groups not yet complete; a per-layer group completes with its own layer.
        var pendingTiles: [Int: LayerTile] = [:]

        for (position, layer) in layers.enumerated() where method.needsQueries || projectsTiles {
            let tile = try readTile(layer)
            if !scorers.isEmpty {
                var block = scores.mutableSpan
                scorers[position].accumulate(tile, into: &block, workspace: &workspace)
            }
            if method.isCosine {
                for (row, value) in LinearAlgebra.squaredNorms(of: tile).enumerated() {
                    squaredNorms[row] += weights[position] * value
                }
            }
            if projectsTiles {
                pendingTiles[layer] = tile
                // All dampings have the same groups.
                for (position, group) in (groups.first ?? []).enumerated() where group.layers.last == layer {
                    let tiles = group.layers.compactMap { pendingTiles.removeValue(forKey: $0) }
                    let values = DampedGroup.selfInfluences(
                        groups.map { $0[position] }, of: tiles, forFittedRows: curvatureIsCurrent)
                    for (damping, values) in values.enumerated() {
                        for (row, value) in values.enumerated() { selfInfluences[damping][row] += value }
                    }
                }
            }
        }
        finish(&scores, rowCount: rowCount, squaredNorms: squaredNorms, selfInfluences: selfInfluences)
        return scores
    }

    private func finish(
        _ scores: inout [Float], rowCount: Int, squaredNorms: [Double], selfInfluences: [[Double]]
    ) {
        switch method {
        case .dot, .whitenedDot, .influence:
            break
        case .cosine, .whitenedCosine:
            for query in 0..<queryCount {
                for row in 0..<rowCount {
                    let norms = queryNorms[query] * squaredNorms[row].squareRoot()
                    let index = query * rowCount + row
                    scores[index] = norms > 0 ? Float(Double(scores[index]) / norms) : 0
                }
            }
        case .selfInfluence:
            for (query, damping) in dampingOfQuery.enumerated() {
                for row in 0..<rowCount { scores[query * rowCount + row] = Float(selfInfluences[damping][row]) }
            }
        case .relatif:
            for query in 0..<queryCount {
                for row in 0..<rowCount {
                    let index = query * rowCount + row
                    let root = selfInfluences[dampingOfQuery[query]][row].squareRoot()
                    scores[index] = root > 0 ? Float(Double(scores[index]) / root) : 0
                }
            }
        }
    }
}
