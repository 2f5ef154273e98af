import Checksum
import Files
import Kernels
import Schema
import Synchronization
import TestSupport
import Testing

@testable import Store

@Suite struct CompactionTests {
    let directory = TemporaryDirectory()
    var path: String { directory.path + "/store" }

    /// Codes are not re-encoded: decoding the gathered payload gives the same bits as decoding each row where it was.
    @Test(arguments: Encoding.allCases) func gatheringKeepsEveryBit(_ encoding: Encoding) {
        var random = Splitmix(7)
        for length in [1, 3, 7, 64] {
            let counts = [70, 1, 33]
            let payloads = counts.map { count -> [UInt8] in
                let values = (0..<count * length).map { _ in random.gaussian() }
                return encodeVectors(values.span, rowCount: count, length: length, encoding: encoding)
            }
            let rows = [Array(0..<70).filter { $0 % 5 != 3 || $0 > 31 }, [0], [1, 2, 32]]
            let gathered = gatherVectors(
                zip(payloads, zip(counts, rows)).map { VectorPart(payload: $0, rowCount: $1.0, rows: $1.1) },
                length: length, encoding: encoding)
            var expected: [UInt32] = []
            for (index, payload) in payloads.enumerated() {
                for row in rows[index] {
                    expected += decodeVector(
                        payload.span.bytes, row: row, rowCount: counts[index], length: length, encoding: encoding
                    ).map(\.bitPattern)
                }
            }
            let count = rows.reduce(0) { $0 + $1.count }
            var decoded = [Float](repeating: 0, count: count * length)
            var span = decoded.mutableSpan
            decodeVectors(gathered.span.bytes, rowCount: count, length: length, encoding: encoding, into: &span)
            #expect(decoded.map(\.bitPattern) == expected, "\(encoding) of length \(length)")
        }
    }

    /// What a reader sees of each live row: id, bits of every number, norms, metadata.
    private func contents(_ snapshot: Snapshot) throws -> [String] {
        var found: [String] = []
        for index in snapshot.segments.indices {
            let reader = try snapshot.segmentReader(index)
            for row in 0..<reader.rowCount where snapshot.isLive(segment: index, row: row) {
                let example = try reader.readRow(row)
                let bits = example.tiles.flatMap { $0.left + $0.right + $0.dense }.map(\.bitPattern)
                found.append(
                    "\(example.identifier) \(bits) \(example.norms) \(example.residualNorms) "
                        + "\(String(describing: example.metadata?.fields.map { "\($0.name)=\($0.value)" }))")
            }
        }
        return found
    }

    @Test(arguments: Encoding.allCases) func mergingAndDroppingKeepEveryRow(_ encoding: Encoding) throws {
        let schema = mixedSchema(encoding)
        let writer = try StoreWriter.create(at: path, schema: schema)
        var row = 0
        for count in [40, 1, 33, 100] {
            var block = randomBlock(schema, rows: row..<row + count, seed: UInt64(count))
            if count != 33 {
                block.metadata = (row..<row + count).map {
                    $0 % 3 == 0 ? nil : MetadataRecord(fields: [("n", .integer(Int64($0))), ("c\(count)", .null)])
                }
            }
            try writer.append(block)
            row += count
            writer.recordIngest(
                ofFile: Digest(high: 1, low: UInt64(count)), path: "f", rowCount: count, firstRowNumber: 0)
            try writer.commit()
        }
        #expect(try writer.delete(identifiers: ["example-0", "example-40", "example-50", "example-173"]) == [])
        try writer.commit()
        let before = try Snapshot.open(at: path)
        let expected = try contents(before)
        #expect(before.segments.count == 4 && expected.count == 170)
        let summary = try writer.compact()
        #expect(summary.isChanged && summary.droppedRowCount == 4)
        #expect(summary.segmentCounts.before == 4 && summary.segmentCounts.after == 1)
        let after = try Snapshot.open(at: path)
        #expect(after.segments.count == 1 && after.rowCount == 170 && after.deletedRowCount == 0)
        #expect(try contents(after) == expected)
        #expect(after.rowDigest == before.rowDigest && after.ingests == before.ingests)
        #expect(after.verify().isSound && after.verify().orphans.isEmpty)
        #expect(try after.locate(identifier: "example-173") == nil)
        #expect(try after.locate(identifier: "example-172")?.row == 169)
        #expect(try fileNames(inDirectory: path + "/segments") == [after.segments[0].fileName])
        // The old snapshot has its files open: it answers as before.
        #expect(try contents(before) == expected)
        // Nothing is left to do.
        let generation = writer.generation
        #expect(try !writer.compact().isChanged && writer.generation == generation)
        // What was digested as equal differs once a row goes.
        _ = try writer.delete(identifiers: ["example-1"])
        try writer.commit()
        #expect(try Snapshot.open(at: path).rowDigest != before.rowDigest)
    }

