import Testing

@testable import Engine

/// Bins against counting by hand, and that neither order nor cut matters.
@Suite struct ScoreHistogramTests {
    private func histogram(_ scores: [Float], pieces: Int = 1) -> ScoreHistogram {
        var result = ScoreHistogram()
        let size = max(1, (scores.count + pieces - 1) / pieces)
        for start in stride(from: 0, to: scores.count, by: size) {
            result.add(scores[start..<min(scores.count, start + size)].span)
        }
        return result
    }

    /// Scores over twelve orders of magnitude, with both signs, zeros and exact powers of two.
    private var mixed: [Float] {
        var generator = SystemRandomNumberGenerator()
        var scores: [Float] = [0, -0, 1, -1, 0.5, -512, 512, .leastNonzeroMagnitude, -.leastNonzeroMagnitude]
        for exponent in -20...20 {
            let scale = Float(sign: .plus, exponent: exponent, significand: 1)
            for _ in 0..<20 { scores.append(Float.random(in: -1...1, using: &generator) * scale) }
        }
        return scores
    }

    @Test func everyBinHasTheScoresWithinItsBounds() {
        let scores = mixed
        let bins = histogram(scores).bins(atMost: 1024)
        #expect(bins.reduce(0) { $0 + $1.count } == scores.count)
        #expect(bins.first.map { $0.count > 0 } == true && bins.last.map { $0.count > 0 } == true)
        for bin in bins {
            #expect(bin.count == scores.count { Double($0) >= bin.lowerBound && Double($0) < bin.upperBound })
        }
        for (bin, next) in zip(bins, bins.dropFirst()) { #expect(bin.upperBound == next.lowerBound) }
        // The range is at least a quarter of all bins, so that drawings are not coarse.
        #expect(bins.count >= 256)
    }

    @Test func orderAndCutDoNotMatter() {
        let scores = mixed
        let whole = histogram(scores)
        #expect(histogram(scores.reversed()) == whole)
        #expect(histogram(scores.shuffled(), pieces: 17) == whole)
        var merged = histogram(Array(scores.prefix(9)))
        merged.merge(histogram(Array(scores.dropFirst(9))))
        #expect(merged == whole)
        var other = histogram(Array(scores.dropFirst(9)))
        other.merge(histogram(Array(scores.prefix(9))))
        #expect(other == whole)
    }

    @Test func joinedBinsHoldTheSame() {
        let scores = mixed
        for limit in [1, 2, 7, 56, 300] {
            let bins = histogram(scores).bins(atMost: limit)
            #expect(bins.count <= limit)
            #expect(bins.reduce(0) { $0 + $1.count } == scores.count)
            for bin in bins {
                #expect(bin.count == scores.count { Double($0) >= bin.lowerBound && Double($0) < bin.upperBound })
            }
        }
    }

    @Test func nothingAndZerosOnly() {
        #expect(histogram([]).bins(atMost: 9).isEmpty)
        var zeros = histogram([0, 0, -0])
        #expect(zeros.bins(atMost: 9).map(\.count) == [3])
        zeros.merge(histogram([4]))
        #expect(zeros.exampleCount == 4)
        #expect(zeros.bins(atMost: 1024).first?.count == 3)
    }
}
