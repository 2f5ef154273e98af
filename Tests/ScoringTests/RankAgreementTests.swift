import Testing

@testable import Scoring

/// Rank statistics against values worked out by hand and a definition in quadratic time.
struct RankAgreementTests {
    @Test func byHand() throws {
        #expect(RankAgreement.spearman([1, 2, 3, 4, 5], [2, 4, 6, 8, 10]) == 1)
        #expect(RankAgreement.spearman([1, 2, 3, 4, 5], [5, 4, 3, 2, 1]) == -1)
        // Ranks 1 2 3 4 5 and 2 1 4 3 5: 1 - 6·4/(5·24).
        let swapped = try #require(RankAgreement.spearman([1, 2, 3, 4, 5], [20, 10, 40, 30, 50]))
        #expect(abs(swapped - 0.8) < 1e-15)
        #expect(RankAgreement.spearman([1, 1, 1], [1, 2, 3]) == nil)
        #expect(RankAgreement.ranks([3, 1, 3, 2]) == [2.5, 0, 2.5, 1])
    }

    @Test(arguments: [3, 10, 57]) func byDefinition(count: Int) throws {
        var random = SystemRandomNumberGenerator()
        // Few values, so that many are equal.
        let a = (0..<count).map { _ in Float(Int.random(in: 0..<6, using: &random)) }
        let b = (0..<count).map { index in a[index] + Float(Int.random(in: 0..<4, using: &random)) }
        func ranks(_ values: [Float]) -> [Double] {
            values.map { value in
                Double(values.count { $0 < value }) + Double(values.count { $0 == value } - 1) / 2
            }
        }
        let (x, y) = (ranks(a), ranks(b))
        let (meanX, meanY) = (x.reduce(0, +) / Double(count), y.reduce(0, +) / Double(count))
        let covariance = zip(x, y).reduce(0) { $0 + ($1.0 - meanX) * ($1.1 - meanY) }
        let scale = x.reduce(0) { $0 + ($1 - meanX) * ($1 - meanX) } * y.reduce(0) { $0 + ($1 - meanY) * ($1 - meanY) }
        guard scale > 0 else { return }
        let found = try #require(RankAgreement.spearman(a, b))
        #expect(abs(found - covariance / scale.squareRoot()) < 1e-12)
    }

    @Test func sharedTops() {
        #expect(RankAgreement.sharedTop([5, 4, 3, 2, 1], [1, 2, 3, 4, 5], count: 3) == 1)
        #expect(RankAgreement.sharedTop([5, 4, 3], [9, 8, 7], count: 10) == 3)
        // Equal scores go by position.
        #expect(RankAgreement.sharedTop([1, 1, 1, 1], [1, 1, 0, 0], count: 2) == 2)
    }
}
