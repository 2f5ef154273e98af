import Checksum
import Files
import Glibc
import Schema
import TestSupport
import Testing

@testable import Store

@Suite struct CurvatureStoreTests {
    let directory = TemporaryDirectory()
    var path: String { directory.path + "/store" }
    let description = CurvatureDescription(
        scope: "layer", algorithm: "exact", rank: 3, capturedEnergy: 0.75, fittedGeneration: 1, fittedRowCount: 2,
        fittedRowDigest: Digest(high: 3, low: 4), provenance: "{\"seed\":1}")
    let groups = [
        CurvatureGroupData(
            layers: [0], gradientLength: 6, eigenvalues: [3, 0.5, 0.25], basis: (0..<18).map { Float($0) / 8 }, trace: 5
        ),
        CurvatureGroupData(layers: [1], gradientLength: 2, eigenvalues: [], basis: [], trace: 0.5),
    ]

    @Test func severalCoexistAndOneIsActive() throws {
        let writer = try StoreWriter.create(at: path, schema: fixtureSchema)
        let first = try writer.writeCurvature(groups, description: description)
        var other = groups
        other[0].eigenvalues[0] = 4
        let second = try writer.writeCurvature(other, description: description, activate: false)
        #expect(first != second && writer.generation == 2)
        // The same again is the same file.
        #expect(try writer.writeCurvature(groups, description: description) == first)
        #expect(writer.generation == 2)
        var snapshot = try Snapshot.open(at: path)
        #expect(snapshot.activeCurvature == first)
        #expect(Set(snapshot.curvatures.map(\.digest)) == [first, second])
        #expect(try snapshot.curvature(first).description == description)
        #expect(try snapshot.readCurvature(first) == groups)
        #expect(try snapshot.readCurvature(second) == other)
        #expect(snapshot.verify().isSound)
        try writer.activateCurvature(second)
        try writer.removeCurvature(first)
        snapshot = try Snapshot.open(at: path)
        #expect(snapshot.activeCurvature == second && snapshot.curvatures.count == 1)
        #expect(throws: StoreError.curvatureUnknown(first)) { _ = try snapshot.readCurvature(first) }
        #expect(try fileNames(inDirectory: path + "/curvature") == [second.description + ".curvature"])
        try writer.removeCurvature(second)
        #expect(try Snapshot.open(at: path).activeCurvature == nil)
        #expect(throws: StoreError.curvatureUnknown(second)) { try writer.activateCurvature(second) }
    }

    @Test func refusesWhatDoesNotFitTheSchema() throws {
        let writer = try StoreWriter.create(at: path, schema: fixtureSchema)
        func refuses(_ change: (inout CurvatureGroupData) -> Void) throws {
            var changed = groups
            change(&changed[0])
            let error = #expect(throws: StoreError.self) {
                _ = try writer.writeCurvature(changed, description: description)
            }
            guard case .curvatureShape = error else {
                Issue.record("\(String(describing: error))")
                return
            }
        }
        try refuses { $0.layers = [2] }
        try refuses { $0.layers = [1] }
        try refuses { $0.layers = [] }
        try refuses { $0.gradientLength = 7 }
        try refuses { $0.basis.removeLast() }
        try refuses { $0.basis[4] = .infinity }
        try refuses { $0.eigenvalues = [1, 2, 3] }
        try refuses { $0.trace = .nan }
        #expect(writer.generation == 0)
        #expect(try fileNames(inDirectory: path + "/curvature") == [])
        #expect(try fileNames(inDirectory: path + "/tmp") == [])
    }

    @Test func everyFlippedByteIsNoticed() throws {
        let digest = try StoreWriter.create(at: path, schema: fixtureSchema)
            .writeCurvature(groups, description: description)
        let snapshot = try Snapshot.open(at: path)
        let filePath = path + "/curvature/\(digest).curvature"
        let file = try ReadableFile(path: filePath)
        let bytes = try file.read(at: 0, count: file.byteCount)
        let descriptor = open(filePath, O_RDWR)
        defer { close(descriptor) }
        for offset in bytes.indices {
            var byte = bytes[offset] ^ (1 << UInt8(offset % 8))
            precondition(pwrite(descriptor, &byte, 1, off_t(offset)) == 1)
            let isSound = snapshot.verify().isSound
            #expect(!isSound, "offset \(offset)")
            byte = bytes[offset]
            precondition(pwrite(descriptor, &byte, 1, off_t(offset)) == 1)
        }
        #expect(snapshot.verify().isSound)
    }

    @Test func readsBasesOfSeveralPages() throws {
        // 2048 × 2048 numbers a row: each eigenvector fills one page of 16 MiB exactly; 1 more layer makes pages straddle.
        let schema = StoreSchema(
            layers: [LayerSchema(name: "a", inputDimension: 2049, outputDimension: 2048, form: .factors(rank: 1))],
            encoding: .f32)
        let length = 2049 * 2048
        var basis = [Float](repeating: 0, count: length * 2)
        for place in stride(from: 0, to: basis.count, by: 997) { basis[place] = Float(place) }
        let group = CurvatureGroupData(
            layers: [0], gradientLength: length, eigenvalues: [2, 1], basis: basis, trace: 3)
        let writer = try StoreWriter.create(at: path, schema: schema)
        let digest = try writer.writeCurvature([group], description: description)
        let found = try Snapshot.open(at: path).readCurvature(digest)
        let isEqual = found == [group]
        #expect(isEqual)
    }
}
