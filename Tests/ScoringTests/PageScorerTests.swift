import Kernels
import Schema
import Testing

@testable import Scoring

/// Pages scored where they lie, against the definition over the decoded values.
@Suite struct PageScorerTests {
    static let shapes: [(d1: Int, d2: Int, rank: Int?)] = [(12, 9, 2), (7, 33, 1), (40, 24, 3), (11, 5, nil)]

    @Test(arguments: Encoding.allCases, shapes.indices) func agreesWithTheDefinition(encoding: Encoding, shape: Int) {
        let (d1, d2, rank) = Self.shapes[shape]
        let rowCount = 77
        for queryRank in [1, nil] {
            let given = ScoringCase(
                d1: d1, d2: d2, rank: rank, rowCount: rowCount, queryCount: 3, queryRank: queryRank, seed: 5)
            let canScore = PageScorer.canScore(
                layer: given.layer, encoding: encoding, queryRank: queryRank, allowsEstimates: true)
            // Full queries against factors in f32 or half precision go through matrix products.
            let isContracted = encoding.interleavedRowCount > 1 || encoding == .int8
            #expect(canScore == (isContracted || rank == nil || queryRank != nil))
            guard canScore else { continue }
            let scorer = PageScorer(layer: given.layer, encoding: encoding, queryCount: 3, form: given.form)
            var scores = [Float](repeating: 0, count: 3 * rowCount)
            var bounds = scores
            let expected = score(given, encoding, with: scorer, pieces: [0..<32, 32..<77], &scores, &bounds)
            for index in expected.values.indices {
                let error = abs(Double(scores[index]) - expected.values[index])
                if scorer.hasBounds {
                    #expect(error <= Double(bounds[index]))
                    #expect(Double(bounds[index]) <= 0.05 * expected.norms[index], "a bound that bounds nothing")
                } else {
                    #expect(error <= 1e-5 * expected.norms[index])
                }
            }
            // Any cut into pieces gives the same bits.
            var (whole, wholeBounds) = (
                [Float](repeating: 0, count: 3 * rowCount), [Float](repeating: 0, count: 3 * rowCount)
            )
            _ = score(given, encoding, with: scorer, pieces: [0..<77], &whole, &wholeBounds)
            #expect(whole == scores && wholeBounds == bounds)
        }
    }

    /// Scores encoded pages; gives the definition's scores of what the pages hold.
    private func score(
        _ given: ScoringCase, _ encoding: Encoding, with scorer: PageScorer, pieces: [Range<Int>],
        _ scores: inout [Float], _ bounds: inout [Float]
    ) -> (values: [Double], norms: [Double]) {
        let rowCount = given.tile.rowCount
        let (d1, d2) = (given.layer.inputDimension, given.layer.outputDimension)
        func page(_ values: [Float], _ component: Int, _ length: Int) -> (payload: [UInt8], decoded: [Float]) {
            let payload = encodeVectors(
                values.span.extracting(component * rowCount * length..<(component + 1) * rowCount * length),
                rowCount: rowCount, length: length, encoding: encoding)
            var decoded = [Float](repeating: 0, count: rowCount * length)
            var span = decoded.mutableSpan
            decodeVectors(payload.span.bytes, rowCount: rowCount, length: length, encoding: encoding, into: &span)
            return (payload, decoded)
        }
        var stored = given.tile
        if let rank = given.layer.rank {
            var (left, right): ([Float], [Float]) = ([], [])
            for component in 0..<rank {
                let u = page(given.tile.left, component, d1)
                let v = page(given.tile.right, component, d2)
                left += u.decoded
                right += v.decoded
                for rows in pieces {
                    var scores = scores.mutableSpan
                    var bounds = bounds.mutableSpan
                    scorer.accumulate(
                        left: u.payload.span.bytes, right: v.payload.span.bytes, rows: rows, rowCount: rowCount,
                        into: &scores, bounds: &bounds)
                }
            }
            stored = LayerTile(layer: given.layer, rowCount: rowCount, left: left, right: right)
        } else {
            let matrices = page(given.tile.dense, 0, d1 * d2)
            for rows in pieces {
                var scores = scores.mutableSpan
                var bounds = bounds.mutableSpan
                scorer.accumulate(
                    dense: matrices.payload.span.bytes, rows: rows, rowCount: rowCount, into: &scores, bounds: &bounds)
            }
            stored = LayerTile(layer: given.layer, rowCount: rowCount, dense: matrices.decoded)
        }
        return ScoringCase(given, tile: stored).scores()
    }

    @Test func refinementAgreesWithTheDefinition() {
        for (index, shape) in Self.shapes.enumerated() {
            for queryRank in [2, nil] {
                let given = ScoringCase(
                    d1: shape.d1, d2: shape.d2, rank: shape.rank, rowCount: 9, queryCount: 2, queryRank: queryRank,
                    seed: UInt64(index))
                let refiner = RowRefiner(layers: [given.layer], forms: [given.form])
                let expected = given.scores()
                for query in 0..<2 {
                    for row in 0..<9 {
                        let score = refiner.product(query: query, layer: 0, row: given.row(row))
                        let place = query * 9 + row
                        #expect(abs(score - expected.values[place]) <= 1e-13 * expected.norms[place])
                    }
                }
            }
        }
    }
}

extension ScoringCase {
    /// The same queries for other rows.
    init(_ other: ScoringCase, tile: LayerTile) {
        layer = other.layer
        self.tile = tile
        queryCount = other.queryCount
        form = other.form
    }

    /// One row as a tile.
    func row(_ row: Int) -> LayerTile {
        func vectors(_ values: [Float], _ length: Int) -> [Float] {
            var result: [Float] = []
            for component in 0..<(layer.rank ?? 1) {
                let first = (component * tile.rowCount + row) * length
                result += values[first..<first + length]
            }
            return result
        }
        guard layer.rank != nil else {
            return LayerTile(layer: layer, rowCount: 1, dense: vectors(tile.dense, layer.gradientLength))
        }
        return LayerTile(
            layer: layer, rowCount: 1, left: vectors(tile.left, layer.inputDimension),
            right: vectors(tile.right, layer.outputDimension))
    }
}
