import Schema

/// The ids of a block's examples: UInt32 offsets[rows + 1], then UTF-8.
public enum IdentifierPage {
    /// The page of some ids; each must be at most `Limits.identifierBytes` long and all together below 4 GiB.
    public static func encode(_ identifiers: [String]) -> [UInt8] {
        var writer = ByteWriter()
        var end = 0
        writer.write(UInt32(0))
        for identifier in identifiers {
            end += identifier.utf8.count
            writer.write(UInt32(end))
        }
        for identifier in identifiers { writer.write(bytes: Array(identifier.utf8)) }
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

/// Reads offsets[rowCount + 1]: from 0, ascending, ending where the part ends.
func readOffsets(_ reader: inout PartReader, rowCount: Int) throws(FormatError) -> [Int] {
    try reader.expectRoom(count: rowCount + 1, minimumByteCount: 4)
    var offsets: [Int] = []
    offsets.reserveCapacity(rowCount + 1)
    for row in 0...rowCount {
        let offset = try reader.readCount()
        guard row == 0 ? offset == 0 : offset >= offsets[row - 1] else {
            throw .offsetsNotAscending(part: reader.part, row: row)
        }
        offsets.append(offset)
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
