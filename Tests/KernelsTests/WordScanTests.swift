import Kernels
import Schema
import Testing

/// int8 in whole numbers, against sums in Double.
@Suite struct WordScanTests {
    static let lengths = [(1, 1), (2, 3), (31, 33), (32, 64), (64, 64), (65, 7), (100, 130), (600, 5), (3, 4200)]

    /// Every code -127 or 127, and every scale 1: sums as large as they can be.
    private static func extremePage(rowCount: Int, length: Int) -> [UInt8] {
        let values = (0..<rowCount * length).map { Float(($0 * 7 / 3) % 2 == 0 ? 127 : -127) }
        return encodeVectors(values.span, rowCount: rowCount, length: length, encoding: .int8)
    }

    @Test(arguments: QueryKind.allCases)
    func pairsAreWithinTheirBound(kind: QueryKind) {
        for (index, (d1, d2)) in Self.lengths.enumerated() {
            let rowCount = [1, 7, 8, 9, 21, 33, 40, 5, 11][index]
            let left = RandomPage(rowCount: rowCount, length: d1, encoding: .int8, spread: 2, seed: 1)
            let right = RandomPage(rowCount: rowCount, length: d2, encoding: .int8, spread: 2, seed: 2)
            let rows = min(index % 3, rowCount - 1)..<rowCount
            let range = ScanRange(rowCount: rowCount, rows: rows, stride: rowCount + 3)
            for (queryCount, pairCount) in [(1, 1), (1, 2), (2, 1)] {
                let a = kind.vectors(count: queryCount * pairCount, length: d1, seed: 3)
                let b = kind.vectors(count: queryCount * pairCount, length: d2, seed: 4)
                let queries = FactorPairs(
                    left: a.span, right: b.span, queryCount: queryCount, pairCount: pairCount, leftLength: d1,
                    rightLength: d2, encoding: .int8)
                var reference: [Float]?
                for tier in KernelTier.available {
                    let scores = scored(queryCount * range.stride) {
                        queries.addScores(
                            left: left.payload.span.bytes, right: right.payload.span.bytes, range: range, to: &$0,
                            tier: tier)
                    }
                    #expect(reference == nil || reference == scores, "\(tier.name) \(kind) \(d1) × \(d2)")
                    reference = scores
                    for query in 0..<queryCount {
                        for row in rows {
                            var (exact, bound) = (0.0, 0x1p-140)
                            for pair in query * pairCount..<(query + 1) * pairCount {
                                let x = Self.product(left, row, a[pair * d1..<(pair + 1) * d1])
                                let y = Self.product(right, row, b[pair * d2..<(pair + 1) * d2])
                                exact += x.value * y.value
                                bound += x.error * (abs(y.value) + y.error) + y.error * abs(x.value)
                                bound += 8 * 0x1p-24 * abs(x.value * y.value)
                            }
                            let score = Double(scores[query * range.stride + row - rows.lowerBound])
                            #expect(abs(score - exact) <= bound, "\(tier.name) \(kind) \(d1) × \(d2)")
                        }
                    }
                }
            }
        }
    }

    /// The exact inner product, and what scan.h allows for its error.
    private static func product(
        _ page: RandomPage, _ row: Int, _ query: ArraySlice<Float>
    ) -> (value: Double, error: Double) {
        let (value, magnitude) = page.product(row: row, query)
        let stored = page.values[row * page.length..<(row + 1) * page.length].reduce(0) { $0 + abs($1) }
        // The step is at most 2^-28 of the largest magnitude, which is at least half of the power of two above it.
        let largest = query.reduce(0) { max($0, abs(Double($1))) }
        let roundings = Double(page.length / 4096 + 12)
        return (value, roundings * 0x1p-24 * magnitude + 0x1p-29 * largest * stored + 0x1p-140)
    }

    @Test func extremeCodesDoNotOverflow() {
        for (d1, d2) in [(64, 64), (5000, 40), (700, 3)] {
            let left = Self.extremePage(rowCount: 9, length: d1)
            let right = Self.extremePage(rowCount: 9, length: d2)
            // The signs of row 4's codes, so that its sums are the largest possible.
            let a = (0..<d1).map { Float(((4 * d1 + $0) * 7 / 3) % 2 == 0 ? 1 : -1) }
            let b = (0..<d2).map { Float(((4 * d2 + $0) * 7 / 3) % 2 == 0 ? 1 : -1) }
            let pairs = FactorPairs(
                left: a.span, right: b.span, queryCount: 1, pairCount: 1, leftLength: d1, rightLength: d2,
                encoding: .int8)
            let matrix = a.flatMap { x in b.map { x * $0 } }
            let words = ContractionWords(matrix.span, queryCount: 1, leftLength: d1, rightLength: d2)
            let exact = Float(127 * d1 * 127 * d2)
            for tier in KernelTier.available {
                let scores = scored(9) {
                    pairs.addScores(
                        left: left.span.bytes, right: right.span.bytes, range: .init(rowCount: 9), to: &$0, tier: tier)
                }
                #expect(abs(scores[4] - exact) <= 0x1p-20 * exact, "\(tier.name)")
                let full = bounded(9) {
                    words.addScores(
                        left: left.span.bytes, right: right.span.bytes, range: .init(rowCount: 9), to: &$0,
                        bounds: &$1, tier: tier)
                }
                #expect(abs(full.scores[4] - exact) <= min(full.bounds[4], 1e-3 * exact), "\(tier.name)")
            }
        }
    }

