import CKernels
public import Schema

/// Queries of few pairs of vectors each, for low-bit factors: Σ over the query's pairs of (a · u) (b · v) by table look-up.
///
/// Tables hold whole numbers, so every tier gives the same bits.
public struct FactorTables: Sendable {
    /// Queries, and pairs of each.
    public let queryCount, pairCount: Int
    /// Numbers of a left and of a right vector.
    public let leftLength, rightLength: Int
    /// The encoding of both pages.
    public let encoding: Encoding
    private var left, right: LookupTables
    private var multipliers: [Double]

    /// Prepares queryCount × pairCount × length numbers of each side: 16 table entries for every four bits of codes.
    public init(
        left leftValues: Span<Float>, right rightValues: Span<Float>, queryCount: Int, pairCount: Int, leftLength: Int,
        rightLength: Int, encoding: Encoding, precision: TablePrecision
    ) {
        let count = queryCount * pairCount
        precondition(leftValues.count == count * leftLength, "left values do not match the shape")
        precondition(rightValues.count == count * rightLength, "right values do not match the shape")
        self.queryCount = queryCount
        self.pairCount = pairCount
        self.leftLength = leftLength
        self.rightLength = rightLength
        self.encoding = encoding
        left = LookupTables(count: count, length: leftLength, encoding: encoding, precision: precision)
        right = LookupTables(count: count, length: rightLength, encoding: encoding, precision: precision)
        multipliers = []
        unsafe leftValues.withUnsafeBufferPointer { leftValues in
            unsafe rightValues.withUnsafeBufferPointer { rightValues in
                for query in 0..<queryCount { unsafe prepare(query, leftValues, rightValues) }
            }
        }
    }

    /// Magnitudes are taken out as powers of two, so that f32 holds every intermediate: right tables have magnitudes near 1,
    /// left ones that of the pair over that of the query's largest pair, which the multiplier restores in double.
    private mutating func prepare(
        _ query: Int, _ leftValues: UnsafeBufferPointer<Float>, _ rightValues: UnsafeBufferPointer<Float>
    ) {
        let pairs = query * pairCount..<(query + 1) * pairCount
        let exponents = pairs.map { pair in
            unsafe (
                left: exponent(of: .init(rebasing: leftValues[pair * leftLength..<(pair + 1) * leftLength])),
                right: exponent(of: .init(rebasing: rightValues[pair * rightLength..<(pair + 1) * rightLength]))
            )
        }
        let largest = exponents.compactMap { exponents -> Int? in
            guard let left = exponents.left, let right = exponents.right else { return nil }
            return left + right
        }.max()
        multipliers.append(largest.map { Double(sign: .plus, exponent: $0, significand: 1) } ?? 0)
        for (pair, exponents) in zip(pairs, exponents) {
            let right = exponents.right ?? 0
            // Further roundings: of the product, of the sum of the pairs, of the comparison with the bound.
            let roundings = pairCount + 4
            if let values = leftValues.baseAddress {
                unsafe left.prepare(
                    pair, values + pair * leftLength, stride: 1, exponent: largest.map { right - $0 } ?? 0,
                    roundings: roundings)
            }
            if let values = rightValues.baseAddress {
                unsafe self.right.prepare(
                    pair, values + pair * rightLength, stride: 1, exponent: -right, roundings: roundings)
            }
        }
    }

    /// Adds the queries' products with one component's factors to the scores.
    public func addScores(
        left leftPayload: RawSpan, right rightPayload: RawSpan, range: ScanRange, to scores: inout MutableSpan<Float>
    ) {
        addScores(left: leftPayload, right: rightPayload, range: range, to: &scores, tier: .chosen)
    }

    /// Adds to the scores, and to each bound what keeps |score - exact score| ≤ bound true.
    ///
    /// Exact: in real numbers, of the queries given and the stored values scale · level. Bounds start as zeros with
    /// scores that are exact, and cover every rounding since. A score that is not finite has a bound that is not.
    public func addScores(
        left leftPayload: RawSpan, right rightPayload: RawSpan, range: ScanRange, to scores: inout MutableSpan<Float>,
        bounds: inout MutableSpan<Float>
    ) {
        addScores(left: leftPayload, right: rightPayload, range: range, to: &scores, bounds: &bounds, tier: .chosen)
    }

    package func addScores(
        left leftPayload: RawSpan, right rightPayload: RawSpan, range: ScanRange, to scores: inout MutableSpan<Float>,
        tier: KernelTier
    ) {
        withScores(&scores, queryCount: queryCount, range: range) { scores in
            unsafe add(left: leftPayload, right: rightPayload, range: range, scores: scores, bounds: nil, tier: tier)
        }
    }

    package func addScores(
        left leftPayload: RawSpan, right rightPayload: RawSpan, range: ScanRange, to scores: inout MutableSpan<Float>,
        bounds: inout MutableSpan<Float>, tier: KernelTier
    ) {
        precondition(bounds.count >= range.scoreCount(queryCount: queryCount), "too few bounds")
        unsafe bounds.withUnsafeMutableBufferPointer { bounds in
            withScores(&scores, queryCount: queryCount, range: range) { scores in
                unsafe add(
                    left: leftPayload, right: rightPayload, range: range, scores: scores, bounds: bounds.baseAddress,
                    tier: tier)
            }
        }
    }

    private func add(
        left leftPayload: RawSpan, right rightPayload: RawSpan, range: ScanRange, scores: UnsafeMutablePointer<Float>,
        bounds: UnsafeMutablePointer<Float>?, tier: KernelTier
    ) {
        withPage(leftPayload, length: leftLength, encoding: encoding, range: range) { u in
            withPage(rightPayload, length: rightLength, encoding: encoding, range: range) { v in
                left.withTables { a in
                    right.withTables { b in
                        unsafe tier.table.pointee.scans.pointee.table_pairs(
                            u, v, range.rows.lowerBound, range.rows.upperBound, a, b, queryCount, pairCount,
                            multipliers, scores, bounds, range.stride)
                    }
                }
            }
        }
    }
}
