import Checksum
import Format
import Foundation
import Schema
import Store
import Testing

/// The basis of the golden file: eighths of small integers, exact in every float.
private let goldenBasis = WhiteningBasis(
    epsilon: 0.125, sampleCount: 40,
    layers: [
        LayerWhitening(
            name: "blocks.0/attn", inputDimension: 3, outputDimension: 2, leftEigenvalues: [4, 2.5, 0],
            rightEigenvalues: [6, 0.5], left: [1, 0.5, -0.25, 0.5, 2, 0.125, -0.25, 0.125, 3], right: [0.5, -1, -1, 4]),
        LayerWhitening(
            name: "schicht ü", inputDimension: 1, outputDimension: 2, leftEigenvalues: [0], rightEigenvalues: [0, 0],
            left: [1], right: [1, 0, 0, 1]),
    ])

@Suite struct BasisFileTests {
    let directory: ScratchDirectory
    let golden: String

    init() throws {
        directory = try ScratchDirectory()
        golden =
            URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .appending(path: "Golden/basis-1.0.basis").path
    }

    private func write(_ basis: WhiteningBasis, _ name: String) throws -> String {
        let path = directory.path + "/" + name
        _ = try BasisFile.write(basis, to: path, temporaryPath: path + ".writing")
        return path
    }

    @Test func theGoldenBasisIsReadAndWritten() throws {
        let found = try BasisFile.read(golden)
        #expect(found.basis == goldenBasis)
        #expect(found.digest == Digest("2f14ceef0f4b123ed5282363866e2b72"))
        #expect(try bytes(at: write(goldenBasis, "again")) == bytes(at: golden))
    }

    @Test func everyFlippedBitIsNoticed() throws {
        let original = try bytes(at: golden)
        let digest = try BasisFile.read(golden).digest
        for offset in stride(from: 0, to: original.count, by: 7) {
            var damaged = original
            damaged[offset] ^= 1 << UInt8(offset % 8)
            let path = try directory.write(damaged)
            #expect(throws: StoreError.self, "byte \(offset)") { try BasisFile.read(path, expecting: digest) }
        }
        #expect(throws: StoreError.self) { try BasisFile.read(golden, expecting: Digest(high: 0, low: 1)) }
    }

    /// 2304² numbers: more than one page.
    @Test func largeMapsHaveSeveralPages() throws {
        let order = 2304
        let layer = LayerWhitening(
            name: "a", inputDimension: order, outputDimension: 1,
            leftEigenvalues: (0..<order).map { Double(order - $0) }, rightEigenvalues: [1],
            left: (0..<order * order).map { Float($0 % 1021) }, right: [1])
        let basis = WhiteningBasis(epsilon: 1, sampleCount: 0, layers: [layer])
        #expect(try BasisFile.read(try write(basis, "large")).basis == basis)
    }

    @Test func theSchemaNamesTheBasis() throws {
        let layers = [LayerSchema(name: "a", inputDimension: 2, outputDimension: 3, form: .dense)]
        let digest = Digest(high: 1, low: 2)
        let schema = StoreSchema(layers: layers, encoding: .q4, basis: digest)
        let encoded = schema.encoded()
        #expect(try StoreSchema(decoding: encoded) == schema)
        #expect(encoded[1] == 1 && Array(encoded.suffix(16)) == [2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0])
        #expect(StoreSchema(layers: layers, encoding: .q4).encoded().count == encoded.count - 16)
        var unknown = encoded
        unknown[1] = 2
        #expect(throws: FormatError.reservedNotZero(part: .schema, offset: 1, found: 2)) {
            try StoreSchema(decoding: unknown)
        }
    }

    @Test func aStoreMustHaveTheBasisOfItsSchema() throws {
        let stored = try StoredBasis(path: golden)
        let layers = goldenBasis.layers.map {
            LayerSchema(
                name: $0.name, inputDimension: $0.inputDimension, outputDimension: $0.outputDimension, form: .dense)
        }
        let schema = StoreSchema(layers: layers, encoding: .f32, basis: stored.digest)
        let path = directory.path + "/s"
        #expect(throws: StoreError.basisRequired(stored.digest)) { try StoreWriter.create(at: path, schema: schema) }
        #expect(try StoreWriter.isPathFree(path))
        try StoreWriter.create(at: path, schema: schema, basis: stored).abandon()
        let snapshot = try Snapshot.open(at: path)
        #expect(try snapshot.readBasis() == goldenBasis)
        #expect(snapshot.verify().isSound && snapshot.verify().orphans.isEmpty)
        // What does not belong there is garbage.
        try Data([1]).write(to: URL(filePath: path + "/basis/other.basis"))
        #expect(snapshot.verify().orphans == [path + "/basis/other.basis"])
        #expect(try StoreWriter.open(at: path).recoveredPaths == [path + "/basis/other.basis"])
        #expect(throws: StoreError.basisRefused(path: "/dev/null", reason: "/dev/null is not a regular file")) {
            try StoredBasis(path: "/dev/null")
        }
    }
}
