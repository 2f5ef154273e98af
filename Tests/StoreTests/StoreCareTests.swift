import Checksum
import Files
import Format
import Glibc
import Schema
import TestSupport
import Testing

@testable import Store

/// Copies, verification levels, proof of erasure, repair.
@Suite struct StoreCareTests {
    let directory = TemporaryDirectory()
    var path: String { directory.path + "/store" }

    /// Three segments of 40 rows, blocks of all of them; id-3 deleted; a curvature.
    @discardableResult
    private func makeStore() throws -> Digest {
        let writer = try StoreWriter.create(at: path, schema: fixtureSchema)
        for start in [0, 40, 80] {
            try writer.append(fixtureBlock(start..<start + 40, prefix: "example-", metadata: true))
            writer.recordIngest(
                ofFile: Digest(high: 9, low: UInt64(start)), path: "batch", rowCount: 40, firstRowNumber: UInt64(start))
            try writer.commit()
        }
        _ = try writer.delete(identifiers: ["example-3"])
        try writer.commit()
        return try writer.writeCurvature(
            [CurvatureGroupData(layers: [1], gradientLength: 2, eigenvalues: [2], basis: [0.6, 0.8], trace: 2)],
            description: CurvatureDescription(
                scope: "layer", algorithm: "exact", rank: 1, capturedEnergy: 1, fittedGeneration: 4,
                fittedRowCount: 119, fittedRowDigest: writer.snapshot().rowDigest))
    }

    private func damage(_ file: String, at offset: Int) { flipBit(ofFile: path + "/" + file, at: offset) }

    private func identifiers(_ path: String) throws -> [String] {
        let found = try fixtureRows(in: Snapshot.open(at: path))
        let allAreRight = found.allSatisfy { $0.isRight }
        #expect(allAreRight)
        return found.map(\.identifier)
    }

    @Test(arguments: [false, true]) func copiesAreStoresOfTheirOwn(full: Bool) throws {
        let digest = try makeStore()
        let copy = directory.path + "/copy"
        try StoreWriter.open(at: path).nameSnapshot("before")
        let summary = try Snapshot.copyStore(at: path, to: copy + "/", copiesFiles: full)
        #expect(full ? summary.copiedFileCount == 4 : summary.linkedFileCount + summary.copiedFileCount == 4)
        let (original, copied) = (try Snapshot.open(at: path), try Snapshot.open(at: copy))
        #expect(copied.identity != original.identity && copied.generation == original.generation)
        #expect(copied.segments == original.segments && copied.ingests == original.ingests)
        #expect(copied.rowDigest == original.rowDigest && copied.activeCurvature == digest)
        #expect(copied.namedSnapshots == original.namedSnapshots && copied.verify().isSound)
        // Neither notices what happens to the other.
        let expected = try identifiers(path)
        do {
            let writer = try StoreWriter.open(at: copy)
            #expect(writer.recoveredPaths == [])
            _ = try writer.delete(identifiers: ["example-9"])
            try writer.commit()
            try writer.dropSnapshot("before")
            _ = try writer.compact()
        }
        #expect(try identifiers(path) == expected)
        #expect(try identifiers(copy) == expected.filter { $0 != "example-9" })
        #expect(try Snapshot.open(at: path).verify(level: .deep).isSound)
        #expect(throws: StoreError.pathTaken(path: copy)) { _ = try Snapshot.copyStore(at: path, to: copy) }
        #expect(try fileNames(inDirectory: directory.path) == ["copy", "store"])
    }

    @Test func levelsFindWhatTheyPromise() throws {
        try makeStore()
        for level in VerificationLevel.allCases { #expect(try Snapshot.open(at: path).verify(level: level).isSound) }
        let file = "segments/0000000000000001.segment"
        // The first page begins behind the header.
        damage(file, at: 4096)
        #expect(try Snapshot.open(at: path).verify(level: .quick).isSound)
        #expect(try Snapshot.open(at: path).verify(level: .full).damages.count == 1)
        #expect(try !Snapshot.open(at: path).verify(level: .deep).isSound)
        damage(file, at: 4096)
        let length = try Snapshot.open(at: path).segments[1].identity.fileLength
        damage(file, at: length - 70)
        #expect(try !Snapshot.open(at: path).verify(level: .quick).isSound)
    }

    @Test func deepFindsWhatChecksumsCannotSee() throws {
        let writer = try StoreWriter.create(at: path, schema: fixtureSchema)
        try writer.append(fixtureBlock(0..<4))
        try writer.commit()
        _ = try writer.delete(identifiers: ["id-1"])
        try writer.append(fixtureBlock(1..<2))
        try writer.commit()
        #expect(try Snapshot.open(at: path).verify(level: .deep).isSound)
        // The same without the tombstone: the id lives twice.
        var contents = writer.contents
        contents.tombstones = [:]
        let wrong = Snapshot(directory: StoreDirectory(path: path), contents: contents)
        #expect(
            wrong.verify(level: .deep).damages == [
                .identifierLiveTwice(
                    identifier: "id-1", files: ["0000000000000000.segment", "0000000000000001.segment"])
            ])
        let skewed = CurvatureGroupData(
            layers: [1], gradientLength: 2, eigenvalues: [2, 1], basis: [1, 0, 0.1, 1], trace: 3)
        _ = try writer.writeCurvature(
            [skewed],
            description: CurvatureDescription(
                scope: "layer", algorithm: "exact", rank: 2, capturedEnergy: 1, fittedGeneration: 2,
                fittedRowCount: 4, fittedRowDigest: writer.snapshot().rowDigest))
        #expect(try Snapshot.open(at: path).verify().isSound)
        #expect(try Snapshot.open(at: path).verify(level: .deep).damages.count == 1)
    }