    @Test func largeSegmentsStayAndOrderIsKept() throws {
        let writer = try StoreWriter.create(at: path, schema: fixtureSchema)
        let rowsPerBlock = fixtureSchema.rowsPerBlock
        writer.segmentRowLimit = 2 * rowsPerBlock
        var row = 0
        for count in [2 * rowsPerBlock, 5, 6, rowsPerBlock + 1, 7] {
            try writer.append(fixtureBlock(row..<row + count))
            row += count
            try writer.commit()
        }
        let old = try Snapshot.open(at: path)
        #expect(old.segments.map(\.number) == [0, 1, 2, 3, 4])
        _ = try writer.compact()
        let new = try Snapshot.open(at: path)
        // The first stays, 1 and 2 become 5, the large 3 and the lone 4 only change their names to stay behind it.
        #expect(new.segments.map(\.number) == [0, 5, 6, 7])
        #expect(new.segments.map(\.rowCount) == [2 * rowsPerBlock, 11, rowsPerBlock + 1, 7])
        #expect(new.segments[2].identity == old.segments[3].identity)
        let found = try fixtureRows(in: new)
        let allAreRight = found.allSatisfy { $0.isRight }
        #expect(allAreRight && found.map(\.identifier) == (0..<row).map { "id-\($0)" })
        #expect(try fileNames(inDirectory: path + "/segments") == new.segments.map(\.fileName))
        #expect(new.verify().isSound && new.rowDigest == old.rowDigest)
    }

    @Test func reencodingGivesWhatIngestWouldHaveGiven() throws {
        let f32 = mixedSchema(.f32)
        let block = randomBlock(f32, rows: 0..<50, seed: 3)
        do {
            let writer = try StoreWriter.create(at: path, schema: f32)
            try writer.append(block)
            try writer.commit()
            #expect(try writer.compact(as: mixedSchema(.int8)).isChanged)
            #expect(writer.schema.encoding == .int8)
            // The writer goes on with the new schema.
            try writer.append(randomBlock(mixedSchema(.int8), rows: 50..<52, seed: 4))
            try writer.commit()
        }
        let direct = try StoreWriter.create(at: directory.path + "/direct", schema: mixedSchema(.int8))
        try direct.append(block)
        try direct.commit()
        let after = try Snapshot.open(at: path)
        #expect(try Array(contents(after).prefix(50)) == contents(direct.snapshot()))
        #expect(after.verify().isSound && after.rowCount == 52)
    }

    @Test func aFailureLeavesTheStoreAsItWas() throws {
        struct Stop: Error {}
        let writer = try StoreWriter.create(at: path, schema: fixtureSchema)
        for start in [0, 10] {
            try writer.append(fixtureBlock(start..<start + 10))
            try writer.commit()
        }
        let names = try fileNames(inDirectory: path + "/segments")
        #expect(throws: Stop.self) { try writer.compact(progress: { _ in throw Stop() }) }
        #expect(writer.generation == 2)
        #expect(try fileNames(inDirectory: path + "/segments") == names)
        #expect(try fileNames(inDirectory: path + "/tmp") == [])
        #expect(try writer.compact().isChanged)
        #expect(try fixtureRows(in: Snapshot.open(at: path)).count == 20)
    }

    @Test func allRowsDeletedLeavesNoSegment() throws {
        let writer = try StoreWriter.create(at: path, schema: fixtureSchema)
        try writer.append(fixtureBlock(0..<10))
        try writer.commit()
        _ = try writer.delete(identifiers: (0..<10).map { "id-\($0)" })
        try writer.commit()
        #expect(try writer.compact().droppedRowCount == 10)
        #expect(try Snapshot.open(at: path).segments.isEmpty)
        #expect(try fileNames(inDirectory: path + "/segments") == [])
    }

