/// How far a score must reach for its example to be ranked: an end of an interval, for all queries or for each its own.
///
/// A scan that knows it before the first row leaves out from the start what it would otherwise find out to be too low. So the parts of a
/// question that is asked of several stores, one after another, go faster when each is told the k-th best score of those before.
public struct ScoreLimits: Sendable, Hashable {
    /// For queries that have none of their own; nil: every score will do.
    public var common: Float?
    /// By the id of the query.
    public var byQuery: [String: Float]

    /// Limits; none unless said. They must be numbers.
    public init(common: Float? = nil, byQuery: [String: Float] = [:]) {
        self.common = common
        self.byQuery = byQuery
    }

    /// The limit for a query.
    public func of(_ query: String) -> Float? { byQuery[query] ?? common }
}