    @Test func erasureIsProvenOnlyWhenEveryFileIsFree() throws {
        try makeStore()
        let check = ErasureCheck(["example-3", "example-7", "7"])
        func found() throws -> Set<String> { Set(try check.run(at: path).findings.map(\.identifier)) }
        // Deleted or not, the bytes are there.
        #expect(try found() == ["example-3", "example-7"])
        do {
            let writer = try StoreWriter.open(at: path)
            try writer.nameSnapshot("old")
            _ = try writer.delete(identifiers: ["example-7"])
            try writer.commit()
            _ = try writer.compact()
        }
        #expect(try found() == ["example-3", "example-7"])
        try StoreWriter.open(at: path).dropSnapshot("old")
        // example-30 to example-39 and example-70 to 79 live on and are other ids.
        #expect(try check.run(at: path).findings == [])
        #expect(try check.run(at: path).shortIdentifierCount == 1)
        let stray = open(path + "/tmp/stray", O_CREAT | O_WRONLY, 0o600)
        let text = Array("(example-3)".utf8)
        #expect(write(stray, text, text.count) == text.count)
        close(stray)
        #expect(try check.run(at: path).findings.map(\.place) == ["byte 1"])
    }

    @Test func searchesAcrossPiecesAndKnowsWords() {
        let searcher = ByteSearcher(["abcdef", "abcdefg-1", "x"].map { Array($0.utf8) })
        func found(_ text: String) -> [Int] {
            var all: [Int] = []
            searcher.search(Array(text.utf8)) { index, _ in all.append(index) }
            return all
        }
        #expect(found("abcdef") == [0] && found("-abcdef.") == [0] && found("zabcdef") == [] && found("abcdef9") == [])
        #expect(found("abcdefg-1") == [1] && found("abcde") == [] && found("x") == [] && found("") == [])
    }

    @Test func aSoundStoreNeedsNoRepair() throws {
        try makeStore()
        let generation = try Snapshot.open(at: path).generation
        let report = try StoreRepair.run(at: path)
        #expect(!report.isChanged && report.quarantinedPaths == [] && report.rowCount == 119)
        #expect(try Snapshot.open(at: path).generation == generation)
        #expect(throws: StoreError.storeMissing(path: path + "x")) { _ = try StoreRepair.run(at: path + "x") }
        #expect(throws: StoreError.notAStore(path: directory.path)) { _ = try StoreRepair.run(at: directory.path) }
        let writer = try StoreWriter.open(at: path)
        #expect(throws: StoreError.locked(lockPath: path + "/writer.lock")) { _ = try StoreRepair.run(at: path) }
        _ = writer.generation
    }

    @Test(arguments: ["removed", "emptied", "flipped"]) func rebuildsALostCatalog(_ how: String) throws {
        let digest = try makeStore()
        let data = path + "/catalog/data.mdb"
        switch how {
        case "removed":
            unlink(data)
            unlink(path + "/catalog/lock.mdb")
            rmdir(path + "/catalog")
        case "emptied": truncate(data, 0)
        default: for offset in stride(from: 0, to: 16384, by: 61) { damage("catalog/data.mdb", at: offset) }
        }
        #expect(throws: StoreError.self) { _ = try Snapshot.open(at: path) }
        let report = try StoreRepair.run(at: path)
        #expect(report.catalogDamage != nil && report.lostRows == [] && report.rowCount == 120)
        // The deleted row is back, and the report's catalogDamage is what says so.
        #expect(try identifiers(path) == (0..<120).map { "example-\($0)" })
        let after = try Snapshot.open(at: path)
        #expect(after.activeCurvature == digest && after.verify(level: .deep).isSound && after.nextRowNumber == 120)
        let writer = try StoreWriter.open(at: path)
        #expect(writer.recoveredPaths == [])
        try writer.append(fixtureBlock(200..<203))
        #expect(try writer.commit().segments[0].number == 3)
    }

