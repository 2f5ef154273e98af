import Format
import Schema
import Store
import Testing

struct PagedFileTests {
    let directory: ScratchDirectory

    init() throws { directory = try ScratchDirectory() }

    @Test func pagesOfAnyKindComeBack() throws {
        var random = Splitmix(8)
        let noise = (0..<10_000).map { _ in UInt8(truncatingIfNeeded: random.next()) }
        let zeros = [UInt8](repeating: 0, count: 300_000)
        let numbers = (0..<50_000).flatMap { _ -> [UInt8] in
            let bits = random.gaussian().bitPattern
            return (0..<4).map { UInt8(truncatingIfNeeded: bits >> UInt32(8 * $0)) }
        }
        var writer = try PagedFileWriter(magic: .curvature, schema: [1, 2, 3], temporaryPath: directory.fresh())
        let first = writer.addColumn(ColumnDescriptor(kind: 32, layer: 5))
        try writer.append(noise, column: first, block: 0, rowCount: 7, compression: .zstd(byteSplitStride: 1))
        try writer.append(zeros, column: first, block: 1, rowCount: 8, compression: .none)
        let second = writer.addColumn(ColumnDescriptor(kind: 33, name: "trace"))
        try writer.append(zeros, column: second, block: 1, rowCount: 9, compression: .zstd(byteSplitStride: 2))
        try writer.append(numbers, column: second, block: 0, rowCount: 1, compression: .zstd(byteSplitStride: 4))
        try writer.append([5], column: first, block: 2, rowCount: 1, compression: .none)
        let path = directory.fresh()
        let identity = try writer.seal(
            as: path, rowCount: 12, rowsPerBlock: 4, blockCount: 3, statistics: [9], provenance: "{}")

        let reader = try PagedFileReader(path: path, magic: .curvature, expecting: identity)
        #expect(try PagedFileReader(path: path, magic: .curvature).identity == identity)
        #expect(reader.footer.schema == [1, 2, 3] && reader.footer.statistics == [9])
        #expect(reader.footer.columns[1].name == "trace" && reader.footer.columns[0].layer == 5)
        #expect(reader.footer.rowCount == 12 && reader.footer.rowsPerBlock == 4 && reader.footer.blockCount == 3)
        #expect(try reader.readPage(column: 0, block: 0) == noise)
        #expect(try reader.readPage(column: 0, block: 1) == zeros)
        #expect(try reader.readPage(column: 1, block: 1) == zeros)
        #expect(try reader.readPage(column: 1, block: 0) == numbers)
        #expect(try reader.readPage(column: 0, block: 2) == [5])
        #expect(reader.pageNumber(column: 1, block: 2) == nil)
        let pages = reader.footer.pages
        #expect(pages.map(\.codec) == [.raw, .raw, .zstd, .zstd, .raw])
        #expect(pages.map(\.byteSplitStride) == [1, 1, 2, 4, 1])
        #expect(pages[3].storedLength * 10 <= pages[3].rawLength * 9)
        #expect(pages.allSatisfy { $0.offset % ($0.storedLength >= 1_048_576 ? 4096 : 64) == 0 })
        #expect(reader.damages(progress: { _ in true }) == [])
        #expect(throws: StoreError.self) { try SegmentReader(path: path) }
    }

    @Test func compressionIsKeptOnlyWhenItSavesATenth() throws {
        // Noise with a share of zeros: 8 % saved stays raw, 25 % is compressed.
        func codec(zeroShare: Double) throws -> PageCodec {
            var random = Splitmix(1)
            let count = 100_000
            let payload = (0..<count).map {
                Double($0) < zeroShare * Double(count) ? 0 : UInt8(truncatingIfNeeded: random.next())
            }
            var writer = try PagedFileWriter(magic: .curvature, schema: [], temporaryPath: directory.fresh())
            let column = writer.addColumn(ColumnDescriptor(kind: 32))
            try writer.append(payload, column: column, block: 0, rowCount: 1, compression: .zstd(byteSplitStride: 1))
            let path = directory.fresh()
            _ = try writer.seal(as: path, rowCount: 1, rowsPerBlock: 1, blockCount: 1, provenance: "")
            return try PagedFileReader(path: path, magic: .curvature).footer.pages[0].codec
        }
        #expect(try codec(zeroShare: 0.08) == .raw)
        #expect(try codec(zeroShare: 0.25) == .zstd)
    }

    @Test func aFileWithoutPagesIsWhole() throws {
        let writer = try PagedFileWriter(magic: .curvature, schema: [], temporaryPath: directory.fresh())
        let path = directory.fresh()
        let identity = try writer.seal(as: path, rowCount: 0, rowsPerBlock: 0, blockCount: 0, provenance: "")
        let reader = try PagedFileReader(path: path, magic: .curvature, expecting: identity)
        #expect(reader.footer.pages.isEmpty)
    }
}
