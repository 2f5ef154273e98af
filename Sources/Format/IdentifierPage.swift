import Checksum
import Schema

/// The ids of a block's examples: UInt32 offsets[rows + 1], then UTF-8.
public enum IdentifierPage {
    /// The page of some ids; each must be at most `Limits.identifierBytes` long and all together below 4 GiB.
    public static func encode(_ identifiers: [String]) -> [UInt8] {
        var writer = ByteWriter()
        var offsets: [UInt32] = [0]
        var texts: [UInt8] = []
        for identifier in identifiers {
            texts.append(contentsOf: identifier.utf8)
            offsets.append(UInt32(texts.count))
        }
        writer.write(all: offsets)
        writer.write(bytes: texts)
        return writer.bytes
    }

    /// The ids in an untrusted page of `rowCount` rows.
    public static func decode(_ bytes: [UInt8], rowCount: Int) throws(FormatError) -> [String] {
        var reader = PartReader(bytes, part: .identifierPage)
        let offsets = try readOffsets(&reader, rowCount: rowCount)
        var identifiers: [String] = []
        identifiers.reserveCapacity(rowCount)
        for row in 0..<rowCount {
            let byteCount = offsets[row + 1] - offsets[row]
            guard byteCount <= Limits.identifierBytes else {
                throw .identifierLength(row: row, byteCount: byteCount, limit: Limits.identifierBytes)
            }
            identifiers.append(try reader.readText(byteCount: byteCount))
        }
        return identifiers
    }
}

extension IdentifierPage {
    /// The hash of each id in an untrusted page, by the same rules as `decode` but without making strings. O(bytes).
    public static func hashes(_ bytes: [UInt8], rowCount: Int) throws(FormatError) -> [UInt64] {
        let ends = try textEnds(bytes, rowCount: rowCount)
        var hashes: [UInt64] = []
        hashes.reserveCapacity(rowCount)
        for row in 0..<rowCount { hashes.append(xxh3(bytes.span.bytes.extracting(ends[row]..<ends[row + 1]))) }
        return hashes
    }

    /// Where the text of each id begins in an untrusted page, and where the last ends; every id is UTF-8 and short enough.
    fileprivate static func textEnds(_ bytes: [UInt8], rowCount: Int) throws(FormatError) -> [Int] {
        var reader = PartReader(bytes, part: .identifierPage)
        var ends = try readOffsets(&reader, rowCount: rowCount)
        let start = reader.offset
        for row in 0...rowCount {
            ends[row] += start
            guard row == 0 || ends[row] - ends[row - 1] <= Limits.identifierBytes else {
                throw .identifierLength(
                    row: row - 1, byteCount: ends[row] - ends[row - 1], limit: Limits.identifierBytes)
            }
        }
        // The whole text is UTF-8 and no id begins within a character: then every id is.
        let isText = isUTF8(bytes.span.extracting(start..<bytes.count))
        for row in 0..<rowCount {
            let (first, end) = (ends[row], ends[row + 1])
            let beginsCharacter = first == end || bytes[first] & 0xC0 != 0x80
            guard isText && beginsCharacter || isUTF8(bytes.span.extracting(first..<end)) else {
                throw .notUTF8(part: .identifierPage, offset: first)
            }
        }
        return ends
    }

    private static func isUTF8(_ bytes: Span<UInt8>) -> Bool {
        do {
            _ = try UTF8Span(validating: bytes)
            return true
        } catch {
            return false
        }
    }

    /// The id of one row in an untrusted page of `rowCount` rows; only that id is looked at. O(bytes of the id).
    public static func decode(_ bytes: [UInt8], row: Int, rowCount: Int) throws(FormatError) -> String {
        precondition((0..<rowCount).contains(row))
        let values = 4 * (rowCount + 1)
        guard bytes.count >= values else {
            throw .truncated(part: .identifierPage, offset: 0, needed: values, available: bytes.count)
        }
        var offsets = PartReader(bytes, part: .identifierPage, offset: 4 * row)
        let (start, end) = (try offsets.readCount(), try offsets.readCount())
        guard start <= end else { throw .offsetsNotAscending(part: .identifierPage, row: row + 1) }
        var reader = PartReader(bytes, part: .identifierPage, offset: min(bytes.count, values + start))
        return try reader.readText(byteCount: end - start)
    }
}

/// Puts a page together: from ids, or from rows of other pages without making strings.
public struct IdentifierGatherer {
    private var offsets: [UInt32] = [0]
    private var text: [UInt8] = []
    /// The hash of each id so far.
    public private(set) var hashes: [UInt64] = []

    /// No ids yet.
    public init() {}

    /// Adds an id of at most `Limits.identifierBytes`.
    public mutating func append(_ identifier: String) {
        let start = text.count
        text.append(contentsOf: identifier.utf8)
        offsets.append(UInt32(text.count))
        hashes.append(xxh3(text.span.bytes.extracting(start..<text.count)))
    }

    /// Adds some rows of an untrusted page of `rowCount` rows, by the rules of `IdentifierPage.decode`. O(bytes of the page).
    public mutating func append(_ bytes: [UInt8], rowCount: Int, rows: [Int]) throws(FormatError) {
        let ends = try IdentifierPage.textEnds(bytes, rowCount: rowCount)
        for row in rows {
            let range = ends[row]..<ends[row + 1]
            text.append(contentsOf: bytes[range])
            offsets.append(UInt32(text.count))
            hashes.append(xxh3(bytes.span.bytes.extracting(range)))
        }
    }

    /// The page of these ids, as `IdentifierPage.encode` makes it.
    public var page: [UInt8] {
        var writer = ByteWriter()
        writer.write(all: offsets)
        writer.write(bytes: text)
        return writer.bytes
    }
}

/// Reads offsets[rowCount + 1]: from 0, ascending, ending where the part ends.
func readOffsets(_ reader: inout PartReader, rowCount: Int) throws(FormatError) -> [Int] {
    try reader.expectRoom(count: rowCount + 1, minimumByteCount: 4)
    let offsets = try reader.read(UInt32.self, count: rowCount + 1).map { Int($0) }
    for row in 0...rowCount {
        guard row == 0 ? offsets[0] == 0 : offsets[row] >= offsets[row - 1] else {
            throw .offsetsNotAscending(part: reader.part, row: row)
        }
    }
    guard offsets[rowCount] == reader.remainingCount else {
        throw .offsetsEnd(part: reader.part, expected: reader.remainingCount, found: offsets[rowCount])
    }
    return offsets
}

extension PartReader {
    /// UTF-8 of known length.
    mutating func readText(byteCount: Int) throws(FormatError) -> String {
        let start = offset
        let bytes = try readBytes(count: byteCount)
        guard let text = String(validating: bytes, as: UTF8.self) else { throw .notUTF8(part: part, offset: start) }
        return text
    }
}
