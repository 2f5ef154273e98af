import CLAPACKE
import COpenBLAS

/// The two precisions that BLAS knows: `Float` and `Double`.
///
/// The requirements are this module's own; callers use `multiply` and its siblings, which check shapes first.
public protocol BLASScalar: BinaryFloatingPoint, Sendable {
    /// C ← alpha · op(A) op(B) + beta · C, row-major.
    static func _gemm(
        _ transposeA: Bool, _ transposeB: Bool, _ m: Int, _ n: Int, _ k: Int, _ alpha: Self,
        _ a: UnsafePointer<Self>?, _ strideA: Int, _ b: UnsafePointer<Self>?, _ strideB: Int, _ beta: Self,
        _ c: UnsafeMutablePointer<Self>?, _ strideC: Int)
    /// Lower triangle of C ← alpha · A Aᵀ (or Aᵀ A) + beta · C, row-major.
    static func _syrk(
        _ transpose: Bool, _ n: Int, _ k: Int, _ alpha: Self, _ a: UnsafePointer<Self>?, _ strideA: Int, _ beta: Self,
        _ c: UnsafeMutablePointer<Self>?, _ strideC: Int)
    /// All eigenpairs in place, ascending; returns info.
    static func _syevd(
        _ n: Int, _ a: UnsafeMutablePointer<Self>?, _ w: UnsafeMutablePointer<Self>?
    ) -> Int
    /// The `top` largest eigenpairs, ascending; returns info.
    static func _syevr(
        _ n: Int, _ top: Int, _ a: UnsafeMutablePointer<Self>?, _ found: inout Int, _ w: UnsafeMutablePointer<Self>?,
        _ z: UnsafeMutablePointer<Self>?
    ) -> Int
    /// QR in place, column-major; returns info.
    static func _geqrf(
        _ m: Int, _ n: Int, _ a: UnsafeMutablePointer<Self>?, _ tau: UnsafeMutablePointer<Self>?
    ) -> Int
    /// Q of a QR in place, column-major; returns info.
    static func _orgqr(
        _ m: Int, _ n: Int, _ a: UnsafeMutablePointer<Self>?, _ tau: UnsafeMutablePointer<Self>?
    ) -> Int
    /// Cholesky factor in place; returns info.
    static func _potrf(_ n: Int, _ a: UnsafeMutablePointer<Self>?) -> Int
    /// B ← L⁻¹ B, row-major.
    static func _trsm(
        _ n: Int, _ columns: Int, _ l: UnsafePointer<Self>?, _ b: UnsafeMutablePointer<Self>?, _ strideB: Int)
    /// Thin SVD, column-major; returns info.
    static func _gesdd(
        _ m: Int, _ n: Int, _ a: UnsafeMutablePointer<Self>?, _ s: UnsafeMutablePointer<Self>?,
        _ u: UnsafeMutablePointer<Self>?, _ vt: UnsafeMutablePointer<Self>?
    ) -> Int
}

/// OpenBLAS's thread count is process-wide state: it is set to one before the first call, whoever makes it.
private let oneThread: Void = lorif_use_one_blas_thread()

/// Makes OpenBLAS single-threaded; the engine's workers are the only threads. Every operation of this module does it
/// by itself, so calling it is never needed, and never wrong.
public func useOneBLASThread() {
    _ = oneThread
}

/// A dimension as BLAS and LAPACK take it: 32 bits, checked.
private func narrow(_ value: Int) -> Int32 {
    guard let narrow = Int32(exactly: value) else { preconditionFailure("dimension \(value) exceeds BLAS's 32 bits") }
    return narrow
}

