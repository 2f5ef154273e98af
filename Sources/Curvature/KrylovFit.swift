import LinearAlgebra

func denseKrylov(
    _ matrix: [Double], order: Int, count: Int, sizes: KrylovSizes, seed: UInt64, workers: Int
) throws(CurvatureError) -> (values: [Double], vectors: [Double])? { nil }

func fitKrylov(
    _ source: RowSource, plan: GroupPlan, options: FitOptions, workers: Int, progress: FitProgress
) throws(CurvatureError) -> CurvatureGroup { throw .invalidOptions(reason: "streaming") }

func orthonormalizeIfNeeded(_ pieces: inout [[Double]], rowCount: Int, workers: Int) throws(CurvatureError) {
    guard rowCount > 0 else { return }
    for _ in 0..<3 {
        let current = pieces
        let partials = parallelMap(count: pieces.count, workers: workers) { index in
            var gram = [Double](repeating: 0, count: rowCount * rowCount)
            var target = gram.mutableSpan
            let piece = current[index]
            multiplyBySelf(piece.span, into: &target, n: rowCount, k: piece.count / rowCount)
            return gram
        }
        var gram = [Double](repeating: 0, count: rowCount * rowCount)
        for partial in partials { for i in gram.indices { gram[i] += partial[i] } }
        var worst = 0.0
        for i in 0..<rowCount { for j in 0...i { worst = max(worst, abs(gram[i * rowCount + j] - (i == j ? 1 : 0))) } }
        if worst < 1e-10 { return }
        let whole = gram
        let factor = try decompose { () throws(LinearAlgebraError) in try choleskyFactor(whole, order: rowCount) }
        parallelUpdate(&pieces, workers: workers) { _, piece in
            let width = piece.count / rowCount
            var target = piece.mutableSpan
            solveLowerTriangular(factor.span, order: rowCount, into: &target, columns: width)
        }
    }
}
