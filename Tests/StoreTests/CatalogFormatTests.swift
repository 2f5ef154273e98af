import Checksum
import Files
import Testing

@testable import Store

/// The tables of the pages in Formats/, compared with what the code writes.
@Suite struct CatalogFormatTests {
    struct Row {
        let offset: Int
        let byteCount: Int
        let text: String
    }

    /// The rows with an offset of the first table after `heading`.
    private func table(_ page: String, after heading: String) throws -> [Row] {
        let root = #filePath.split(separator: "/").dropLast(3).joined(separator: "/")
        let file = try ReadableFile(path: "/\(root)/Formats/\(page)")
        let text = String(decoding: try file.read(at: 0, count: file.byteCount), as: UTF8.self)
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
        let start = try #require(lines.firstIndex { $0.hasPrefix("## \(heading)") })
        let body = lines[(start + 1)...].prefix { !$0.hasPrefix("## ") }
        let widths = ["u8": 1, "u16": 2, "u32": 4, "u64": 8, "f64": 8, "digest": 16, "u64, u64": 16]
        return body.compactMap { line in
            let cells = line.split(separator: "|").map { $0.split(separator: " ").joined(separator: " ") }
            guard cells.count == 3, let offset = Int(cells[0]) else { return nil }
            let bytes = cells[1].hasPrefix("bytes[") ? Int(cells[1].dropFirst(6).dropLast()) : nil
            return Row(offset: offset, byteCount: widths[cells[1]] ?? bytes ?? 0, text: cells[2])
        }
    }

    private func offset(_ rows: [Row], _ word: String) throws -> Int {
        let matches = rows.filter { $0.text.contains(word) }
        try #require(matches.count == 1, "\(word)")
        return matches[0].offset
    }

    private func expectTiling(_ rows: [Row], _ byteCount: Int) {
        var end = 0
        for row in rows {
            #expect(row.offset == end, "\(row.text)")
            end += row.byteCount
        }
        #expect(end == byteCount)
    }

    private func word(_ bytes: [UInt8], _ offset: Int) -> UInt64 {
        (0..<8).reduce(0) { $0 | UInt64(bytes[offset + $1]) << UInt64(8 * $1) }
    }

    @Test func identityFile() throws {
        let rows = try table("store.md", after: "The identity file")
        expectTiling(rows, IdentityFile.byteCount)
        #expect(rows.map(\.offset) == IdentityFile.fields.map(\.offset))
        #expect(rows.map(\.byteCount) == IdentityFile.fields.map(\.byteCount))
    }

    @Test func stateRecord() throws {
        let rows = try table("catalog.md", after: "State")
        let payload = StateRecord(
            storeIdentity: StoreIdentity(high: 1, low: 2), generation: 3, transaction: 4, nextSegmentNumber: 5,
            nextRowNumber: 6, recordCount: 7, recordDigest: 8 | 9 << 64, activeCurvature: Digest(high: 11, low: 10)
        ).payload
        expectTiling(rows, payload.count)
        #expect(word(payload, try offset(rows, "store identity")) == 1)
        #expect(word(payload, try offset(rows, "store identity") + 8) == 2)
        #expect(word(payload, try offset(rows, "generation: 0")) == 3)
        #expect(word(payload, try offset(rows, "LMDB transaction")) == 4)
        #expect(word(payload, try offset(rows, "next segment")) == 5)
        #expect(word(payload, try offset(rows, "next row")) == 6)
        #expect(word(payload, try offset(rows, "other records there")) == 7)
        #expect(word(payload, try offset(rows, "modulo 2^128")) == 8)
        #expect(word(payload, try offset(rows, "modulo 2^128") + 8) == 9)
        #expect(word(payload, try offset(rows, "1 if a curvature")) == 1)
        #expect(word(payload, try offset(rows, "the active curvature")) == 10)
        #expect(word(payload, try offset(rows, "the active curvature") + 8) == 11)
    }

    @Test func segmentRecord() throws {
        let rows = try table("catalog.md", after: "Segment")
        let payload = SegmentInfo(
            number: 99, firstRowNumber: 2, addedGeneration: 3,
            identity: SegmentIdentity(
                rowCount: 1, fileLength: 4, footerOffset: 5, footerLength: 6, footerDigest: Digest(high: 8, low: 7))
        ).payload
        expectTiling(rows, payload.count)
        #expect(stride(from: 0, to: 64, by: 8).map { word(payload, $0) } == [1, 2, 3, 4, 5, 6, 7, 8])
        #expect(try offset(rows, "running number") == 8 && offset(rows, "of the file") == 24)
    }

    @Test func recordsWithTexts() throws {
        let ingest = IngestRecord(
            fileDigest: Digest(high: 0, low: 0), path: "pq", rowCount: 1, firstRowNumber: 2, generation: 3,
            provenance: "{}")
        let rows = try table("catalog.md", after: "Ingest")
        #expect(rows.map(\.offset) == [0, 8, 16, 24])
        #expect((0..<3).map { word(ingest.payload, 8 * $0) } == [1, 2, 3])
        #expect(Array(ingest.payload[24...]) == [2, 0, 0, 0] + Array("pq".utf8) + [2, 0, 0, 0] + Array("{}".utf8))
        #expect(try IngestRecord(fileDigest: ingest.fileDigest, payload: ingest.payload) == ingest)

        let digest = Digest(high: 6, low: 5)
        let record = CurvatureRecord(
            identity: PagedFileIdentity(fileLength: 2, footerOffset: 3, footerLength: 4, footerDigest: digest),
            description: CurvatureDescription(
                scope: "s", algorithm: "a", rank: 8, capturedEnergy: 0.5, fittedGeneration: 10, fittedRowCount: 11,
                fittedRowDigest: Digest(high: 13, low: 12)), addedGeneration: 7)
        #expect((0..<6).map { word(record.payload, 8 * $0) } == [2, 3, 4, 5, 6, 7])
        let description = Array(record.payload[48...])
        let half = (0.5).bitPattern
        #expect((0..<6).map { word(description, 8 * $0) } == [8, half, 10, 11, 12, 13])
        #expect(try CurvatureRecord(digest: digest, payload: record.payload) == record)
        #expect(throws: CatalogCodingError.self) {
            _ = try CurvatureRecord(digest: Digest(high: 6, low: 4), payload: record.payload)
        }
    }
}
