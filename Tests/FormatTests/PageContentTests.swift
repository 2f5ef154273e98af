import Checksum
import Format
import Schema
import Testing

@Test func identifierPages() throws {
    let identifiers = ["a", "", "zwölf", "日本"]
    let bytes = IdentifierPage.encode(identifiers)
    #expect(bytes == [0, 1, 1, 7, 13].flatMap { littleEndian(UInt32($0)) } + Array("azwölf日本".utf8))
    #expect(try IdentifierPage.decode(bytes, rowCount: 4) == identifiers)
}

@Test(
    arguments: [
        ([0, 0, 0, 0], 1, FormatError.truncated(part: .identifierPage, offset: 0, needed: 8, available: 4)),
        ([1, 0, 0, 0, 1, 0, 0, 0, 65], 1, .offsetsNotAscending(part: .identifierPage, row: 0)),
        ([0, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 65], 2, .offsetsNotAscending(part: .identifierPage, row: 2)),
        ([0, 0, 0, 0, 1, 0, 0, 0, 65, 66], 1, .offsetsEnd(part: .identifierPage, expected: 2, found: 1)),
        ([0, 0, 0, 0, 3, 0, 0, 0, 65, 66], 1, .offsetsEnd(part: .identifierPage, expected: 2, found: 3)),
        ([0, 0, 0, 0, 1, 0, 0, 0, 0xC3], 1, .notUTF8(part: .identifierPage, offset: 8)),
    ] as [([UInt8], Int, FormatError)])
func identifierPageRules(bytes: [UInt8], rowCount: Int, error: FormatError) {
    #expect(throws: error) { try IdentifierPage.decode(bytes, rowCount: rowCount) }
}

@Test func longIdentifiersAreRefused() {
    let bytes = IdentifierPage.encode(["", String(repeating: "x", count: 4097)])
    #expect(throws: FormatError.identifierLength(row: 1, byteCount: 4097, limit: 4096)) {
        try IdentifierPage.decode(bytes, rowCount: 2)
    }
}

@Test func identifierIndexPages() throws {
    let entries = [(3, 1), (9, 0), (9, 4)].map { IdentifierIndexEntry(hash: $0.0, row: $0.1) }
    let bytes = IdentifierIndexPage.encode(entries[...])
    #expect(
        bytes == [3, 9, 9].flatMap { littleEndian(UInt64($0)) } + [1, 0, 4].flatMap { littleEndian(UInt32($0)) })
    #expect(try IdentifierIndexPage.decode(bytes, entryCount: 3, segmentRowCount: 5) == entries)
    #expect(throws: FormatError.indexRow(entry: 2, found: 4, rowCount: 4)) {
        try IdentifierIndexPage.decode(bytes, entryCount: 3, segmentRowCount: 4)
    }
    #expect(throws: FormatError.partSize(part: .identifierIndexPage, expected: 24, found: 36)) {
        try IdentifierIndexPage.decode(bytes, entryCount: 2, segmentRowCount: 5)
    }
    let unsorted = IdentifierIndexPage.encode([entries[0], entries[2], entries[1]])
    #expect(throws: FormatError.hashesNotAscending(entry: 2)) {
        try IdentifierIndexPage.decode(unsorted, entryCount: 3, segmentRowCount: 5)
    }
    #expect(IdentifierIndexEntry.hash(of: "é") == xxh3([0xC3, 0xA9]))
}

@Test func fieldPages() throws {
    let values: [MetadataValue?] = [
        nil, .null, .boolean(false), .boolean(true), .integer(-2), .number(0.5), .string("ä"), .json("[1]"), nil,
    ]
    let bytes = FieldPage.encode(values)
    var expected: [UInt8] = [0, 1, 2, 3, 4, 5, 6, 7, 0] + [UInt8](repeating: 0, count: 7)
    expected += [0, 0, 0, 0, 0, 8, 16, 18, 21, 21].flatMap { littleEndian(UInt32($0)) }
    expected += littleEndian(UInt64(bitPattern: -2)) + littleEndian(Double(0.5).bitPattern) + Array("ä[1]".utf8)
    #expect(bytes == expected)
    #expect(try FieldPage.decode(bytes, rowCount: 9) == values)
}

