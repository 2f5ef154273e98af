import CKernels
public import Schema

/// Queries of few pairs of vectors each, for factors in f32, f16, bf16 or int8: Σ over the query's pairs of (a · u) (b · v).
///
/// Codes are widened in registers and multiplied in f32; nothing is written but scores. A score is within
/// (d + pairs + 8) · 2^-24 · Σ (Σ|a u|) (Σ|b v|) of the exact one, d = leftLength + rightLength (as long as nothing
/// leaves the range of f32); tiers differ within that bound. Infinities and NaNs propagate.
public struct FactorPairs: Sendable {
    /// Queries, and pairs of each.
    public let queryCount, pairCount: Int
    /// Numbers of a left and of a right vector.
    public let leftLength, rightLength: Int
    private let left, right: [Float]

    /// Prepares queryCount × pairCount × length numbers of each side. O(their number).
    public init(
        left: Span<Float>, right: Span<Float>, queryCount: Int, pairCount: Int, leftLength: Int, rightLength: Int
    ) {
        self.queryCount = queryCount
        self.pairCount = pairCount
        self.leftLength = leftLength
        self.rightLength = rightLength
        self.left = padded(left, count: queryCount * pairCount, length: leftLength)
        self.right = padded(right, count: queryCount * pairCount, length: rightLength)
    }

    /// Adds the queries' products with one component's factors to the scores.
    public func addScores(
        left leftPayload: RawSpan, right rightPayload: RawSpan, encoding: Encoding, range: ScanRange,
        to scores: inout MutableSpan<Float>
    ) {
        addScores(
            left: leftPayload, right: rightPayload, encoding: encoding, range: range, to: &scores, tier: .chosen)
    }

    package func addScores(
        left leftPayload: RawSpan, right rightPayload: RawSpan, encoding: Encoding, range: ScanRange,
        to scores: inout MutableSpan<Float>, tier: KernelTier
    ) {
        precondition(encoding.isRowMajor, "interleaved codes are scored by FactorTables")
        withScores(&scores, queryCount: queryCount, range: range) { scores in
            withPage(leftPayload, length: leftLength, encoding: encoding, range: range) { u in
                withPage(rightPayload, length: rightLength, encoding: encoding, range: range) { v in
                    unsafe tier.table.pointee.scans.pointee.pairs(
                        u, v, range.rows.lowerBound, range.rows.upperBound, left, right, queryCount, pairCount, scores,
                        range.stride)
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
