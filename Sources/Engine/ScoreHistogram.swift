/// How many examples have which score, counted while the scores come by; the same whatever their order.
///
/// Bins are multiples of a power of two, [k·2^e, (k+1)·2^e), and double in width when a score lies outside: every wide bin is two
/// whole narrow ones, so that nothing has to be counted again. Memory: 8 KiB.
public struct ScoreHistogram: Sendable, Hashable {
    /// Bins on each side of zero.
    static let halfCount = 512

    /// Examples by bin; the bin at `halfCount` begins at zero.
    private var counts = [Int](repeating: 0, count: 2 * Self.halfCount)
    /// e; nil while every score was zero.
    private var exponent: Int?

    /// One bin with something in it, or between two such.
    public struct Bin: Sendable, Hashable {
        /// The lowest score that belongs to it.
        public let lowerBound: Double
        /// Scores from here on belong to the next.
        public let upperBound: Double
        /// Examples.
        public let count: Int
    }

    /// Examples counted.
    public var exampleCount: Int { counts.reduce(0, +) }

    /// The bins from the lowest score to the highest, joined from their left until there are at most `limit`.
    public func bins(atMost limit: Int) -> [Bin] {
        precondition(limit > 0)
        guard let first = counts.firstIndex(where: { $0 > 0 }), let last = counts.lastIndex(where: { $0 > 0 }) else {
            return []
        }
        let width = exponent.map { Double(sign: .plus, exponent: $0, significand: 1) } ?? 0
        let joined = (last - first + limit) / limit
        return stride(from: first, through: last, by: joined).map { start in
            Bin(
                lowerBound: Double(start - Self.halfCount) * width,
                upperBound: Double(start + joined - Self.halfCount) * width,
                count: counts[start..<min(counts.count, start + joined)].reduce(0, +))
        }
    }

    /// Counts finite scores.
    mutating func add(_ scores: Span<Float>) {
        var largest: Float = 0
        for index in scores.indices { largest = max(largest, abs(scores[index])) }
        precondition(largest.isFinite, "only finite scores have a bin")
        // |score| < 512·2^e for the e of its own exponent less eight, and not for a smaller one.
        if largest > 0 { widen(to: Int(largest.exponent) - 8) }
        let scale = exponent.map { Double(sign: .plus, exponent: -$0, significand: 1) } ?? 0
        for index in scores.indices {
            counts[Self.halfCount + Int((Double(scores[index]) * scale).rounded(.down))] += 1
        }
    }

    /// Adds what another one has counted.
    mutating func merge(_ other: ScoreHistogram) {
        var other = other
        if let exponent = other.exponent { widen(to: exponent) }
        if let exponent { other.widen(to: exponent) }
        for index in counts.indices { counts[index] += other.counts[index] }
    }

    private mutating func widen(to wanted: Int) {
        guard let current = exponent else {
            exponent = wanted
            return
        }
        guard wanted > current else { return }
        var wider = [Int](repeating: 0, count: counts.count)
        for index in counts.indices {
            // An arithmetic shift rounds down, as bins do.
            wider[Self.halfCount + (index - Self.halfCount) >> min(wanted - current, 62)] += counts[index]
        }
        counts = wider
        exponent = wanted
    }
}
