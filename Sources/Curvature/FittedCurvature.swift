/// Which gradients share one curvature matrix.
public enum Scope: String, Hashable, Sendable, CaseIterable {
    /// One matrix per layer: block-diagonal curvature. The default; it ranks better.
    case perLayer = "per-layer"
    /// One matrix for the concatenation of all layers.
    case global
}

/// How the eigenpairs of H were computed.
public enum FitAlgorithm: String, Hashable, Sendable, CaseIterable {
    /// H accumulated as a D×D matrix over reconstructed rows, then its eigenpairs. One pass.
    case gram
    /// The N×N kernel K = Σ_l (U Uᵀ)∘(V Vᵀ) of the rows, its eigenpairs A, then V = Gᵀ A / s. Two passes.
    case kernel
    /// Block Krylov iteration with a random start, H applied by streaming over the rows; O(D·r) memory.
    case krylov
}

/// Precision of the products that H or K is made of. Sums over row chunks are kept in Double either way.
public enum Arithmetic: String, Hashable, Sendable {
    case double
    case single
}

/// How the eigenpairs of the small matrix (H or K) were found.
public enum EigenSolver: String, Hashable, Sendable {
    /// All pairs by LAPACK's divide and conquer.
    case lapackAll = "lapack-all"
    /// The largest pairs by LAPACK.
    case lapackLargest = "lapack-largest"
    /// The largest pairs by block Krylov iteration, to a tolerance.
    case krylov
    /// The same, stopped by the limit of passes before the tolerance was met.
    case krylovStopped = "krylov-stopped"
}

/// Eigenpairs of H = Σ_i g_i g_iᵀ for one group of layers: the sum convention, no 1/N.
public struct CurvatureGroup: Sendable {
    /// Layers of the group, as indices of the row source, in vectorisation order.
    public let layers: [Int]
    /// Length of each layer's gradient.
    public let layerLengths: [Int]
    /// tr(H) = Σ_i ‖g_i‖².
    public let trace: Double
    /// s²: eigenvalues of H, descending, positive.
    public let eigenvalues: [Double]
    /// eigenvalues.count × gradientLength, row-major; row k is the unit eigenvector of `eigenvalues[k]`.
    public let basis: [Float]
    /// How H was treated.
    public let algorithm: FitAlgorithm
    /// In which precision.
    public let arithmetic: Arithmetic
    /// What solved the eigenproblem.
    public let solver: EigenSolver
    /// Rows that H is the sum over.
    public let rowCount: Int
    /// Passes over the rows that the fit took.
    public let passes: Int
    /// max |V Vᵀ − I| over the stored basis.
    public let orthogonalityError: Double
    /// max_k ‖H v_k − s²_k v_k‖ / s²_1 over (a sample of) the stored basis.
    public let residual: Double
    /// Whether the basis spans all rows it was fitted on: only null directions were left out. Then the part of a query
    /// outside the basis does not meet any fitted row.
    public let spansRows: Bool
    /// What the fit took; nothing if it is not known.
    public internal(set) var effort = FitEffort()
    /// What of that went into reading and products, which grow with the number of rows; the rest is the eigenproblem.
    public internal(set) var passEffort = FitEffort()

    /// D, the length of the group's gradient.
    public var gradientLength: Int { layerLengths.reduce(0, +) }
    /// r, the number of directions kept.
    public var rank: Int { eigenvalues.count }
    /// Σ s² / tr(H), 0...1; 1 for a group without any gradient.
    public var capturedEnergy: Double {
        trace > 0 ? min(1, eigenvalues.reduce(0, +) / trace) : 1
    }
    /// tr(H) / s²_1: how many directions of the largest size the energy would fill. 0 for a group without any gradient.
    public var stableRank: Double {
        eigenvalues.first.map { trace / $0 } ?? 0
    }
    /// s²_1 / s²_r: the condition number of H on the basis. 1 for a group without any gradient.
    public var conditionNumber: Double {
        guard let first = eigenvalues.first, let last = eigenvalues.last, last > 0 else { return 1 }
        return first / last
    }

    /// Assembles a group, as read from storage for instance; the counts must agree.
    public init(
        layers: [Int], layerLengths: [Int], trace: Double, eigenvalues: [Double], basis: [Float],
        algorithm: FitAlgorithm, arithmetic: Arithmetic, solver: EigenSolver, rowCount: Int, passes: Int,
        orthogonalityError: Double, residual: Double, spansRows: Bool
    ) {
        precondition(layers.count == layerLengths.count, "every layer needs a length")
        precondition(basis.count == eigenvalues.count * layerLengths.reduce(0, +), "basis is not r × D")
        self.layers = layers
        self.layerLengths = layerLengths
        self.trace = trace
        self.eigenvalues = eigenvalues
        self.basis = basis
        self.algorithm = algorithm
        self.arithmetic = arithmetic
        self.solver = solver
        self.rowCount = rowCount
        self.passes = passes
        self.orthogonalityError = orthogonalityError
        self.residual = residual
        self.spansRows = spansRows
    }
}

/// Curvature of a set of rows: one group per layer, or one for all.
public struct FittedCurvature: Sendable {
    /// What the groups are.
    public let scope: Scope
    /// In the order of their layers.
    public let groups: [CurvatureGroup]

    /// Groups as fitted, or as read from storage.
    public init(scope: Scope, groups: [CurvatureGroup]) {
        self.scope = scope
        self.groups = groups
    }
}

/// What to fit, and with how much of the machine.
public struct FitOptions: Sendable {
    /// One curvature matrix per layer, or one for all.
    public var scope: Scope
    /// Directions to keep per group; nil only with `exact`.
    public var rank: Int?
    /// Keep every direction: the dense damped inverse (LoGRA's), as eigenpairs.
    public var exact: Bool
    /// Peak memory of the fit, its result included.
    public var memoryBytes: Int
    /// Most passes of the streaming algorithm over the rows, its last (measuring) pass included; at least 2. It takes as many as it
    /// needs: flat spectra eight or nine, steep ones four.
    public var passes: Int
    /// Extra directions that the Krylov iteration carries; nil: max(16, rank/8).
    public var oversampling: Int?
    /// Start of the random directions.
    public var seed: UInt64
    /// Threads; they change nothing about the result.
    public var workers: Int
    /// Nil: chosen by cost.
    public var algorithm: FitAlgorithm?

    /// A fit needs a `rank`, or to be `exact`.
    public init(
        scope: Scope = .perLayer, rank: Int? = nil, exact: Bool = false, memoryBytes: Int = 4 << 30, passes: Int = 12,
        oversampling: Int? = nil, seed: UInt64 = 0, workers: Int, algorithm: FitAlgorithm? = nil
    ) {
        self.scope = scope
        self.rank = rank
        self.exact = exact
        self.memoryBytes = memoryBytes
        self.passes = passes
        self.oversampling = oversampling
        self.seed = seed
        self.workers = workers
        self.algorithm = algorithm
    }
}
