import Schema
import Scoring
import Store

/// Scores blocks in place, for the methods whose scores are inner products.
///
/// Low-bit pages give estimates with bounds on their errors: enough to tell that a row is not among the best. The others are scored
/// again, exactly.
struct PageScan: Sendable {
    /// Store positions of the layers read.
    let layers: [Int]
    /// By position in `layers`.
    let scorers: [PageScorer]
    /// Exact scores of rows that the estimates leave open; nil if scores are no estimates.
    let refiner: RowRefiner?
    /// By query, what an estimate may be off; nil where every row has a bound of its own.
    var margins: [Float]?
    let queryCount: Int

    /// Whether every estimate comes with a bound on its error.
    private var hasBounds: Bool { scorers.contains(where: \.hasBounds) }

    /// Standard deviations by which an estimate may be off, where there are no bounds.
    private static let marginDeviations = 5.0
    private static let sampledBlockCount = 4
    /// The first live rows of a sampled block, of which `sampledRows` are scored again.
    private static let sampledPrefixCount = 128
    private static let sampledRowCount = 32
    /// The same over all queries, of which each has at least `fewestSampledRows`: scoring a row exactly takes its time.
    private static let sampledScoreCount = 512
    private static let fewestSampledRows = 8

    /// Rows of each sampled block.
    private static func sampledRows(queryCount: Int) -> Int {
        max(fewestSampledRows, min(sampledRowCount, sampledScoreCount / max(1, queryCount)))
    }

    /// Scores that measuring the margins of so many queries takes.
    static func sampledScores(queryCount: Int) -> Int {
        sampledBlockCount * sampledRows(queryCount: queryCount) * queryCount
    }

    /// The same scan with margins for estimates without bounds: five times the root mean square of the errors of some rows of
    /// some blocks, the same rows whatever the number of workers.
    func measuringMargins(_ rows: LiveRows, workers: Int) throws -> PageScan {
        guard let refiner, !hasBounds else { return self }
        let blockStep = max(1, rows.blocks.count / Self.sampledBlockCount)
        let blocks = Array(stride(from: 0, to: rows.blocks.count, by: blockStep).prefix(Self.sampledBlockCount))
        let samples = try mapConcurrently(below: blocks.count, workers: workers) { place in
            try squaredErrors(rows.blocks[blocks[place]], of: rows, refiner)
        }
        let sampleCount = Double(samples.reduce(0) { $0 + $1.rowCount })
        var result = self
        result.margins = (0..<queryCount).map { query in
            let sum = samples.reduce(0) { $0 + $1.squares[query] }
            return Float(Self.marginDeviations * (sum / sampleCount).squareRoot())
        }
        return result
    }

    /// By query, the sum of the squared errors of the estimates of some rows of a block.
    private func squaredErrors(
        _ block: LiveRows.Block, of rows: LiveRows, _ refiner: RowRefiner
    ) throws -> (squares: [Double], rowCount: Int) {
        var meter = ScanMeter()
        let pages = BlockPages(reader: try rows.snapshot.segmentReader(block.segment), block: block)
        let count = min(Self.sampledPrefixCount, block.rowCount)
        let found = try scores(
            of: pages, upTo: count == 0 ? 0 : pages.storedRow(ofLive: count - 1) + 1, meter: &meter, check: {})
        let sampled = stride(from: 0, to: count, by: max(1, count / Self.sampledRows(queryCount: queryCount)))
        var squares = [Double](repeating: 0, count: queryCount)
        for row in sampled {
            for query in 0..<queryCount {
                let exact = exactScore(row, query: query, pages: pages, found, refiner)
                let error = Double(found.scores[query * block.rowCount + row]) - exact
                squares[query] += error * error
            }
        }
        return (squares, Array(sampled).count)
    }

    /// A live row's score for one query, in Double.
    private func exactScore(
        _ row: Int, query: Int, pages: BlockPages, _ found: Scores, _ refiner: RowRefiner
    ) -> Double {
        let stored = pages.storedRow(ofLive: row)
        var sum = 0.0
        for (position, layer) in layers.enumerated() {
            sum += refiner.product(
                query: query, layer: position, row: pages.row(stored, layer: layer, of: found.payloads[position]))
        }
        return sum
    }

    /// The scores of one block, by live row.
    struct Scores {
        /// queryCount × live rows.
        var scores: [Float]
        /// The same for bounds; empty if there are none.
        var bounds: [Float]
        /// By position of the layer; for refinement.
        var payloads: [BlockPages.LayerPayloads]
    }

