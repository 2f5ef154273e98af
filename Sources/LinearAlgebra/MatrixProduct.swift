import COpenBLAS

/// C ← alpha · op(A) op(B) + beta · C, row-major single precision (BLAS `sgemm`).
///
/// op(A) is m×k and op(B) is k×n; C is m×n with row stride n. A transposed operand is stored as its transpose, contiguous.
public func multiply(
    _ a: Span<Float>, transposeA: Bool = false, _ b: Span<Float>, transposeB: Bool = false,
    into c: inout MutableSpan<Float>, m: Int, n: Int, k: Int, alpha: Float = 1, beta: Float = 0
) {
    precondition(a.count >= m * k && b.count >= k * n && c.count >= m * n, "gemm operand too short")
    guard m > 0, n > 0 else { return }
    unsafe a.withUnsafeBufferPointer { a in
        unsafe b.withUnsafeBufferPointer { b in
            unsafe c.withUnsafeMutableBufferPointer { c in
                unsafe cblas_sgemm(
                    CblasRowMajor, transposeA ? CblasTrans : CblasNoTrans, transposeB ? CblasTrans : CblasNoTrans,
                    blasint(m), blasint(n), blasint(k), alpha, a.baseAddress, blasint(max(1, transposeA ? m : k)),
                    b.baseAddress, blasint(max(1, transposeB ? k : n)), beta, c.baseAddress, blasint(n))
            }
        }
    }
}

/// C ← alpha · op(A) op(B) + beta · C, row-major double precision (BLAS `dgemm`); shapes as in the single-precision form.
public func multiply(
    _ a: Span<Double>, transposeA: Bool = false, _ b: Span<Double>, transposeB: Bool = false,
    into c: inout MutableSpan<Double>, m: Int, n: Int, k: Int, alpha: Double = 1, beta: Double = 0
) {
    precondition(a.count >= m * k && b.count >= k * n && c.count >= m * n, "gemm operand too short")
    guard m > 0, n > 0 else { return }
    unsafe a.withUnsafeBufferPointer { a in
        unsafe b.withUnsafeBufferPointer { b in
            unsafe c.withUnsafeMutableBufferPointer { c in
                unsafe cblas_dgemm(
                    CblasRowMajor, transposeA ? CblasTrans : CblasNoTrans, transposeB ? CblasTrans : CblasNoTrans,
                    blasint(m), blasint(n), blasint(k), alpha, a.baseAddress, blasint(max(1, transposeA ? m : k)),
                    b.baseAddress, blasint(max(1, transposeB ? k : n)), beta, c.baseAddress, blasint(n))
            }
        }
    }
}

/// Makes OpenBLAS single-threaded; the engine's workers are the only threads. Call once at start.
public func useOneBLASThread() {
    openblas_set_num_threads(1)
}
