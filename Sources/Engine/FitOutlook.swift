public import Curvature
import Glibc
public import Schema
public import Store

/// What a fit will do, known before it starts.
public struct FitOutlook: Sendable {
    /// Algorithms, passes, operations and memory.
    public let plan: FitPlan
    /// Rows that will be fitted.
    public let rowCount: Int
    /// In the plan's order.
    public let groups: [Group]
    /// The very same fit, if the store has it already: then nothing will be done.
    public let existing: CurvatureRecord?
    /// How coordinates will be written afterwards, if they are asked for.
    public let coordinates: CoordinatesPlan?

    /// One group's share of it.
    public struct Group: Sendable {
        /// The layers of the group.
        public let layerNames: [String]
        /// How it will be fitted.
        public let plan: GroupPlan
        /// Stored bytes that all its passes read, at most: columns are stored by layer, so a pass reads its own layers only.
        public let byteCount: Int
    }

    /// Peak memory of the process: of the fit or of writing coordinates, whichever takes more.
    public var memoryBytes: Int { max(plan.memoryBytes, coordinates?.memoryBytes ?? 0) }

    /// Stored bytes that all passes of all groups read, at most.
    public var byteCount: Int { groups.reduce(0) { $0 + $1.byteCount } }
}

/// What one group's fit captured.
public struct FittedGroup: Sendable {
    /// The layers of the group.
    public let layerNames: [String]
    /// D.
    public let gradientLength: Int
    /// Eigenpairs kept.
    public let rank: Int
    /// How they were found.
    public let algorithm: String
    /// In which precision H was formed.
    public let arithmetic: String
    /// What solved the eigenproblem.
    public let solver: String
    /// tr(H).
    public let trace: Double
    /// Σ of the kept eigenvalues / tr(H).
    public let capturedEnergy: Double
    /// tr(H) / s²_1: how many directions of the largest size the energy would fill.
    public let stableRank: Double
    /// s²_1 / s²_r, the condition number of H on the basis; 1 for a group without any gradient.
    public let conditionNumber: Double
    /// s² of the first eigenvector kept.
    public let largestEigenvalue: Double
    /// s² of the last eigenvector kept.
    public let smallestEigenvalue: Double
    /// Passes over the group's rows.
    public let passCount: Int
    /// max |V Vᵀ − I|.
    public let orthogonalityError: Double
    /// max ‖H v − s² v‖ / s²_1.
    public let residual: Double
    /// Whether the basis spans every row that it was fitted on.
    public let spansRows: Bool

    /// The figures of a stored group.
    public init(_ group: CurvatureGroupData, schema: StoreSchema) {
        let first = group.eigenvalues.first ?? 0
        let last = group.eigenvalues.last ?? 0
        layerNames = group.layers.map { schema.layers[$0].name }
        gradientLength = group.gradientLength
        rank = group.eigenvalues.count
        algorithm = group.details.algorithm
        arithmetic = group.details.arithmetic
        solver = group.details.solver
        trace = group.trace
        capturedEnergy = group.trace > 0 ? min(1, group.eigenvalues.reduce(0, +) / group.trace) : 1
        stableRank = first > 0 ? group.trace / first : 0
        conditionNumber = last > 0 ? first / last : 1
        largestEigenvalue = first
        smallestEigenvalue = last
        passCount = group.details.passCount
        orthogonalityError = group.details.orthogonalityError
        residual = group.details.residual
        spansRows = group.details.spansRows
    }

    /// The layer's name, or how many layers there are together.
    public var title: String { layerNames.count == 1 ? layerNames[0] : "all \(layerNames.count) layers" }
}

/// What a user should know about a fit before relying on it; one sentence each.
func fitWarnings(_ groups: [FittedGroup], rowCount: Int, exact: Bool, rank: Int?) -> [String] {
    var warnings: [String] = []
    func warn(_ affected: [FittedGroup], worst: FittedGroup?, _ text: (String, FittedGroup) -> String) {
        guard let worst else { return }
        let place =
            affected.count == 1 ? worst.title : "\(affected.count) of \(groups.count) layers (worst: \(worst.title))"
        warnings.append(text(place, worst))
    }
    let captured = groups.filter { !$0.spansRows && $0.capturedEnergy < 0.5 }
    warn(captured, worst: captured.min { $0.capturedEnergy < $1.capturedEnergy }) { place, worst in
        let percent = Int((100 * worst.capturedEnergy).rounded())
        return "\(place): rank \(worst.rank) captures only \(percent) % of tr(H); what is outside is damped like "
            + "noise. A higher --rank captures more"
    }
    if let rank, groups.contains(where: { $0.gradientLength > rowCount }), rowCount <= rank {
        warnings.append(
            "\(rowCount) rows give at most \(rowCount) directions of curvature, \(rank) were asked for: too few data for this rank"
        )
    }
    if exact, let longest = groups.map(\.gradientLength).max(), longest > rowCount {
        warnings.append(
            "\(rowCount) rows are fewer than the \(longest) dimensions of the gradient: H is singular, and damping alone "
                + "decides about the rest")
    }
    let coarse = groups.filter { $0.residual > 0.01 && $0.solver != EigenSolver.krylovStopped.rawValue }
    warn(coarse, worst: coarse.max { $0.residual < $1.residual }) { place, worst in
        "\(place): the iteration stopped at a residual of \(worst.residual) s²₁ after \(worst.passCount) passes; more "
            + "--passes are more accurate"
    }
    let stopped = groups.filter { $0.solver == EigenSolver.krylovStopped.rawValue }
    warn(stopped, worst: stopped.max { $0.residual < $1.residual }) { place, worst in
        "\(place): the iteration was stopped after \(worst.passCount) passes and had not converged: what it captures may be "
            + "more than 0.1 % below what rank \(worst.rank) can. More --passes are more accurate"
    }
    let skewed = groups.filter { $0.orthogonalityError > 1e-4 }
    warn(skewed, worst: skewed.max { $0.orthogonalityError < $1.orthogonalityError }) { place, worst in
        "\(place): eigenvectors are orthogonal to \(worst.orthogonalityError) only"
    }
    return warnings
}

/// Processor time of this process so far, all threads.
func processorSeconds() -> Double {
    var time = timespec()
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) * 1e-9
}

/// The largest resident memory of this process so far, from /proc; nil where there is none.
func peakResidentBytes() -> Int? {
    guard let file = fopen("/proc/self/status", "r") else { return nil }
    defer { fclose(file) }
    var line = [CChar](repeating: 0, count: 256)
    while fgets(&line, Int32(line.count), file) != nil {
        let text = String(decoding: line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
        guard text.hasPrefix("VmHWM:") else { continue }
        return text.split { !$0.isNumber }.first.flatMap { Int($0) }.map { $0 << 10 }
    }
    return nil
}
