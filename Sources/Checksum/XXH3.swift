import CXXHash

/// XXH3-64 of `bytes`: the checksum of pages, headers and catalog values. Not cryptographic.
public func xxh3(_ bytes: RawSpan, seed: UInt64 = 0) -> UInt64 {
    unsafe bytes.withUnsafeBytes { unsafe lorif_xxh3_64($0.baseAddress, $0.count, seed) }
}

/// XXH3-64 of an array's bytes.
public func xxh3(_ bytes: [UInt8], seed: UInt64 = 0) -> UInt64 {
    xxh3(bytes.span.bytes, seed: seed)
}

/// A 128-bit XXH3 digest: the identity of a file or a record. Not cryptographic.
public struct Digest: Hashable, Sendable, Comparable, CustomStringConvertible {
    /// The first 64 bits.
    public let high: UInt64
    /// The last 64 bits.
    public let low: UInt64

    /// A digest of known words.
    public init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }

    /// The digest of `bytes`.
    public init(of bytes: RawSpan) {
        let hash = unsafe bytes.withUnsafeBytes { unsafe lorif_xxh3_128($0.baseAddress, $0.count) }
        self.init(high: hash.high64, low: hash.low64)
    }

    /// The digest of an array's bytes.
    public init(of bytes: [UInt8]) {
        self.init(of: bytes.span.bytes)
    }

    /// In numeric order.
    public static func < (a: Digest, b: Digest) -> Bool {
        (a.high, a.low) < (b.high, b.low)
    }

    /// 32 hexadecimal digits, high word first.
    public var description: String {
        func hex(_ word: UInt64) -> String {
            let digits = String(word, radix: 16)
            return String(repeating: "0", count: 16 - digits.count) + digits
        }
        return hex(high) + hex(low)
    }

    /// The digest that `description` prints as `text`.
    public init?(_ text: String) {
        guard text.utf8.count == 32, let high = UInt64(text.prefix(16), radix: 16),
            let low = UInt64(text.suffix(16), radix: 16)
        else { return nil }
        self.init(high: high, low: low)
    }
}

/// A 128-bit XXH3 digest over a stream of pieces.
public struct DigestHasher: ~Copyable {
    private let state: OpaquePointer

    /// No pieces yet.
    public init() {
        unsafe state = XXH3_createState()
        _ = unsafe XXH3_128bits_reset(state)
    }

    deinit {
        _ = unsafe XXH3_freeState(state)
    }

    /// Adds the next piece.
    public mutating func update(_ bytes: RawSpan) {
        unsafe bytes.withUnsafeBytes { unsafe lorif_xxh3_128_update(state, $0.baseAddress, $0.count) }
    }

    /// The digest of all pieces so far.
    public func digest() -> Digest {
        let hash = unsafe XXH3_128bits_digest(state)
        return Digest(high: hash.high64, low: hash.low64)
    }
}

/// The XXH3-64 of a stream of pieces: what `xxh3` gives of all of them at once.
public struct ChecksumHasher: ~Copyable {
    private let state: OpaquePointer

    /// No pieces yet.
    public init(seed: UInt64) {
        unsafe state = XXH3_createState()
        _ = unsafe XXH3_64bits_reset_withSeed(state, seed)
    }

    deinit {
        _ = unsafe XXH3_freeState(state)
    }

    /// Adds the next piece.
    public mutating func update(_ bytes: RawSpan) {
        unsafe bytes.withUnsafeBytes { unsafe lorif_xxh3_64_update(state, $0.baseAddress, $0.count) }
    }

    /// The checksum of all pieces so far.
    public func checksum() -> UInt64 { unsafe XXH3_64bits_digest(state) }
}
