import Files
import Format
import Foundation
import Schema
import Store
import Testing

/// One number of each side: blocks of 8192 rows.
private let tinySchema = StoreSchema(
    layers: [LayerSchema(name: "w", inputDimension: 1, outputDimension: 1, form: .factors(rank: 1))], encoding: .f32)

private func tinyBlock(_ rows: Range<Int>, metadata: [MetadataRecord?] = []) -> RowBlock {
    let tile = LayerTile(
        layer: tinySchema.layers[0], rowCount: rows.count, left: rows.map { Float($0) },
        right: [Float](repeating: 2, count: rows.count))
    return RowBlock(identifiers: rows.map { "id\($0)" }, tiles: [tile], metadata: metadata)
}

struct SegmentBlocksTests {
    let directory: ScratchDirectory

    init() throws { directory = try ScratchDirectory() }

    @Test func rowsAreFoundThroughTheIndexAcrossBlocks() throws {
        #expect(tinySchema.rowsPerBlock == 8192)
        let blocks = [tinyBlock(0..<8192), tinyBlock(8192..<16384), tinyBlock(16384..<16389)]
        let (path, identity) = try writeSegment(tinySchema, blocks, in: directory)
        let reader = try SegmentReader(path: path, expecting: identity)
        #expect(reader.blockCount == 3 && reader.rows(ofBlock: 2) == 16384..<16389)
        #expect(try reader.readTile(block: 1, layer: 0).left == (8192..<16384).map { Float($0) })
        for row in [0, 1, 77, 8191, 8192, 12345, 16383, 16384, 16388] {
            #expect(try reader.row(ofIdentifier: "id\(row)") == row)
            #expect(try reader.identifier(ofRow: row) == "id\(row)")
        }
        for absent in ["", "id16389", "ID1", "id01"] { #expect(try reader.row(ofIdentifier: absent) == nil) }
        try reader.verify()
        // Row 16388 holds 16388 · 2; its block's statistics bound it.
        let statistics = reader.blockStatistics[2]
        #expect(statistics.maximumNorm >= 32776 && statistics.maximumNorm < 33100)
        #expect(statistics.minimumNorm <= 33024 && statistics.minimumNorm >= 32768)

        // More candidates than blocks (merged), and fewer (looked up one by one).
        for count in [2, 5000] {
            let candidates = (0..<count).map { IdentifierCandidate("id\($0 * 7)") }.sorted()
            let matches = try reader.findIdentifiers(candidates)
            let expected = candidates.enumerated().compactMap { index, candidate -> IdentifierMatch? in
                guard let row = Int(candidate.identifier.dropFirst(2)), row < 16389 else { return nil }
                return IdentifierMatch(candidate: index, row: row)
            }
            #expect(matches == expected)
            #expect(matches.count == min(count, 2342))
        }
    }

    @Test func metadataComesBackByBlock() throws {
        func record(_ row: Int) -> MetadataRecord? {
            switch row % 5 {
            case 0: nil
            case 1: MetadataRecord(fields: [("text", .string("Zeile \(row) ü")), ("length", .integer(Int64(-row)))])
            case 2: MetadataRecord(fields: [("text", .null), ("length", .number(0.25))])
            case 3: MetadataRecord(fields: [("length", .boolean(row % 2 == 0))])
            default: MetadataRecord(fields: [("text", .json("[\(row)]"))])
            }
        }
        // A field that the first block does not have, and one that the second does not have.
        let first = (0..<8192).map(record)
        let second = (0..<10).map { MetadataRecord(fields: [("late", .integer($0))]) }
        let (path, _) = try writeSegment(
            tinySchema, [tinyBlock(0..<8192, metadata: first), tinyBlock(8192..<8202, metadata: second)], in: directory)
        let reader = try SegmentReader(path: path)
        #expect(reader.fieldNames == ["text", "length", "late"])
        #expect(try reader.readMetadata(block: 0) == first)
        #expect(try reader.readMetadata(block: 1) == second)
        #expect(try reader.readField(2, block: 0) == nil)
        #expect(try reader.readRow(8195).metadata?["late"] == .integer(3))
        try reader.verify()
    }

    @Test func blocksThatDoNotFitAreRefused() throws {
        func append(_ change: (inout RowBlock) -> Void) throws {
            var block = tinyBlock(0..<4)
            change(&block)
            var writer = try SegmentWriter(schema: tinySchema, temporaryPath: directory.fresh(), provenance: "")
            try writer.append(block)
        }
        #expect(throws: StoreError.blockShape(what: "tiles", expected: 1, found: 0)) { try append { $0.tiles = [] } }
        #expect(throws: StoreError.blockShape(what: "rows in layer w", expected: 3, found: 4)) {
            try append { $0.identifiers.removeLast() }
        }
        #expect(throws: StoreError.blockShape(what: "left numbers in layer w", expected: 4, found: 3)) {
            try append { $0.tiles[0].left.removeLast() }
        }
        #expect(throws: StoreError.notFinite(layer: "w", row: 2)) { try append { $0.tiles[0].right[2] = .nan } }
        #expect(throws: StoreError.notFinite(layer: "w", row: 1)) {
            try append { $0.residualNorms = [[0, -1, 0, 0]] }
        }
        #expect(throws: StoreError.identifierTooLong(row: 1, byteCount: 5000)) {
            try append { $0.identifiers[1] = String(repeating: "x", count: 5000) }
        }
        #expect(throws: StoreError.blockShape(what: "metadata records", expected: 4, found: 1)) {
            try append { $0.metadata = [nil] }
        }
        #expect(throws: StoreError.metadataField(name: "a", row: 1, reason: "occurs twice in one record")) {
            try append { block in
                let twice = MetadataRecord(fields: [("a", .null), ("a", .null)])
                block.metadata = [nil, twice, nil, nil]
            }
        }
        // Nothing is left behind by writers that died.
        #expect(try FileManager.default.contentsOfDirectory(atPath: directory.path).isEmpty)
    }

    @Test func segmentsNeedRowsAndDistinctIdentifiers() throws {
        let final = directory.fresh()
        #expect(throws: StoreError.emptySegment) {
            let writer = try SegmentWriter(schema: tinySchema, temporaryPath: directory.fresh(), provenance: "")
            return try writer.seal(as: final)
        }
        #expect(throws: StoreError.equalIdentifiers(rows: [1, 3])) {
            var block = tinyBlock(0..<4)
            block.identifiers[3] = "id1"
            return try writeSegment(tinySchema, [block], in: directory)
        }
        let none = StoreSchema(layers: [], encoding: .f32)
        #expect(throws: StoreError.schemaRefused(.layerCount(found: 0, limit: 65_536))) {
            _ = try SegmentWriter(schema: none, temporaryPath: directory.fresh(), provenance: "")
        }
        let huge = StoreSchema(
            layers: [LayerSchema(name: "w", inputDimension: 4096, outputDimension: 1024, form: .dense)], encoding: .f32)
        #expect(throws: StoreError.self) {
            _ = try SegmentWriter(schema: huge, temporaryPath: directory.fresh(), provenance: "")
        }
        #expect(try FileManager.default.contentsOfDirectory(atPath: directory.path).isEmpty)
    }

    @Test func aTakenNameIsNotReplaced() throws {
        let (path, identity) = try writeSegment(tinySchema, [tinyBlock(0..<4)], in: directory)
        #expect(throws: StoreError.file(.alreadyExists(path: path))) {
            var writer = try SegmentWriter(schema: tinySchema, temporaryPath: directory.fresh(), provenance: "")
            try writer.append(tinyBlock(0..<2))
            _ = try writer.seal(as: path)
        }
        #expect(try SegmentReader(path: path).identity == identity)
    }
}
