import Kernels
public import Schema

/// Scores the rows of one layer where they lie in a store's pages, without decoding them to a tile.
///
/// For few queries the scan is bound by reading, and a pass that writes decoded numbers would cost more than the
/// arithmetic; low-bit codes are looked up in tables of the query. Every row is scored by itself, so any cut into blocks
/// and workers gives the same bits.
public struct PageScorer: Sendable {
    /// The layer scored.
    public let layer: LayerSchema
    /// Q.
    public let queryCount: Int
    /// Whether scores are estimates with bounds on their errors.
    public let hasBounds: Bool
    private let encoding: Encoding
    private let kernel: Kernel

    private enum Kernel: Sendable {
        case pairs(FactorPairs)
        case dense(DenseQueries)
        case pairTables(FactorTables)
        /// Without bounds.
        case roughPairTables(FactorTables)
        case contractionTables(ContractionTables)
        case contractionWords(ContractionWords)
        case denseTables(DenseTables)
    }

    /// Whether there is a kernel for these queries; `queryRank` is nil for full ones.
    ///
    /// Of low-bit codes, and of int8 with full queries, there are estimates only, which serve where the rows that they leave open
    /// may be scored again. Full queries against factors in f32 or half precision take matrix products of decoded rows.
    public static func canScore(
        layer: LayerSchema, encoding: Encoding, queryRank: Int?, allowsEstimates: Bool
    ) -> Bool {
        givesEstimates(layer: layer, encoding: encoding, queryRank: queryRank)
            ? allowsEstimates : layer.rank == nil || queryRank != nil
    }

    /// Whether the kernel for these queries estimates, with bounds on the errors.
    public static func givesEstimates(layer: LayerSchema, encoding: Encoding, queryRank: Int?) -> Bool {
        encoding.interleavedRowCount > 1 || encoding == .int8 && layer.rank != nil && queryRank == nil
    }

    private static func usesPairTables(_ layer: LayerSchema, _ queryRank: Int?) -> Bool {
        queryRank.map { 2 * $0 < min(layer.inputDimension, layer.outputDimension) } ?? false
    }

    /// Prepares queries for pages in one encoding, for which `canScore` must hold.
    public init(layer: LayerSchema, encoding: Encoding, queryCount: Int, form: QueryForm) {
        precondition(
            Self.canScore(layer: layer, encoding: encoding, queryRank: form.rankOrNil, allowsEstimates: true),
            "no kernel for these queries")
        self.layer = layer
        self.queryCount = queryCount
        self.encoding = encoding
        hasBounds = Self.givesEstimates(layer: layer, encoding: encoding, queryRank: form.rankOrNil)
        let (d1, d2) = (layer.inputDimension, layer.outputDimension)
        if layer.rank == nil {
            let full = form.expanded(layer: layer, queryCount: queryCount)
            kernel =
                hasBounds
                ? .denseTables(
                    DenseTables(
                        full.span, queryCount: queryCount, length: layer.gradientLength, encoding: encoding,
                        precision: .wide))
                : .dense(DenseQueries(full.span, queryCount: queryCount, length: layer.gradientLength))
            return
        }
        if case .factors(let rank, let left, let right) = form, !hasBounds || Self.usesPairTables(layer, rank) {
            kernel =
                hasBounds
                ? .pairTables(
                    FactorTables(
                        left: left.span, right: right.span, queryCount: queryCount, pairCount: rank, leftLength: d1,
                        rightLength: d2, encoding: encoding, precision: .wide))
                : .pairs(
                    FactorPairs(
                        left: left.span, right: right.span, queryCount: queryCount, pairCount: rank, leftLength: d1,
                        rightLength: d2, encoding: encoding))
            return
        }
        let full = form.expanded(layer: layer, queryCount: queryCount)
        kernel =
            encoding == .int8
            ? .contractionWords(
                ContractionWords(full.span, queryCount: queryCount, leftLength: d1, rightLength: d2))
            : .contractionTables(
                ContractionTables(
                    full.span, queryCount: queryCount, leftLength: d1, rightLength: d2, encoding: encoding,
                    precision: .wide))
    }

