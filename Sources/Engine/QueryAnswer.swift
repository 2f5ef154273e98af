public import Checksum
public import Schema

/// One example of a ranked list.
public struct RankedExample: Sendable {
    /// 1 for the best.
    public let rank: Int
    /// The id.
    public let identifier: String
    /// Positive: training on it lowers the loss of the query.
    public let score: Float
    /// User metadata, if there is any.
    public let metadata: MetadataRecord?
}

/// The answer to one query.
public struct QueryAnswer: Sendable {
    /// The id.
    public let identifier: String
    /// User metadata, if there is any.
    public let metadata: MetadataRecord?
    /// Highest scores, descending; ties by id.
    public let top: [RankedExample]
    /// Lowest scores, ascending; ties by id.
    public let bottom: [RankedExample]
}

/// The damping that a result was computed with.
public struct DampingUsed: Sendable {
    /// ρ, when the damping was relative.
    public let relative: Double?
    /// λ by group: one per selected layer, or one for global curvature.
    public let lambdas: [Double]
}

/// The answers to all queries, and how they were computed.
public struct QueryResult: Sendable {
    /// How the scores were computed.
    public let method: Method
    /// One per query, in the order of the file.
    public let answers: [QueryAnswer]
    /// nil for methods without curvature.
    public let damping: DampingUsed?
    /// The whitening basis that the scores were computed in; nil: the gradients as given.
    public let basis: Digest?
    /// The curvature used.
    public let curvature: Digest?
    /// "per-layer" or "global".
    public let scope: String?
    /// Rows that the curvature was fitted on.
    public let curvatureRowCount: Int?
    /// The layers scored.
    public let layerNames: [String]
    /// How it was answered.
    public let plan: Plan
    /// The store's generation.
    public let generation: UInt64
    /// Rows scored.
    public let rowCount: Int
    /// What the reader of the answer should know.
    public let warnings: [String]
}
