import Checksum
import Format
import Schema
import Testing

/// The tables of Formats/ compared with the bytes that the code writes.
struct FormatPagesTests {
    let header = FileHeader(
        magic: .segment, schemaDigest: Digest(high: 0x1112_1314_1516_1718, low: 0x2122_2324_2526_2728), minor: 7,
        incompatibleFlags: 0x0102, readOnlyCompatibleFlags: 0x0304, compatibleFlags: 0x0506)
    let tail = FileTail(
        footerOffset: 0x1_0040, footerLength: 0x333, fileLength: 0x1_03C0,
        footerDigest: Digest(high: 0x3132_3334_3536_3738, low: 0x4142_4344_4546_4748))
    let entry = PageEntry(
        column: 0x0A0B_0C0D, block: 0x0102_0304, offset: 0x1122_3344_5566_7788, storedLength: 0x2132_4354,
        rawLength: 0x3343_5363, codec: .zstd, byteSplitStride: 4, rowCount: 0x5152_5354, checksum: 0x6162_6364_6566_6768
    )
    let column = ColumnDescriptor(
        kind: 8, plane: 3, encoding: 5, layer: 0x0102_0304, component: 0x0506_0708, name: "né")

    /// Checks a table of fixed offsets: fields follow each other, cover all bytes and hold the expected values.
    func compare(_ table: PageTable, with bytes: [UInt8], values: [String: [UInt8]], count: Int) {
        var end = 0
        for field in table.fields {
            #expect(field.offset == end, "field \(field.name)")
            end += field.byteCount
            let expected =
                values[field.name] ?? (field.name == "zero" ? [UInt8](repeating: 0, count: field.byteCount) : nil)
            #expect(expected == Array(bytes[field.offset..<end]), "field \(field.name)")
        }
        #expect(end == count)
    }

    @Test func headerTable() throws {
        let bytes = header.encoded()
        #expect(bytes.count == 4096)
        compare(
            try PageTable(page: "paged-file.md", heading: "Header"), with: bytes,
            values: [
                "magic": Array("LORIFSEG".utf8), "major": littleEndian(UInt16(1)), "minor": littleEndian(UInt16(7)),
                "headerLength": littleEndian(UInt32(4096)), "incompatibleFlags": littleEndian(UInt64(0x0102)),
                "readOnlyCompatibleFlags": littleEndian(UInt64(0x0304)),
                "compatibleFlags": littleEndian(UInt64(0x0506)),
                "schemaDigest": littleEndian(UInt64(0x2122_2324_2526_2728))
                    + littleEndian(UInt64(0x1112_1314_1516_1718)),
                "checksum": littleEndian(xxh3(Array(bytes[..<4088]))),
            ], count: 4096)
    }

    @Test func tailTable() throws {
        let bytes = tail.encoded()
        #expect(bytes.count == 64)
        compare(
            try PageTable(page: "paged-file.md", heading: "Tail"), with: bytes,
            values: [
                "magic": Array("LORIFEND".utf8), "footerOffset": littleEndian(UInt64(0x1_0040)),
                "footerLength": littleEndian(UInt64(0x333)), "fileLength": littleEndian(UInt64(0x1_03C0)),
                "footerDigest": littleEndian(UInt64(0x4142_4344_4546_4748))
                    + littleEndian(UInt64(0x3132_3334_3536_3738)),
                "checksum": littleEndian(xxh3(Array(bytes[..<56]))),
            ], count: 64)
    }

