// Loops over short f32 rows, eight lanes at a time: a BLAS call would cost more than the work.

/// Orthonormalises the rows of a rowCount × length matrix in place (modified Gram–Schmidt, each row against its predecessors twice).
/// A row that depends on them becomes zero.
func orthonormalize(_ rows: inout [Float], rowCount: Int, length: Int) {
    precondition(rows.count >= rowCount * length, "rows too short")
    unsafe rows.withUnsafeMutableBufferPointer { buffer in
        guard let base = buffer.baseAddress else { return }
        for row in 0..<rowCount {
            let current = unsafe base + row * length
            let before = unsafe dot(current, current, length).squareRoot()
            for _ in 0..<2 {
                for previous in 0..<row {
                    let other = unsafe base + previous * length
                    unsafe subtract(dot(current, other, length), other, from: current, length)
                }
            }
            let after = unsafe dot(current, current, length).squareRoot()
            let scale: Float = after > 1e-6 * before && after > 0 ? 1 / after : 0
            for index in 0..<length { unsafe current[index] *= scale }
        }
    }
}

/// Euclidean norm of a stretch of an array.
func norm(_ values: [Float], from start: Int, count: Int) -> Float {
    precondition(start >= 0 && start + count <= values.count, "stretch outside the array")
    return unsafe values.withUnsafeBufferPointer { buffer in
        guard let base = buffer.baseAddress else { return 0 }
        return unsafe dot(base + start, base + start, count).squareRoot()
    }
}

private func dot(_ a: UnsafePointer<Float>, _ b: UnsafePointer<Float>, _ count: Int) -> Float {
    var first = SIMD8<Float>(repeating: 0)
    var second = SIMD8<Float>(repeating: 0)
    var index = 0
    while index + 16 <= count {
        first += unsafe lanes(a + index) * lanes(b + index)
        second += unsafe lanes(a + index + 8) * lanes(b + index + 8)
        index += 16
    }
    var sum = (first + second).sum()
    while index < count {
        sum += unsafe a[index] * b[index]
        index += 1
    }
    return sum
}

private func subtract(
    _ factor: Float, _ other: UnsafePointer<Float>, from target: UnsafeMutablePointer<Float>, _ count: Int
) {
    for index in 0..<count { unsafe target[index] -= factor * other[index] }
}

private func lanes(_ pointer: UnsafePointer<Float>) -> SIMD8<Float> {
    unsafe UnsafeRawPointer(pointer).loadUnaligned(as: SIMD8<Float>.self)
}
