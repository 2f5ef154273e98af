public import Schema

/// How one group of layers will be fitted, and what that costs.
public struct GroupPlan: Hashable, Sendable {
    /// Layers of the group, in vectorisation order.
    public let layers: [Int]
    /// D.
    public let gradientLength: Int
    /// N.
    public let rowCount: Int
    /// Directions asked for, at most min(N, D).
    public let rank: Int
    /// How H will be treated.
    public let algorithm: FitAlgorithm
    /// In which precision.
    public let arithmetic: Arithmetic
    /// What will solve the eigenproblem.
    public let solver: EigenSolver
    /// Directions that the Krylov iteration carries at a time; 0 for the other algorithms.
    public let blockRows: Int
    /// Directions that the Krylov basis may hold; 0 for the other algorithms.
    public let basisRows: Int
    /// Walks over the group's rows, at most.
    public let passes: Int
    /// Floating-point operations, estimated; Double ones count twice.
    public let operationCount: Double
    /// Numbers decoded from the store in all passes.
    public let numbersRead: Double
    /// Peak memory while the group is fitted, without its result.
    public let workingBytes: Int
    /// Memory of the result: r·D f32 numbers and the spectrum.
    public let resultBytes: Int
}

/// What a fit will do: printed by a dry run, obeyed by the fit.
public struct FitPlan: Hashable, Sendable {
    /// What the groups are.
    public let scope: Scope
    /// In the order of their layers.
    public let groups: [GroupPlan]
    /// Groups fitted at the same time.
    public let concurrentGroups: Int
    /// Workers inside each group.
    public let workersPerGroup: Int
    /// Peak memory of the process, results of all groups and the program itself included.
    public var memoryBytes: Int {
        let working = groups.map(\.workingBytes).sorted(by: >).prefix(concurrentGroups).reduce(0, +)
        return working + groups.map(\.resultBytes).reduce(0, +) + Self.processBytes
    }
    /// Memory of the program itself, libraries and their buffers, which ``memoryBytes`` counts in.
    public static var processBytes: Int { FitGrain.processBytes }
    /// Floating-point operations of all groups.
    public var operationCount: Double { groups.map(\.operationCount).reduce(0, +) }
    /// Numbers decoded from the store by all groups.
    public var numbersRead: Double { groups.map(\.numbersRead).reduce(0, +) }
    /// Most passes of any group.
    public var passes: Int { groups.map(\.passes).max() ?? 0 }
}

/// Chooses the algorithm of every group by cost, within the memory budget.
///
/// Throws ``CurvatureError/invalidOptions(reason:)``, or ``CurvatureError/insufficientMemory`` with the least memory that would
/// do. Pure: reads no tile.
public func planFit(_ source: RowSource, options: FitOptions) throws(CurvatureError) -> FitPlan {
    try planFit(
        layers: source.layers, rowCount: source.rowCount, largestTileRowCount: source.tileRowCounts.max() ?? 0,
        options: options)
}

/// ``planFit(_:options:)`` from shapes alone.
public func planFit(
    layers: [LayerSchema], rowCount: Int, largestTileRowCount: Int, options: FitOptions
) throws(CurvatureError) -> FitPlan {
    try check(options)
    guard !layers.isEmpty else { throw .invalidOptions(reason: "curvature needs at least one layer") }
    let groupLayers = options.scope == .perLayer ? layers.indices.map { [$0] } : [Array(layers.indices)]
    let budget = options.memoryBytes - FitGrain.processBytes
    let costs = groupLayers.map { members in
        GroupCost(
            layers: layers, members: members, rowCount: rowCount, largestTile: largestTileRowCount, options: options)
    }
    // All results are held until the end, next to the working memory of the groups under way.
    let resultBytes = costs.reduce(0) { $0.addingCapped($1.resultBytes) }
    let groups = try costs.map { cost throws(CurvatureError) in
        try cost.cheapest(budget: budget - (resultBytes - cost.resultBytes))
    }
    let working = max(1, groups.map(\.workingBytes).max() ?? 1)
    let affordable = max(1, (budget - resultBytes) / working)
    let concurrent = groups.count >= options.workers ? min(options.workers, affordable) : 1
    return FitPlan(
        scope: options.scope, groups: groups, concurrentGroups: concurrent,
        workersPerGroup: max(1, options.workers / concurrent))
}

private func check(_ options: FitOptions) throws(CurvatureError) {
    if options.workers < 1 { throw .invalidOptions(reason: "a fit needs at least one worker") }
    if options.memoryBytes < 1 { throw .invalidOptions(reason: "a fit needs a positive memory budget") }
    if options.passes < 2 { throw .invalidOptions(reason: "a fit needs at least two passes") }
    if let oversampling = options.oversampling, oversampling < 0 {
        throw .invalidOptions(reason: "oversampling must not be negative")
    }
    if options.exact {
        if options.rank != nil { throw .invalidOptions(reason: "an exact fit takes no rank") }
        if options.algorithm == .krylov {
            throw .invalidOptions(reason: "the krylov algorithm gives truncated curvature only")
        }
    } else {
        guard let rank = options.rank else {
            throw .invalidOptions(reason: "a fit needs a rank, or to be exact")
        }
        if rank < 1 { throw .invalidOptions(reason: "the rank of curvature must be at least 1") }
    }
}
