import CZstd

/// A reusable compression context: one frame per call, no frame checksum, no dictionary.
///
/// The same bytes and level give the same frame on every call, whatever was compressed before.
public struct ZstdCompressor: ~Copyable {
    private let context: OpaquePointer

    /// A context for the given level; `ZstdError.outOfMemory` when the library cannot make one.
    public init(level: Int32 = 1) throws(ZstdError) {
        unsafe self.context = try Self.makeContext(level: level)
    }

    private static func makeContext(level: Int32) throws(ZstdError) -> OpaquePointer {
        guard let context = unsafe ZSTD_createCCtx() else { throw .outOfMemory }
        let result = unsafe ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, level)
        guard ZSTD_isError(result) == 0 else {
            _ = unsafe ZSTD_freeCCtx(context)
            throw .compressionFailed(reason: errorName(result))
        }
        return unsafe context
    }

    deinit {
        _ = unsafe ZSTD_freeCCtx(context)
    }

    /// The frame of `bytes`.
    public mutating func compress(_ bytes: RawSpan) throws(ZstdError) -> [UInt8] {
        let bound = ZSTD_compressBound(bytes.byteCount)
        var result = 0
        let frame = unsafe [UInt8](unsafeUninitializedCapacity: bound) { buffer, count in
            result = unsafe bytes.withUnsafeBytes { source in
                unsafe ZSTD_compress2(context, buffer.baseAddress, bound, source.baseAddress, source.count)
            }
            count = ZSTD_isError(result) == 0 ? result : 0
        }
        guard ZSTD_isError(result) == 0 else { throw .compressionFailed(reason: errorName(result)) }
        return frame
    }

    /// The frame of `bytes`, or nil when it takes more than `limit` bytes.
    public mutating func compress(_ bytes: RawSpan, atMost limit: Int) throws(ZstdError) -> [UInt8]? {
        let frame = try compress(bytes)
        return frame.count <= limit ? frame : nil
    }
}

/// The library's text for an error result.
func errorName(_ result: Int) -> String {
    guard let name = unsafe ZSTD_getErrorName(result) else { return "error \(result)" }
    return unsafe String(cString: name)
}
