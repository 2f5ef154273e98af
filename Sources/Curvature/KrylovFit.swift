import LinearAlgebra
import Schema

/// The largest eigenpairs of a dense symmetric matrix in memory; nil if the iteration does not converge.
func denseKrylov(
    _ matrix: [Double], order: Int, count: Int, sizes: KrylovSizes, seed: UInt64, workers: Int
) throws(CurvatureError) -> (values: [Double], vectors: [Double])? {
    let widths = stride(from: 0, to: order, by: FitGrain.panelWidth).map { min(FitGrain.panelWidth, order - $0) }
    let iteration = KrylovIteration(
        widths: widths, count: count, sizes: sizes, seed: seed, workers: workers, applicationLimit: 300,
        residualTolerance: 1e-10, energyTolerance: 0, confirms: true)
    let outcome = try iteration.run { rows throws(CurvatureError) in
        let whole = wholeRows(rows)
        let image = parallelMap(count: widths.count, workers: workers) { index in
            let start = index * FitGrain.panelWidth
            var part = [Double](repeating: 0, count: rows.rowCount * widths[index])
            var target = part.mutableSpan
            // H is symmetric: columns of the panel are its rows.
            multiply(
                whole.span, matrix.span.extracting((start * order)..<((start + widths[index]) * order)),
                transposeB: true, into: &target, m: rows.rowCount, n: widths[index], k: order)
            return part
        }
        return RowVectors(widths: widths, rowCount: rows.rowCount, blocks: image)
    }
    guard outcome.converged else { return nil }
    return (outcome.values, wholeRows(outcome.vectors))
}

/// rows × Σ widths as one row-major matrix.
private func wholeRows(_ rows: RowVectors) -> [Double] {
    var whole = [Double](repeating: 0, count: rows.rowCount * rows.length)
    var offset = 0
    for (width, block) in zip(rows.widths, rows.blocks) {
        for row in 0..<rows.rowCount {
            for column in 0..<width { whole[row * rows.length + offset + column] = block[row * width + column] }
        }
        offset += width
    }
    return whole
}

/// Block Krylov iteration streaming over the rows, then one pass that measures: Rayleigh–Ritz from the coordinates, energy
/// and residual.
func fitKrylov(
    _ source: RowSource, plan: GroupPlan, options: FitOptions, workers: Int, progress: FitProgress
) throws(CurvatureError) -> CurvatureGroup {
    let scales = try RowScale.ofLayers(plan.layers, source: source)
    return switch plan.arithmetic {
    case .double:
        try fitKrylov(
            StreamingOperator<Double>(source, plan: plan, scales: nil, workers: workers, progress: progress),
            plan: plan, options: options)
    case .single:
        try fitKrylov(
            StreamingOperator<Float>(source, plan: plan, scales: scales, workers: workers, progress: progress),
            plan: plan, options: options)
    }
}

private func fitKrylov<Scalar: BLASScalar>(
    _ operation: StreamingOperator<Scalar>, plan: GroupPlan, options: FitOptions
) throws(CurvatureError) -> CurvatureGroup {
    let source = operation.source
    let trace = try totalSquaredNorm(plan.layers, source: source, workers: operation.workers)
    guard trace.isFinite else { throw .nonFinite(layers: plan.layers.map { source.layers[$0].name }) }
    guard trace > 0 else {
        return CurvatureGroup(
            plan: plan, source: source, trace: 0, eigenvalues: [], basis: [], passes: 1, solver: .krylov, residual: 0,
            spansRows: true)
    }
    let iteration = KrylovIteration(
        widths: operation.blocks.map(\.width), count: plan.rank,
        sizes: KrylovSizes(blockRows: plan.blockRows, basisRows: plan.basisRows), seed: options.seed,
        workers: operation.workers, applicationLimit: options.passes - 1, residualTolerance: 1e-7,
        energyTolerance: 2e-4, confirms: false)
    let outcome = try iteration.run { rows throws(CurvatureError) in
        let image = try operation.run(rows).image
        guard image.blocks.allSatisfy({ $0.allSatisfy(\.isFinite) }) else {
            throw .nonFinite(layers: plan.layers.map { source.layers[$0].name })
        }
        return image
    }
    let vectors = outcome.vectors
    let measured = try operation.run(vectors)
    let pairs = try decompose { () throws(LinearAlgebraError) in
        try symmetricEigen(measured.projected, order: vectors.rowCount)
    }
    let threshold =
        (Scalar.self == Double.self ? nullShare(order: plan.gradientLength) : 1e-10) * (pairs.values.first ?? 0)
    let kept = pairs.values.firstIndex { $0 <= threshold } ?? pairs.values.count
    let values = Array(pairs.values.prefix(kept))
    let rotation = Array(pairs.vectors.prefix(kept * vectors.rowCount))
    let rotated = vectors.combined(rotation, count: kept, workers: operation.workers)
    let image = measured.image.combined(rotation, count: kept, workers: operation.workers)
    let residual = image.distances(to: rotated, scaledBy: values).max() ?? 0
    return CurvatureGroup(
        plan: plan, source: source, trace: trace, eigenvalues: values,
        basis: joined(rotated.blocks, rowCount: kept, length: plan.gradientLength),
        passes: outcome.applications + 1, solver: .krylov, residual: values.first.map { residual / $0 } ?? 0,
        spansRows: kept < plan.rank && outcome.converged)
}

extension StreamingOperator {
    fileprivate init(
        _ source: RowSource, plan: GroupPlan, scales: RowScale?, workers: Int, progress: FitProgress
    ) {
        let width = Self.blockWidth(length: plan.gradientLength)
        self.init(
            source: source, blocks: ColumnBlock.partition(plan.layers, of: source, width: width), scales: scales,
            workers: workers, progress: progress)
    }
}

/// Σ_i ‖g_i‖² over the layers, from the factors.
private func totalSquaredNorm(_ layers: [Int], source: RowSource, workers: Int) throws(CurvatureError) -> Double {
    let tileCount = source.tileRowCounts.count
    let sums = try parallelMap(count: tileCount * layers.count, workers: workers) { index throws(CurvatureError) in
        let tile = try source.tile(index / layers.count, layer: layers[index % layers.count])
        return squaredNorms(of: tile).reduce(0, +)
    }
    return sums.reduce(0, +)
}
