import Kernels
import Schema
import Testing

private let encodings: [Encoding] = [.q4, .q3, .q2, .q1]

/// One comparison of scores and bounds with exact sums: the bound holds, and both precisions and tiers keep it.
private func check(
    _ result: (scores: [Float], bounds: [Float]), range: ScanRange, queryCount: Int, _ comment: String,
    exact: (_ query: Int, _ row: Int) -> Double
) {
    for query in 0..<queryCount {
        for row in range.rows {
            let index = query * range.stride + row - range.rows.lowerBound
            let expected = exact(query, row)
            let (score, bound) = (Double(result.scores[index]), Double(result.bounds[index]))
            if score.isFinite {
                // The oracle's own rounding, of Double, is far below the room that the bound leaves for f32.
                #expect(abs(score - expected) <= bound, "\(comment): row \(row) scored \(score), is \(expected)")
            } else {
                #expect(!bound.isFinite, "\(comment): row \(row)")
            }
        }
    }
}

@Suite struct TableScanTests {
    @Test(arguments: encodings)
    func factorScoresAreWithinTheirBounds(encoding: Encoding) {
        let lengths = [(1, 1), (2, 3), (4, 5), (9, 64), (64, 7), (33, 130), (1030, 3)]
        for (index, (d1, d2)) in lengths.enumerated() {
            let rowCount = [1, 31, 32, 33, 70, 100, 140][index]
            let left = RandomPage(rowCount: rowCount, length: d1, encoding: encoding, spread: 6, seed: 1)
            let right = RandomPage(rowCount: rowCount, length: d2, encoding: encoding, spread: 6, seed: 2)
            let rows = (index % 3 == 0 ? 0 : rowCount / 5)..<rowCount
            let range = ScanRange(rowCount: rowCount, rows: rows, stride: rowCount)
            for kind in QueryKind.allCases {
                let (queryCount, pairCount) = kind == .gaussian ? (1, 1) : (2, 3)
                let a = kind.vectors(count: queryCount * pairCount, length: d1, seed: 3)
                let b = kind.vectors(count: queryCount * pairCount, length: d2, seed: 4)
                let exact = { (query: Int, row: Int) in
                    (query * pairCount..<(query + 1) * pairCount).reduce(0.0) { sum, pair in
                        let x = left.product(row: row, a[pair * d1..<(pair + 1) * d1]).value
                        return sum + x * right.product(row: row, b[pair * d2..<(pair + 1) * d2]).value
                    }
                }
                for precision in TablePrecision.allCases {
                    let tables = FactorTables(
                        left: a.span, right: b.span, queryCount: queryCount, pairCount: pairCount, leftLength: d1,
                        rightLength: d2, encoding: encoding, precision: precision)
                    var reference: [Float]?
                    for tier in KernelTier.available {
                        let result = bounded(queryCount * rowCount) {
                            tables.addScores(
                                left: left.payload.span.bytes, right: right.payload.span.bytes, range: range, to: &$0,
                                bounds: &$1, tier: tier)
                        }
                        let comment = "\(tier.name) \(kind) \(precision) \(d1) × \(d2)"
                        check(result, range: range, queryCount: queryCount, comment, exact: exact)
                        #expect(reference == nil || reference == result.scores + result.bounds, "\(comment)")
                        reference = result.scores + result.bounds
                        let unbounded = scored(queryCount * rowCount) {
                            tables.addScores(
                                left: left.payload.span.bytes, right: right.payload.span.bytes, range: range, to: &$0,
                                tier: tier)
                        }
                        #expect(unbounded == result.scores, "\(comment)")
                    }
                }
            }
        }
    }

    @Test(arguments: encodings)
    func denseScoresAreWithinTheirBounds(encoding: Encoding) {
        for (index, length) in [1, 3, 8, 63, 257, 1100].enumerated() {
            let rowCount = [40, 33, 16, 130, 64, 65][index]
            let page = RandomPage(rowCount: rowCount, length: length, encoding: encoding, spread: 10, seed: 5)
            let range = ScanRange(rowCount: rowCount, rows: index..<rowCount, stride: rowCount)
            for kind in QueryKind.allCases {
                let queryCount = [1, 2, 9][index % 3]
                let p = kind.vectors(count: queryCount, length: length, seed: 6)
                for precision in TablePrecision.allCases {
                    let tables = DenseTables(
                        p.span, queryCount: queryCount, length: length, encoding: encoding, precision: precision)
                    var reference: [Float]?
                    for tier in KernelTier.available {
                        let result = bounded(queryCount * rowCount) {
                            tables.addScores(
                                page.payload.span.bytes, range: range, to: &$0, bounds: &$1, tier: tier)
                        }
                        let comment = "\(tier.name) \(kind) \(precision) \(length)"
                        check(result, range: range, queryCount: queryCount, comment) { query, row in
                            page.product(row: row, p[query * length..<(query + 1) * length]).value
                        }
                        #expect(reference == nil || reference == result.scores + result.bounds, "\(comment)")
                        reference = result.scores + result.bounds
                    }
                }
            }
        }
    }

