import LinearAlgebra
import Schema

/// Eigenvalues at or below this share of the largest are rounding noise of a Double matrix of the given order, and are
/// dropped: their directions are treated as outside the basis, where (H + λI)⁻¹ is 1/λ.
func nullShare(order: Int) -> Double { Double(max(order, 16)) * 4 * Double.ulpOfOne }

/// H as a dense matrix, then its eigenpairs.
func fitGram(
    _ source: RowSource, plan: GroupPlan, options: FitOptions, workers: Int, progress: FitProgress
) throws(CurvatureError) -> CurvatureGroup {
    let matrix = try progress.passing { () throws(CurvatureError) in
        try gramMatrix(
            of: plan.layers, source: source, arithmetic: plan.arithmetic, workers: workers, progress: progress)
    }
    let trace = matrix.trace
    try requireFinite(trace, plan: plan, source: source)
    let order = plan.gradientLength
    let pairs = try largestPairs(matrix, plan: plan, options: options, workers: workers, progress: progress)
    let kept = keptCount(pairs.values, order: order)
    let values = Array(pairs.values.prefix(kept))
    let basis = pairs.vectors.prefix(kept * order).map { Float($0) }
    return CurvatureGroup(
        plan: plan, source: source, trace: trace, eigenvalues: values, basis: basis, passes: 1, solver: pairs.solver,
        residual: matrix.residual(values: values, vectors: pairs.vectors, workers: workers),
        spansRows: spans(kept, plan: plan))
}

/// The kernel of the rows, its eigenpairs A, then the basis V = diag(1/s) Aᵀ G in a second pass.
func fitKernel(
    _ source: RowSource, plan: GroupPlan, options: FitOptions, workers: Int, progress: FitProgress
) throws(CurvatureError) -> CurvatureGroup {
    let rowCount = plan.rowCount
    let solved = try solveKernel(source, plan: plan, options: options, workers: workers, progress: progress)
    let values = solved.values
    let kept = values.count
    var weights = solved.vectors
    for k in 0..<kept {
        let scale = 1 / values[k].squareRoot()
        for row in 0..<rowCount { weights[k * rowCount + row] *= scale }
    }
    var pieces = try progress.passing { () throws(CurvatureError) in
        let pieces = try projectedRows(weights, count: kept, plan: plan, source: source, workers: workers)
        progress.advance(by: 4 * Double(rowCount) * Double(kept) * Double(plan.gradientLength))
        return pieces
    }
    try orthonormalizeIfNeeded(&pieces, rowCount: kept, workers: workers)
    let basis = joined(pieces, rowCount: kept, length: plan.gradientLength)
    return CurvatureGroup(
        plan: plan, source: source, trace: solved.trace, eigenvalues: values, basis: basis, passes: 2,
        solver: solved.solver, residual: solved.residual, spansRows: spans(kept, plan: plan))
}

/// The eigenpairs of K; the matrix itself is gone when it returns.
private func solveKernel(
    _ source: RowSource, plan: GroupPlan, options: FitOptions, workers: Int, progress: FitProgress
) throws(CurvatureError) -> (
    values: [Double], vectors: [Double], trace: Double, residual: Double, solver: EigenSolver
) {
    let rowCount = plan.rowCount
    let matrix = try progress.passing { () throws(CurvatureError) in
        try KernelMatrix.sum(of: plan.layers, source: source, workers: workers, progress: progress)
    }
    let trace = matrix.trace
    try requireFinite(trace, plan: plan, source: source)
    let pairs = try largestPairs(matrix, plan: plan, options: options, workers: workers, progress: progress)
    let kept = keptCount(pairs.values, order: rowCount)
    let values = Array(pairs.values.prefix(kept))
    // H v − s² v = Gᵀ (K a − s² a) / s, so the residual of the pairs of K, times s₁/s_k at most, is that of H.
    let first = values.first ?? 0
    let residual = matrix.residual(values: values, vectors: pairs.vectors, workers: workers) {
        (first / values[$0]).squareRoot()
    }
    return (values, Array(pairs.vectors.prefix(kept * rowCount)), trace, residual, pairs.solver)
}

