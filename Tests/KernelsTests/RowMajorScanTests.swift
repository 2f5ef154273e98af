import Kernels
import Schema
import Testing

private let encodings: [Encoding] = [.f32, .f16, .bf16, .int8]
private let lengths = [(1, 1), (2, 7), (8, 3), (9, 16), (64, 64), (17, 100), (1030, 5)]

@Suite struct RowMajorScanTests {
    @Test(arguments: encodings)
    func pairsAreWithinTheStatedBound(encoding: Encoding) {
        for (index, (d1, d2)) in lengths.enumerated() {
            // One or two pairs meet int8 in whole numbers, which have a bound of their own.
            for (queryCount, pairCount) in [(1, 1), (1, 2), (3, 1), (2, 7), (1, 16), (1, 0)]
            where encoding != .int8 || queryCount * pairCount > 2 || pairCount == 0 {
                let rowCount = 5 + 9 * index
                let left = RandomPage(rowCount: rowCount, length: d1, encoding: encoding, spread: 2, seed: 1)
                let right = RandomPage(rowCount: rowCount, length: d2, encoding: encoding, spread: 2, seed: 2)
                let a = QueryKind.gaussian.vectors(count: queryCount * pairCount, length: d1, seed: 3)
                let b = QueryKind.manyMagnitudes.vectors(count: queryCount * pairCount, length: d2, seed: 4)
                let queries = FactorPairs(
                    left: a.span, right: b.span, queryCount: queryCount, pairCount: pairCount, leftLength: d1,
                    rightLength: d2, encoding: encoding)
                let rows = index % 3..<rowCount - index % 2
                let range = ScanRange(rowCount: rowCount, rows: rows, stride: rowCount + 3)
                for tier in KernelTier.available {
                    let scores = scored(queryCount * range.stride) {
                        queries.addScores(
                            left: left.payload.span.bytes, right: right.payload.span.bytes, range: range, to: &$0,
                            tier: tier)
                    }
                    for query in 0..<queryCount {
                        for row in rows {
                            var (exact, magnitude) = (0.0, 0.0)
                            for pair in query * pairCount..<(query + 1) * pairCount {
                                let x = left.product(row: row, a[pair * d1..<(pair + 1) * d1])
                                let y = right.product(row: row, b[pair * d2..<(pair + 1) * d2])
                                exact += x.value * y.value
                                magnitude += x.magnitude * y.magnitude
                            }
                            let score = Double(scores[query * range.stride + row - rows.lowerBound])
                            let bound = Double(d1 + d2 + pairCount + 8) * 0x1p-24 * magnitude
                            #expect(abs(score - exact) <= bound, "\(tier.name) \(d1) × \(d2), \(pairCount) pairs")
                        }
                        // Nothing is written past the rows of the range.
                        let after = query * range.stride + rows.count..<(query + 1) * range.stride
                        #expect(scores[after].allSatisfy { $0 == 0 })
                    }
                }
            }
        }
    }

    @Test(arguments: encodings)
    func denseProductsAreWithinTheStatedBound(encoding: Encoding) {
        for length in [1, 7, 8, 31, 64, 511, 512, 513, 1100] {
            for queryCount in [1, 2, 3, 8] {
                let page = RandomPage(rowCount: 21, length: length, encoding: encoding, spread: 3, seed: 5)
                let p = QueryKind.manyMagnitudes.vectors(count: queryCount, length: length, seed: 6)
                let queries = DenseQueries(p.span, queryCount: queryCount, length: length)
                let range = ScanRange(rowCount: 21)
                for tier in KernelTier.available {
                    let scores = scored(queryCount * 21) {
                        queries.addScores(
                            page.payload.span.bytes, encoding: encoding, range: range, to: &$0, tier: tier)
                    }
                    for query in 0..<queryCount {
                        for row in 0..<21 {
                            let exact = page.product(row: row, p[query * length..<(query + 1) * length])
                            let error = abs(Double(scores[query * 21 + row]) - exact.value)
                            #expect(error <= Double(length + 8) * 0x1p-24 * exact.magnitude, "\(tier.name) \(length)")
                        }
                    }
                }
            }
        }
    }

    /// Workers may cut the rows anywhere, and pages lie at any address.
    @Test(arguments: encodings)
    func cutsAndAlignmentDoNotChangeABit(encoding: Encoding) {
        let (rowCount, d1, d2) = (61, 33, 18)
        let left = RandomPage(rowCount: rowCount, length: d1, encoding: encoding, spread: 1, seed: 7)
        let right = RandomPage(rowCount: rowCount, length: d2, encoding: encoding, spread: 1, seed: 8)
        let shifted = [0] + left.payload
        let a = QueryKind.gaussian.vectors(count: 7, length: d1, seed: 9)
        let b = QueryKind.gaussian.vectors(count: 7, length: d2, seed: 10)
        let queries = FactorPairs(
            left: a.span, right: b.span, queryCount: 1, pairCount: 7, leftLength: d1, rightLength: d2,
            encoding: encoding)
        let dense = DenseQueries(a.span, queryCount: 7, length: d1)
        for tier in KernelTier.available {
            func run(_ payload: RawSpan, cuts: [Int]) -> (pairs: [Float], dense: [Float]) {
                var pairs: [Float] = []
                var columns = [[Float]](repeating: [], count: 7)
                for (first, end) in zip([0] + cuts, cuts + [rowCount]) {
                    let range = ScanRange(rowCount: rowCount, rows: first..<end, stride: end - first)
                    pairs += scored(end - first) {
                        queries.addScores(
                            left: payload, right: right.payload.span.bytes, range: range, to: &$0, tier: tier)
                    }
                    let part = scored(7 * (end - first)) {
                        dense.addScores(payload, encoding: encoding, range: range, to: &$0, tier: tier)
                    }
                    for query in 0..<7 { columns[query] += part[query * (end - first)..<(query + 1) * (end - first)] }
                }
                return (pairs, columns.flatMap { $0 })
            }
            let whole = run(left.payload.span.bytes, cuts: [])
            for cuts in [[1], [13, 13, 29], [32], [5, 60]] {
                let parts = run(shifted.span.bytes.extracting(1..<shifted.count), cuts: cuts)
                #expect(parts.pairs == whole.pairs && parts.dense == whole.dense)
            }
        }
    }

    @Test func scoresAddUpAndInfinitiesPropagate() {
        let values: [Float] = [3, 4, 0.5, -2]
        let payload = encodeVectors(values.span, rowCount: 2, length: 2, encoding: .f32)
        let query: [Float] = [1, 10]
        let pairs = FactorPairs(
            left: query.span, right: query.span, queryCount: 1, pairCount: 1, leftLength: 2, rightLength: 2,
            encoding: .f32)
        let largest: [Float] = [.infinity, 0]
        let infinite = DenseQueries(largest.span, queryCount: 1, length: 2)
        for tier in KernelTier.available {
            let scores = scored(2) { scores in
                for _ in 0..<3 {
                    pairs.addScores(
                        left: payload.span.bytes, right: payload.span.bytes, range: ScanRange(rowCount: 2),
                        to: &scores, tier: tier)
                }
            }
            // 3 · 43² and 3 · 19.5².
            #expect(scores == [5547, 1140.75])
            let overflowing = scored(2) {
                infinite.addScores(
                    payload.span.bytes, encoding: .f32, range: ScanRange(rowCount: 2), to: &$0, tier: tier)
            }
            #expect(overflowing.allSatisfy { !$0.isFinite })
        }
    }
}
