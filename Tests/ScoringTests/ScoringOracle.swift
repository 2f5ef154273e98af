import Schema

import Scoring

/// Random layers, tiles and queries, and their scores by the definition, in Double.
struct ScoringCase {
    let layer: LayerSchema
    let tile: LayerTile
    let queryCount: Int
    let form: QueryForm

    /// `rank` nil: dense rows; `queryRank` nil: full queries.
    init(d1: Int, d2: Int, rank: Int?, rowCount: Int, queryCount: Int, queryRank: Int?, seed: UInt64) {
        var generator = SplitMix(seed: seed)
        self.queryCount = queryCount
        let rowForm: LayerForm = if let rank { .factors(rank: rank) } else { .dense }
        layer = LayerSchema(name: "layer", inputDimension: d1, outputDimension: d2, form: rowForm)
        if let rank {
            tile = LayerTile(
                layer: layer, rowCount: rowCount, left: generator.gaussians(rank * rowCount * d1),
                right: generator.gaussians(rank * rowCount * d2))
        } else {
            tile = LayerTile(layer: layer, rowCount: rowCount, dense: generator.gaussians(rowCount * d1 * d2))
        }
        if let queryRank {
            form = .factors(
                rank: queryRank, left: generator.gaussians(queryCount * queryRank * d1),
                right: generator.gaussians(queryCount * queryRank * d2))
        } else {
            form = .full(generator.gaussians(queryCount * d1 * d2))
        }
    }

    /// Element (a, b) of row i's matrix.
    func gradient(_ row: Int, _ a: Int, _ b: Int) -> Double {
        let d1 = layer.inputDimension
        let d2 = layer.outputDimension
        guard let rank = layer.rank else { return Double(tile.dense[(row * d1 + a) * d2 + b]) }
        return (0..<rank).reduce(0) { sum, k in
            let vector = k * tile.rowCount + row
            return sum + Double(tile.left[vector * d1 + a]) * Double(tile.right[vector * d2 + b])
        }
    }

    /// Element (a, b) of query q's matrix.
    func query(_ query: Int, _ a: Int, _ b: Int) -> Double {
        let d1 = layer.inputDimension
        let d2 = layer.outputDimension
        switch form {
        case .full(let matrices): return Double(matrices[(query * d1 + a) * d2 + b])
        case .factors(let rank, let left, let right):
            return (0..<rank).reduce(0) { sum, k in
                let vector = query * rank + k
                return sum + Double(left[vector * d1 + a]) * Double(right[vector * d2 + b])
            }
        }
    }

    private func matrices(_ count: Int, _ element: (Int, Int, Int) -> Double) -> [Double] {
        var result: [Double] = []
        for index in 0..<count {
            for a in 0..<layer.inputDimension {
                for b in 0..<layer.outputDimension { result.append(element(index, a, b)) }
            }
        }
        return result
    }

    /// Q × n scores, and the products of norms that bound their rounding errors.
    func scores() -> (values: [Double], norms: [Double]) {
        let length = layer.gradientLength
        let queries = matrices(queryCount, query)
        let rows = matrices(tile.rowCount, gradient)
        func norm(_ matrices: [Double], _ index: Int) -> Double {
            matrices[index * length..<(index + 1) * length].reduce(0) { $0 + $1 * $1 }.squareRoot()
        }
        let queryNorms = (0..<queryCount).map { norm(queries, $0) }
        let rowNorms = (0..<tile.rowCount).map { norm(rows, $0) }
        var values: [Double] = []
        var norms: [Double] = []
        for q in 0..<queryCount {
            for row in 0..<tile.rowCount {
                var sum = 0.0
                for index in 0..<length { sum += queries[q * length + index] * rows[row * length + index] }
                values.append(sum)
                norms.append(queryNorms[q] * rowNorms[row])
            }
        }
        return (values, norms)
    }
}