    @Test(arguments: encodings)
    func contractionsAreWithinTheirBounds(encoding: Encoding) {
        for (d1, d2) in [(1, 1), (3, 8), (8, 3), (20, 33), (70, 5), (2, 600)] {
            let rowCount = 75
            let left = RandomPage(rowCount: rowCount, length: d1, encoding: encoding, spread: 4, seed: 7)
            let right = RandomPage(rowCount: rowCount, length: d2, encoding: encoding, spread: 4, seed: 8)
            let range = ScanRange(rowCount: rowCount, rows: 3..<rowCount, stride: rowCount)
            for kind in QueryKind.allCases {
                let matrices = kind.vectors(count: 2, length: d1 * d2, seed: 9)
                let exact = { (query: Int, row: Int) in
                    (0..<d1).reduce(0.0) { sum, i in
                        let start = (query * d1 + i) * d2
                        return sum + left.values[row * d1 + i]
                            * right.product(row: row, matrices[start..<start + d2]).value
                    }
                }
                for precision in TablePrecision.allCases {
                    let tables = ContractionTables(
                        matrices.span, queryCount: 2, leftLength: d1, rightLength: d2, encoding: encoding,
                        precision: precision)
                    var reference: [Float]?
                    for tier in KernelTier.available {
                        let result = bounded(2 * rowCount) {
                            tables.addScores(
                                left: left.payload.span.bytes, right: right.payload.span.bytes, range: range, to: &$0,
                                bounds: &$1, tier: tier)
                        }
                        let comment = "\(tier.name) \(kind) \(precision) \(d1) × \(d2)"
                        check(result, range: range, queryCount: 2, comment, exact: exact)
                        #expect(reference == nil || reference == result.scores + result.bounds, "\(comment)")
                        reference = result.scores + result.bounds
                    }
                }
            }
        }
    }

    /// Bounds are of use: small beside Π of norms at the shapes that matter, and much smaller with wide tables.
    @Test(arguments: encodings)
    func boundsAreTightForGaussianQueries(encoding: Encoding) {
        let (rowCount, d) = (64, 64)
        let left = RandomPage(rowCount: rowCount, length: d, encoding: encoding, spread: 0, seed: 10)
        let a = QueryKind.gaussian.vectors(count: 1, length: d, seed: 11)
        for (precision, share) in [(TablePrecision.wide, 0.01), (.narrow, 0.5)] {
            let tables = FactorTables(
                left: a.span, right: a.span, queryCount: 1, pairCount: 1, leftLength: d, rightLength: d,
                encoding: encoding, precision: precision)
            let result = bounded(rowCount) {
                tables.addScores(
                    left: left.payload.span.bytes, right: left.payload.span.bytes, range: .init(rowCount: rowCount),
                    to: &$0, bounds: &$1)
            }
            // ‖a‖ ‖u‖ is about d.
            #expect((result.bounds.max() ?? 0) < Float(share * Double(d * d)))
        }
    }

    /// Workers may cut the rows anywhere, and scores add up over layers with their bounds.
    @Test(arguments: encodings)
    func cutsDoNotChangeABitAndBoundsAccumulate(encoding: Encoding) {
        let (rowCount, d1, d2) = (150, 21, 40)
        let left = RandomPage(rowCount: rowCount, length: d1, encoding: encoding, spread: 1, seed: 12)
        let right = RandomPage(rowCount: rowCount, length: d2, encoding: encoding, spread: 1, seed: 13)
        let a = QueryKind.gaussian.vectors(count: 4, length: d1, seed: 14)
        let b = QueryKind.gaussian.vectors(count: 4, length: d2, seed: 15)
        let tables = FactorTables(
            left: a.span, right: b.span, queryCount: 1, pairCount: 4, leftLength: d1, rightLength: d2,
            encoding: encoding, precision: .narrow)
        let layers = 5
        for tier in KernelTier.available {
            func run(cuts: [Int]) -> (scores: [Float], bounds: [Float]) {
                var all: (scores: [Float], bounds: [Float]) = ([], [])
                for (first, end) in zip([0] + cuts, cuts + [rowCount]) {
                    let part = bounded(end - first) { scores, bounds in
                        for _ in 0..<layers {
                            tables.addScores(
                                left: left.payload.span.bytes, right: right.payload.span.bytes,
                                range: ScanRange(rowCount: rowCount, rows: first..<end, stride: end - first),
                                to: &scores, bounds: &bounds, tier: tier)
                        }
                    }
                    all.scores += part.scores
                    all.bounds += part.bounds
                }
                return all
            }
            let whole = run(cuts: [])
            check(whole, range: ScanRange(rowCount: rowCount), queryCount: 1, "sum of layers") { _, row in
                Double(layers)
                    * (0..<4).reduce(0.0) { sum, pair in
                        let x = left.product(row: row, a[pair * d1..<(pair + 1) * d1]).value
                        return sum + x * right.product(row: row, b[pair * d2..<(pair + 1) * d2]).value
                    }
            }
            for cuts in [[1], [31, 33, 33], [64, 128], [149]] {
                let parts = run(cuts: cuts)
                #expect(parts.scores == whole.scores && parts.bounds == whole.bounds, "\(tier.name) \(cuts)")
            }
        }
    }

    @Test func notANumberInAQueryGivesNoFiniteScoreOrBound() {
        let page = RandomPage(rowCount: 6, length: 10, encoding: .q2, spread: 0, seed: 16)
        var query = QueryKind.gaussian.vectors(count: 1, length: 10, seed: 17)
        for bad in [Float.nan, .infinity] {
            query[3] = bad
            let tables = DenseTables(query.span, queryCount: 1, length: 10, encoding: .q2, precision: .wide)
            for tier in KernelTier.available {
                let result = bounded(6) {
                    tables.addScores(
                        page.payload.span.bytes, range: ScanRange(rowCount: 6), to: &$0, bounds: &$1, tier: tier)
                }
                #expect((result.scores + result.bounds).allSatisfy { $0.isNaN })
            }
        }
    }
}
