import Checksum
import Format
import Schema
import Testing

private let schema = StoreSchema(
    layers: [
        LayerSchema(name: "one", inputDimension: 3, outputDimension: 2, form: .factors(rank: 1)),
        LayerSchema(name: "flat", inputDimension: 2, outputDimension: 2, form: .dense),
        LayerSchema(name: "two", inputDimension: 1, outputDimension: 4, form: .factors(rank: 2)),
    ], encoding: .int8)

/// What a column of the test schema is, worked out by hand: its record and the raw length of a page of R rows.
private let columns: [(column: ColumnDescriptor, rawLength: @Sendable (Int) -> Int)] = [
    (ColumnDescriptor(kind: 1, encoding: 4, layer: 0, component: 0), { padded(3 * $0) + 2 * $0 }),
    (ColumnDescriptor(kind: 2, encoding: 4, layer: 0, component: 0), { padded(2 * $0) + 2 * $0 }),
    (ColumnDescriptor(kind: 1, encoding: 4, layer: 2, component: 0), { padded($0) + 2 * $0 }),
    (ColumnDescriptor(kind: 2, encoding: 4, layer: 2, component: 0), { padded(4 * $0) + 2 * $0 }),
    (ColumnDescriptor(kind: 1, encoding: 4, layer: 2, component: 1), { padded($0) + 2 * $0 }),
    (ColumnDescriptor(kind: 2, encoding: 4, layer: 2, component: 1), { padded(4 * $0) + 2 * $0 }),
    (ColumnDescriptor(kind: 3, encoding: 4, layer: 1, component: 0), { padded(4 * $0) + 2 * $0 }),
    (ColumnDescriptor(kind: 4, encoding: 3), { 6 * $0 }),
    (ColumnDescriptor(kind: 5, encoding: 3), { 6 * $0 }),
    (ColumnDescriptor(kind: 6), { 4 * ($0 + 1) + 5 }),
    (ColumnDescriptor(kind: 7), { 12 * $0 }),
    (ColumnDescriptor(kind: 8, name: "source"), { padded($0) + 4 * ($0 + 1) }),
    (ColumnDescriptor(kind: 8, name: "length"), { padded($0) + 4 * ($0 + 1) }),
]

private func padded(_ count: Int) -> Int { (count + 7) / 8 * 8 }

/// A valid segment footer of 37 rows in blocks of 32; field "length" has no page in block 1.
private func makeFooter(
    schema: StoreSchema = schema, _ change: (inout FileFooter) -> Void = { _ in }
) -> FileFooter {
    var pages: [PageEntry] = []
    func add(_ column: Int, _ block: Int) {
        let rows = block == 0 ? 32 : 5
        let length = UInt32(columns[column].rawLength(rows))
        pages.append(
            PageEntry(
                column: UInt32(column), block: UInt32(block), offset: 0, storedLength: length, rawLength: length,
                codec: .raw, byteSplitStride: 1, rowCount: UInt32(rows), checksum: 0))
    }
    for block in 0..<2 {
        for column in [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11] { add(column, block) }
        if block == 0 { add(12, block) }
    }
    add(10, 0)
    add(10, 1)
    var footer = FileFooter(
        header: FileHeader(magic: .segment, schemaDigest: Digest(high: 0, low: 0)), schema: schema.encoded(),
        rowCount: 37, rowsPerBlock: 32, blockCount: 2,
        statistics: BlockStatistics.encode(
            [BlockStatistics(minimumNorm: 0, maximumNorm: 1, maximumResidualNorm: 0)]
                + [BlockStatistics(minimumNorm: 2, maximumNorm: 2, maximumResidualNorm: 1)]),
        columns: columns.map(\.column), pages: pages, provenance: "{}")
    change(&footer)
    return footer
}

@Test func segmentFootersAreUnderstood() throws {
    let footer = try SegmentFooter(validating: makeFooter())
    #expect(footer.schema == schema)
    #expect(footer.fieldNames == ["source", "length"])
    #expect(footer.rows(ofBlock: 0) == 0..<32 && footer.rows(ofBlock: 1) == 32..<37)
    #expect(footer.statistics[1].maximumNorm == 2)
    #expect(footer.layout.rightColumn(layer: 2, component: 1) == 5)
    #expect(footer.layout.denseColumn(layer: 1) == 6)
}

