import Files
import Format
import Glibc
import Schema
import TestSupport
import Testing

@testable import Store

/// What a repair saves of blocks that are damaged in part, and what it and others clear away.
@Suite struct SalvageTests {
    let directory = TemporaryDirectory()
    var path: String { directory.path + "/store" }
    private let segment = "0000000000000000.segment"

    private func makeStore() throws {
        let writer = try StoreWriter.create(at: path, schema: fixtureSchema)
        try writer.append(fixtureBlock(0..<40, metadata: true))
        try writer.commit()
        _ = try writer.delete(identifiers: ["id-3"])
        try writer.commit()
    }

    /// Flips a bit of the first page of a kind of column.
    private func damage(_ kind: SegmentColumnKind) throws {
        let file = try Snapshot.open(at: path).segmentReader(0).file
        let page = try #require(
            file.footer.pages.first { file.footer.columns[Int($0.column)].kind == kind.rawValue })
        flipBit(ofFile: path + "/segments/" + segment, at: Int(page.offset))
    }

    /// ‖U Vᵀ‖ or ‖G‖ of a row of the fixture by the definition.
    private func norm(row: Int, layer: Int) -> Double {
        func number(_ place: Int) -> Double { Double(fixtureNumber(row: row, layer: layer, place: place)) }
        var sum = 0.0
        if layer == 1 { return (number(0) * number(0) + number(1) * number(1)).squareRoot() }
        for a in 0..<3 {
            for b in 0..<2 {
                let entry = number(a) * number(8 + b) + number(16 + a) * number(24 + b)
                sum += entry * entry
            }
        }
        return sum.squareRoot()
    }

    @Test func lostNormsAreMadeAnew() throws {
        try makeStore()
        try damage(.norms)
        try damage(.residualNorms)
        let report = try StoreRepair.run(at: path)
        #expect(report.isChanged && report.lostRows.isEmpty && report.lostFields.isEmpty)
        #expect(report.salvagedFiles == [segment] && report.rowCount == 39)
        let after = try Snapshot.open(at: path)
        let reader = try after.segmentReader(0)
        let norms = try reader.readNorms(block: 0)
        let found = try fixtureRows(in: after)
        #expect(found.count == 39 && found.allSatisfy { $0.isRight })
        for (place, row) in (0..<40).filter({ $0 != 3 }).enumerated() {
            for layer in 0..<2 {
                let (bound, exact) = (Double(norms[layer][place]), norm(row: row, layer: layer))
                // A bfloat16 has 8 bits.
                #expect(bound >= exact * (1 - 1e-12) && bound <= exact * (1 + 1.0 / 127))
            }
        }
        #expect(try reader.readResidualNorms(block: 0).allSatisfy { $0.allSatisfy { $0 == .infinity } })
        #expect(after.verify(level: .deep).isSound)
        #expect(try !StoreRepair.run(at: path).isChanged)
    }

    @Test func ofALostFieldTheRowsAreKept() throws {
        try makeStore()
        try damage(.field)
        let report = try StoreRepair.run(at: path)
        let identifiers = (0..<40).filter { $0 != 3 }.map { "id-\($0)" }
        #expect(report.lostFields == [LostField(file: segment, field: "row", rows: 0..<40, identifiers: identifiers)])
        #expect(report.lostRows.isEmpty)
        let after = try Snapshot.open(at: path)
        #expect(try fixtureRows(in: after).map(\.identifier) == identifiers)
        #expect(try after.segmentReader(0).readMetadata(block: 0).allSatisfy { $0 == nil })
        #expect(after.verify(level: .deep).isSound)
    }

    @Test func lostIdentifiersLoseTheBlock() throws {
        try makeStore()
        try damage(.identifiers)
        let report = try StoreRepair.run(at: path)
        #expect(report.lostRows.map(\.rows) == [0..<40] && report.lostRows[0].identifiers == nil)
        #expect(report.rowCount == 0)
    }

    @Test func aSoundStoreIsClearedOfOrphans() throws {
        try makeStore()
        let orphans = ["tmp/0000000000000001.segment", "segments/0000000000000009.segment"].map { path + "/" + $0 }
        for orphan in orphans { close(open(orphan, O_CREAT | O_WRONLY, 0o600)) }
        let report = try StoreRepair.run(at: path)
        // What lies in tmp goes when the lock is taken.
        #expect(!report.isChanged && report.removedPaths == [orphans[1]])
        for orphan in orphans { #expect(access(orphan, F_OK) != 0) }
    }

    @Test func whatKilledCommandsLeaveBesideIsRemoved() throws {
        func leftover(_ kind: StoreDirectory.Unfinished) throws -> (directory: StoreDirectory, lock: FileLock?) {
            let identity = StoreIdentity.random()
            let directory = StoreDirectory.unfinished(kind, of: path, identity: identity)
            return (directory, try StoreDirectory.build(at: directory.path, identity: identity))
        }
        let dead = try leftover(.creating).directory.path
        let atWork = try leftover(.copying)
        let stranger = path + ".copying.txt"
        close(open(stranger, O_CREAT | O_WRONLY, 0o600))
        try makeStore()
        #expect(access(dead, F_OK) != 0)
        #expect(access(atWork.directory.identityPath, F_OK) == 0 && access(stranger, F_OK) == 0)
        withExtendedLifetime(atWork.lock) {}
    }
}
