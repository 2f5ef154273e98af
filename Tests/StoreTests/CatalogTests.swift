import Checksum
import Files
import Glibc
import Schema
import TestSupport
import Testing

@testable import Store

/// What a snapshot says, for comparison.
private struct Reading: Equatable {
    let generation: UInt64
    let segments: [SegmentInfo]
    let live: [Bool]
    let ingests: [IngestRecord]
    let curvatures: [CurvatureRecord]
    let active: Digest?
    let next: UInt64
    let schema: StoreSchema

    init(_ snapshot: Snapshot) {
        generation = snapshot.generation
        segments = snapshot.segments
        live = segments.indices.flatMap { segment in
            (0..<snapshot.segments[segment].rowCount).map { snapshot.isLive(segment: segment, row: $0) }
        }
        ingests = snapshot.ingests
        curvatures = snapshot.curvatures
        active = snapshot.activeCurvature
        next = snapshot.nextRowNumber
        schema = snapshot.schema
    }
}

@Suite struct CatalogTests {
    let directory = TemporaryDirectory()
    var path: String { directory.path + "/store" }

    private func makeStore() throws {
        let writer = try StoreWriter.create(at: path, schema: fixtureSchema)
        try writer.append(fixtureBlock(0..<20))
        writer.recordIngest(ofFile: Digest(of: [1]), path: "a", rowCount: 20, firstRowNumber: 0)
        try writer.commit()
        try writer.append(fixtureBlock(20..<25))
        _ = try writer.delete(identifiers: ["id-7"])
        try writer.commit()
        _ = try writer.writeCurvature(
            [],
            description: CurvatureDescription(
                scope: "layer", algorithm: "exact", rank: 0, capturedEnergy: 0, fittedGeneration: 2, fittedRowCount: 24,
                fittedRowDigest: Digest(high: 1, low: 2)))
    }

    /// The reading, nil for a typed error.
    private func read() -> Reading? {
        do {
            return Reading(try Snapshot.open(at: path))
        } catch {
            return nil
        }
    }

    @Test func aFlippedByteOfTheCatalogGivesAnErrorOrTheSameReading() throws {
        try makeStore()
        let data = path + "/catalog/data.mdb"
        let expected = try #require(read())
        let file = try ReadableFile(path: data)
        let bytes = try file.read(at: 0, count: file.byteCount)
        let descriptor = open(data, O_RDWR)
        defer { close(descriptor) }
        var (refused, same) = (0, 0)
        for offset in bytes.indices {
            // Every bit of the meta pages, where an older state could pose as the newest; one bit of every other byte.
            let isMeta = offset < 8192 && offset % 4096 < 160
            // One in five of those, unless all are asked for.
            let isExhaustive = getenv("LORIF_EXHAUSTIVE") != nil
            guard isExhaustive || isMeta || offset % 5 == 0 else { continue }
            for mask in isMeta || isExhaustive
                ? [1, 2, 4, 8, 16, 32, 64, 128, 6, 255] : [UInt8(1) << UInt8(offset % 8)]
            {
                var byte = bytes[offset] ^ mask
                precondition(pwrite(descriptor, &byte, 1, off_t(offset)) == 1)
                if let found = read() {
                    let isSame = found == expected
                    #expect(isSame, "offset \(offset), mask \(mask)")
                    same += 1
                } else {
                    refused += 1
                }
                byte = bytes[offset]
                precondition(pwrite(descriptor, &byte, 1, off_t(offset)) == 1)
            }
        }
        #expect(refused > 500 && same > 500, "\(refused), \(same)")
        #expect(read() == expected)
    }

    @Test func anOlderCatalogOfTheSameStoreIsOnlyOlder() throws {
        try makeStore()
        let data = path + "/catalog/data.mdb"
        let file = try ReadableFile(path: data)
        let bytes = try file.read(at: 0, count: file.byteCount)
        // The catalog of another store is refused although it is whole.
        let other = directory.path + "/other"
        _ = try StoreWriter.create(at: other, schema: fixtureSchema)
        #expect(unlink(other + "/catalog/data.mdb") == 0)
        let copy = try DurableFile(temporaryPath: other + "/tmp/data.mdb")
        try copy.write(bytes.span.bytes, at: 0)
        try copy.seal(as: other + "/catalog/data.mdb")
        let error = #expect(throws: StoreError.self) { _ = try Snapshot.open(at: other) }
        guard case .catalogDamaged(_, _, let expected, _) = error else {
            Issue.record("\(String(describing: error))")
            return
        }
        #expect(expected.hasPrefix("store "))
    }