private let brokenSegments: [BrokenRule] = [
    BrokenRule({ $0.rowCount = 0 }, .rowCount(found: 0, limit: 1 << 20)),
    BrokenRule({ $0.rowCount = 1 << 20 + 1 }, .rowCount(found: 1 << 20 + 1, limit: 1 << 20)),
    BrokenRule({ $0.rowsPerBlock = 0 }, .rowsPerBlock(found: 0)),
    BrokenRule({ $0.rowsPerBlock = 48 }, .rowsPerBlock(found: 48)),
    BrokenRule({ $0.rowsPerBlock = 16384 }, .rowsPerBlock(found: 16384)),
    BrokenRule({ $0.blockCount = 3 }, .blockCount(expected: 2, found: 3)),
    BrokenRule({ $0.rowCount = 65 }, .blockCount(expected: 3, found: 2)),
    BrokenRule({ $0.columns.removeLast(3) }, .columnCount(expected: 11, found: 10)),
    BrokenRule(
        { $0.columns[2].layer = 1 },
        .unexpectedColumn(
            column: 2, expected: columns[2].column, found: ColumnDescriptor(kind: 1, encoding: 4, layer: 1))),
    BrokenRule(
        { $0.columns[12].kind = 9 },
        .unexpectedColumn(
            column: 12, expected: columns[12].column, found: ColumnDescriptor(kind: 9, name: "length"))),
    BrokenRule({ $0.columns[12].name = "source" }, .duplicateFieldName(column: 12, name: "source")),
    BrokenRule(
        { $0.columns[12].name = String(repeating: "x", count: 1025) },
        .fieldName(column: 12, byteCount: 1025, limit: 1024)),
    BrokenRule(
        { footer in
            for index in 0..<1023 { footer.columns.append(ColumnDescriptor(kind: 8, name: "\(index)")) }
        }, .fieldCount(found: 1025, limit: 1024)),
    BrokenRule({ $0.statistics.removeLast() }, .partSize(part: .statistics, expected: 32, found: 31)),
    BrokenRule({ $0.statistics[15] = 1 }, .reservedNotZero(part: .statistics, offset: 15, found: 1)),
    BrokenRule({ $0.statistics[3] = 0x7F }, .statistics(block: 0)),
    BrokenRule({ $0.statistics[11] = 0x80 | 0x3F }, .statistics(block: 0)),
    BrokenRule({ $0.pages[3].rowCount = 31 }, .pageRowCount(page: 3, expected: 32, found: 31)),
    BrokenRule({ $0.pages[3].rawLength += 1 }, .pageRawLength(page: 3, expected: 192, found: 193)),
    BrokenRule({ $0.pages[7].rawLength += 2 }, .pageRawLength(page: 7, expected: 192, found: 194)),
    BrokenRule({ $0.pages[24].rawLength -= 1 }, .pageRawLength(page: 24, expected: 60, found: 59)),
    BrokenRule({ $0.pages.remove(at: 4) }, .missingPage(column: 4, block: 0)),
    BrokenRule({ $0.pages.swapAt(4, 5) }, .missingPage(column: 4, block: 0)),
    BrokenRule({ $0.pages.removeLast() }, .missingPage(column: 10, block: 1)),
    BrokenRule({ $0.pages.append($0.pages[10]) }, .unexpectedPage(page: 25, column: 11, block: 0)),
    BrokenRule(
        { $0.schema = StoreSchema(layers: [], encoding: .int8).encoded() }, .layerCount(found: 0, limit: 65_536)),
    BrokenRule({ $0.schema[0] = 9 }, .unknownEncoding(9)),
]

@Test(arguments: brokenSegments)
func segmentRules(rule: BrokenRule) {
    #expect(throws: rule.error) { try SegmentFooter(validating: makeFooter(rule.change)) }
    #expect(!rule.error.description.isEmpty && !rule.error.description.contains("\n"))
}

@Test func aSchemaThatCallsForMoreColumnsThanTheFooterHasIsRefusedUnbuilt() {
    let layers = (0..<1000).map {
        LayerSchema(name: "\($0)", inputDimension: 1, outputDimension: 1, form: .factors(rank: 4096))
    }
    #expect(throws: FormatError.columnCount(expected: 8_192_004, found: 13)) {
        try SegmentFooter(validating: makeFooter(schema: StoreSchema(layers: layers, encoding: .f32)))
    }
}

private func layer(
    _ name: String = "x", _ d1: Int = 1, _ d2: Int = 1, _ form: LayerForm = .dense
) -> LayerSchema {
    LayerSchema(name: name, inputDimension: d1, outputDimension: d2, form: form)
}

@Test(
    arguments: [
        ([layer("")], FormatError.layerName(layer: 0, byteCount: 0, limit: 1024)),
        ([layer(String(repeating: "ä", count: 513))], .layerName(layer: 0, byteCount: 1026, limit: 1024)),
        ([layer("a"), layer("b"), layer("a")], .duplicateLayerName(layer: 2, name: "a")),
        ([layer("a", 0, 1)], .dimension(layer: 0, found: 0, limit: 1 << 20)),
        ([layer("a", 1, 1 << 20 + 1)], .dimension(layer: 0, found: 1 << 20 + 1, limit: 1 << 20)),
        ([layer("a", 1 << 20, 257)], .gradientLength(layer: 0, found: 257 << 20, limit: 1 << 28)),
        ([layer("a", 1, 1, .factors(rank: 0))], .rank(layer: 0, found: 0, limit: 4096)),
        ([layer("a", 1, 1, .factors(rank: 4097))], .rank(layer: 0, found: 4097, limit: 4096)),
        ([layer("a", 1 << 12, 1 << 10)], .blockTooLarge(layer: 0, pageByteCount: 1 << 29, limit: 1 << 28)),
    ] as [([LayerSchema], FormatError)])
func schemaRules(layers: [LayerSchema], error: FormatError) {
    let schema = StoreSchema(layers: layers, encoding: .f32)
    #expect(throws: error) { try schema.validate() }
    #expect(throws: error) { try StoreSchema(decoding: schema.encoded()) }
}

@Test(
    arguments: [
        (0, [0], FormatError.unknownEncoding(0)),
        (2, [1], .reservedNotZero(part: .schema, offset: 2, found: 1)),
        (4, [0xFF, 0xFF, 0xFF, 0xFF], .truncated(part: .schema, offset: 8, needed: 17 * 0xFFFF_FFFF, available: 61)),
        (12, [0xFF], .notUTF8(part: .schema, offset: 8)),
        (23, [3], .unknownForm(layer: 0, found: 3)),
        (45, [1], .rank(layer: 1, found: 1, limit: 0)),
    ] as [(Int, [UInt8], FormatError)])
func schemaBytes(offset: Int, replacement: [UInt8], error: FormatError) {
    var bytes = schema.encoded()
    bytes.replaceSubrange(offset..<offset + replacement.count, with: replacement)
    #expect(throws: error) { try StoreSchema(decoding: bytes) }
    #expect(throws: FormatError.trailingBytes(part: .schema, count: 1)) {
        try StoreSchema(decoding: schema.encoded() + [0])
    }
}