@Test(arguments: [
    (0, 8, FormatError.unknownTag(row: 0, found: 8)),
    (1, 4, .valueLength(row: 1, tag: 4, found: 0)),
    (3, 9, .reservedNotZero(part: .fieldPage, offset: 3, found: 1)),
    (12, 1, .offsetsNotAscending(part: .fieldPage, row: 2)),
    (16, 1, .valueLength(row: 1, tag: 1, found: 1)),
    (20, 9, .offsetsEnd(part: .fieldPage, expected: 8, found: 9)),
    (2, 6, .notUTF8(part: .fieldPage, offset: 24)),
])
func fieldPageRules(offset: Int, byte: UInt8, error: FormatError) {
    // Tags 0, 1, 4; the integer is no UTF-8.
    var bytes = FieldPage.encode([nil, .null, .integer(-1)])
    bytes[offset] = byte
    #expect(throws: error) { try FieldPage.decode(bytes, rowCount: 3) }
}

@Test func normPages() throws {
    let bytes = NormPage.encode([[0x3F80, 0x4000], [0, 0x7F80]])
    #expect(bytes == [0x80, 0x3F, 0x00, 0x40, 0, 0, 0x80, 0x7F])
    #expect(try NormPage.decode(bytes, layerCount: 2, rowCount: 2) == [[1, 2], [0, .infinity]])
    #expect(try NormPage.bits(bytes, layerCount: 2, rowCount: 2) == [[0x3F80, 0x4000], [0, 0x7F80]])
    #expect(try NormPage.rowNorms(bytes, layerCount: 2, rowCount: 2) == [1, .infinity])
    #expect(NormPage.rowNorms([[0x4040, 0], [0x4080, 0x4000]]) == [5, 2])
    for (bits, row) in [(UInt16(0x7F81), 0), (0x8000, 1)] {
        var norms: [[UInt16]] = [[0, 0]]
        norms[0][row] = bits
        #expect(throws: FormatError.normNotANorm(layer: 0, row: row, found: bits)) {
            try NormPage.decode(NormPage.encode(norms), layerCount: 1, rowCount: 2)
        }
        #expect(throws: FormatError.self) {
            try NormPage.rowNorms(NormPage.encode(norms), layerCount: 1, rowCount: 2)
        }
    }
    #expect(throws: FormatError.partSize(part: .normPage, expected: 6, found: 8)) {
        try NormPage.decode(bytes, layerCount: 1, rowCount: 3)
    }
}

@Test func statisticsBoundWhatTheySummarise() {
    // √3 lies between two floats: minimum below, maximum above.
    let exact = (3.0).squareRoot()
    let statistics = BlockStatistics(rowNorms: [exact], rowResidualNorms: [0.5, 0])
    #expect(Double(statistics.minimumNorm) <= exact && Double(statistics.minimumNorm.nextUp) > exact)
    #expect(Double(statistics.maximumNorm) >= exact && Double(statistics.maximumNorm.nextDown) < exact)
    #expect(statistics.maximumResidualNorm == 0.5)
}

@Test func bytePlanes() {
    let bytes: [UInt8] = [1, 2, 3, 4, 5, 6, 7, 8]
    #expect(BytePlanes.split(bytes.span.bytes, stride: 1) == bytes)
    #expect(BytePlanes.split(bytes.span.bytes, stride: 2) == [1, 3, 5, 7, 2, 4, 6, 8])
    #expect(BytePlanes.split(bytes.span.bytes, stride: 4) == [1, 5, 2, 6, 3, 7, 4, 8])
    for stride in [1, 2, 4] {
        let planes = BytePlanes.split(bytes.span.bytes, stride: stride)
        #expect(BytePlanes.join(planes.span.bytes, stride: stride) == bytes)
    }
}
