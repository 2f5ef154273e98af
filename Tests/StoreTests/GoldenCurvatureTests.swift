import Checksum
import Foundation
import Schema
import TestSupport
import Testing

@testable import Store

/// A curvature file and a coordinates file that Tests/Golden/make_curvature.py wrote from the format pages alone.
@Suite struct GoldenCurvatureTests {
    let directory = TemporaryDirectory()
    let curvature = Self.golden("curvature-1.0.curvature")
    let coordinates = Self.golden("coordinates-1.0.coordinates")
    let schema = StoreSchema(
        layers: [
            LayerSchema(name: "blocks.0/attn", inputDimension: 2, outputDimension: 2, form: .factors(rank: 1)),
            LayerSchema(name: "schicht ü", inputDimension: 1, outputDimension: 3, form: .dense),
        ], encoding: .f32)
    let description = CurvatureDescription(
        scope: "per-layer", algorithm: "gram", rank: 2, capturedEnergy: 0.875, fittedGeneration: 3, fittedRowCount: 5,
        fittedRowDigest: Digest(of: Array("rows".utf8)),
        provenance: #"{"algorithms":["gram/double"],"exact":false,"rank":2,"seed":0}"#)

    private static func golden(_ name: String) -> String {
        URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .appending(path: "Golden/" + name).path
    }

    private var groups: [CurvatureGroupData] {
        var details = CurvatureGroupDetails()
        (details.algorithm, details.arithmetic, details.solver, details.passCount) = ("gram", "double", "lapack-all", 1)
        var (first, second) = (details, details)
        first.residual = 0x1p-40
        second.spansRows = true
        return [
            CurvatureGroupData(
                layers: [0], gradientLength: 4, eigenvalues: [12, 5],
                basis: [0.5, 0.5, 0.5, 0.5, 0.5, -0.5, 0.5, -0.5], trace: 17.5, details: first),
            CurvatureGroupData(layers: [1], gradientLength: 3, eigenvalues: [], basis: [], trace: 0, details: second),
        ]
    }

    @Test func theCurvatureIsReadAndWritten() throws {
        let record = try CurvatureFile.record(ofFile: curvature)
        #expect(record.description == description)
        #expect(try CurvatureFile(path: curvature, record: record, schema: schema).readGroups() == groups)
        let written = directory.path + "/again"
        let identity = try CurvatureFile.write(
            groups, description: description, schema: schema, temporaryPath: written + ".new", sealedPath: written)
        #expect(identity.footerDigest == record.digest)
        #expect(try bytes(at: written) == bytes(at: curvature))
    }

    @Test func theCoordinatesAreReadAndWritten() throws {
        let segment = try #require(Digest("00112233445566778899aabbccddeeff"))
        let name = try CurvatureFile.record(ofFile: curvature).digest
        let info = SegmentInfo(
            number: 1, firstRowNumber: 0, addedGeneration: 1,
            identity: SegmentIdentity(
                rowCount: 5, fileLength: 0, footerOffset: 0, footerLength: 0, footerDigest: segment))
        let reader = try CoordinatesReader(path: coordinates, curvature: name, segment: info)
        let expected = CoordinatesDescription(
            curvature: name, segment: segment, encoding: .int8, rowCount: 5, rowsPerBlock: 2, ranks: [2, 0])
        #expect(reader.description == expected)
        let values: [Float] = [127, -3, 0, 0, -0.5, 63.5, 1, -1, 254, 2]
        let norms: [[Float]] = [[0, 0.25, 1, 2, 1e-3], [1, 0, 3, 0.5, 1e20]]
        for name in ["tmp", "coordinates"] {
            try FileManager.default.createDirectory(
                atPath: directory.path + "/" + name, withIntermediateDirectories: true)
        }
        var writer = try CoordinatesWriter(expected, directory: StoreDirectory(path: directory.path))
        for block in 0..<3 {
            let rows = (2 * block)..<min(2 * block + 2, 5)
            for group in 0..<2 {
                let found = try reader.read(block: block, group: group)
                let given = group == 0 ? Array(values[(2 * rows.lowerBound)..<(2 * rows.upperBound)]) : []
                #expect(found.outsideNorms == Array(norms[group][rows]) && found.values.count == given.count)
                // 1/127 is no bfloat16: codes are off by a hundredth of a step at most.
                #expect(zip(found.values, given).allSatisfy { abs($0 - $1) <= 3e-4 * max(1, abs($1)) })
                let coded = EncodedCoordinates(
                    EigenCoordinates(rank: group == 0 ? 2 : 0, values: given, outsideNorms: Array(norms[group][rows])),
                    encoding: .int8)
                try writer.append(try #require(coded), block: block, group: group)
            }
        }
        let length = try writer.seal()
        let written = try bytes(at: directory.path + "/coordinates/" + expected.fileName)
        #expect(written.count == length)
        #expect(try written == bytes(at: coordinates))
    }
}
