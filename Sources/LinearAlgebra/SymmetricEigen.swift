/// Eigenpairs of a symmetric matrix, eigenvalues descending.
public struct SymmetricEigen<Scalar: BLASScalar>: Sendable {
    /// Order of the matrix.
    public let order: Int
    /// Descending.
    public var values: [Scalar]
    /// values.count × order, row-major: row k is the unit eigenvector of `values[k]`.
    public var vectors: [Scalar]

    /// The counts must agree.
    public init(order: Int, values: [Scalar], vectors: [Scalar]) {
        precondition(vectors.count == values.count * order, "one vector per value")
        self.order = order
        self.values = values
        self.vectors = vectors
    }
}

/// All eigenpairs of a symmetric matrix by divide and conquer (LAPACK `syevd`).
///
/// `matrix` is n×n, its lower triangle (row-major) is read; it is consumed as the workspace of the vectors. About
/// 4/3·n³ operations for the tridiagonal form and up to 8/3·n³ for the vectors; 2n² numbers of workspace.
public func symmetricEigen<Scalar: BLASScalar>(
    _ matrix: consuming [Scalar], order n: Int
) throws(LinearAlgebraError) -> SymmetricEigen<Scalar> {
    precondition(n >= 0 && matrix.count == n * n, "matrix is not n×n")
    guard n > 0 else { return SymmetricEigen(order: 0, values: [], vectors: []) }
    var vectors = matrix
    var values = [Scalar](repeating: 0, count: n)
    // The lower triangle of a row-major matrix is the upper one of the column-major matrix that LAPACK sees,
    // and eigenvectors in its columns are rows here.
    let info = unsafe vectors.withUnsafeMutableBufferPointer { a in
        unsafe values.withUnsafeMutableBufferPointer { w in unsafe Scalar._syevd(n, a.baseAddress, w.baseAddress) }
    }
    try require(info, routine: "syevd", order: n)
    values.reverse()
    reverseRows(&vectors, rowCount: n, length: n)
    return SymmetricEigen(order: n, values: values, vectors: vectors)
}

/// The `count` largest eigenpairs of a symmetric matrix (LAPACK `syevr`).
///
/// `matrix` as in the form for all pairs. About 4/3·n³ operations for the tridiagonal form, then 2·n²·count.
public func largestEigenpairs<Scalar: BLASScalar>(
    _ matrix: consuming [Scalar], order n: Int, count: Int
) throws(LinearAlgebraError) -> SymmetricEigen<Scalar> {
    precondition(n >= 0 && matrix.count == n * n, "matrix is not n×n")
    precondition(count >= 0 && count <= n, "more eigenpairs asked for than there are")
    guard count > 0 else { return SymmetricEigen(order: n, values: [], vectors: []) }
    var work = matrix
    var values = [Scalar](repeating: 0, count: n)
    var vectors = [Scalar](repeating: 0, count: n * count)
    var found = 0
    let info = unsafe work.withUnsafeMutableBufferPointer { a in
        unsafe values.withUnsafeMutableBufferPointer { w in
            unsafe vectors.withUnsafeMutableBufferPointer { z in
                unsafe Scalar._syevr(n, count, a.baseAddress, &found, w.baseAddress, z.baseAddress)
            }
        }
    }
    try require(info, routine: "syevr", order: n)
    guard found == count else { throw .notConverged(routine: "syevr", order: n, info: found) }
    values.removeSubrange(count...)
    values.reverse()
    reverseRows(&vectors, rowCount: count, length: n)
    return SymmetricEigen(order: n, values: values, vectors: vectors)
}

func require(_ info: Int, routine: String, order: Int) throws(LinearAlgebraError) {
    if info > 0 { throw .notConverged(routine: routine, order: order, info: info) }
    if info < 0 { throw .illegalArgument(routine: routine, order: order, info: info) }
}

private func reverseRows<Scalar>(_ rows: inout [Scalar], rowCount: Int, length: Int) {
    for row in 0..<(rowCount / 2) {
        let first = row * length
        let last = (rowCount - 1 - row) * length
        for index in 0..<length { rows.swapAt(first + index, last + index) }
    }
}
