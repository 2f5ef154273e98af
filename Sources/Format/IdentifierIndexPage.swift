import Checksum

/// One entry of a segment's identifier index.
public struct IdentifierIndexEntry: Hashable, Sendable, Comparable {
    /// XXH3-64 of the id's UTF-8, seed 0.
    public var hash: UInt64
    /// The row in the segment.
    public var row: Int

    /// A value of these parts.
    public init(hash: UInt64, row: Int) {
        self.hash = hash
        self.row = row
    }

    /// By hash, ties by row: the order of the index.
    public static func < (a: Self, b: Self) -> Bool { a.hash != b.hash ? a.hash < b.hash : a.row < b.row }

    /// The hash under which an id is found.
    public static func hash(of identifier: String) -> UInt64 { xxh3(Array(identifier.utf8)) }
}

/// A run of a segment's identifier index: UInt64 hashes ascending, then the UInt32 row of each.
public enum IdentifierIndexPage {
    /// Bytes of one entry.
    public static let entryByteCount = 12

    /// The page of sorted entries.
    public static func encode(_ entries: ArraySlice<IdentifierIndexEntry>) -> [UInt8] {
        var writer = ByteWriter()
        writer.write(all: entries.map(\.hash))
        writer.write(all: entries.map { UInt32($0.row) })
        return writer.bytes
    }

    /// The entries in an untrusted page: sorted, each naming a row below `segmentRowCount`.
    public static func decode(
        _ bytes: [UInt8], entryCount: Int, segmentRowCount: Int
    ) throws(FormatError) -> [IdentifierIndexEntry] {
        guard bytes.count == entryCount * entryByteCount else {
            throw .partSize(part: .identifierIndexPage, expected: entryCount * entryByteCount, found: bytes.count)
        }
        var reader = PartReader(bytes, part: .identifierIndexPage)
        let hashes = try reader.read(UInt64.self, count: entryCount)
        let rows = try reader.read(UInt32.self, count: entryCount)
        var entries: [IdentifierIndexEntry] = []
        entries.reserveCapacity(entryCount)
        for index in 0..<entryCount {
            let entry = IdentifierIndexEntry(hash: hashes[index], row: Int(rows[index]))
            guard entry.row < segmentRowCount else {
                throw .indexRow(entry: index, found: entry.row, rowCount: segmentRowCount)
            }
            if let last = entries.last {
                guard last < entry else { throw .hashesNotAscending(entry: index) }
            }
            entries.append(entry)
        }
        return entries
    }

    /// The rows whose id has this hash, in an untrusted page, and the last hash of the page.
    ///
    /// A binary search: O(log entries); the order is not checked (`decode` does that).
    public static func rows(
        of hash: UInt64, in bytes: [UInt8], entryCount: Int, segmentRowCount: Int
    ) throws(FormatError) -> (rows: [Int], lastHash: UInt64) {
        guard bytes.count == entryCount * entryByteCount, entryCount > 0 else {
            throw .partSize(part: .identifierIndexPage, expected: entryCount * entryByteCount, found: bytes.count)
        }
        func stored(_ index: Int) throws(FormatError) -> UInt64 {
            var reader = PartReader(bytes, part: .identifierIndexPage, offset: 8 * index)
            return try reader.read()
        }
        var (low, high) = (0, entryCount)
        while low < high {
            let middle = low + (high - low) / 2
            if try stored(middle) < hash { low = middle + 1 } else { high = middle }
        }
        var rows: [Int] = []
        while low < entryCount, try stored(low) == hash {
            var reader = PartReader(bytes, part: .identifierIndexPage, offset: 8 * entryCount + 4 * low)
            let row = try reader.readCount()
            guard row < segmentRowCount else { throw .indexRow(entry: low, found: row, rowCount: segmentRowCount) }
            rows.append(row)
            low += 1
        }
        return (rows, try stored(entryCount - 1))
    }
}