    /// Prepares the leading singular pairs of full queries instead of the queries: estimates without bounds.
    ///
    /// `left` and `right` are queryCount × pairCount vectors. Low-bit codes are looked up in tables of 6 bits, about twice as fast as those
    /// with bounds; what both leave out has to be measured.
    public init(
        layer: LayerSchema, encoding: Encoding, queryCount: Int, pairCount: Int, left: [Float], right: [Float]
    ) {
        precondition(layer.rank != nil, "pairs are for factors")
        self.layer = layer
        self.queryCount = queryCount
        self.encoding = encoding
        hasBounds = false
        let (d1, d2) = (layer.inputDimension, layer.outputDimension)
        kernel =
            encoding.interleavedRowCount > 1
            ? .roughPairTables(
                FactorTables(
                    left: left.span, right: right.span, queryCount: queryCount, pairCount: pairCount, leftLength: d1,
                    rightLength: d2, encoding: encoding, precision: .narrow))
            : .pairs(
                FactorPairs(
                    left: left.span, right: right.span, queryCount: queryCount, pairCount: pairCount, leftLength: d1,
                    rightLength: d2, encoding: encoding))
    }

    /// Bytes of pages that are best scored at once, so that they are in the core's cache while the kernels fetch the next ones
    /// (words_avx2.c).
    private static let pieceByteCount = 128 << 10

    /// Rows of a page that are best scored at once: a multiple of 32, or all.
    public func pieceRowCount(byteCount: Int, rowCount: Int) -> Int {
        guard byteCount > Self.pieceByteCount else { return max(1, rowCount) }
        return max(32, rowCount * Self.pieceByteCount / byteCount / 32 * 32)
    }

    /// Adds the scores of some rows of one component to queryCount × rowCount; bounds are used if the scorer has them.
    public func accumulate(
        left: RawSpan, right: RawSpan, rows: Range<Int>, rowCount: Int, into allScores: inout MutableSpan<Float>,
        bounds allBounds: inout MutableSpan<Float>
    ) {
        let range = ScanRange(rowCount: rowCount, rows: rows, stride: rowCount)
        var scores = allScores._mutatingExtracting(rows.lowerBound..<allScores.count)
        var bounds = allBounds._mutatingExtracting(min(rows.lowerBound, allBounds.count)..<allBounds.count)
        switch kernel {
        case .pairs(let queries):
            queries.addScores(left: left, right: right, range: range, to: &scores)
        case .pairTables(let queries):
            queries.addScores(left: left, right: right, range: range, to: &scores, bounds: &bounds)
        case .roughPairTables(let queries):
            queries.addScores(left: left, right: right, range: range, to: &scores)
        case .contractionTables(let queries):
            queries.addScores(left: left, right: right, range: range, to: &scores, bounds: &bounds)
        case .contractionWords(let queries):
            queries.addScores(left: left, right: right, range: range, to: &scores, bounds: &bounds)
        case .dense, .denseTables: preconditionFailure("a layer of matrices has no factors")
        }
    }

    /// The same for rows that are matrices.
    public func accumulate(
        dense: RawSpan, rows: Range<Int>, rowCount: Int, into allScores: inout MutableSpan<Float>,
        bounds allBounds: inout MutableSpan<Float>
    ) {
        let range = ScanRange(rowCount: rowCount, rows: rows, stride: rowCount)
        var scores = allScores._mutatingExtracting(rows.lowerBound..<allScores.count)
        var bounds = allBounds._mutatingExtracting(min(rows.lowerBound, allBounds.count)..<allBounds.count)
        switch kernel {
        case .dense(let queries): queries.addScores(dense, encoding: encoding, range: range, to: &scores)
        case .denseTables(let queries): queries.addScores(dense, range: range, to: &scores, bounds: &bounds)
        case .pairs, .pairTables, .roughPairTables, .contractionTables, .contractionWords:
            preconditionFailure("a layer of factors has no matrices")
        }
    }
}

extension QueryForm {
    fileprivate var rankOrNil: Int? {
        if case .factors(let rank, _, _) = self { return rank }
        return nil
    }
}