    @Test func aFlippedByteOfTheIdentityFileIsNoticed() throws {
        _ = try StoreWriter.create(at: path, schema: fixtureSchema)
        let identityPath = path + "/lorif.store"
        let bytes = try ReadableFile(path: identityPath).read(at: 0, count: 128)
        let descriptor = open(identityPath, O_RDWR)
        defer { close(descriptor) }
        for offset in bytes.indices {
            var byte = bytes[offset] ^ 0x20
            precondition(pwrite(descriptor, &byte, 1, off_t(offset)) == 1)
            #expect(throws: StoreError.self, "offset \(offset)") { _ = try Snapshot.open(at: path) }
            byte = bytes[offset]
            precondition(pwrite(descriptor, &byte, 1, off_t(offset)) == 1)
        }
        #expect(read() != nil)
        #expect(ftruncate(descriptor, 127) == 0)
        #expect(throws: StoreError.identityDamaged(path: identityPath, expected: "128 bytes", found: "127 bytes")) {
            _ = try Snapshot.open(at: path)
        }
    }

    @Test func theIdentityFileIsWhatItsPageSays() throws {
        let bytes = IdentityFile.encode(StoreIdentity(high: 0x0807_0605_0403_0201, low: 0x100F_0E0D_0C0B_0A09))
        var expected = Array("LORIFSTO".utf8) + [1, 0, 0, 0, 128, 0, 0, 0]
        expected += [UInt8](repeating: 0, count: 24) + (1...16).map { UInt8($0) } + [UInt8](repeating: 0, count: 64)
        #expect(Array(bytes[..<120]) == expected)
        var end = 0
        for field in IdentityFile.fields {
            #expect(field.offset == end)
            end += field.byteCount
        }
        #expect(end == IdentityFile.byteCount && bytes.count == end)
    }

    @Test func tombstonesRoundTripAndRefuseNonsense() throws {
        for rowCount in [1, 8, 9, 100_000] {
            var tombstones = Tombstones(rowCount: rowCount)
            #expect(tombstones.delete(rowCount - 1) && !tombstones.delete(rowCount - 1))
            for row in stride(from: 0, to: rowCount - 1, by: 7) { _ = tombstones.delete(row) }
            #expect(tombstones.deletedCount == (0..<rowCount).count { $0 == rowCount - 1 || $0 % 7 == 0 })
            let payload = try tombstones.payload()
            #expect(payload.count <= 24 + (rowCount + 7) / 8)
            #expect(try Tombstones(payload: payload) == tombstones)
            for count in 0..<min(payload.count, 200) {
                #expect(throws: CatalogCodingError.self) { _ = try Tombstones(payload: Array(payload[..<count])) }
            }
        }
        // rowCount 9, one deleted, raw: a bit behind the last row.
        let bad: [UInt8] = [9, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]
        #expect(throws: CatalogCodingError.self) { _ = try Tombstones(payload: bad) }
    }

    @Test func keysSortByKindAndNumber() {
        let keys = [
            CatalogKey.state, .schema, CatalogKey(.segment, 1), CatalogKey(.segment, 255), CatalogKey(.segment, 256),
            CatalogKey(.tombstones, 0), CatalogKey(.curvature, Digest(high: 1, low: 0)),
            CatalogKey(.curvature, Digest(high: 1, low: 1)),
        ].map(\.bytes)
        #expect(zip(keys, keys.dropFirst()).allSatisfy { $0.lexicographicallyPrecedes($1) })
        #expect(keys[4] == [3, 0, 0, 0, 0, 0, 0, 1, 0] && CatalogKey.number(keys[4]) == 256)
        #expect(CatalogKey.digest(keys[7]) == Digest(high: 1, low: 1))
    }
}
