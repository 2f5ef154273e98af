public import Curvature

/// How sure it is that no example is better than the ranked ones.
public enum Guarantee: String, Sendable, CaseIterable {
    /// Certain, up to the rounding of single precision: rows are left out only by a bound on the error of their estimate.
    case exact
    /// Rows may be left out by the measured error of their estimate: by five times its standard deviation.
    case none
}

/// What to ask of a store.
public struct QueryRequest: Sendable {
    /// How to score.
    public var method: Method
    /// The file of query gradients; not needed for self-influence.
    public var queriesPath: String?
    /// Ids of stored examples that are the queries, instead of a file.
    public var queryExamples: [String] = []
    /// How sure the ranked examples must be.
    public var guarantee: Guarantee = .exact
    /// How the scores of several queries become one.
    public var aggregation: QueryAggregation = .none
    /// With an aggregation: one for each value of this field of the queries' metadata, instead of one in all.
    public var aggregationField: String?
    /// A metadata field of the examples whose values are to be compared.
    public var groupField: String?
    /// Whether to say what each layer adds to the scores of ranked examples.
    public var wantsContributions = false
    /// Whether to count how many examples have which score. Every row is then scored exactly.
    public var wantsDistribution = false
    /// The scan stops after so many seconds with what it has.
    public var deadlineSeconds: Double?
    /// A JSONL file of the queries' metadata; nil: the file beside the queries, if there is one.
    public var queryMetadataPath: String?
    /// Empty: `defaultRelativeDamping`, or `whitenedRelativeDamping` for a whitened store. Several are answered by the same scan. Only
    /// for methods with curvature.
    public var dampings: [Damping]
    /// The curvature to use; nil: the active one.
    public var curvature: String?
    /// Glob patterns of the layers to score; empty: all.
    public var layerPatterns: [String]
    /// tr(H) by layer name for methods that divide by it; nil: that of the store's live rows. Layers that a query leaves out may be
    /// missing; others are refused.
    public var layerScales: [String: Double]?
    /// The rows to score.
    public var rows: RowSelection
    /// The named snapshot to ask; nil: the newest generation.
    public var snapshotName: String?
    /// How many of the highest and lowest scores to return per query.
    public var topCount: Int
    /// The same for the lowest scores.
    public var bottomCount: Int
    /// What the highest scores must reach to be returned.
    public var leastScores = ScoreLimits()
    /// What the lowest scores must not exceed.
    public var greatestScores = ScoreLimits()
    /// Where to write the full score matrix (.safetensors or .npy).
    public var scoresPath: String?
    /// Threads that compute.
    public var workers: Int
    /// Threads that scan; nil: as many as the plan finds good, more than processors where they wait for the disk.
    public var scanWorkers: Int?
    /// Bytes that prepared queries and score blocks may take; more queries are scored in several scans.
    public var memoryBytes: Int
    /// How rows meet queries; nil leaves it to the plan.
    public var kernel: Plan.Kernel?
    /// How to read what is not in memory.
    public var readPath: ReadPath = .automatic
    /// What the planner goes by.
    public var machine: MachineModel = .standard

    /// λ = ρ · tr(H)/D with this ρ unless the caller says otherwise.
    public static let defaultRelativeDamping = 1.0
    /// The same for a whitened store, where the eigenvalues are nearly alike and the best damping is larger.
    public static let whitenedRelativeDamping = 30.0

    /// A request; everything has a default.
    public init(
        method: Method = .influence, queriesPath: String? = nil, queryMetadataPath: String? = nil,
        dampings: [Damping] = [], curvature: String? = nil, layerPatterns: [String] = [],
        rows: RowSelection = .all, snapshotName: String? = nil, topCount: Int = 10,
        bottomCount: Int = 0, scoresPath: String? = nil, workers: Int = availableProcessorCount(),
        memoryBytes: Int = 2 << 30
    ) {
        self.method = method
        self.queriesPath = queriesPath
        self.queryMetadataPath = queryMetadataPath
        self.dampings = dampings
        self.curvature = curvature
        self.layerPatterns = layerPatterns
        self.rows = rows
        self.snapshotName = snapshotName
        self.topCount = topCount
        self.bottomCount = bottomCount
        self.scoresPath = scoresPath
        self.workers = workers
        self.memoryBytes = memoryBytes
    }
}

extension QueryRequest {
    /// Whether queries are summed before the scan, so that each group costs as much as one query.
    var foldsAggregation: Bool { (aggregation == .sum || aggregation == .mean) && method.isLinearInQueries }

    /// Whether scores are sums over layers, so that each layer adds something to them.
    public var hasContributions: Bool { method.isSumOverLayers && (aggregation == .none || foldsAggregation) }

    /// Refuses what means nothing.
    func validate() throws(EngineError) {
        if !dampings.isEmpty, !method.needsCurvature { throw .dampingNotApplicable(method: method.rawValue) }
        if queriesPath != nil, !queryExamples.isEmpty {
            throw .contradiction("give a file of queries or --by-id, not both")
        }
        if aggregation == .none, aggregationField != nil {
            throw .contradiction("--aggregate-by needs --aggregate mean, sum or max")
        }
        if aggregation != .none, !method.needsQueries {
            throw .contradiction("--aggregate: method '\(method.rawValue)' has no queries")
        }
        if wantsContributions, !hasContributions {
            throw .contradiction(
                "--per-layer: a score of method '\(method.rawValue)'"
                    + (aggregation == .none ? "" : " with --aggregate \(aggregation.rawValue)")
                    + " is not a sum over layers")
        }
        if deadlineSeconds != nil, scoresPath != nil {
            throw .contradiction("--deadline may leave examples unread, and a file of all scores must have them all")
        }
    }
}
