import Scoring
import Testing

/// Results by sorting everything: score, then id in UTF-8 bytes.
private func sortedResults(_ entries: [TopK.Entry], _ identifiers: [String], k: Int, _ direction: TopK.Direction)
    -> [TopK.Entry]
{
    let sorted = entries.sorted { a, b in
        if a.score != b.score { return direction == .top ? a.score > b.score : a.score < b.score }
        return Array(identifiers[a.ordinal].utf8).lexicographicallyPrecedes(Array(identifiers[b.ordinal].utf8))
    }
    return Array(sorted.prefix(k))
}

@Suite struct TopKTests {
    /// Few distinct scores, so that ties abound, and ids in an order unrelated to the ordinals.
    @Test(arguments: [TopK.Direction.top, .bottom])
    func agreesWithSortingInAnyOrderOfInsertionAndMerging(direction: TopK.Direction) {
        var generator = SplitMix(seed: 31)
        for round in 0..<120 {
            let count = Int.random(in: 0...120, using: &generator)
            let distinct = [1, 2, 5, 1000][round % 4]
            let names = (0..<count).map { "id\($0 * 7919 % 1009)" }
            let entries = (0..<count).map { ordinal in
                let choice = Int.random(in: 0..<distinct, using: &generator)
                let score: Float = choice == 0 && round % 3 == 0 ? (ordinal % 2 == 0 ? 0 : -0.0) : Float(choice - 2)
                return TopK.Entry(score: score, ordinal: ordinal)
            }
            for k in [0, 1, 2, 7, 50, 200] {
                let expected = sortedResults(entries, names, k: k, direction)
                var parts = (0..<3).map { _ in TopK(capacity: k, direction: direction) }
                var whole = TopK(capacity: k, direction: direction)
                for entry in entries.shuffled(using: &generator) {
                    whole.insert(entry.score, ordinal: entry.ordinal)
                    let part = Int.random(in: 0..<3, using: &generator)
                    parts[part].insert(entry.score, ordinal: entry.ordinal)
                    if Int.random(in: 0..<20, using: &generator) == 0 { parts[part].prune { names[$0] } }
                }
                #expect(whole.results { names[$0] } == expected)
                parts.shuffle(using: &generator)
                parts[0].merge(parts[1])
                parts[0].prune { names[$0] }
                parts[0].merge(parts[2])
                #expect(parts[0].results { names[$0] } == expected)
            }
        }
    }

    /// What reaches a limit is kept as if the rest had not been offered; ties with it are.
    @Test(arguments: [TopK.Direction.top, .bottom])
    func nothingBeyondTheLimitIsKept(direction: TopK.Direction) {
        var generator = SplitMix(seed: 77)
        for limit in [Float(-3), -1, 0, 1, 2, 9] {
            let entries = (0..<100).map {
                TopK.Entry(score: Float(Int.random(in: -2...2, using: &generator)), ordinal: $0)
            }
            let within = entries.filter { direction == .top ? $0.score >= limit : $0.score <= limit }
            let names = (0..<100).map { "id\($0 * 37 % 101)" }
            for k in [0, 1, 5, 40, 100, 200] {
                var parts = (0..<2).map { _ in TopK(capacity: k, direction: direction, limit: limit) }
                for entry in entries { parts[entry.ordinal % 2].insert(entry.score, ordinal: entry.ordinal) }
                parts[0].prune { names[$0] }
                parts[0].merge(parts[1])
                #expect(parts[0].results { names[$0] } == sortedResults(within, names, k: k, direction))
            }
        }
    }

    @Test func batchesAreOfferedWithTheirOrdinalsAndWithoutExcludedRows() {
        var generator = SplitMix(seed: 12)
        let scores = generator.gaussians(1000)
        var best = TopK(capacity: 20, direction: .top)
        for start in stride(from: 0, to: 1000, by: 64) {
            let end = min(1000, start + 64)
            best.insert(scores.span.extracting(start..<end), firstOrdinal: start) { $0 % 3 != 0 }
        }
        let entries = (0..<1000).filter { $0 % 3 != 0 }.map { TopK.Entry(score: scores[$0], ordinal: $0) }
        let expected = entries.sorted { $0.score > $1.score }.prefix(20)
        #expect(best.results { "\($0)" } == Array(expected))
    }

    @Test func identifiersAreAskedForOnlyWhereScoresTie() {
        var best = TopK(capacity: 3, direction: .top)
        for (ordinal, score) in [Float(5), 1, 3, 3, 3, 2, 9].enumerated() { best.insert(score, ordinal: ordinal) }
        var asked: [Int] = []
        let results = best.results { ordinal in
            asked.append(ordinal)
            return ["", "", "b", "c", "a", "", ""][ordinal]
        }
        #expect(results.map { $0.ordinal } == [6, 0, 4])
        #expect(asked == [2, 3, 4])
        #expect(best.tiedCount == 3)
    }

    /// U+FF5E precedes U+1F600 in UTF-8 but not in UTF-16; "é" composed and decomposed are different ids.
    @Test func tiesBreakByUTF8Bytes() {
        let names = ["\u{1F600}", "\u{FF5E}", "e\u{301}", "\u{E9}", "z", "Z"]
        var best = TopK(capacity: 6, direction: .bottom)
        for ordinal in names.indices { best.insert(1, ordinal: ordinal) }
        #expect(best.results { names[$0] }.map { $0.ordinal } == [5, 2, 4, 3, 1, 0])
    }

    @Test func pruningBoundsTheTiesAndPassesErrorsOn() {
        struct Unreadable: Error, Equatable { let ordinal: Int }
        var best = TopK(capacity: 4, direction: .top)
        best.insert(2, ordinal: 1000)
        for ordinal in 0..<500 { best.insert(0, ordinal: ordinal) }
        #expect(best.tiedCount == 500)
        #expect(throws: Unreadable(ordinal: 0)) { try best.prune { throw Unreadable(ordinal: $0) } }
        #expect(best.tiedCount == 500)
        best.prune { "\(999 - $0)" }
        #expect(best.tiedCount == 3)
        #expect(best.results { "\(999 - $0)" }.map { $0.ordinal } == [1000, 499, 498, 497])
        #expect(!best.admits(-1) && best.admits(0))
    }

    @Test func infinitiesAreOrdinaryScores() {
        var best = TopK(capacity: 3, direction: .top)
        for (ordinal, score) in [-Float.infinity, 1, .infinity, -.infinity].enumerated() {
            best.insert(score, ordinal: ordinal)
        }
        #expect(best.results { "\(9 - $0)" }.map { $0.ordinal } == [2, 1, 3])
    }
}