/// Whether nothing but null directions was left out.
private func spans(_ kept: Int, plan: GroupPlan) -> Bool {
    kept < plan.rank || plan.rank >= min(plan.rowCount, plan.gradientLength)
}

/// The largest eigenpairs of a symmetric matrix by the planned solver.
///
/// A matrix of f32 products carries their rounding, about 1e-7 of its norm, so its pairs are not iterated beyond that.
private func largestPairs(
    _ matrix: PanelMatrix, plan: GroupPlan, options: FitOptions, workers: Int, progress: FitProgress
) throws(CurvatureError) -> (values: [Double], vectors: [Double], solver: EigenSolver) {
    let order = matrix.order
    let largest = matrix.diagonal.map { abs($0) }.max() ?? 0
    guard order > 0, largest > 0 else { return ([], [], plan.solver) }
    let count = min(plan.rank, order)
    if plan.solver == .krylov {
        let sizes = KrylovSizes.dense(order: order, rank: count)
        if let found = try denseKrylov(
            matrix, count: count, sizes: sizes, tolerance: plan.arithmetic == .single ? 1e-7 : 1e-10,
            seed: options.seed, workers: workers, progress: progress)
        {
            return (found.values, found.vectors, .krylov)
        }
    }
    progress.advance(by: 2 * GroupCost.directOperations * Double(order) * Double(order) * Double(order))
    if plan.solver == .krylov {
        let pairs = try decompose { () throws(LinearAlgebraError) in
            try largestEigenpairs(matrix.assembled(), order: order, count: count)
        }
        return (pairs.values, pairs.vectors, .lapackLargest)
    }
    let pairs = try decompose { () throws(LinearAlgebraError) in try symmetricEigen(matrix.assembled(), order: order) }
    return (Array(pairs.values.prefix(count)), Array(pairs.vectors.prefix(count * order)), .lapackAll)
}

private func keptCount(_ values: [Double], order: Int) -> Int {
    guard let first = values.first, first > 0 else { return 0 }
    let threshold = nullShare(order: order) * first
    return values.firstIndex { $0 <= threshold } ?? values.count
}

private func requireFinite(_ trace: Double, plan: GroupPlan, source: RowSource) throws(CurvatureError) {
    guard trace.isFinite else { throw .nonFinite(layers: plan.layers.map { source.layers[$0].name }) }
}

/// W G restricted to every column block, in Double: `count` × width per block. One pass.
private func projectedRows(
    _ weights: [Double], count: Int, plan: GroupPlan, source: RowSource, workers: Int
) throws(CurvatureError) -> [[Double]] {
    let blocks = ColumnBlock.partition(plan.layers, of: source, width: FitGrain.columnBlockWidth)
    let rowCount = plan.rowCount
    return try parallelMap(count: blocks.count, workers: workers) { index throws(CurvatureError) in
        let block = blocks[index]
        var piece = [Double](repeating: 0, count: count * block.width)
        var chunk: [Double] = []
        let chunkRows = max(64, FitGrain.chunkRowCount(width: block.width, bytesPerNumber: 8) / 2)
        var firstRow = 0
        for tileIndex in source.tileRowCounts.indices {
            let tile = try GroupTile(tileIndex, blocks: [block], source: source, workers: 1)
            for start in stride(from: 0, to: tile.rowCount, by: chunkRows) {
                let rows = start..<min(start + chunkRows, tile.rowCount)
                tile.reconstruct(rows: rows, block: block, scales: nil, into: &chunk)
                guard count > 0 else { continue }
                var target = piece.mutableSpan
                multiply(
                    weights.span.extracting((firstRow + start)..<weights.count), strideA: rowCount, chunk.span,
                    into: &target, m: count, n: block.width, k: rows.count, beta: 1)
            }
            firstRow += tile.rowCount
        }
        return piece
    }
}

/// Up to 32 indices spread evenly over 0 ..< count, both ends included.
func sampled(_ count: Int) -> [Int] {
    let most = 32
    guard count > most else { return Array(0..<count) }
    return (0..<most).map { $0 * (count - 1) / (most - 1) }
}