    @Test(arguments: QueryKind.allCases)
    func contractionsAreWithinTheirBounds(kind: QueryKind) {
        for (d1, d2) in [(1, 1), (3, 8), (64, 64), (33, 70), (600, 5), (2, 200)] {
            let rowCount = 21
            let left = RandomPage(rowCount: rowCount, length: d1, encoding: .int8, spread: 4, seed: 7)
            let right = RandomPage(rowCount: rowCount, length: d2, encoding: .int8, spread: 4, seed: 8)
            let matrices = kind.vectors(count: 2, length: d1 * d2, seed: 9)
            let words = ContractionWords(matrices.span, queryCount: 2, leftLength: d1, rightLength: d2)
            var reference: [Float]?
            for tier in KernelTier.available {
                for cuts in [[0, rowCount], [0, 3, 11, 12, rowCount]] {
                    var scores = [[Float]](repeating: [], count: 2)
                    var bounds = scores
                    for (first, end) in zip(cuts, cuts.dropFirst()) {
                        let part = bounded(2 * (end - first)) {
                            words.addScores(
                                left: left.payload.span.bytes, right: right.payload.span.bytes,
                                range: ScanRange(rowCount: rowCount, rows: first..<end, stride: end - first),
                                to: &$0, bounds: &$1, tier: tier)
                        }
                        for query in 0..<2 {
                            scores[query] += part.scores[query * (end - first)..<(query + 1) * (end - first)]
                            bounds[query] += part.bounds[query * (end - first)..<(query + 1) * (end - first)]
                        }
                    }
                    let all = (scores + bounds).flatMap { $0 }
                    #expect(reference == nil || reference == all, "\(tier.name) \(kind) \(d1) × \(d2)")
                    reference = all
                    for query in 0..<2 {
                        for row in 0..<rowCount {
                            let exact = (0..<d1).reduce(0.0) { sum, i in
                                let start = (query * d1 + i) * d2
                                return sum + left.values[row * d1 + i]
                                    * right.product(row: row, matrices[start..<start + d2]).value
                            }
                            let error = abs(Double(scores[query][row]) - exact)
                            #expect(error <= Double(bounds[query][row]), "\(tier.name) \(kind) \(d1) × \(d2)")
                        }
                    }
                }
            }
            guard kind == .gaussian, d1 == 64, let all = reference else { continue }
            // Of use: far below a score's deviation, the product of the norms over d for a random matrix.
            for row in 0..<rowCount {
                let norm = { (page: RandomPage) in
                    page.values[row * 64..<(row + 1) * 64].reduce(0) { $0 + $1 * $1 }.squareRoot()
                }
                #expect(Double(all[2 * rowCount + row]) <= 0.01 * norm(left) * norm(right) + 0x1p-140)
            }
        }
    }

    @Test func notANumberInAQueryGivesNoFiniteScoreOrBound() {
        let page = RandomPage(rowCount: 6, length: 10, encoding: .int8, spread: 0, seed: 16)
        for bad in [Float.nan, .infinity] {
            var vector = QueryKind.gaussian.vectors(count: 1, length: 10, seed: 17)
            var matrix = QueryKind.gaussian.vectors(count: 10, length: 10, seed: 18)
            vector[3] = bad
            matrix[33] = bad
            let pairs = FactorPairs(
                left: vector.span, right: vector.span, queryCount: 1, pairCount: 1, leftLength: 10, rightLength: 10,
                encoding: .int8)
            let words = ContractionWords(matrix.span, queryCount: 1, leftLength: 10, rightLength: 10)
            for tier in KernelTier.available {
                let bytes = page.payload.span.bytes
                let scores = scored(6) {
                    pairs.addScores(left: bytes, right: bytes, range: .init(rowCount: 6), to: &$0, tier: tier)
                }
                let full = bounded(6) {
                    words.addScores(
                        left: bytes, right: bytes, range: .init(rowCount: 6), to: &$0, bounds: &$1, tier: tier)
                }
                #expect((scores + full.scores + full.bounds).allSatisfy { $0.isNaN })
            }
        }
    }
}
