import LinearAlgebra

/// Fits curvature: eigenpairs of H = Σ_i g_i g_iᵀ per group of layers, by the algorithms that ``planFit(_:options:)`` chooses.
///
/// The result does not depend on the number of workers, and depends on the tile layout by rounding only. `progress` is called with the
/// share of the work done, 0...1, from any thread. Memory stays within `options.memoryBytes`, or the fit is refused before
/// it starts.
public func fit(
    _ source: RowSource, options: FitOptions, progress: @escaping @Sendable (Double) -> Void = { _ in }
) throws(CurvatureError) -> FittedCurvature {
    let plan = try planFit(source, options: options)
    let counter = FitProgress(total: plan.operationCount, report: progress)
    let groups = try parallelMap(count: plan.groups.count, workers: plan.concurrentGroups) {
        index throws(CurvatureError) in
        try fitGroup(
            source, plan: plan.groups[index], options: options, workers: plan.workersPerGroup, progress: counter)
    }
    counter.finish()
    return FittedCurvature(scope: options.scope, groups: groups)
}

/// Fits one group as planned; the unit in which a long fit can be resumed.
public func fitGroup(
    _ source: RowSource, plan: GroupPlan, options: FitOptions, progress: @escaping @Sendable (Double) -> Void = { _ in }
) throws(CurvatureError) -> CurvatureGroup {
    let counter = FitProgress(total: plan.operationCount, report: progress)
    var group = try fitGroup(source, plan: plan, options: options, workers: options.workers, progress: counter)
    group.effort = counter.effort
    group.passEffort = counter.passEffort
    counter.finish()
    return group
}

private func fitGroup(
    _ source: RowSource, plan: GroupPlan, options: FitOptions, workers: Int, progress: FitProgress
) throws(CurvatureError) -> CurvatureGroup {
    switch plan.algorithm {
    case .gram: try fitGram(source, plan: plan, options: options, workers: workers, progress: progress)
    case .kernel: try fitKernel(source, plan: plan, options: options, workers: workers, progress: progress)
    case .krylov: try fitKrylov(source, plan: plan, options: options, workers: workers, progress: progress)
    }
}
