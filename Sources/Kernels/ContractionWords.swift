import CKernels
import Schema

/// Queries that are whole d1 × d2 matrices, for int8 factors: uᵀ P v in whole numbers.
///
/// P is rounded to 14 bits and a sign; products with codes are added up exactly. d1 · d2 multiply-adds for each row and
/// query, two of them an instruction's lane. Every tier gives the same bits.
public struct ContractionWords: Sendable {
    /// Queries.
    public let queryCount: Int
    /// Numbers of a left and of a right vector.
    public let leftLength, rightLength: Int
    private let numbers: [SIMD32<Int16>]
    private let multipliers: [Double]

    /// Rounds queryCount matrices of leftLength × rightLength, row-major. O(their numbers).
    public init(_ matrices: Span<Float>, queryCount: Int, leftLength: Int, rightLength: Int) {
        let size = leftLength * rightLength
        precondition(matrices.count == queryCount * size, "values do not match the shape")
        self.queryCount = queryCount
        self.leftLength = leftLength
        self.rightLength = rightLength
        let width = lorif_word_matrix_count(leftLength, rightLength)
        var numbers = [SIMD32<Int16>](repeating: .zero, count: queryCount * width / SIMD32<Int16>.scalarCount)
        var multipliers = [Double](repeating: 0, count: queryCount)
        unsafe numbers.withUnsafeMutableBytes { numbers in
            unsafe multipliers.withUnsafeMutableBufferPointer { multipliers in
                unsafe matrices.withUnsafeBufferPointer { matrices in
                    guard let from = matrices.baseAddress, let multiplier = multipliers.baseAddress,
                        let to = numbers.assumingMemoryBound(to: Int16.self).baseAddress
                    else { return }
                    for query in 0..<queryCount {
                        unsafe lorif_prepare_word_matrix(
                            from + query * size, leftLength, rightLength, to + query * width, multiplier + query)
                    }
                }
            }
        }
        self.numbers = numbers
        self.multipliers = multipliers
    }

    /// Adds the queries' products with one component's int8 factors to the scores, and to each bound what keeps
    /// |score - exact score| ≤ bound true.
    ///
    /// Exact: in real numbers, of the queries given and the stored values scale · code. Bounds start as zeros with
    /// scores that are exact, and cover every rounding since. A score that is not finite has a bound that is not.
    public func addScores(
        left leftPayload: RawSpan, right rightPayload: RawSpan, range: ScanRange, to scores: inout MutableSpan<Float>,
        bounds: inout MutableSpan<Float>
    ) {
        addScores(left: leftPayload, right: rightPayload, range: range, to: &scores, bounds: &bounds, tier: .chosen)
    }

    package func addScores(
        left leftPayload: RawSpan, right rightPayload: RawSpan, range: ScanRange, to scores: inout MutableSpan<Float>,
        bounds: inout MutableSpan<Float>, tier: KernelTier
    ) {
        precondition(bounds.count >= range.scoreCount(queryCount: queryCount), "too few bounds")
        unsafe bounds.withUnsafeMutableBufferPointer { bounds in
            withScores(&scores, queryCount: queryCount, range: range) { scores in
                withPage(leftPayload, length: leftLength, encoding: .int8, range: range) { u in
                    withPage(rightPayload, length: rightLength, encoding: .int8, range: range) { v in
                        unsafe numbers.withUnsafeBytes { numbers in
                            var p = unsafe lorif_word_matrices(
                                rows: leftLength, columns: rightLength,
                                numbers: numbers.assumingMemoryBound(to: Int16.self).baseAddress)
                            unsafe tier.table.pointee.scans.pointee.word_contraction(
                                u, v, range.rows.lowerBound, range.rows.upperBound, &p, queryCount, multipliers,
                                scores, bounds.baseAddress, range.stride)
                        }
                    }
                }
            }
        }
    }
}