    /// Scores every live row of a block, or those that are stored before a row; the others' scores are 0.
    func scores(
        of pages: BlockPages, upTo end: Int? = nil, meter: inout ScanMeter, check: () throws -> Void
    ) throws -> Scores {
        let rowCount = pages.storedRowCount
        let end = end ?? rowCount
        var scores = [Float](repeating: 0, count: queryCount * rowCount)
        var bounds = [Float](repeating: 0, count: hasBounds ? scores.count : 0)
        var payloads: [BlockPages.LayerPayloads] = []
        for (position, layer) in layers.enumerated() {
            try check()
            let scorer = scorers[position]
            guard let rank = pages.reader.schema.layers[layer].rank else {
                var page = try pages.open(.dense, layer: layer, meter: &meter)
                let byteCount = page.bytes.span.byteCount
                for rows in pieces(end, rowCount, scorer.pieceRowCount(byteCount: byteCount, rowCount: rowCount)) {
                    meter.timing(\.readSeconds) { page.check(upTo: rows.upperBound, of: rowCount) }
                    meter.timing(\.arithmeticSeconds) {
                        var scores = scores.mutableSpan
                        var bounds = bounds.mutableSpan
                        scorer.accumulate(
                            dense: page.bytes.span, rows: rows, rowCount: rowCount, into: &scores, bounds: &bounds)
                    }
                }
                if refiner != nil { payloads.append(.dense(page.bytes)) }
                try page.finish()
                continue
            }
            var components: [(left: PageBytes, right: PageBytes)] = []
            for component in 0..<rank {
                var left = try pages.open(.left, layer: layer, component: component, meter: &meter)
                var right = try pages.open(.right, layer: layer, component: component, meter: &meter)
                let byteCount = left.bytes.span.byteCount + right.bytes.span.byteCount
                for rows in pieces(end, rowCount, scorer.pieceRowCount(byteCount: byteCount, rowCount: rowCount)) {
                    meter.timing(\.readSeconds) {
                        left.check(upTo: rows.upperBound, of: rowCount)
                        right.check(upTo: rows.upperBound, of: rowCount)
                    }
                    meter.timing(\.arithmeticSeconds) {
                        var scores = scores.mutableSpan
                        var bounds = bounds.mutableSpan
                        scorer.accumulate(
                            left: left.bytes.span, right: right.bytes.span, rows: rows, rowCount: rowCount,
                            into: &scores, bounds: &bounds)
                    }
                }
                if refiner != nil { components.append((left.bytes, right.bytes)) }
                try left.finish()
                try right.finish()
            }
            if refiner != nil { payloads.append(.factors(components)) }
        }
        try pages.reader.checkMapping()
        return Scores(
            scores: selecting(scores, pages), bounds: bounds.isEmpty ? [] : selecting(bounds, pages),
            payloads: payloads)
    }

    /// Consecutive ranges of rows that are checked and scored together, up to a row; rows are interleaved by 32.
    private func pieces(_ end: Int, _ rowCount: Int, _ size: Int) -> [Range<Int>] {
        let end = min(rowCount, (end + 31) / 32 * 32)
        return stride(from: 0, to: end, by: size).map { $0..<min(end, $0 + size) }
    }

    /// queries × stored rows to queries × live rows.
    private func selecting(_ values: [Float], _ pages: BlockPages) -> [Float] {
        guard let selection = pages.block.selection else { return values }
        let rowCount = pages.storedRowCount
        return (0..<queryCount).flatMap { query in selection.map { values[query * rowCount + $0] } }
    }

    /// Offers a block's rows to the lists of a query, those exactly scored that could be in one.
    ///
    /// The best estimates go first, so that few others are left open.
    func rank(
        _ found: Scores, query: Int, pages: BlockPages, top: inout TopK, bottom: inout TopK
    ) throws -> RefinedRows {
        guard let refiner else { preconditionFailure("only estimates are refined") }
        let count = pages.block.rowCount
        let first = query * count
        var isRefined = [Bool](repeating: false, count: count)
        var refinedCount = 0
        // The exact score is that of values rounded to f32 when they are decoded; the margin covers it, since bounds are far above
        // that rounding.
        func margin(_ row: Int) -> Float { margins?[query] ?? found.bounds[first + row] * (1 + 0x1p-6) }
        func refine(_ row: Int) throws {
            guard !isRefined[row] else { return }
            isRefined[row] = true
            refinedCount += 1
            let score = Float(exactScore(row, query: query, pages: pages, found, refiner))
            guard score.isFinite else { throw ScoreNotFinite(row: row) }
            top.insert(score, ordinal: pages.block.firstOrdinal + row)
            bottom.insert(score, ordinal: pages.block.firstOrdinal + row)
        }
        // Lists that are not full admit everything: their first entries are the best estimates.
        for list in [top, bottom] where list.isOpen {
            var best = TopK(capacity: list.capacity, direction: list.direction)
            for row in 0..<count where found.scores[first + row].isFinite {
                best.insert(found.scores[first + row], ordinal: row)
            }
            let entries = best.results(identifier: { String($0) })
            for entry in entries { try refine(entry.ordinal) }
        }
        var open: [Int] = []
        for row in 0..<count where !isRefined[row] {
            let (score, margin) = (found.scores[first + row], margin(row))
            // A bound that is not finite tells nothing.
            if !(margin.isFinite && score.isFinite) || top.admits(score + margin) || bottom.admits(score - margin) {
                open.append(row)
            }
        }
        open.sort { abs(found.scores[first + $0]) > abs(found.scores[first + $1]) }
        for row in open {
            let (score, margin) = (found.scores[first + row], margin(row))
            if !(margin.isFinite && score.isFinite) || top.admits(score + margin) || bottom.admits(score - margin) {
                try refine(row)
            }
        }
        var refined = RefinedRows(count: refinedCount)
        for row in 0..<count where !isRefined[row] {
            refined.upperBound = max(refined.upperBound, found.scores[first + row] + margin(row))
            refined.lowerBound = min(refined.lowerBound, found.scores[first + row] - margin(row))
        }
        return refined
    }
}

/// Rows that were scored again, and how far the others may reach: what shows that they are rightly in no list.
struct RefinedRows: Sendable {
    var count = 0
    /// No row left at its estimate scores higher, by the bounds or measured margins; -∞ if there are none.
    var upperBound = -Float.infinity
    /// None scores lower.
    var lowerBound = Float.infinity

    /// nil if no row was left at its estimate.
    var range: ClosedRange<Float>? { lowerBound <= upperBound ? lowerBound...upperBound : nil }

    mutating func add(_ other: RefinedRows) {
        count += other.count
        upperBound = max(upperBound, other.upperBound)
        lowerBound = min(lowerBound, other.lowerBound)
    }
}

/// A score outside the range of single precision.
struct ScoreNotFinite: Error {
    /// Live row of the block.
    let row: Int
}