/// r × D in f32 from blocks of columns.
func joined(_ pieces: [[Double]], rowCount: Int, length: Int) -> [Float] {
    guard rowCount > 0 else { return [] }
    var basis = [Float](repeating: 0, count: rowCount * length)
    var offset = 0
    for piece in pieces {
        let width = piece.count / rowCount
        for row in 0..<rowCount {
            for column in 0..<width { basis[row * length + offset + column] = Float(piece[row * width + column]) }
        }
        offset += width
    }
    return basis
}

extension CurvatureGroup {
    init(
        plan: GroupPlan, source: RowSource, trace: Double, eigenvalues: [Double], basis: [Float], passes: Int,
        solver: EigenSolver, residual: Double, spansRows: Bool
    ) {
        self.init(
            layers: plan.layers, layerLengths: plan.layers.map { source.layers[$0].gradientLength }, trace: trace,
            eigenvalues: eigenvalues, basis: basis, algorithm: plan.algorithm, arithmetic: plan.arithmetic,
            solver: solver, rowCount: plan.rowCount, passes: passes,
            orthogonalityError: orthogonality(basis, rowCount: eigenvalues.count, length: plan.gradientLength),
            residual: residual, spansRows: spansRows)
    }
}

/// max |V Vᵀ − I|, over all pairs with a sample of rows.
private func orthogonality(_ basis: [Float], rowCount: Int, length: Int) -> Double {
    guard rowCount > 0 else { return 0 }
    let rows = sampled(rowCount)
    var products = [Double](repeating: 0, count: rows.count * rowCount)
    // Column blocks in Double: the error of an f32 product would hide what is measured.
    let width = 1024
    for start in stride(from: 0, to: length, by: width) {
        let columns = min(width, length - start)
        var probes = [Double](repeating: 0, count: rows.count * columns)
        for (slot, row) in rows.enumerated() {
            for column in 0..<columns { probes[slot * columns + column] = Double(basis[row * length + start + column]) }
        }
        var all = [Double](repeating: 0, count: rowCount * columns)
        for row in 0..<rowCount {
            for column in 0..<columns { all[row * columns + column] = Double(basis[row * length + start + column]) }
        }
        var target = products.mutableSpan
        multiply(
            probes.span, all.span, transposeB: true, into: &target, m: rows.count, n: rowCount, k: columns, beta: 1)
    }
    var largest = 0.0
    for (slot, row) in rows.enumerated() {
        for other in 0..<rowCount {
            largest = max(largest, abs(products[slot * rowCount + other] - (other == row ? 1 : 0)))
        }
    }
    return largest
}

/// Removes what rounding left of non-orthogonality among the rows of a matrix held in column blocks, by Cholesky QR.
///
/// Rows from a kernel's small eigenvalues are orthogonal to about eps·s²₁/s²_k only.
private func orthonormalizeIfNeeded(
    _ pieces: inout [[Double]], rowCount: Int, workers: Int
) throws(CurvatureError) {
    guard rowCount > 0 else { return }
    for _ in 0..<3 {
        let current = pieces
        let partials = parallelMap(count: pieces.count, workers: workers) { index in
            var part = [Double](repeating: 0, count: rowCount * rowCount)
            let piece = current[index]
            var target = part.mutableSpan
            multiplyBySelf(piece.span, into: &target, n: rowCount, k: piece.count / rowCount)
            return part
        }
        var gram = [Double](repeating: 0, count: rowCount * rowCount)
        for part in partials {
            for index in gram.indices { gram[index] += part[index] }
        }
        var largest = 0.0
        for row in 0..<rowCount {
            for column in 0...row {
                largest = max(largest, abs(gram[row * rowCount + column] - (row == column ? 1 : 0)))
            }
        }
        // Below f32's precision there is nothing to gain.
        if largest < 1e-10 { return }
        let whole = gram
        let factor = try decompose { () throws(LinearAlgebraError) in try choleskyFactor(whole, order: rowCount) }
        parallelUpdate(&pieces, workers: workers) { _, piece in
            let width = piece.count / rowCount
            var target = piece.mutableSpan
            solveLowerTriangular(factor.span, order: rowCount, into: &target, columns: width)
        }
    }
}
