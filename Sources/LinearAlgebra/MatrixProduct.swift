/// C ← alpha · op(A) op(B) + beta · C, row-major (BLAS `gemm`).
///
/// op(A) is m×k, op(B) is k×n, C is m×n. A transposed operand is stored as its transpose. A stride is the distance
/// between the starts of two stored rows; nil means contiguous. C starts at `offsetC` of its span. 2·m·n·k operations; one
/// thread.
public func multiply<Scalar: BLASScalar>(
    _ a: Span<Scalar>, strideA: Int? = nil, transposeA: Bool = false,
    _ b: Span<Scalar>, strideB: Int? = nil, transposeB: Bool = false,
    into c: inout MutableSpan<Scalar>, offsetC: Int = 0, strideC: Int? = nil, m: Int, n: Int, k: Int,
    alpha: Scalar = 1, beta: Scalar = 0
) {
    precondition(m >= 0 && n >= 0 && k >= 0, "negative gemm shape")
    let strideA = strideA ?? max(1, transposeA ? m : k)
    let strideB = strideB ?? max(1, transposeB ? k : n)
    let strideC = strideC ?? max(1, n)
    requireOperand(a.count, rows: transposeA ? k : m, columns: transposeA ? m : k, stride: strideA)
    requireOperand(b.count, rows: transposeB ? n : k, columns: transposeB ? k : n, stride: strideB)
    precondition(offsetC >= 0 && offsetC <= c.count, "gemm result starts outside its span")
    requireOperand(c.count - offsetC, rows: m, columns: n, stride: strideC)
    guard m > 0, n > 0 else { return }
    unsafe a.withUnsafeBufferPointer { a in
        unsafe b.withUnsafeBufferPointer { b in
            unsafe c.withUnsafeMutableBufferPointer { c in
                unsafe Scalar._gemm(
                    transposeA, transposeB, m, n, k, alpha, a.baseAddress, strideA, b.baseAddress, strideB, beta,
                    c.baseAddress.map { unsafe $0 + offsetC }, strideC)
            }
        }
    }
}

/// The lower triangle of C ← alpha · A Aᵀ + beta · C, or of alpha · Aᵀ A + beta · C when `transpose` is set (BLAS `syrk`).
///
/// C is n×n row-major; its strict upper triangle is not touched. A is n×k, or k×n when transposed. n²·k operations.
public func multiplyBySelf<Scalar: BLASScalar>(
    _ a: Span<Scalar>, strideA: Int? = nil, transpose: Bool = false, into c: inout MutableSpan<Scalar>,
    strideC: Int? = nil, n: Int, k: Int, alpha: Scalar = 1, beta: Scalar = 0
) {
    precondition(n >= 0 && k >= 0, "negative syrk shape")
    let strideA = strideA ?? max(1, transpose ? n : k)
    let strideC = strideC ?? max(1, n)
    requireOperand(a.count, rows: transpose ? k : n, columns: transpose ? n : k, stride: strideA)
    requireOperand(c.count, rows: n, columns: n, stride: strideC)
    guard n > 0 else { return }
    unsafe a.withUnsafeBufferPointer { a in
        unsafe c.withUnsafeMutableBufferPointer { c in
            unsafe Scalar._syrk(transpose, n, k, alpha, a.baseAddress, strideA, beta, c.baseAddress, strideC)
        }
    }
}

/// Copies the lower triangle of an n×n row-major matrix onto its upper one.
public func symmetrizeFromLower<Scalar: BLASScalar>(_ matrix: inout MutableSpan<Scalar>, n: Int) {
    precondition(n >= 0 && matrix.count >= n * n, "matrix too short")
    // Square blocks, so that the strided side of the copy stays in cache.
    let block = 64
    for rowStart in stride(from: 0, to: n, by: block) {
        for columnStart in stride(from: 0, through: rowStart, by: block) {
            for row in rowStart..<min(rowStart + block, n) {
                for column in columnStart..<min(columnStart + block, row) {
                    matrix[column * n + row] = matrix[row * n + column]
                }
            }
        }
    }
}

/// Traps unless `count` numbers hold `rows` rows of `columns` at the given stride.
private func requireOperand(_ count: Int, rows: Int, columns: Int, stride: Int) {
    precondition(stride >= max(1, columns), "matrix stride below its row length")
    guard rows > 0, columns > 0 else { return }
    let (body, overflow) = (rows - 1).multipliedReportingOverflow(by: stride)
    precondition(!overflow && body <= count - columns, "matrix operand too short")
}
