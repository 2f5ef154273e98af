/// The parts of a paged file, as errors name them.
public enum FilePart: String, Hashable, Sendable, CustomStringConvertible {
    case header
    case footer
    case tail
    case schema
    case statistics
    case columnTable = "column table"
    case pageIndex = "page index"
    case provenance
    case identifierPage = "identifier page"
    case identifierIndexPage = "identifier index page"
    case fieldPage = "field page"
    case normPage = "norm page"

    /// The part's name.
    public var description: String { rawValue }
}

/// A ByteReader that reports failures as `FormatError`s of one part.
struct PartReader {
    private var reader: ByteReader
    let part: FilePart

    init(_ bytes: [UInt8], part: FilePart, offset: Int = 0) {
        reader = ByteReader(bytes, offset: offset)
        self.part = part
    }

    var offset: Int { reader.offset }
    var remainingCount: Int { reader.remainingCount }

    mutating func read<T: FixedWidthInteger & UnsignedInteger>(_ type: T.Type = T.self) throws(FormatError) -> T {
        do { return try reader.read(T.self) } catch { throw FormatError(part, error) }
    }

    mutating func read<T: FixedWidthInteger & UnsignedInteger & BitwiseCopyable>(
        _ type: T.Type = T.self, count: Int
    ) throws(FormatError) -> [T] {
        do { return try reader.read(T.self, count: count) } catch { throw FormatError(part, error) }
    }

    mutating func readCount() throws(FormatError) -> Int { Int(try read(UInt32.self)) }

    /// A UInt64 that must fit in an Int.
    mutating func readLargeCount() throws(FormatError) -> Int {
        let start = offset
        let value = try read(UInt64.self)
        guard let count = Int(exactly: value) else { throw .numberTooLarge(part: part, offset: start, found: value) }
        return count
    }

    mutating func readFloat() throws(FormatError) -> Float { Float(bitPattern: try read(UInt32.self)) }

    mutating func readBytes(count: Int) throws(FormatError) -> [UInt8] {
        do { return try reader.readBytes(count: count) } catch { throw FormatError(part, error) }
    }

    mutating func readDigest() throws(FormatError) -> (low: UInt64, high: UInt64) {
        (try read(), try read())
    }

    mutating func readString() throws(FormatError) -> String {
        do { return try reader.readString() } catch { throw FormatError(part, error) }
    }

    mutating func skipPadding(to alignment: Int) throws(FormatError) {
        do { try reader.skipPadding(to: alignment) } catch { throw FormatError(part, error) }
    }

    /// Reads `count` bytes that must be zero.
    mutating func readZeros(count: Int) throws(FormatError) {
        let start = offset
        let wrong: (index: Int, found: UInt8)?
        do { wrong = try reader.skipZeros(count: count) } catch { throw FormatError(part, error) }
        if let wrong { throw .reservedNotZero(part: part, offset: start + wrong.index, found: wrong.found) }
    }

    /// Nothing may follow what was read.
    func expectEnd() throws(FormatError) {
        guard remainingCount == 0 else { throw .trailingBytes(part: part, count: remainingCount) }
    }

    /// `count` records of at least `minimumByteCount` each must fit in what is left: bounds what a hostile count allocates.
    func expectRoom(count: Int, minimumByteCount: Int) throws(FormatError) {
        let (needed, overflow) = count.multipliedReportingOverflow(by: minimumByteCount)
        guard count >= 0, !overflow, needed <= remainingCount else {
            throw .truncated(
                part: part, offset: offset, needed: overflow ? Int.max : needed, available: remainingCount)
        }
    }
}
