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
