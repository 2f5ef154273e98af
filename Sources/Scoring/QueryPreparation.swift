import LinearAlgebra
package import Schema

extension QueryForm {
    /// c_q, or 0 of full queries.
    var rank: Int {
        if case .factors(let rank, _, _) = self { rank } else { 0 }
    }

    func checkShape(layer: LayerSchema, queryCount: Int) {
        switch self {
        case .full(let matrices):
            precondition(matrices.count == queryCount * layer.gradientLength, "full queries do not match the layer")
        case .factors(let rank, let left, let right):
            precondition(
                rank > 0 && left.count == queryCount * rank * layer.inputDimension
                    && right.count == queryCount * rank * layer.outputDimension,
                "factored queries do not match the layer")
        }
    }

    /// The queries as Q × d1·d2.
    package func expanded(layer: LayerSchema, queryCount: Int) -> [Float] {
        switch self {
        case .full(let matrices): return matrices
        case .factors(let rank, let left, let right):
            let d1 = layer.inputDimension
            let d2 = layer.outputDimension
            var matrices: [Float] = []
            var matrix = [Float](repeating: 0, count: layer.gradientLength)
            for query in 0..<queryCount {
                let pairs = query * rank..<(query + 1) * rank
                var target = matrix.mutableSpan
                multiply(
                    left.span.extracting(extent(pairs, length: d1)), transposeA: true,
                    right.span.extracting(extent(pairs, length: d2)), into: &target, m: d1, n: d2, k: rank)
                matrices += matrix
            }
            return matrices
        }
    }
}

/// The extent of the vectors `range` in a row-major matrix of `length` columns.
func extent(_ range: Range<Int>, length: Int) -> Range<Int> {
    range.lowerBound * length..<range.upperBound * length
}

/// Each of `count` rows × columns matrices transposed.
func transposedMatrices(_ matrices: [Float], count: Int, rows: Int, columns: Int) -> [Float] {
    var result = [Float](repeating: 0, count: matrices.count)
    for start in stride(from: 0, to: count * rows * columns, by: rows * columns) {
        for row in 0..<rows {
            for column in 0..<columns {
                result[start + column * rows + row] = matrices[start + row * columns + column]
            }
        }
    }
    return result
}
