/// How far two ways to score the same examples agree on their order.
public enum RankAgreement {
    /// Spearman's rank correlation: Pearson's of the ranks, equal values sharing the mean of theirs. nil when either is constant.
    ///
    /// O(n log n) time. Scores must be numbers.
    public static func spearman(_ a: [Float], _ b: [Float]) -> Double? {
        precondition(a.count == b.count, "scores of different examples")
        let (x, y) = (ranks(a), ranks(b))
        // Ranks always have this mean, ties or not.
        let mean = Double(a.count - 1) / 2
        var (xx, yy, xy) = (0.0, 0.0, 0.0)
        for index in x.indices {
            let (dx, dy) = (x[index] - mean, y[index] - mean)
            xx += dx * dx
            yy += dy * dy
            xy += dx * dy
        }
        guard xx > 0, yy > 0 else { return nil }
        return xy / (xx * yy).squareRoot()
    }

    /// Ranks from 0, ties sharing their mean.
    static func ranks(_ values: [Float]) -> [Double] {
        let order = values.indices.sorted { values[$0] < values[$1] }
        var ranks = [Double](repeating: 0, count: values.count)
        var start = 0
        while start < order.count {
            var end = start + 1
            while end < order.count, values[order[end]] == values[order[start]] { end += 1 }
            for place in start..<end { ranks[order[place]] = Double(start + end - 1) / 2 }
            start = end
        }
        return ranks
    }

    /// How many of the k best by `a` are among the k best by `b`; ties by position. O(n log k).
    public static func sharedTop(_ a: [Float], _ b: [Float], count k: Int) -> Int {
        precondition(a.count == b.count, "scores of different examples")
        return Set(top(a, count: k)).intersection(top(b, count: k)).count
    }

    private static func top(_ values: [Float], count k: Int) -> [Int] {
        var best = TopK(capacity: min(k, values.count), direction: .top)
        for (index, value) in values.enumerated() { best.insert(value, ordinal: index) }
        // As good as an id: the position as text of equal length.
        return best.results { ordinal in
            let digits = String(ordinal)
            return String(repeating: "0", count: 20 - digits.count) + digits
        }.map(\.ordinal)
    }
}
