import Checksum
import Files
import Format
import Glibc
import Schema
import TestSupport
import Testing

@testable import Store

@Suite struct StoreWriterTests {
    let directory = TemporaryDirectory()
    var path: String { directory.path + "/store" }

    /// Every file of the store with its contents, but the lock files.
    private func files() throws -> [String: [UInt8]] {
        var files: [String: [UInt8]] = [:]
        for sub in ["", "/catalog", "/segments", "/curvature", "/tmp"] {
            for name in try fileNames(inDirectory: path + sub) where name != "lock.mdb" {
                guard try fileStatus("\(path)\(sub)/\(name)")?.kind == .regular else { continue }
                let file = try ReadableFile(path: "\(path)\(sub)/\(name)")
                files["\(sub)/\(name)"] = try file.read(at: 0, count: file.byteCount)
            }
        }
        return files
    }

    @Test func rowsComeBackAcrossAppendsBlocksAndSegments() throws {
        var expected: [String] = []
        do {
            let writer = try StoreWriter.create(at: path, schema: fixtureSchema)
            writer.segmentRowLimit = 2 * fixtureSchema.rowsPerBlock
            // Sizes that meet block and segment limits exactly, and that straddle them.
            var row = 0
            for count in [1, 5000, 3191, 8192, 1, 0, 9000, 700] {
                try writer.append(fixtureBlock(row..<row + count, metadata: count == 700))
                row += count
            }
            #expect(writer.pendingRowCount == row)
            let summary = try writer.commit()
            #expect(summary.generation == 1 && summary.addedRowCount == row && summary.segments.count == 2)
            #expect(summary.segments.map(\.rowCount) == [16384, row - 16384])
            #expect(summary.segments.map(\.firstRowNumber) == [0, 16384])
            try writer.append(fixtureBlock(row..<row + 3))
            #expect(try writer.commit().generation == 2)
            #expect(try writer.commit().generation == 2)
            expected = (0..<row + 3).map { "id-\($0)" }
        }
        let snapshot = try Snapshot.open(at: path)
        #expect(snapshot.generation == 2 && snapshot.rowCount == expected.count && snapshot.segments.count == 3)
        let found = try fixtureRows(in: snapshot)
        #expect(found.map(\.identifier) == expected)
        let allAreRight = found.allSatisfy { $0.isRight }
        #expect(allAreRight)
        #expect(try snapshot.locate(identifier: "id-16385") == RowLocation(segment: 1, row: 1))
        #expect(try snapshot.locate(identifier: "id-99999999") == nil)
        let report = snapshot.verify()
        #expect(
            report.isSound && report.orphans.isEmpty && report.byteCount == snapshot.verifiedByteCount(level: .full))
    }

    @Test func namesEachKindOfWrongPath() throws {
        #expect(throws: StoreError.storeMissing(path: path)) { _ = try Snapshot.open(at: path) }
        #expect(throws: StoreError.storeMissing(path: path)) { _ = try StoreWriter.open(at: path) }
        let file = directory.path + "/file"
        close(open(file, O_CREAT | O_WRONLY, 0o600))
        #expect(throws: StoreError.notADirectory(path: file)) { _ = try Snapshot.open(at: file) }
        #expect(throws: StoreError.storeMissing(path: file + "/x")) { _ = try Snapshot.open(at: file + "/x") }
        #expect(throws: StoreError.notAStore(path: directory.path)) { _ = try Snapshot.open(at: directory.path) }
        #expect(throws: StoreError.pathTaken(path: file)) {
            _ = try StoreWriter.create(at: file, schema: fixtureSchema)
        }
        let error = #expect(throws: StoreError.self) {
            _ = try StoreWriter.create(at: directory.path + "/no/store", schema: fixtureSchema)
        }
        guard case .file(.missing) = error else {
            Issue.record("\(String(describing: error))")
            return
        }
        #expect(throws: StoreError.schemaRefused(.duplicateLayerName(layer: 1, name: "w"))) {
            let layer = LayerSchema(name: "w", inputDimension: 1, outputDimension: 1, form: .dense)
            _ = try StoreWriter.create(at: path, schema: StoreSchema(layers: [layer, layer], encoding: .f32))
        }
        #expect(try fileNames(inDirectory: directory.path) == ["file"])
    }

    @Test func admitsOneWriter() throws {
        var writer: StoreWriter? = try StoreWriter.create(at: path, schema: fixtureSchema)
        #expect(throws: StoreError.locked(lockPath: path + "/writer.lock")) { _ = try StoreWriter.open(at: path) }
        #expect(throws: StoreError.pathTaken(path: path)) {
            _ = try StoreWriter.create(at: path, schema: fixtureSchema)
        }
        #expect(try Snapshot.open(at: path).generation == writer?.generation)
        writer = nil
        #expect(try StoreWriter.open(at: path).generation == 0)
    }

    @Test func refusesIdentifiersThatAreTaken() throws {
        let writer = try StoreWriter.create(at: path, schema: fixtureSchema)
        try writer.append(fixtureBlock(0..<10))
        #expect(throws: StoreError.identifierRepeated(identifier: "id-9")) { try writer.append(fixtureBlock(9..<12)) }
        // The refused block has left no trace: its other ids are free.
        try writer.append(fixtureBlock(10..<12))
        try writer.commit()
        let before = try files()
        try writer.append(fixtureBlock(20..<30))
        try writer.append(fixtureBlock(11..<12))
        #expect(throws: StoreError.identifierInStore(identifier: "id-11")) { try writer.commit() }
        #expect(try files() == before)
        try writer.append(fixtureBlock(20..<30))
        try writer.commit()
        #expect(
            try fixtureRows(in: writer.snapshot()).map(\.identifier)
                == (Array(0..<12) + Array(20..<30)).map { "id-\($0)" })
        #expect(
            try writer.locate(["x", "id-25", "id-0"]) == [
                1: RowLocation(segment: 1, row: 5), 2: RowLocation(segment: 0, row: 0),
            ])
    }

    @Test func numbersRowsWithoutIdentifiers() throws {
        let writer = try StoreWriter.create(at: path, schema: fixtureSchema)
        try writer.append(fixtureBlock(0..<3))
        try writer.appendNumbering(fixtureBlock(3..<6))
        try writer.commit()
        try writer.appendNumbering(fixtureBlock(6..<8))
        try writer.commit()
        let found = try fixtureRows(in: Snapshot.open(at: path))
        #expect(found.map(\.identifier) == ["id-0", "id-1", "id-2", "3", "4", "5", "6", "7"])
        let allAreRight = found.allSatisfy { $0.isRight }
        #expect(allAreRight)
        try writer.append(RowBlock(identifiers: ["9"], tiles: fixtureBlock(8..<9).tiles))
        #expect(throws: StoreError.identifierAssignedTaken(identifier: "9")) {
            try writer.appendNumbering(fixtureBlock(9..<10))
        }
    }

    @Test func anErrorBeforeTheCommitLeavesTheStoreAsItWas() throws {
        let writer = try StoreWriter.create(at: path, schema: fixtureSchema)
        try writer.append(fixtureBlock(0..<5))
        try writer.commit()
        let before = try files()

        var bad = fixtureBlock(5..<7)
        bad.tiles[1].dense[3] = .nan
        try writer.append(bad)
        #expect(throws: StoreError.notFinite(layer: "b", row: 1)) { try writer.commit() }
        #expect(try files() == before)

        // The final name is taken, by something that the catalog does not know.
        let taken = path + "/segments/" + SegmentInfo.fileName(writer.nextSegmentNumber)
        close(open(taken, O_CREAT | O_WRONLY, 0o600))
        try writer.append(fixtureBlock(5..<7))
        #expect(throws: StoreError.file(.alreadyExists(path: taken))) { try writer.commit() }
        unlink(taken)
        #expect(try files() == before)

        try writer.append(fixtureBlock(5..<9000))
        try writer.append(fixtureBlock(9000..<9001))
        writer.abandon()
        #expect(try files() == before && writer.pendingRowCount == 0)
        #expect(try writer.commit().generation == 1)

        try writer.append(fixtureBlock(5..<6))
        #expect(try writer.commit().generation == 2)
        #expect(try fixtureRows(in: Snapshot.open(at: path)).count == 6)
    }

    @Test func sweepsWhatAnInterruptedWriterLeft() throws {
        do {
            let writer = try StoreWriter.create(at: path, schema: fixtureSchema)
            try writer.append(fixtureBlock(0..<5))
            try writer.commit()
        }
        let before = try files()
        let orphans = ["/tmp/x", "/segments/00000000000000ff.segment", "/curvature/junk"].map { path + $0 }
        for orphan in orphans { close(open(orphan, O_CREAT | O_WRONLY, 0o600)) }
        let snapshot = try Snapshot.open(at: path)
        #expect(Set(snapshot.verify().orphans) == Set(orphans) && snapshot.verify().isSound)
        let recovered = try StoreWriter.open(at: path).recoveredPaths
        #expect(Set(recovered) == Set(orphans))
        #expect(try files() == before)
    }

    @Test func deletesRowsForLaterSnapshotsOnly() throws {
        let writer = try StoreWriter.create(at: path, schema: fixtureSchema)
        try writer.append(fixtureBlock(0..<20))
        try writer.commit()
        let old = try Snapshot.open(at: path)
        #expect(try writer.delete(identifiers: ["id-3", "nobody", "id-19", "id-3"]) == ["nobody"])
        let summary = try writer.commit()
        #expect(summary.deletedRowCount == 2 && summary.generation == 2)
        let new = try Snapshot.open(at: path)
        #expect(old.rowCount == 20 && new.rowCount == 18 && new.deletedRowCount == 2)
        #expect(old.rowDigest != new.rowDigest && new.rowDigest == writer.snapshot().rowDigest)
        #expect(
            try fixtureRows(in: new).map(\.identifier) == (0..<20).filter { $0 != 3 && $0 != 19 }.map { "id-\($0)" })
        #expect(old.isLive(segment: 0, row: 3) && !new.isLive(segment: 0, row: 3) && new.liveRowCount(segment: 0) == 18)
        #expect(
            new.liveMask(segment: 0, rows: 4..<19) == nil && new.liveMask(segment: 0, rows: 18..<20) == [true, false])
        #expect(try new.locate(identifier: "id-3") == nil)
        // A deleted id is free again, also within the transaction that deletes it.
        _ = try writer.delete(identifiers: ["id-4"])
        try writer.append(fixtureBlock(3..<5))
        try writer.commit()
        let last = try Snapshot.open(at: path)
        #expect(try last.locate(identifier: "id-4") == RowLocation(segment: 1, row: 1))
        #expect(try last.locate(identifiers: ["id-3", "id-19"]) == [0: RowLocation(segment: 1, row: 0)])
    }

    @Test func remembersBatchFiles() throws {
        let digest = Digest(of: [1, 2, 3])
        do {
            let writer = try StoreWriter.create(at: path, schema: fixtureSchema)
            #expect(writer.ingestRecord(ofFile: digest) == nil)
            try writer.append(fixtureBlock(0..<4))
            writer.recordIngest(ofFile: digest, path: "/x/ü", rowCount: 4, firstRowNumber: 0, provenance: "{\"a\":1}")
            #expect(writer.ingestRecord(ofFile: digest)?.rowCount == 4)
            try writer.commit()
        }
        let expected = IngestRecord(
            fileDigest: digest, path: "/x/ü", rowCount: 4, firstRowNumber: 0, generation: 1, provenance: "{\"a\":1}")
        #expect(try Snapshot.open(at: path).ingests == [expected])
        #expect(try StoreWriter.open(at: path).ingestRecord(ofFile: digest) == expected)
    }

    @Test func noticesDamagedMissingAndSwappedSegments() throws {
        do {
            let writer = try StoreWriter.create(at: path, schema: fixtureSchema)
            for start in [0, 10] {
                try writer.append(fixtureBlock(start..<start + 10))
                try writer.commit()
            }
        }
        let (first, second) = (path + "/segments/0000000000000000.segment", path + "/segments/0000000000000001.segment")
        #expect(try Snapshot.open(at: path).verify().isSound)
        #expect(rename(first, first + "x") == 0 && rename(second, first) == 0)
        let damages = try Snapshot.open(at: path).verify().damages
        #expect(damages.count == 2)
        #expect(damages.last == .fileOfCatalogMissing(path: second))
        #expect(rename(first, second) == 0 && rename(first + "x", first) == 0)
        let descriptor = open(second, O_RDWR)
        var byte: UInt8 = 1
        // Padding behind the header's page: covered by no checksum.
        #expect(pwrite(descriptor, &byte, 1, 4000) == 1)
        close(descriptor)
        #expect(try Snapshot.open(at: path).verify().damages.count == 1)
    }
}