    @Test func ofEqualIdsTheLastLives() throws {
        do {
            let writer = try StoreWriter.create(at: path, schema: fixtureSchema)
            try writer.append(fixtureBlock(0..<10, prefix: ""))
            try writer.commit()
            _ = try writer.delete(identifiers: ["2", "5"])
            try writer.append(fixtureBlock(5..<6, prefix: ""))
            try writer.append(fixtureBlock(40..<41, prefix: ""))
            try writer.commit()
        }
        truncate(path + "/catalog/data.mdb", 100)
        let report = try StoreRepair.run(at: path)
        #expect(report.supersededRowCount == 1 && report.rowCount == 11)
        #expect(try identifiers(path) == ["0", "1", "2", "3", "4", "6", "7", "8", "9", "5", "40"])
        // No numbered row may get the id 40.
        #expect(try Snapshot.open(at: path).nextRowNumber == 41)
    }

    /// A repair that was killed between its two renames has put the old catalog aside and left the new one beside its place.
    @Test func anInterruptedExchangeOfCatalogsIsEnded() throws {
        do {
            let writer = try StoreWriter.create(at: path, schema: fixtureSchema)
            try writer.append(fixtureBlock(0..<10, prefix: ""))
            try writer.commit()
            _ = try writer.delete(identifiers: ["2", "5"])
            try writer.commit()
        }
        #expect(rename(path + "/catalog", path + "/catalog.repaired") == 0)
        let report = try StoreRepair.run(at: path)
        #expect(!report.isChanged && report.rowCount == 8)
        #expect(try identifiers(path) == ["0", "1", "3", "4", "6", "7", "8", "9"])
        #expect(try fileNames(inDirectory: path).allSatisfy { $0 != "catalog.repaired" })
    }

    @Test func anUnfinishedCatalogOfAnInterruptedRepairIsRemoved() throws {
        do {
            let writer = try StoreWriter.create(at: path, schema: fixtureSchema)
            try writer.append(fixtureBlock(0..<10, prefix: ""))
            try writer.commit()
        }
        try createDirectory(path + "/catalog.repaired")
        try copyFile(path + "/lorif.store", temporaryPath: path + "/tmp/x", as: path + "/catalog.repaired/data.mdb")
        #expect(try !StoreRepair.run(at: path).isChanged)
        #expect(try fileNames(inDirectory: path).allSatisfy { $0 != "catalog.repaired" })
        #expect(try Snapshot.open(at: path).verify(level: .deep).isSound)
    }

    @Test(arguments: [false, true]) func savesTheWholeBlocksOfADamagedSegment(losesCatalog: Bool) throws {
        let rowsPerBlock = fixtureSchema.rowsPerBlock
        let rowCount = 2 * rowsPerBlock + 10
        do {
            let writer = try StoreWriter.create(at: path, schema: fixtureSchema)
            try writer.append(fixtureBlock(0..<rowCount))
            try writer.commit()
            try writer.append(fixtureBlock(rowCount..<rowCount + 5))
            try writer.commit()
            _ = try writer.delete(identifiers: ["id-1", "id-\(rowsPerBlock)"])
            try writer.commit()
        }
        let reader = try Snapshot.open(at: path).segmentReader(0)
        let page = try #require(reader.file.pageNumber(column: 0, block: 1))
        damage("segments/0000000000000000.segment", at: Int(reader.file.footer.pages[page].offset) + 3)
        if losesCatalog { truncate(path + "/catalog/data.mdb", 0) }
        let report = try StoreRepair.run(at: path)
        let lost = (rowsPerBlock..<2 * rowsPerBlock).filter { losesCatalog || $0 != rowsPerBlock }.map { "id-\($0)" }
        #expect(report.lostRows.map(\.rows) == [rowsPerBlock..<2 * rowsPerBlock])
        #expect(report.lostRows.first?.identifiers == lost)
        #expect(report.salvagedFiles == ["0000000000000000.segment"])
        #expect(try fileNames(inDirectory: path + "/quarantine").contains("0000000000000000.segment"))
        let kept = (0..<rowsPerBlock).filter { losesCatalog || $0 != 1 } + (2 * rowsPerBlock..<rowCount + 5)
        #expect(try identifiers(path) == kept.map { "id-\($0)" })
        #expect(try Snapshot.open(at: path).verify(level: .deep).isSound)
        let again = try StoreRepair.run(at: path)
        #expect(!again.isChanged)
    }

    @Test func namesWhatIsLostForGood() throws {
        let digest = try makeStore()
        let length = try Snapshot.open(at: path).segments[1].identity.fileLength
        truncate(path + "/segments/0000000000000001.segment", off_t(length - 100))
        unlink(path + "/segments/0000000000000002.segment")
        damage("curvature/\(digest).curvature", at: 4100)
        damage("lorif.store", at: 45)
        let report = try StoreRepair.run(at: path)
        #expect(
            report.lostRows.map(\.rows) == [0..<40, 0..<40] && report.lostRows.allSatisfy { $0.identifiers == nil })
        #expect(report.catalogDamage == nil && report.rowCount == 39)
        let after = try Snapshot.open(at: path)
        #expect(after.activeCurvature == nil && after.curvatures.isEmpty && after.ingests.count == 3)
        #expect(try identifiers(path) == (0..<40).filter { $0 != 3 }.map { "example-\($0)" })
        #expect(after.verify(level: .deep).isSound)
    }
}
