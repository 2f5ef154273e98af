import CKernels

/// [n, d, c] as interchange files have it to component-major [c][n][d] as the store has it; all counts n · d · c.
public func transposeLastTwo(
    _ values: Span<Float>, rowCount: Int, dimension: Int, rank: Int, into out: inout MutableSpan<Float>
) {
    rearrange(values, rowCount: rowCount, dimension: dimension, rank: rank, into: &out) {
        unsafe lorif_components_apart($0, rowCount, dimension, rank, $1)
    }
}

/// Component-major [c][n][d] back to [n, d, c]: the inverse of `transposeLastTwo`.
public func interleaveComponents(
    _ values: Span<Float>, rowCount: Int, dimension: Int, rank: Int, into out: inout MutableSpan<Float>
) {
    rearrange(values, rowCount: rowCount, dimension: dimension, rank: rank, into: &out) {
        unsafe lorif_components_together($0, rowCount, dimension, rank, $1)
    }
}

private func rearrange(
    _ values: Span<Float>, rowCount: Int, dimension: Int, rank: Int, into out: inout MutableSpan<Float>,
    by kernel: (UnsafePointer<Float>, UnsafeMutablePointer<Float>) -> Void
) {
    let count = rowCount * dimension * rank
    precondition(rowCount >= 0 && dimension >= 0 && rank >= 0 && values.count == count && out.count == count)
    unsafe values.withUnsafeBufferPointer { values in
        unsafe out.withUnsafeMutableBufferPointer { out in
            guard let source = values.baseAddress, let target = out.baseAddress else { return }
            unsafe kernel(source, target)
        }
    }
}
