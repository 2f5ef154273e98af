import Checksum
import Format

/// The kinds of catalog records; the first byte of a key.
enum CatalogRecordKind: UInt8, CaseIterable {
    case state = 1
    case schema = 2
    case segment = 3
    case tombstones = 4
    case curvature = 5
    case ingest = 6
    case snapshot = 7
    case rowIdentity = 8
}

/// A catalog key: a kind byte, then a big-endian number or digest, so that byte order is numeric order.
struct CatalogKey: Hashable {
    let bytes: [UInt8]

    static let state = CatalogKey(.state, 0)
    static let schema = CatalogKey(.schema, 0)
    static let rowIdentity = CatalogKey(.rowIdentity, 0)

    init(_ kind: CatalogRecordKind, _ number: UInt64) {
        bytes = [kind.rawValue] + CatalogKey.bigEndian(number)
    }

    init(_ kind: CatalogRecordKind, _ digest: Digest) {
        bytes = [kind.rawValue] + CatalogKey.bigEndian(digest.high) + CatalogKey.bigEndian(digest.low)
    }

    /// Of a named snapshot; the name has at most `SnapshotRecord.nameByteLimit` bytes.
    init(snapshot name: String) {
        bytes = [CatalogRecordKind.snapshot.rawValue] + Array(name.utf8)
    }

    private static func bigEndian(_ number: UInt64) -> [UInt8] {
        (0..<8).map { UInt8(truncatingIfNeeded: number >> UInt64(56 - 8 * $0)) }
    }

    /// The number in a key of 9 bytes.
    static func number(_ key: [UInt8]) -> UInt64? {
        key.count == 9 ? key[1...].reduce(0) { $0 << 8 | UInt64($1) } : nil
    }

    /// The digest in a key of 17 bytes.
    static func digest(_ key: [UInt8]) -> Digest? {
        guard key.count == 17 else { return nil }
        let words = [key[1..<9], key[9...]].map { $0.reduce(0) { $0 << 8 | UInt64($1) } }
        return Digest(high: words[0], low: words[1])
    }
}

/// Why a catalog value is not one; where it was is added by the caller.
enum CatalogCodingError: Error {
    case checksum(expected: UInt64, found: UInt64)
    case bytes(ByteReader.Failure)
    case rule(expected: String, found: String)
    case version(major: UInt16, flags: UInt64)
}

/// The last eight bytes of every value: XXH3-64 over key and payload, so that a value under a wrong key is noticed too.
enum CatalogValue {
    static func seal(_ payload: [UInt8], key: [UInt8]) -> [UInt8] {
        var writer = ByteWriter()
        writer.write(bytes: payload)
        writer.write(xxh3(key + payload))
        return writer.bytes
    }

    static func open(_ value: [UInt8], key: [UInt8]) throws(CatalogCodingError) -> [UInt8] {
        guard value.count >= 8 else { throw .rule(expected: "a value of at least 8 bytes", found: "\(value.count)") }
        let payload = Array(value.dropLast(8))
        var reader = CatalogReader(value, offset: payload.count)
        let expected: UInt64 = try reader.read()
        let found = xxh3(key + payload)
        guard expected == found else { throw .checksum(expected: expected, found: found) }
        return payload
    }
}

/// A ByteReader with the catalog's error type.
struct CatalogReader {
    private var reader: ByteReader

    init(_ bytes: [UInt8], offset: Int = 0) {
        reader = ByteReader(bytes, offset: offset)
    }

    mutating func read<T: FixedWidthInteger & UnsignedInteger>(_ type: T.Type = T.self) throws(CatalogCodingError) -> T
    {
        do { return try reader.read(T.self) } catch { throw .bytes(error) }
    }

    /// A UInt64 that fits an Int.
    mutating func readCount() throws(CatalogCodingError) -> Int {
        let value = try read(UInt64.self)
        guard let count = Int(exactly: value) else { throw .rule(expected: "a count", found: "\(value)") }
        return count
    }

    mutating func readDigest() throws(CatalogCodingError) -> Digest {
        let low = try read(UInt64.self)
        return Digest(high: try read(), low: low)
    }

    mutating func readDouble() throws(CatalogCodingError) -> Double {
        Double(bitPattern: try read())
    }

    mutating func readString() throws(CatalogCodingError) -> String {
        do { return try reader.readString() } catch { throw .bytes(error) }
    }

    mutating func readBytes(count: Int) throws(CatalogCodingError) -> [UInt8] {
        do { return try reader.readBytes(count: count) } catch { throw .bytes(error) }
    }

    mutating func readRest() throws(CatalogCodingError) -> [UInt8] {
        do { return try reader.readBytes(count: reader.remainingCount) } catch { throw .bytes(error) }
    }

    mutating func readZeros(count: Int) throws(CatalogCodingError) {
        for _ in 0..<count where try read(UInt8.self) != 0 {
            throw .rule(expected: "zero", found: "a byte before offset \(reader.offset) that is not")
        }
    }

    func expectEnd() throws(CatalogCodingError) {
        guard reader.remainingCount == 0 else {
            throw .rule(expected: "the value's end", found: "\(reader.remainingCount) more bytes")
        }
    }
}

extension ByteWriter {
    mutating func write(_ digest: Digest) {
        write(digest.low)
        write(digest.high)
    }
}
