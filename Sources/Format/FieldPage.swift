public import Schema

/// One metadata field of a block's examples, dynamically typed: UInt8 tags, padding to 8, UInt32 offsets[rows + 1], values.
public enum FieldPage {
    enum Tag: UInt8 {
        case absent = 0
        case null = 1
        case no = 2
        case yes = 3
        case integer = 4
        case number = 5
        case string = 6
        case json = 7
    }

    /// Bytes that the value takes in a page's value area.
    public static func valueByteCount(_ value: MetadataValue?) -> Int {
        switch value {
        case nil, .null, .boolean: 0
        case .integer, .number: 8
        case .string(let text), .json(let text): text.utf8.count
        }
    }

    /// The page of one value (or none) for each row; the values must take less than 4 GiB.
    public static func encode(_ values: [MetadataValue?]) -> [UInt8] {
        var writer = ByteWriter()
        for value in values { writer.write(tag(of: value).rawValue) }
        writer.pad(to: 8)
        var end = 0
        writer.write(UInt32(0))
        for value in values {
            end += valueByteCount(value)
            writer.write(UInt32(end))
        }
        for value in values {
            switch value {
            case nil, .null, .boolean: break
            case .integer(let integer): writer.write(UInt64(bitPattern: integer))
            case .number(let number): writer.write(number)
            case .string(let text), .json(let text): writer.write(bytes: Array(text.utf8))
            }
        }
        return writer.bytes
    }

    private static func tag(of value: MetadataValue?) -> Tag {
        switch value {
        case nil: .absent
        case .null: .null
        case .boolean(false): .no
        case .boolean(true): .yes
        case .integer: .integer
        case .number: .number
        case .string: .string
        case .json: .json
        }
    }

    /// The values in an untrusted page of `rowCount` rows.
    public static func decode(_ bytes: [UInt8], rowCount: Int) throws(FormatError) -> [MetadataValue?] {
        var reader = PartReader(bytes, part: .fieldPage)
        var tags: [Tag] = []
        let codes = try reader.readBytes(count: rowCount)
        tags.reserveCapacity(rowCount)
        for (row, code) in codes.enumerated() {
            guard let tag = Tag(rawValue: code) else { throw .unknownTag(row: row, found: code) }
            tags.append(tag)
        }
        try reader.skipPadding(to: 8)
        let offsets = try readOffsets(&reader, rowCount: rowCount)
        var values: [MetadataValue?] = []
        values.reserveCapacity(rowCount)
        for row in 0..<rowCount {
            let byteCount = offsets[row + 1] - offsets[row]
            switch tags[row] {
            case .absent, .null, .no, .yes:
                guard byteCount == 0 else { throw .valueLength(row: row, tag: tags[row].rawValue, found: byteCount) }
            case .integer, .number:
                guard byteCount == 8 else { throw .valueLength(row: row, tag: tags[row].rawValue, found: byteCount) }
            case .string, .json: break
            }
            switch tags[row] {
            case .absent: values.append(nil)
            case .null: values.append(.null)
            case .no: values.append(.boolean(false))
            case .yes: values.append(.boolean(true))
            case .integer: values.append(.integer(Int64(bitPattern: try reader.read(UInt64.self))))
            case .number: values.append(.number(Double(bitPattern: try reader.read())))
            case .string: values.append(.string(try reader.readText(byteCount: byteCount)))
            case .json: values.append(.json(try reader.readText(byteCount: byteCount)))
            }
        }
        return values
    }
}
