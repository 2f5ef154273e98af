public import Checksum
public import Curvature
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
    /// What each layer or group of layers adds to the score, if it was asked for.
    public internal(set) var contributions: [LayerContribution] = []
}

/// The answer to one query.
public struct QueryAnswer: Sendable {
    /// The id.
    public let identifier: String
    /// User metadata, if there is any.
    public let metadata: MetadataRecord?
    /// Which of the result's dampings it was computed with; 0 for methods without.
    public let dampingIndex: Int
    /// Highest scores, descending; ties by id.
    public let top: [RankedExample]
    /// Lowest scores, ascending; ties by id.
    public let bottom: [RankedExample]
    /// The examples by their value of a field, the largest sum first; empty unless asked for.
    public let groups: [GroupScore]
    /// Σ |score| over all examples scored. Where low-bit codes or leading pairs leave most rows at an estimate, that of the estimates.
    public let totalMagnitude: Double
    /// How many examples have which score; nil unless asked for.
    public let distribution: ScoreHistogram?
    /// Scores that no example exceeds, in either direction, which was left at its estimate: not better than the last of a full list, and
    /// so the proof of it. By bounds, or by measured margins where there is no guarantee; nil where every example was scored exactly.
    public let unrankedRange: ClosedRange<Float>?

    /// The part of the total that one example makes up: |score| / Σ |score|, 0 to 1.
    public func share(of example: RankedExample) -> Double {
        totalMagnitude > 0 ? min(1, Double(abs(example.score)) / totalMagnitude) : 0
    }
}

/// The damping that a result was computed with.
public struct DampingUsed: Sendable {
    /// What was asked for.
    public let damping: Damping
    /// λ by group: one per selected layer, or one for global curvature.
    public let lambdas: [Double]

    /// ρ, when the damping was relative.
    public var relative: Double? { if case .relative(let ratio) = damping { ratio } else { nil } }
    /// ρ or λ, as it was asked for.
    public var value: Double {
        switch damping {
        case .relative(let value), .absolute(let value): value
        }
    }
}

/// The answers to all queries, and how they were computed.
public struct QueryResult: Sendable {
    /// How the scores were computed.
    public let method: Method
    /// What was done with the scores of several queries.
    public let aggregation: QueryAggregation
    /// Whether the ranked examples are certainly the best.
    public let guarantee: Guarantee
    /// One per query or group of queries, in the order of the file; of several dampings one after another.
    public internal(set) var answers: [QueryAnswer]
    /// In the order of the request; empty for methods without curvature.
    public let dampings: [DampingUsed]
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
    /// What the scans did.
    public internal(set) var meter: ScanMeter
    /// The store's generation.
    public let generation: UInt64
    /// Rows scored.
    public internal(set) var rowCount: Int
    /// Rows that a deadline left unread.
    public let unreadRowCount: Int
    /// What the reader of the answer should know.
    public internal(set) var warnings: [String]
}