    /// Readers that open and read while segments are merged under them never see anything but all rows.
    @Test func readersNeverNotice() async throws {
        let writer = try StoreWriter.create(at: path, schema: fixtureSchema)
        try writer.append(fixtureBlock(0..<3))
        try writer.commit()
        let state = ReaderState()
        let path = path
        let reader = Task.detached { state.readUntilStopped(path) }
        for round in 1...40 {
            try writer.append(fixtureBlock(3 * round..<3 * round + 3))
            try writer.commit()
            _ = try writer.compact()
        }
        while state.readCount < 5 { try await Task.sleep(for: .milliseconds(5)) }
        state.stop()
        await reader.value
        #expect(state.failures == [])
    }

    @Test func namedSnapshotsKeepTheirFiles() throws {
        let writer = try StoreWriter.create(at: path, schema: fixtureSchema)
        for start in [0, 10] {
            try writer.append(fixtureBlock(start..<start + 10))
            try writer.commit()
        }
        _ = try writer.delete(identifiers: ["id-3"])
        try writer.commit()
        let digest = try writer.writeCurvature(
            [CurvatureGroupData(layers: [1], gradientLength: 2, eigenvalues: [], basis: [], trace: 1)],
            description: CurvatureDescription(
                scope: "layer", algorithm: "exact", rank: 0, capturedEnergy: 0, fittedGeneration: 3,
                fittedRowCount: 19, fittedRowDigest: writer.snapshot().rowDigest))
        let record = try writer.nameSnapshot("v1.0_a-b")
        let expected = try contents(Snapshot.open(at: path))
        #expect(throws: StoreError.snapshotTaken(name: "v1.0_a-b")) { try writer.nameSnapshot("v1.0_a-b") }
        for name in ["", "a b", "a/b", "ä", String(repeating: "x", count: 129)] {
            #expect(throws: StoreError.snapshotName(name: name)) { try writer.nameSnapshot(name) }
        }
        _ = try writer.delete(identifiers: ["id-5"])
        try writer.append(fixtureBlock(20..<25))
        try writer.commit()
        _ = try writer.compact()
        try writer.removeCurvature(digest)
        #expect(try fileNames(inDirectory: path + "/segments").count == 3)
        // A new writer sweeps nothing that a snapshot names.
        let named = try Snapshot.open(at: path, named: "v1.0_a-b")
        #expect(named.rowCount == 19 && named.generation == record.generation && named.name == "v1.0_a-b")
        #expect(try contents(named) == expected)
        #expect(named.activeCurvature == digest)
        #expect(try named.readCurvature(digest).count == 1)
        #expect(try named.curvature(digest).description.fittedRowDigest == named.rowDigest)
        #expect(try Snapshot.open(at: path).namedSnapshots == [record])
        #expect(try Snapshot.open(at: path).verify().orphans == [])
        #expect(throws: StoreError.snapshotUnknown(name: "x", known: ["v1.0_a-b"])) {
            _ = try Snapshot.open(at: path, named: "x")
        }
        try writer.dropSnapshot("v1.0_a-b")
        #expect(try fileNames(inDirectory: path + "/segments").count == 1)
        #expect(try fileNames(inDirectory: path + "/curvature") == [])
        #expect(throws: StoreError.snapshotUnknown(name: "v1.0_a-b", known: [])) {
            try writer.dropSnapshot("v1.0_a-b")
        }
    }
}

/// What a reading thread and the test tell each other.
private final class ReaderState: Sendable {
    private let state = Mutex((isStopped: false, readCount: 0, failures: [String]()))

    var isStopped: Bool { state.withLock { $0.isStopped } }
    var readCount: Int { state.withLock { $0.readCount } }
    var failures: [String] { state.withLock { $0.failures } }

    func stop() { state.withLock { $0.isStopped = true } }

    func readUntilStopped(_ path: String) {
        var last = 0
        while !isStopped {
            do {
                let found = try fixtureRows(in: Snapshot.open(at: path))
                let isRight = found.allSatisfy { $0.isRight } && found.count >= last
                add(failure: isRight ? nil : "\(found.count) rows after \(last)")
                last = found.count
            } catch {
                add(failure: "\(error)")
            }
        }
    }

    private func add(failure: String?) {
        state.withLock { state in
            state.readCount += 1
            if let failure { state.failures.append(failure) }
        }
    }
}
