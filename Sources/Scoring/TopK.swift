/// The best k of a stream of scores, top or bottom, the same whatever the order of insertion and of merging.
///
/// Equal scores are ordered by example id, ascending in UTF-8 bytes, but a scan knows only ordinals. So nothing that ties with the
/// k-th score is dropped: entries strictly better than it are in a heap, the ordinals that tie with it in a list, and ids are
/// asked for only at the end, and only of tied rows. Where very many rows tie (all-zero gradients), `prune` bounds the
/// list by asking early.
public struct TopK: Sendable {
    /// Which end of the order is wanted.
    public enum Direction: Hashable, Sendable {
        /// Highest scores first.
        case top
        /// Lowest scores first.
        case bottom
    }

    /// One result.
    public struct Entry: Hashable, Sendable {
        /// The row's score.
        public let score: Float
        /// The row, as the caller numbers them.
        public let ordinal: Int

        /// A row and its score.
        public init(score: Float, ordinal: Int) {
            self.score = score
            self.ordinal = ordinal
        }
    }

    /// k.
    public let capacity: Int
    /// The wanted end of the order.
    public let direction: Direction

    // Invariant, with key = score (negated for bottom): `better` is a min-heap by key of entries above `boundary`, fewer than
    // `capacity`; `tied` are the entries at `boundary`. Below capacity `boundary` is the limit, or -∞ without one, and nothing else
    // has been refused.
    private var better: [Entry] = []
    private var tied: [Entry] = []
    private var boundary = -Float.infinity

    /// An empty collection of at most `capacity` ≥ 0 results, none beyond `limit`: below it for the top, above it for the bottom.
    public init(capacity: Int, direction: Direction, limit: Float? = nil) {
        precondition(capacity >= 0, "negative k")
        precondition(limit?.isNaN != true, "a limit that is not a number")
        self.capacity = capacity
        self.direction = direction
        if let limit { boundary = key(limit) }
    }

    /// How many rows tie with the k-th score and are kept until ids decide.
    public var tiedCount: Int { tied.count }

    /// Whether a row of that score could still be among the results.
    public func admits(_ score: Float) -> Bool {
        capacity > 0 && key(score) >= boundary
    }

    /// Whether there are fewer results than wanted, so that any score is admitted.
    public var isOpen: Bool { capacity > 0 && boundary == -.infinity }

    private func key(_ score: Float) -> Float { direction == .top ? score : -score }

    /// Offers one row; each ordinal once. O(log k), constant when refused. The score must be a number.
    public mutating func insert(_ score: Float, ordinal: Int) {
        precondition(!score.isNaN, "the score of row \(ordinal) is not a number")
        guard admits(score) else { return }
        let entry = Entry(score: score, ordinal: ordinal)
        if key(score) == boundary {
            tied.append(entry)
            return
        }
        better.append(entry)
        siftUp(from: better.count - 1)
        if better.count == capacity { raiseBoundary() }
    }

    /// Offers consecutive rows from `firstOrdinal`; `isIncluded` is asked only about rows that could enter.
    public mutating func insert(
        _ scores: Span<Float>, firstOrdinal: Int, where isIncluded: (Int) -> Bool = { _ in true }
    ) {
        guard capacity > 0 else { return }
        for index in scores.indices where !(key(scores[index]) < boundary) {
            let ordinal = firstOrdinal + index
            if isIncluded(ordinal) { insert(scores[index], ordinal: ordinal) }
        }
    }

    /// Adds another collection's rows; the two must have the same capacity and direction and no row in common.
    public mutating func merge(_ other: TopK) {
        precondition(other.capacity == capacity && other.direction == direction, "collections of different kind")
        for entry in other.better { insert(entry.score, ordinal: entry.ordinal) }
        for entry in other.tied { insert(entry.score, ordinal: entry.ordinal) }
    }

    /// Drops tied rows that can no longer be results, by id.
    ///
    /// Asks for every tied row's id, in ascending order of ordinals. The final results stay the same: later rows
    /// can only take places away from ties.
    public mutating func prune<E: Error>(identifier: (Int) throws(E) -> String) throws(E) {
        guard capacity > 0, better.count + tied.count > capacity else { return }
        tied = Array(try Self.byIdentifier(tied, identifier).prefix(capacity - better.count))
    }

    /// The results, best first, ties by id ascending in UTF-8 bytes.
    ///
    /// Asks for ids only of rows whose score another kept row shares.
    public func results<E: Error>(identifier: (Int) throws(E) -> String) throws(E) -> [Entry] {
        let ordered = (better + tied).sorted {
            (key($0.score), $1.ordinal) > (key($1.score), $0.ordinal)
        }
        var results: [Entry] = []
        var start = 0
        while start < ordered.count, results.count < capacity {
            var end = start + 1
            while end < ordered.count, ordered[end].score == ordered[start].score { end += 1 }
            let equal = Array(ordered[start..<end])
            results += equal.count == 1 ? equal : try Self.byIdentifier(equal, identifier)
            start = end
        }
        return Array(results.prefix(capacity))
    }

    /// Entries by id, asked for once each and in ascending order of ordinals, as they lie in the store.
    private static func byIdentifier<E: Error>(
        _ entries: [Entry], _ identifier: (Int) throws(E) -> String
    ) throws(E) -> [Entry] {
        var named: [(entry: Entry, identifier: String)] = []
        named.reserveCapacity(entries.count)
        for entry in entries.sorted(by: { $0.ordinal < $1.ordinal }) {
            named.append((entry, try identifier(entry.ordinal)))
        }
        // Not String's own order, which is by canonical equivalence.
        named.sort { a, b in
            if a.identifier.utf8.elementsEqual(b.identifier.utf8) { return a.entry.ordinal < b.entry.ordinal }
            return a.identifier.utf8.lexicographicallyPrecedes(b.identifier.utf8)
        }
        return named.map { $0.entry }
    }

    /// With k entries above the old boundary, the lowest of them is the k-th score: all at it become ties.
    private mutating func raiseBoundary() {
        boundary = key(better[0].score)
        tied.removeAll(keepingCapacity: true)
        while let lowest = better.first, key(lowest.score) == boundary {
            tied.append(lowest)
            removeLowest()
        }
    }

    private func isLower(_ a: Int, _ b: Int) -> Bool { key(better[a].score) < key(better[b].score) }

    private mutating func siftUp(from start: Int) {
        var child = start
        while child > 0 {
            let parent = (child - 1) / 2
            guard isLower(child, parent) else { return }
            better.swapAt(child, parent)
            child = parent
        }
    }

    private mutating func removeLowest() {
        better.swapAt(0, better.count - 1)
        better.removeLast()
        var parent = 0
        while true {
            var lowest = parent
            for child in [2 * parent + 1, 2 * parent + 2] where child < better.count && isLower(child, lowest) {
                lowest = child
            }
            if lowest == parent { return }
            better.swapAt(parent, lowest)
            parent = lowest
        }
    }
}
