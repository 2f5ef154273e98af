import CKernels
public import Schema

/// Queries of few pairs of vectors each, for factors in f32, f16, bf16 or int8: Σ over the query's pairs of (a · u) (b · v).
///
/// Codes are widened in registers and multiplied in f32; nothing is written but scores. A score is within
/// (d + pairs + 8) · 2^-24 · Σ (Σ|a u|) (Σ|b v|) of the exact one, d = leftLength + rightLength (as long as nothing
/// leaves the range of f32); tiers differ within that bound. Infinities and NaNs propagate. One or two pairs meet
/// int8 in whole numbers of 30 bits instead, whose sums are exact: the query's numbers count as rounded to 2^-29 of the
/// power of two above their vector's largest magnitude, and every tier gives the same bits.
public struct FactorPairs: Sendable {
    /// Queries, and pairs of each.
    public let queryCount, pairCount: Int
    /// Numbers of a left and of a right vector.
    public let leftLength, rightLength: Int
    /// The encoding of both pages.
    public let encoding: Encoding
    private let vectors: Vectors

    private enum Vectors: Sendable {
        case floats(left: [Float], right: [Float])
        case words(left: WordVectors, right: WordVectors)
    }

    /// Pairs of all queries up to which whole numbers are faster than f32.
    private static let largestWordPairCount = 2

    /// Prepares queryCount × pairCount × length numbers of each side. O(their number).
    public init(
        left: Span<Float>, right: Span<Float>, queryCount: Int, pairCount: Int, leftLength: Int, rightLength: Int,
        encoding: Encoding
    ) {
        precondition(encoding.isRowMajor, "interleaved codes are scored by FactorTables")
        self.queryCount = queryCount
        self.pairCount = pairCount
        self.leftLength = leftLength
        self.rightLength = rightLength
        self.encoding = encoding
        let count = queryCount * pairCount
        if encoding == .int8 && count <= Self.largestWordPairCount {
            vectors = .words(
                left: WordVectors(left, count: count, length: leftLength),
                right: WordVectors(right, count: count, length: rightLength))
        } else {
            vectors = .floats(
                left: padded(left, count: count, length: leftLength),
                right: padded(right, count: count, length: rightLength))
        }
    }

    /// Adds the queries' products with one component's factors to the scores.
    public func addScores(
        left leftPayload: RawSpan, right rightPayload: RawSpan, range: ScanRange, to scores: inout MutableSpan<Float>
    ) {
        addScores(left: leftPayload, right: rightPayload, range: range, to: &scores, tier: .chosen)
    }

    package func addScores(
        left leftPayload: RawSpan, right rightPayload: RawSpan, range: ScanRange, to scores: inout MutableSpan<Float>,
        tier: KernelTier
    ) {
        let scans = unsafe tier.table.pointee.scans.pointee
        withScores(&scores, queryCount: queryCount, range: range) { scores in
            withPage(leftPayload, length: leftLength, encoding: encoding, range: range) { u in
                withPage(rightPayload, length: rightLength, encoding: encoding, range: range) { v in
                    switch vectors {
                    case .floats(let left, let right):
                        unsafe scans.pairs(
                            u, v, range.rows.lowerBound, range.rows.upperBound, left, right, queryCount, pairCount,
                            scores, range.stride)
                    case .words(let left, let right):
                        left.withWords { a in
                            right.withWords { b in
                                unsafe scans.word_pairs(
                                    u, v, range.rows.lowerBound, range.rows.upperBound, a, b, queryCount, pairCount,
                                    scores, range.stride)
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Queries that are whole vectors, for dense pages in f32, f16, bf16 or int8: p · g.
///
/// Within (length + 8) · 2^-24 · Σ|p g| of the exact product, as long as nothing leaves the range of f32.
public struct DenseQueries: Sendable {
    /// Queries.
    public let queryCount: Int
    /// Numbers of a vector.
    public let length: Int
    private let values: [Float]

    /// Prepares queryCount × length numbers. O(their number).
    public init(_ values: Span<Float>, queryCount: Int, length: Int) {
        self.queryCount = queryCount
        self.length = length
        self.values = padded(values, count: queryCount, length: length)
    }

    /// Adds the queries' products with the rows of one page to the scores.
    public func addScores(
        _ payload: RawSpan, encoding: Encoding, range: ScanRange, to scores: inout MutableSpan<Float>
    ) {
        addScores(payload, encoding: encoding, range: range, to: &scores, tier: .chosen)
    }

    package func addScores(
        _ payload: RawSpan, encoding: Encoding, range: ScanRange, to scores: inout MutableSpan<Float>,
        tier: KernelTier
    ) {
        precondition(encoding.isRowMajor, "interleaved codes are scored by DenseTables")
        withScores(&scores, queryCount: queryCount, range: range) { scores in
            withPage(payload, length: length, encoding: encoding, range: range) { page in
                unsafe tier.table.pointee.scans.pointee.dense(
                    page, range.rows.lowerBound, range.rows.upperBound, values, queryCount, scores, range.stride)
            }
        }
    }
}

/// Vectors in the layout of the row-major loops.
private func padded(_ values: Span<Float>, count: Int, length: Int) -> [Float] {
    precondition(count >= 0 && length >= 0 && values.count == count * length, "values do not match the shape")
    let width = lorif_padded_length(length)
    return [Float](unsafeUninitializedCapacity: count * width) { target, initialized in
        initialized = count * width
        unsafe values.withUnsafeBufferPointer { source in
            guard let from = source.baseAddress, let to = target.baseAddress else { return }
            for vector in 0..<count { unsafe lorif_pad_vector(from + vector * length, length, to + vector * width) }
        }
    }
}
