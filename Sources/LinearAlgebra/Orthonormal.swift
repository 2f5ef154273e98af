/// Replaces the rows of a k×n matrix (k ≤ n) by an orthonormal basis that contains their span (Householder QR, LAPACK
/// `geqrf` and `orgqr`).
///
/// Unconditionally orthonormal, whatever the rank: rows that depend on earlier ones are replaced by arbitrary
/// complements. 4·n·k² operations.
public func orthonormalizeRows<Scalar: BLASScalar>(
    _ rows: inout [Scalar], rowCount k: Int, length n: Int
) throws(LinearAlgebraError) {
    precondition(k >= 0 && k <= n && rows.count == k * n, "rows are not k×n with k ≤ n")
    guard k > 0 else { return }
    var reflectors = [Scalar](repeating: 0, count: k)
    var info = unsafe rows.withUnsafeMutableBufferPointer { a in
        unsafe reflectors.withUnsafeMutableBufferPointer { tau in
            unsafe Scalar._geqrf(n, k, a.baseAddress, tau.baseAddress)
        }
    }
    try require(info, routine: "geqrf", order: n)
    info = unsafe rows.withUnsafeMutableBufferPointer { a in
        unsafe reflectors.withUnsafeMutableBufferPointer { tau in
            unsafe Scalar._orgqr(n, k, a.baseAddress, tau.baseAddress)
        }
    }
    try require(info, routine: "orgqr", order: n)
}

/// The Cholesky factor L of a symmetric positive definite matrix A = L Lᵀ (LAPACK `potrf`).
///
/// Reads the lower triangle of the n×n row-major matrix and returns L with a zero upper triangle. n³/3 operations.
public func choleskyFactor<Scalar: BLASScalar>(
    _ matrix: consuming [Scalar], order n: Int
) throws(LinearAlgebraError) -> [Scalar] {
    precondition(n >= 0 && matrix.count == n * n, "matrix is not n×n")
    guard n > 0 else { return [] }
    var factor = matrix
    let info = unsafe factor.withUnsafeMutableBufferPointer { a in unsafe Scalar._potrf(n, a.baseAddress) }
    if info > 0 { throw .notPositiveDefinite(order: n, column: info - 1) }
    try require(info, routine: "potrf", order: n)
    for row in 0..<n {
        for column in (row + 1)..<max(n, row + 1) { factor[row * n + column] = 0 }
    }
    return factor
}

/// B ← L⁻¹ B for a lower triangular n×n L and an n×columns B, both row-major (BLAS `trsm`). n²·columns operations.
public func solveLowerTriangular<Scalar: BLASScalar>(
    _ factor: Span<Scalar>, order n: Int, into b: inout MutableSpan<Scalar>, columns: Int
) {
    precondition(n >= 0 && columns >= 0 && factor.count >= n * n && b.count >= n * columns, "operand too short")
    guard n > 0, columns > 0 else { return }
    unsafe factor.withUnsafeBufferPointer { l in
        unsafe b.withUnsafeMutableBufferPointer { b in
            unsafe Scalar._trsm(n, columns, l.baseAddress, b.baseAddress, columns)
        }
    }
}
