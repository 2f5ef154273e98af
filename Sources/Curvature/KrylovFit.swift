import LinearAlgebra
import Schema

/// The largest eigenpairs of a symmetric matrix in memory; nil if the iteration does not converge.
func denseKrylov(
    _ matrix: PanelMatrix, count: Int, sizes: KrylovSizes, tolerance: Double, seed: UInt64, workers: Int,
    progress: FitProgress
) throws(CurvatureError) -> (values: [Double], vectors: [Double])? {
    let order = Double(matrix.order)
    let iteration = KrylovIteration(
        widths: matrix.widths, count: count, sizes: sizes, seed: seed, workers: workers, applicationLimit: 400,
        residualTolerance: tolerance, energyTolerance: 0, confirms: true, examinesEveryStep: false,
        countOperations: { progress.advance(by: 2 * $0) })
    let outcome = try iteration.run { rows throws(CurvatureError) in
        progress.advance(by: 4 * order * order * Double(rows.rowCount))
        return matrix.product(rows, workers: workers)
    }
    guard outcome.converged else { return nil }
    return (outcome.values, outcome.vectors.whole)
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
    let names = plan.layers.map { source.layers[$0].name }
    var trace: Double?
    let iteration = KrylovIteration(
        widths: operation.blocks.map(\.width), count: plan.rank,
        sizes: KrylovSizes(blockRows: plan.blockRows, basisRows: plan.basisRows), seed: options.seed,
        workers: operation.workers, applicationLimit: options.passes - 1, residualTolerance: 1e-7,
        energyTolerance: 5e-4, confirms: false, examinesEveryStep: true,
        countOperations: { operation.progress.advance(by: 2 * $0) })
    let outcome = try iteration.run { rows throws(CurvatureError) in
        let pass = try operation.progress.passing { () throws(CurvatureError) in
            try operation.run(rows, measures: trace == nil ? .trace : .nothing)
        }
        if trace == nil {
            guard pass.trace.isFinite else { throw .nonFinite(layers: names) }
            trace = pass.trace
        }
        guard pass.image.blocks.allSatisfy({ $0.allSatisfy(\.isFinite) }) else { throw .nonFinite(layers: names) }
        return pass.image
    }
    guard let trace, trace > 0 else {
        return CurvatureGroup(
            plan: plan, source: source, trace: 0, eigenvalues: [], basis: [], passes: outcome.applications,
            solver: .krylov, residual: 0, spansRows: true)
    }
    let vectors = outcome.vectors
    let measured = try operation.progress.passing { () throws(CurvatureError) in
        try operation.run(vectors, measures: .projection)
    }
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
        passes: outcome.applications + 1, solver: outcome.converged ? .krylov : .krylovStopped,
        residual: values.first.map { residual / $0 } ?? 0,
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
