import Checksum
import Format
import Foundation
import Schema
import Store
import Testing

/// A segment of format 1.0 that was written once and must be readable forever, and bad files made from it.
struct GoldenSegmentTests {
    let directory: ScratchDirectory
    let path: String
    let original: [UInt8]
    let digest = Digest("535b2383a5e74966685a6c37f9c081a7")

    init() throws {
        directory = try ScratchDirectory()
        path =
            URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .appending(path: "Golden/segment-1.0.segment").path
        original = try bytes(at: path)
    }

    /// What the golden segment was written from: eighths of small integers, exact in every float.
    static func block(_ schema: StoreSchema) -> RowBlock {
        func numbers(_ count: Int, _ step: Int) -> [Float] { (0..<count).map { Float($0 * step % 101 - 50) / 8 } }
        let tiles = schema.layers.enumerated().map { index, layer in
            if let rank = layer.rank {
                LayerTile(
                    layer: layer, rowCount: 35, left: numbers(rank * 35 * layer.inputDimension, 37 + index),
                    right: numbers(rank * 35 * layer.outputDimension, 41 + index))
            } else {
                LayerTile(layer: layer, rowCount: 35, dense: numbers(35 * layer.gradientLength, 43))
            }
        }
        let metadata: [MetadataRecord?] = (0..<35).map {
            $0 % 4 == 0
                ? nil
                : MetadataRecord(fields: [("source", .string("bücher/\($0 % 3)")), ("n", .integer(Int64($0) - 9))])
        }
        return RowBlock(identifiers: (0..<35).map { "gold-\($0)" }, tiles: tiles, metadata: metadata)
    }

    @Test func theGoldenSegmentIsRead() throws {
        let reader = try SegmentReader(path: path)
        #expect(reader.identity.footerDigest == digest)
        #expect(reader.schema == mixedSchema(.f16) && reader.rowCount == 35 && reader.rowsPerBlock == 8192)
        #expect(reader.provenance == "{\"tool\":\"golden\"}")
        try reader.verify()
        let block = Self.block(mixedSchema(.f16))
        for layer in reader.schema.layers.indices {
            let tile = try reader.readTile(block: 0, layer: layer)
            #expect(tile.left == block.tiles[layer].left && tile.right == block.tiles[layer].right)
            #expect(tile.dense == block.tiles[layer].dense)
        }
        #expect(try reader.readIdentifiers(block: 0) == block.identifiers)
        #expect(try reader.readMetadata(block: 0) == block.metadata)
        #expect(try reader.row(ofIdentifier: "gold-17") == 17)
    }

    /// The golden file with another footer, everything resealed as a forger or a bug would.
    private func resealed(_ change: (inout FileFooter) -> Void) throws -> String {
        let tail = try FileTail(decoding: Array(original.suffix(64)), fileLength: original.count)
        let footerRange = tail.footerOffset..<tail.footerOffset + tail.footerLength
        var footer = try FileFooter(
            decoding: Array(original[footerRange]), footerOffset: tail.footerOffset, magic: .segment)
        change(&footer)
        footer = FileFooter(
            header: footer.header, schema: footer.schema, rowCount: footer.rowCount, rowsPerBlock: footer.rowsPerBlock,
            blockCount: footer.blockCount, statistics: footer.statistics, columns: footer.columns, pages: footer.pages,
            provenance: footer.provenance)
        let encoded = footer.encoded()
        var bytes = footer.header.encoded() + Array(original[4096..<tail.footerOffset]) + encoded
        bytes += [UInt8](repeating: 0, count: (64 - bytes.count % 64) % 64)
        let newTail = FileTail(
            footerOffset: tail.footerOffset, footerLength: encoded.count, fileLength: bytes.count + 64,
            footerDigest: Digest(of: encoded))
        return try directory.write(bytes + newTail.encoded())
    }

    @Test func resealingItselfChangesNothing() throws {
        #expect(try bytes(at: resealed { _ in }) == original)
    }

    /// Files whose digests all fit but that break a rule: refused when opened.
    @Test func badFootersAreRefused() throws {
        let bad: [(FormatError, (inout FileFooter) -> Void)] = [
            (.unknownIncompatibleFlags(2), { $0.header.incompatibleFlags = 2 }),
            (.pageColumn(page: 3, found: 99, columnCount: 15), { $0.pages[3].column = 99 }),
            (.pageLength(page: 0, storedLength: 182, rawLength: 1 << 30), { $0.pages[0].rawLength = 1 << 30 }),
            (.pageGap(page: 0, expectedOffset: 4096, found: 4608), { $0.pages[0].offset = 4608 }),
            (.rowCount(found: 1 << 40, limit: 1 << 20), { $0.rowCount = 1 << 40 }),
            (.blockCount(expected: 2, found: 1), { $0.rowCount = 8193 }),
            (.unknownEncoding(0), { $0.schema[0] = 0 }),
            (.partSize(part: .statistics, expected: 16, found: 0), { $0.statistics = [] }),
            (.duplicateFieldName(column: 14, name: "source"), { $0.columns[14].name = "source" }),
        ]
        for (error, change) in bad {
            let path = try resealed(change)
            #expect(throws: StoreError.format(path: path, error)) { try SegmentReader(path: path) }
        }
    }

    /// Lies of the footer about pages are found when these are read or verified, and never trap.
    @Test func liesAboutPagesAreFound() throws {
        let zstdPage = try #require(
            try SegmentReader(path: path).columnSummaries.isEmpty
                ? nil : PagedFileReader(path: path, magic: .segment).footer.pages.firstIndex { $0.codec == .zstd })
        let lies: [(inout FileFooter) -> Void] = [
            { $0.pages[1].checksum ^= 1 },
            { $0.statistics[4] ^= 1 },
            { footer in
                // Raw bytes declared to be compressed.
                footer.pages[0].codec = .zstd
                footer.pages[0].rawLength = footer.pages[0].storedLength
                footer.pages[0].storedLength -= 1
            },
            { $0.pages[zstdPage].rawLength += 8 },
            { $0.pages[zstdPage].byteSplitStride = 4 },
        ]
        for lie in lies {
            let damages = SegmentReader.damages(path: try resealed(lie))
            #expect(!damages.isEmpty)
        }
        // Unknown read-only and compatible flags do not keep anyone from reading.
        let flagged = try SegmentReader(
            path: resealed { footer in
                footer.header.readOnlyCompatibleFlags = 1
                footer.header.compatibleFlags = 8
            })
        try flagged.verify()
        #expect(!flagged.isDerivable)
    }

    @Test func futureVersionsAreRefused() throws {
        var future = original
        future[8] = 2
        let path = try directory.write(future)
        #expect(throws: StoreError.format(path: path, .unsupportedVersion(major: 2, minor: 0))) {
            try SegmentReader(path: path)
        }
    }
}