extension Double: BLASScalar {
    /// BLAS `dgemm`.
    public static func _gemm(
        _ transposeA: Bool, _ transposeB: Bool, _ m: Int, _ n: Int, _ k: Int, _ alpha: Double,
        _ a: UnsafePointer<Double>?, _ strideA: Int, _ b: UnsafePointer<Double>?, _ strideB: Int, _ beta: Double,
        _ c: UnsafeMutablePointer<Double>?, _ strideC: Int
    ) {
        _ = oneThread
        unsafe cblas_dgemm(
            CblasRowMajor, transposeA ? CblasTrans : CblasNoTrans, transposeB ? CblasTrans : CblasNoTrans,
            narrow(m), narrow(n), narrow(k), alpha, a, narrow(strideA), b, narrow(strideB), beta, c, narrow(strideC))
    }
    /// BLAS `dsyrk`.
    public static func _syrk(
        _ transpose: Bool, _ n: Int, _ k: Int, _ alpha: Double, _ a: UnsafePointer<Double>?, _ strideA: Int,
        _ beta: Double, _ c: UnsafeMutablePointer<Double>?, _ strideC: Int
    ) {
        _ = oneThread
        unsafe cblas_dsyrk(
            CblasRowMajor, CblasLower, transpose ? CblasTrans : CblasNoTrans, narrow(n), narrow(k), alpha, a,
            narrow(strideA), beta, c, narrow(strideC))
    }
    /// LAPACK `dsyevd`.
    public static func _syevd(
        _ n: Int, _ a: UnsafeMutablePointer<Double>?, _ w: UnsafeMutablePointer<Double>?
    ) -> Int {
        _ = oneThread
        return unsafe Int(LAPACKE_dsyevd(LAPACK_COL_MAJOR, jobVectors, upper, narrow(n), a, narrow(n), w))
    }
    /// LAPACK `dsyevr`.
    public static func _syevr(
        _ n: Int, _ top: Int, _ a: UnsafeMutablePointer<Double>?, _ found: inout Int,
        _ w: UnsafeMutablePointer<Double>?, _ z: UnsafeMutablePointer<Double>?
    ) -> Int {
        _ = oneThread
        var count: Int32 = 0
        var support = [Int32](repeating: 0, count: 2 * max(1, n))
        let info = unsafe LAPACKE_dsyevr(
            LAPACK_COL_MAJOR, jobVectors, rangeIndex, upper, narrow(n), a, narrow(n), 0, 0, narrow(n - top + 1),
            narrow(n), 0, &count, w, z, narrow(n), &support)
        found = Int(count)
        return Int(info)
    }
    /// LAPACK `dgeqrf`.
    public static func _geqrf(
        _ m: Int, _ n: Int, _ a: UnsafeMutablePointer<Double>?, _ tau: UnsafeMutablePointer<Double>?
    ) -> Int {
        _ = oneThread
        return unsafe Int(LAPACKE_dgeqrf(LAPACK_COL_MAJOR, narrow(m), narrow(n), a, narrow(m), tau))
    }
    /// LAPACK `dorgqr`.
    public static func _orgqr(
        _ m: Int, _ n: Int, _ a: UnsafeMutablePointer<Double>?, _ tau: UnsafeMutablePointer<Double>?
    ) -> Int {
        _ = oneThread
        return unsafe Int(LAPACKE_dorgqr(LAPACK_COL_MAJOR, narrow(m), narrow(n), narrow(n), a, narrow(m), tau))
    }
    /// LAPACK `dpotrf`.
    public static func _potrf(_ n: Int, _ a: UnsafeMutablePointer<Double>?) -> Int {
        _ = oneThread
        return unsafe Int(LAPACKE_dpotrf(LAPACK_COL_MAJOR, upper, narrow(n), a, narrow(n)))
    }
    /// BLAS `dtrsm`.
    public static func _trsm(
        _ n: Int, _ columns: Int, _ l: UnsafePointer<Double>?, _ b: UnsafeMutablePointer<Double>?, _ strideB: Int
    ) {
        _ = oneThread
        unsafe cblas_dtrsm(
            CblasRowMajor, CblasLeft, CblasLower, CblasNoTrans, CblasNonUnit, narrow(n), narrow(columns), 1, l,
            narrow(n), b, narrow(strideB))
    }
    /// LAPACK `dgesdd`.
    public static func _gesdd(
        _ m: Int, _ n: Int, _ a: UnsafeMutablePointer<Double>?, _ s: UnsafeMutablePointer<Double>?,
        _ u: UnsafeMutablePointer<Double>?, _ vt: UnsafeMutablePointer<Double>?
    ) -> Int {
        _ = oneThread
        return unsafe Int(
            LAPACKE_dgesdd(
                LAPACK_COL_MAJOR, jobThin, narrow(m), narrow(n), a, narrow(m), s, u, narrow(m), vt, narrow(min(m, n))))
    }
}

