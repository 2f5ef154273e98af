public import Curvature

/// What to ask of a store.
public struct QueryRequest: Sendable {
    /// How to score.
    public var method: Method
    /// The file of query gradients; not needed for self-influence.
    public var queriesPath: String?
    /// A JSONL file of the queries' metadata; nil: the file beside the queries, if there is one.
    public var queryMetadataPath: String?
    /// Empty: `defaultRelativeDamping`, or `whitenedRelativeDamping` for a whitened store. Several are answered by the same scan. Only
    /// for methods with curvature.
    public var dampings: [Damping]
    /// The curvature to use; nil: the active one.
    public var curvature: String?
    /// Glob patterns of the layers to score; empty: all.
    public var layerPatterns: [String]
    /// The rows to score.
    public var rows: RowSelection
    /// The named snapshot to ask; nil: the newest generation.
    public var snapshotName: String?
    /// How many of the highest and lowest scores to return per query.
    public var topCount: Int
    /// The same for the lowest scores.
    public var bottomCount: Int
    /// Where to write the full score matrix (.safetensors or .npy).
    public var scoresPath: String?
    /// Threads that scan.
    public var workers: Int
    /// Bytes that prepared queries and score blocks may take; more queries are scored in several scans.
    public var memoryBytes: Int

    /// λ = ρ · tr(H)/D with this ρ unless the caller says otherwise.
    public static let defaultRelativeDamping = 1.0
    /// The same for a whitened store, where the eigenvalues are nearly alike and the best damping is larger.
    public static let whitenedRelativeDamping = 10.0

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