    /// The footer, item by item as its table lists them.
    @Test func footerTable() throws {
        let footer = FileFooter(
            header: header, schema: [1, 2, 3], rowCount: 0x0A_0B0C_0D0E, rowsPerBlock: 0x2122_2324,
            blockCount: 0x3132_3334,
            statistics: [4, 5], columns: [column], pages: [entry], provenance: "{\"ü\":1}")
        let columnBytes: [UInt8] =
            [8, 3, 5, 0] + littleEndian(UInt32(0x0102_0304)) + littleEndian(UInt32(0x0506_0708))
            + littleEndian(UInt32(3))
            + Array("né".utf8)
        let entryBytes: [UInt8] =
            littleEndian(UInt32(0x0A0B_0C0D)) + littleEndian(UInt32(0x0102_0304))
            + littleEndian(UInt64(0x1122_3344_5566_7788)) + littleEndian(UInt32(0x2132_4354))
            + littleEndian(UInt32(0x3343_5363)) + [1, 4, 0, 0] + littleEndian(UInt32(0x5152_5354))
            + littleEndian(UInt64(0x6162_6364_6566_6768))
        let provenance = Array("{\"ü\":1}".utf8)
        let values: [String: [UInt8]] = [
            "headerCopy": Array(header.encoded()[..<40]), "schema": littleEndian(UInt32(3)) + [1, 2, 3],
            "rowCount": littleEndian(UInt64(0x0A_0B0C_0D0E)), "rowsPerBlock": littleEndian(UInt32(0x2122_2324)),
            "blockCount": littleEndian(UInt32(0x3132_3334)), "statistics": littleEndian(UInt32(2)) + [4, 5],
            "columnCount": littleEndian(UInt32(1)), "columns": columnBytes, "pageCount": littleEndian(UInt64(1)),
            "pages": entryBytes, "provenance": littleEndian(UInt32(UInt32(provenance.count))) + provenance,
        ]
        var expected: [UInt8] = []
        for field in try PageTable(page: "paged-file.md", heading: "Footer").rows {
            let bytes = try #require(values[field["name"] ?? ""])
            let fixed = byteCount(ofType: field["type"] ?? "")
            #expect(fixed == 0 || fixed == bytes.count)
            expected += bytes
        }
        #expect(footer.encoded() == expected)

        compare(
            try PageTable(page: "paged-file.md", heading: "Page index entry"), with: entryBytes,
            values: [
                "column": Array(entryBytes[0..<4]), "block": Array(entryBytes[4..<8]),
                "offset": littleEndian(UInt64(0x1122_3344_5566_7788)),
                "storedLength": littleEndian(UInt32(0x2132_4354)),
                "rawLength": littleEndian(UInt32(0x3343_5363)), "codec": [1], "byteSplitStride": [4],
                "rowCount": littleEndian(UInt32(0x5152_5354)), "checksum": littleEndian(UInt64(0x6162_6364_6566_6768)),
            ], count: 40)
        compare(
            try PageTable(page: "paged-file.md", heading: "Column record"), with: columnBytes,
            values: [
                "kind": [8], "plane": [3], "encoding": [5], "layer": littleEndian(UInt32(0x0102_0304)),
                "component": littleEndian(UInt32(0x0506_0708)), "name": [],
            ], count: 12)
    }

    @Test func schemaTables() throws {
        let schema = StoreSchema(
            layers: [
                LayerSchema(name: "a/ö", inputDimension: 0x1_0203, outputDimension: 5, form: .factors(rank: 0x0404)),
                LayerSchema(name: "b", inputDimension: 6, outputDimension: 7, form: .dense),
            ], encoding: .q2, basis: Digest(high: 0x11, low: 0x22))
        let bytes = schema.encoded()
        let layers: [[String: [UInt8]]] = [
            [
                "name": littleEndian(UInt32(4)) + Array("a/ö".utf8), "inputDimension": littleEndian(UInt32(0x1_0203)),
                "outputDimension": littleEndian(UInt32(5)), "form": [1], "rank": littleEndian(UInt32(0x0404)),
            ],
            [
                "name": littleEndian(UInt32(1)) + Array("b".utf8), "inputDimension": littleEndian(UInt32(6)),
                "outputDimension": littleEndian(UInt32(7)), "form": [2], "rank": littleEndian(UInt32(0)),
            ],
        ]
        var records: [UInt8] = []
        let layerTable = try PageTable(page: "segment.md", heading: "Layer record")
        for layer in layers {
            for field in layerTable.rows { records += try #require(layer[field["name"] ?? ""]) }
        }
        compare(
            try PageTable(page: "segment.md", heading: "Schema"), with: bytes,
            values: ["encoding": [7], "hasBasis": [1], "layerCount": littleEndian(UInt32(2)), "layers": []], count: 8)
        #expect(Array(bytes[8...]) == records + littleEndian(UInt64(0x22)) + littleEndian(UInt64(0x11)))
    }

    @Test func encodingTable() throws {
        let rows = try PageTable(page: "segment.md", heading: "Encodings").rows
        #expect(rows.count == Encoding.allCases.count)
        for (row, encoding) in zip(rows, Encoding.allCases) {
            #expect(row["code"] == "\(encoding.rawValue)")
            #expect(row["encoding"] == encoding.name)
            #expect(row["bits"] == "\(encoding.bitsPerNumber)")
            #expect(row["scale"] == (encoding.hasScale ? "yes" : "no"))
        }
    }

    @Test func columnTable() throws {
        let rows = try PageTable(page: "segment.md", heading: "Columns").rows
        #expect(rows.map { $0["kind"] } == SegmentColumnKind.allCases.map { "\($0.rawValue)" })
        #expect(rows.map { $0["name"] } == SegmentColumnKind.allCases.map { "\($0)" })
    }

    @Test func statisticsTable() throws {
        let bytes = BlockStatistics.encode([BlockStatistics(minimumNorm: 1, maximumNorm: 2, maximumResidualNorm: 0.5)])
        compare(
            try PageTable(page: "segment.md", heading: "Statistics"), with: bytes,
            values: [
                "minimumNorm": littleEndian(Float(1).bitPattern), "maximumNorm": littleEndian(Float(2).bitPattern),
                "maximumResidualNorm": littleEndian(Float(0.5).bitPattern),
            ], count: 16)
    }
}
