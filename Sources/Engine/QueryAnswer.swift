public import Checksum
public import Schema

/// One example of a ranked list.
public struct RankedExample: Sendable {
    /// 1 for the best.
    public let rank: Int
    public let identifier: String
    public let score: Float
    public let metadata: MetadataRecord?
}

/// The answer to one query.
public struct QueryAnswer: Sendable {
    public let identifier: String
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
    public let method: Method
    public let answers: [QueryAnswer]
    public let damping: DampingUsed?
    /// The curvature used.
    public let curvature: Digest?
    /// "per-layer" or "global".
    public let scope: String?
    /// Rows that the curvature was fitted on.
    public let curvatureRowCount: Int?
    public let layerNames: [String]
    public let plan: Plan
    public let generation: UInt64
    public let rowCount: Int
    /// What the reader of the answer should know.
    public let warnings: [String]
}
