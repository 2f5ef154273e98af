/// Appends little-endian fields to a byte array.
public struct ByteWriter {
    /// What has been written so far.
    public private(set) var bytes: [UInt8] = []

    /// Nothing written yet.
    public init() {}

    /// Appends an integer.
    public mutating func write<T: FixedWidthInteger & UnsignedInteger>(_ value: T) {
        for shift in stride(from: 0, to: T.bitWidth, by: 8) {
            bytes.append(UInt8(truncatingIfNeeded: value >> T(shift)))
        }
    }

    /// Appends integers, one after another.
    public mutating func write<T: FixedWidthInteger & UnsignedInteger & BitwiseCopyable>(all values: [T]) {
        let ordered = T(1).littleEndian == 1 ? values : values.map(\.littleEndian)
        unsafe ordered.withUnsafeBytes { unsafe bytes.append(contentsOf: $0) }
    }

    /// Appends the eight bytes of a Double.
    public mutating func write(_ value: Double) { write(value.bitPattern) }

    /// Appends bytes as they are.
    public mutating func write(bytes piece: [UInt8]) { bytes.append(contentsOf: piece) }

    /// A UInt32 byte count, then UTF-8.
    public mutating func write(string: String) {
        let utf8 = Array(string.utf8)
        write(UInt32(utf8.count))
        write(bytes: utf8)
    }

    /// Zero bytes up to the next multiple of `alignment`.
    public mutating func pad(to alignment: Int) {
        let remainder = bytes.count % alignment
        if remainder != 0 { bytes.append(contentsOf: repeatElement(0, count: alignment - remainder)) }
    }
}

/// Reads little-endian fields from bytes that are not trusted; every read is bounds-checked.
public struct ByteReader {
    /// What went wrong, and at which byte offset.
    public enum Failure: Error, Hashable, Sendable {
        case truncated(offset: Int, needed: Int, available: Int)
        case notUTF8(offset: Int)
        case nonzeroPadding(offset: Int)
    }

    private let bytes: [UInt8]
    /// Where the next read begins.
    public private(set) var offset: Int

    /// A reader at `offset` of `bytes`.
    public init(_ bytes: [UInt8], offset: Int = 0) {
        self.bytes = bytes
        self.offset = offset
    }

    /// Bytes not yet read.
    public var remainingCount: Int { bytes.count - offset }

    /// The next integer, of at most 64 bits.
    public mutating func read<T: FixedWidthInteger & UnsignedInteger>(_ type: T.Type = T.self) throws(Failure) -> T {
        let size = T.bitWidth / 8
        try require(size)
        // In UInt64, so that a caller of another module, for whom this is not specialised, pays one generic call and not thirty.
        var value: UInt64 = 0
        for index in 0..<size { value |= UInt64(bytes[offset + index]) << UInt64(index * 8) }
        offset += size
        return T(truncatingIfNeeded: value)
    }

    /// The next `count` integers; the bounds are checked once.
    public mutating func read<T: FixedWidthInteger & UnsignedInteger & BitwiseCopyable>(
        _ type: T.Type = T.self, count: Int
    ) throws(Failure) -> [T] {
        let size = T.bitWidth / 8
        let (byteCount, overflow) = count.multipliedReportingOverflow(by: size)
        try require(overflow ? Int.max : byteCount)
        defer { offset += byteCount }
        let source = bytes.span.bytes.extracting(offset..<offset + byteCount)
        return unsafe [T](unsafeUninitializedCapacity: count) { values, initializedCount in
            for index in 0..<count {
                let value = unsafe source.unsafeLoadUnaligned(fromUncheckedByteOffset: index * size, as: T.self)
                unsafe values[index] = T(littleEndian: value)
            }
            initializedCount = count
        }
    }

    /// The next eight bytes as a Double.
    public mutating func readDouble() throws(Failure) -> Double { Double(bitPattern: try read()) }

    /// The next `count` bytes.
    public mutating func readBytes(count: Int) throws(Failure) -> [UInt8] {
        try require(count)
        defer { offset += count }
        return Array(bytes[offset..<offset + count])
    }

    /// A UInt32 byte count, then UTF-8.
    public mutating func readString() throws(Failure) -> String {
        let start = offset
        let count = Int(try read(UInt32.self))
        // Most columns of a footer have no name.
        guard count > 0 else { return "" }
        let utf8 = try readBytes(count: count)
        guard let string = String(validating: utf8, as: UTF8.self) else { throw .notUTF8(offset: start) }
        return string
    }

    /// Skips `count` bytes; gives the place and the value of the first that is not zero.
    mutating func skipZeros(count: Int) throws(Failure) -> (index: Int, found: UInt8)? {
        try require(count)
        defer { offset += count }
        for index in 0..<count where bytes[offset + index] != 0 { return (index, bytes[offset + index]) }
        return nil
    }

    /// Skips to the next multiple of `alignment`; what is skipped must be zero.
    public mutating func skipPadding(to alignment: Int) throws(Failure) {
        while offset % alignment != 0 {
            let start = offset
            guard try read(UInt8.self) == 0 else { throw .nonzeroPadding(offset: start) }
        }
    }

    private func require(_ count: Int) throws(Failure) {
        guard count >= 0, count <= remainingCount else {
            throw .truncated(offset: offset, needed: count, available: max(0, remainingCount))
        }
    }
}
