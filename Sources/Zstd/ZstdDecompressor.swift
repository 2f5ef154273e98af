import CZstd

/// A reusable decompression context for frames that are not trusted.
///
/// The caller says how many bytes must come out. That number comes out of a file too, so nothing is allocated before the
/// frame has declared the same number and is long enough to hold it.
public struct ZstdDecompressor: ~Copyable {
    /// The largest history window of a frame: 16 MiB, window log 24.
    public static let windowByteLimit: UInt64 = 1 << 24

    /// The most that one block of a frame holds: 128 KiB (RFC 8878, section 3.1.1.2.4).
    private static let blockByteLimit = 1 << 17

    /// The fewest bytes that a block with content takes: a header of three, and one for a repeated byte.
    private static let blockByteMinimum = 4

    private let context: OpaquePointer

    /// A context; `ZstdError.outOfMemory` when the library cannot make one.
    public init() throws(ZstdError) {
        unsafe self.context = try Self.makeContext()
    }

    private static func makeContext() throws(ZstdError) -> OpaquePointer {
        guard let context = unsafe ZSTD_createDCtx() else { throw .outOfMemory }
        return unsafe context
    }

    deinit {
        _ = unsafe ZSTD_freeDCtx(context)
    }

    /// The content of `frame`, which must be one frame that declares and holds exactly `expectedByteCount` bytes; allocates
    /// that many, and nothing if the frame declares another number or cannot hold so many.
    public mutating func decompress(_ frame: RawSpan, expectedByteCount: Int) throws(ZstdError) -> [UInt8] {
        precondition(expectedByteCount >= 0)
        try checkHeader(of: frame)
        let frameByteCount = unsafe frame.withUnsafeBytes { source in
            unsafe ZSTD_findFrameCompressedSize(source.baseAddress, source.count)
        }
        guard ZSTD_isError(frameByteCount) == 0, frameByteCount == frame.byteCount else {
            throw .notAFrame(byteCount: frame.byteCount)
        }
        try checkContentSize(of: frame, expected: expectedByteCount)
        var result = 0
        let content = unsafe [UInt8](unsafeUninitializedCapacity: max(1, expectedByteCount)) { buffer, count in
            result = unsafe frame.withUnsafeBytes { source in
                unsafe ZSTD_decompressDCtx(
                    context, buffer.baseAddress, expectedByteCount, source.baseAddress, source.count)
            }
            count = ZSTD_isError(result) == 0 ? result : 0
        }
        guard ZSTD_isError(result) == 0 else { throw .damaged(reason: errorName(result)) }
        guard content.count == expectedByteCount else {
            throw .wrongSize(expected: expectedByteCount, found: content.count)
        }
        return content
    }

    /// Refuses a frame that does not declare `expected` bytes of content, or whose blocks cannot hold them.
    private func checkContentSize(of frame: RawSpan, expected: Int) throws(ZstdError) {
        let declared = unsafe frame.withUnsafeBytes { source in
            unsafe ZSTD_getFrameContentSize(source.baseAddress, source.count)
        }
        // The library's two largest numbers mean "not declared" and "not a frame" (ZSTD_CONTENTSIZE_UNKNOWN, _ERROR).
        guard declared < UInt64.max - 1 else { throw .undeclaredSize }
        guard declared == UInt64(expected) else {
            throw .wrongSize(expected: expected, found: Int(clamping: declared))
        }
        let blockLimit = frame.byteCount / Self.blockByteMinimum + 1
        guard expected <= blockLimit * Self.blockByteLimit else {
            throw .impossibleSize(declared: expected, frameByteCount: frame.byteCount)
        }
    }

    /// Refuses frames with a huge window or a dictionary, and skippable frames (RFC 8878, section 3.1.1.1).
    private func checkHeader(of frame: RawSpan) throws(ZstdError) {
        func byte(_ offset: Int) throws(ZstdError) -> UInt8 {
            guard offset < frame.byteCount else { throw .notAFrame(byteCount: frame.byteCount) }
            return unsafe frame.unsafeLoad(fromByteOffset: offset, as: UInt8.self)
        }
        let magic: [UInt8] = [0x28, 0xB5, 0x2F, 0xFD]
        for offset in 0..<4 {
            guard try byte(offset) == magic[offset] else { throw .notAFrame(byteCount: frame.byteCount) }
        }
        let descriptor = try byte(4)
        guard descriptor & 3 == 0 else { throw .needsDictionary }
        let window: UInt64
        if descriptor & 0x20 != 0 {
            // A single segment: the window is the declared content size.
            let width = descriptor >> 6 == 0 ? 1 : 1 << (descriptor >> 6)
            var declared: UInt64 = 0
            for index in 0..<width { declared |= UInt64(try byte(5 + index)) << UInt64(8 * index) }
            window = width == 2 ? declared + 256 : declared
        } else {
            let code = try byte(5)
            let base: UInt64 = 1 << UInt64(10 + (code >> 3))
            window = base + base / 8 * UInt64(code & 7)
        }
        guard window <= Self.windowByteLimit else {
            throw .windowTooLarge(found: window, limit: Self.windowByteLimit)
        }
    }
}
