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
        for entry in entries { writer.write(entry.hash) }
        for entry in entries { writer.write(UInt32(entry.row)) }
        return writer.bytes
    }

    /// The entries in an untrusted page: sorted, each naming a row below `segmentRowCount`.
    public static func decode(
        _ bytes: [UInt8], entryCount: Int, segmentRowCount: Int
    ) throws(FormatError) -> [IdentifierIndexEntry] {
        guard bytes.count == entryCount * entryByteCount else {
            throw .partSize(part: .identifierIndexPage, expected: entryCount * entryByteCount, found: bytes.count)
        }
        var hashes = PartReader(bytes, part: .identifierIndexPage)
        var rows = PartReader(Array(bytes[(entryCount * 8)...]), part: .identifierIndexPage)
        var entries: [IdentifierIndexEntry] = []
        entries.reserveCapacity(entryCount)
        for index in 0..<entryCount {
            let entry = IdentifierIndexEntry(hash: try hashes.read(), row: try rows.readCount())
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
}
