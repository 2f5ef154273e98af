/// Why bytes could not be compressed or decompressed.
public enum ZstdError: Error, Hashable, Sendable {
    /// The library could not allocate a context.
    case outOfMemory
    /// The library refused to compress.
    case compressionFailed(reason: String)
    /// The bytes are not one whole zstd frame.
    case notAFrame(byteCount: Int)
    /// The frame asks for a history window above `ZstdDecompressor.windowByteLimit`.
    case windowTooLarge(found: UInt64, limit: UInt64)
    /// The frame needs a dictionary.
    case needsDictionary
    /// The library found damage while decompressing.
    case damaged(reason: String)
    /// The frame does not declare how many bytes it holds.
    case undeclaredSize
    /// The frame declares more bytes than a frame of its length can hold.
    case impossibleSize(declared: Int, frameByteCount: Int)
    /// The frame holds, or declares, another number of bytes than the caller knows it must.
    case wrongSize(expected: Int, found: Int)
}

extension ZstdError: CustomStringConvertible {
    /// One line: what is wrong and where, expected and found.
    public var description: String {
        switch self {
        case .outOfMemory: "zstd: no memory for a context"
        case .compressionFailed(let reason): "zstd: compression failed: \(reason)"
        case .notAFrame(let byteCount): "zstd: \(byteCount) bytes are not exactly one frame"
        case .windowTooLarge(let found, let limit):
            "zstd: frame asks for a window of \(found) bytes, at most \(limit) are allowed"
        case .needsDictionary: "zstd: frame needs a dictionary, none is used here"
        case .damaged(let reason): "zstd: damaged frame: \(reason)"
        case .undeclaredSize: "zstd: frame does not declare how many bytes it holds"
        case .impossibleSize(let declared, let frameByteCount):
            "zstd: frame of \(frameByteCount) bytes declares \(declared) bytes, more than it can hold"
        case .wrongSize(let expected, let found): "zstd: frame holds \(found) bytes, expected \(expected)"
        }
    }
}
