import CKernels
public import Schema

/// Queries that are whole d1 × d2 matrices, for low-bit factors: uᵀ P v, by a table look-up for every row or column of P.
///
/// Tables run along the longer side (left if both are equal); each product is multiplied with the other side's
/// level. min(d1, d2) look-ups of a vector for each row, against d1 · d2 multiply-adds. Every tier gives the same bits.
public struct ContractionTables: Sendable {
    /// Queries.
    public let queryCount: Int
    /// Numbers of a left and of a right vector.
    public let leftLength, rightLength: Int
    /// The encoding of both pages.
    public let encoding: Encoding
    private var tables: LookupTables
    private var multipliers: [Double]

    /// Prepares queryCount matrices of leftLength × rightLength, row-major: 16 entries for every four bits of codes of
    /// the longer side, times the shorter.
    public init(
        _ matrices: Span<Float>, queryCount: Int, leftLength: Int, rightLength: Int, encoding: Encoding,
        precision: TablePrecision
    ) {
        let size = leftLength * rightLength
        precondition(matrices.count == queryCount * size, "values do not match the shape")
        self.queryCount = queryCount
        self.leftLength = leftLength
        self.rightLength = rightLength
        self.encoding = encoding
        let outputs = min(leftLength, rightLength)
        let alongLeft = leftLength >= rightLength
        tables = LookupTables(
            count: queryCount * outputs, length: max(leftLength, rightLength), encoding: encoding,
            precision: precision)
        multipliers = [Double](repeating: 0, count: queryCount)
        unsafe matrices.withUnsafeBufferPointer { matrices in
            guard let base = matrices.baseAddress else { return }
            for query in 0..<queryCount {
                let matrix = unsafe UnsafeBufferPointer(rebasing: matrices[query * size..<(query + 1) * size])
                let exponent = unsafe exponent(of: matrix)
                multipliers[query] = exponent.map { Double(sign: .plus, exponent: $0, significand: 1) } ?? 0
                for output in 0..<outputs {
                    unsafe tables.prepare(
                        query * outputs + output, base + query * size + output * (alongLeft ? 1 : rightLength),
                        stride: alongLeft ? rightLength : 1, exponent: -(exponent ?? 0), roundings: outputs + 4)
                }
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
                tables.withTables { p in
                    let alongLeft = leftLength >= rightLength
                    unsafe tier.table.pointee.scans.pointee.table_contraction(
                        alongLeft ? u : v, alongLeft ? v : u, range.rows.lowerBound, range.rows.upperBound, p,
                        queryCount, multipliers, scores, bounds, range.stride)
                }
            }
        }
    }
}
