import CKernels

/// The index of the first NaN or infinity, nil if every number is finite.
public func firstNonFiniteIndex(_ values: Span<Float>) -> Int? {
    firstNonFiniteIndex(values, tier: .chosen)
}

package func firstNonFiniteIndex(_ values: Span<Float>, tier: KernelTier) -> Int? {
    let index = unsafe values.withUnsafeBufferPointer { values in
        guard let source = values.baseAddress else { return values.count }
        return unsafe tier.table.pointee.first_non_finite(source, values.count)
    }
    return index < values.count ? index : nil
}

/// Σ x², summed in Double; the same bits on every machine.
public func sumOfSquares(_ values: Span<Float>) -> Double {
    sumOfSquares(values, tier: .chosen)
}

package func sumOfSquares(_ values: Span<Float>, tier: KernelTier) -> Double {
    unsafe values.withUnsafeBufferPointer { values in
        guard let source = values.baseAddress else { return 0 }
        return unsafe tier.table.pointee.sum_of_squares(source, values.count)
    }
}

/// The largest magnitude, 0 of nothing; every number must be finite.
public func largestMagnitude(_ values: Span<Float>) -> Float {
    largestMagnitude(values, tier: .chosen)
}

package func largestMagnitude(_ values: Span<Float>, tier: KernelTier) -> Float {
    unsafe values.withUnsafeBufferPointer { values in
        guard let source = values.baseAddress else { return 0 }
        return unsafe tier.table.pointee.largest_magnitude(source, values.count)
    }
}

/// Σ_c u_cᵀ M v_c in Double: M is rows × columns, `left` components × rows, `right` components × columns, numbers that were f32.
///
/// The same bits on every machine. Rounding is below 2⁻⁵⁰ of the sum of magnitudes at any size in use.
public func bilinearForm(_ matrix: Span<Float>, left: Span<Float>, right: Span<Double>, componentCount: Int) -> Double {
    bilinearForm(matrix, left: left, right: right, componentCount: componentCount, tier: .chosen)
}

package func bilinearForm(
    _ matrix: Span<Float>, left: Span<Float>, right: Span<Double>, componentCount: Int, tier: KernelTier
) -> Double {
    precondition(componentCount > 0 && left.count % componentCount == 0 && right.count % componentCount == 0)
    let (rows, columns) = (left.count / componentCount, right.count / componentCount)
    precondition(matrix.count == rows * columns, "the matrix does not match the vectors")
    return unsafe matrix.withUnsafeBufferPointer { matrix in
        unsafe left.withUnsafeBufferPointer { left in
            unsafe right.withUnsafeBufferPointer { right in
                guard let m = matrix.baseAddress, let u = left.baseAddress, let v = right.baseAddress else { return 0 }
                return unsafe tier.table.pointee.bilinear_form(m, rows, columns, u, v, componentCount)
            }
        }
    }
}