extension Float: BLASScalar {
    /// BLAS `sgemm`.
    public static func _gemm(
        _ transposeA: Bool, _ transposeB: Bool, _ m: Int, _ n: Int, _ k: Int, _ alpha: Float,
        _ a: UnsafePointer<Float>?, _ strideA: Int, _ b: UnsafePointer<Float>?, _ strideB: Int, _ beta: Float,
        _ c: UnsafeMutablePointer<Float>?, _ strideC: Int
    ) {
        _ = oneThread
        unsafe cblas_sgemm(
            CblasRowMajor, transposeA ? CblasTrans : CblasNoTrans, transposeB ? CblasTrans : CblasNoTrans,
            narrow(m), narrow(n), narrow(k), alpha, a, narrow(strideA), b, narrow(strideB), beta, c, narrow(strideC))
    }
    /// BLAS `ssyrk`.
    public static func _syrk(
        _ transpose: Bool, _ n: Int, _ k: Int, _ alpha: Float, _ a: UnsafePointer<Float>?, _ strideA: Int,
        _ beta: Float, _ c: UnsafeMutablePointer<Float>?, _ strideC: Int
    ) {
        _ = oneThread
        unsafe cblas_ssyrk(
            CblasRowMajor, CblasLower, transpose ? CblasTrans : CblasNoTrans, narrow(n), narrow(k), alpha, a,
            narrow(strideA), beta, c, narrow(strideC))
    }
    /// LAPACK `ssyevd`.
    public static func _syevd(
        _ n: Int, _ a: UnsafeMutablePointer<Float>?, _ w: UnsafeMutablePointer<Float>?
    ) -> Int {
        _ = oneThread
        return unsafe Int(LAPACKE_ssyevd(LAPACK_COL_MAJOR, jobVectors, upper, narrow(n), a, narrow(n), w))
    }
    /// LAPACK `ssyevr`.
    public static func _syevr(
        _ n: Int, _ top: Int, _ a: UnsafeMutablePointer<Float>?, _ found: inout Int,
        _ w: UnsafeMutablePointer<Float>?, _ z: UnsafeMutablePointer<Float>?
    ) -> Int {
        _ = oneThread
        var count: Int32 = 0
        var support = [Int32](repeating: 0, count: 2 * max(1, n))
        let info = unsafe LAPACKE_ssyevr(
            LAPACK_COL_MAJOR, jobVectors, rangeIndex, upper, narrow(n), a, narrow(n), 0, 0, narrow(n - top + 1),
            narrow(n), 0, &count, w, z, narrow(n), &support)
        found = Int(count)
        return Int(info)
    }
    /// LAPACK `sgeqrf`.
    public static func _geqrf(
        _ m: Int, _ n: Int, _ a: UnsafeMutablePointer<Float>?, _ tau: UnsafeMutablePointer<Float>?
    ) -> Int {
        _ = oneThread
        return unsafe Int(LAPACKE_sgeqrf(LAPACK_COL_MAJOR, narrow(m), narrow(n), a, narrow(m), tau))
    }
    /// LAPACK `sorgqr`.
    public static func _orgqr(
        _ m: Int, _ n: Int, _ a: UnsafeMutablePointer<Float>?, _ tau: UnsafeMutablePointer<Float>?
    ) -> Int {
        _ = oneThread
        return unsafe Int(LAPACKE_sorgqr(LAPACK_COL_MAJOR, narrow(m), narrow(n), narrow(n), a, narrow(m), tau))
    }
    /// LAPACK `spotrf`.
    public static func _potrf(_ n: Int, _ a: UnsafeMutablePointer<Float>?) -> Int {
        _ = oneThread
        return unsafe Int(LAPACKE_spotrf(LAPACK_COL_MAJOR, upper, narrow(n), a, narrow(n)))
    }
    /// BLAS `strsm`.
    public static func _trsm(
        _ n: Int, _ columns: Int, _ l: UnsafePointer<Float>?, _ b: UnsafeMutablePointer<Float>?, _ strideB: Int
    ) {
        _ = oneThread
        unsafe cblas_strsm(
            CblasRowMajor, CblasLeft, CblasLower, CblasNoTrans, CblasNonUnit, narrow(n), narrow(columns), 1, l,
            narrow(n), b, narrow(strideB))
    }
    /// LAPACK `sgesdd`.
    public static func _gesdd(
        _ m: Int, _ n: Int, _ a: UnsafeMutablePointer<Float>?, _ s: UnsafeMutablePointer<Float>?,
        _ u: UnsafeMutablePointer<Float>?, _ vt: UnsafeMutablePointer<Float>?
    ) -> Int {
        _ = oneThread
        return unsafe Int(
            LAPACKE_sgesdd(
                LAPACK_COL_MAJOR, jobThin, narrow(m), narrow(n), a, narrow(m), s, u, narrow(m), vt, narrow(min(m, n))))
    }
}

private let jobVectors = CChar(UInt8(ascii: "V"))
private let jobThin = CChar(UInt8(ascii: "S"))
private let rangeIndex = CChar(UInt8(ascii: "I"))
private let upper = CChar(UInt8(ascii: "U"))
