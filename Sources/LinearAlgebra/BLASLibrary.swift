import COpenBLAS

/// The BLAS library that this process runs with.
public struct BLASLibrary: Sendable, Hashable {
    /// Version and how it was built, in its own words.
    public let configuration: String
    /// The processor whose kernels it has chosen.
    public let kernels: String
    /// How it can run in parallel by itself: "no threads", "threads" or "OpenMP". This program gives it one thread at a time.
    public let parallelism: String

    /// The library that was loaded.
    public static var loaded: BLASLibrary {
        func text(_ characters: UnsafeMutablePointer<CChar>?) -> String {
            unsafe characters.map { unsafe String(cString: $0) } ?? "unknown"
        }
        let kinds = [0: "no threads", 1: "threads", 2: "OpenMP"]
        return BLASLibrary(
            configuration: unsafe text(openblas_get_config()), kernels: unsafe text(openblas_get_corename()),
            parallelism: kinds[Int(openblas_get_parallel())] ?? "unknown")
    }
}
