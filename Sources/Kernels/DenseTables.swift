import CKernels
public import Schema

/// Queries that are whole vectors, for dense pages of low-bit codes: p · g by table look-up.
///
/// Tables hold whole numbers, so every tier gives the same bits.
public struct DenseTables: Sendable {
    /// Queries.
    public let queryCount: Int
    /// Numbers of a vector.
    public let length: Int
    /// The encoding of the pages.
    public let encoding: Encoding
    private var tables: LookupTables
    private var multipliers: [Double]

    /// Prepares queryCount × length numbers: 16 table entries for every four bits of codes.
    public init(
        _ values: Span<Float>, queryCount: Int, length: Int, encoding: Encoding, precision: TablePrecision
    ) {
        precondition(values.count == queryCount * length, "values do not match the shape")
        self.queryCount = queryCount
        self.length = length
        self.encoding = encoding
        tables = LookupTables(count: queryCount, length: length, encoding: encoding, precision: precision)
        multipliers = [Double](repeating: 0, count: queryCount)
        unsafe values.withUnsafeBufferPointer { values in
            guard let base = values.baseAddress else { return }
            for query in 0..<queryCount {
                let vector = unsafe UnsafeBufferPointer(rebasing: values[query * length..<(query + 1) * length])
                let exponent = unsafe exponent(of: vector)
                multipliers[query] = exponent.map { Double(sign: .plus, exponent: $0, significand: 1) } ?? 0
                unsafe tables.prepare(
                    query, base + query * length, stride: 1, exponent: -(exponent ?? 0), roundings: 4)
            }
        }
    }

    /// Adds the queries' products with the rows of one page to the scores.
    public func addScores(
        _ payload: RawSpan, range: ScanRange, to scores: inout MutableSpan<Float>
    ) {
        addScores(payload, range: range, to: &scores, tier: .chosen)
    }

    /// Adds to the scores, and to each bound what keeps |score - exact score| ≤ bound true.
    ///
    /// Exact: in real numbers, of the queries given and the stored values scale · level. Bounds start as zeros with
    /// scores that are exact, and cover every rounding since. A score that is not finite has a bound that is not.
    public func addScores(
        _ payload: RawSpan, range: ScanRange, to scores: inout MutableSpan<Float>,
        bounds: inout MutableSpan<Float>
    ) {
        addScores(payload, range: range, to: &scores, bounds: &bounds, tier: .chosen)
    }

    package func addScores(
        _ payload: RawSpan, range: ScanRange, to scores: inout MutableSpan<Float>,
        tier: KernelTier
    ) {
        withScores(&scores, queryCount: queryCount, range: range) { scores in
            unsafe add(payload, range: range, scores: scores, bounds: nil, tier: tier)
        }
    }

    package func addScores(
        _ payload: RawSpan, range: ScanRange, to scores: inout MutableSpan<Float>,
        bounds: inout MutableSpan<Float>, tier: KernelTier
    ) {
        precondition(bounds.count >= range.scoreCount(queryCount: queryCount), "too few bounds")
        unsafe bounds.withUnsafeMutableBufferPointer { bounds in
            withScores(&scores, queryCount: queryCount, range: range) { scores in
                unsafe add(payload, range: range, scores: scores, bounds: bounds.baseAddress, tier: tier)
            }
        }
    }

    private func add(
        _ payload: RawSpan, range: ScanRange, scores: UnsafeMutablePointer<Float>,
        bounds: UnsafeMutablePointer<Float>?, tier: KernelTier
    ) {
        withPage(payload, length: length, encoding: encoding, range: range) { page in
            tables.withTables { p in
                unsafe tier.table.pointee.scans.pointee.table_dense(
                    page, range.rows.lowerBound, range.rows.upperBound, p, queryCount, multipliers, scores, bounds,
                    range.stride)
            }
        }
    }
}
