import Checksum
import Files
import Format
import Kernels
import Schema
import TestSupport
import Testing

@testable import Store

/// The tables of the pages on curvature, basis and coordinates files, compared with the files that the code writes.
@Suite struct ArtefactFormatTests {
    /// What a table says of one thing, to be encoded in the type that the table gives it.
    private enum Value {
        case number(UInt64), numbers([UInt64]), real(Double), digest(Digest), text(String)

        func bytes(_ type: String) throws -> [UInt8] {
            switch (type, self) {
            case ("u64", .number(let value)): littleEndian(value)
            case ("u64 each", .numbers(let values)): values.flatMap { littleEndian($0) }
            case ("u32 each", .numbers(let values)): values.flatMap { littleEndian(UInt32($0)) }
            case ("f64", .real(let value)): littleEndian(value.bitPattern)
            case ("digest", .digest(let digest)): littleEndian(digest.low) + littleEndian(digest.high)
            case ("string", .text(let text)): littleEndian(UInt32(text.utf8.count)) + Array(text.utf8)
            default: throw Mismatch(type: type, value: "\(self)")
            }
        }
    }

    private struct Mismatch: Error {
        let type: String
        let value: String
    }

    private let directory = TemporaryDirectory()

    /// The first table after a heading, row after row without its head.
    private func table(_ page: String, _ heading: String) throws -> [[String]] {
        let root = #filePath.split(separator: "/").dropLast(3).joined(separator: "/")
        let file = try ReadableFile(path: "/\(root)/Formats/\(page)")
        let text = String(decoding: try file.read(at: 0, count: file.byteCount), as: UTF8.self)
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
        let start = try #require(lines.firstIndex { $0.drop { $0 == "#" } == " \(heading)" })
        let rows = lines[start...].drop { !$0.hasPrefix("|") }.prefix { $0.hasPrefix("|") }
        // A bar within a formula is escaped.
        return rows.dropFirst(2).map { row in
            String(row).replacing("\\|", with: "/").dropFirst().dropLast()
                .split(separator: "|", omittingEmptySubsequences: false)
                .map { $0.split(separator: " ").joined(separator: " ") }
        }
    }

    /// The payload is exactly what an (offset, type, field) table lists; `values` has one for each row, by the field's first words.
    private func expect(_ payload: [UInt8], _ rows: [[String]], _ values: [(field: String, value: Value)]) throws {
        var expected: [UInt8] = []
        #expect(rows.count == values.count)
        for (row, (field, value)) in zip(rows, values) {
            #expect(row[2].hasPrefix(field), "\(row[2])")
            if !row[0].isEmpty { #expect(row[0] == "\(expected.count)", "offset of \(row[2])") }
            expected += try value.bytes(row[1])
        }
        #expect(payload == expected)
    }

    /// Codes and names of a table of column kinds are those of the code, in its order.
    private func expectKinds(_ rows: [[String]], _ kinds: [(code: UInt8, name: String)]) {
        #expect(
            rows.map { $0[0].replacing(" ", with: "").lowercased() }
                == kinds.map { "\($0.code)\($0.name)".lowercased() })
    }

    /// The number types that a table's cell names, in order.
    private func types(_ cell: String) -> [String] {
        cell.split { !($0.isLetter || $0.isNumber) }.map(String.init).filter {
            ["u32", "u64", "f32", "f64"].contains($0)
        }
    }

    private func payload(_ file: PagedFileReader, _ kind: UInt8, layer: Int = 0) throws -> (
        bytes: [UInt8], rows: UInt32
    ) {
        let column = try #require(file.footer.columns.firstIndex { $0.kind == kind && $0.layer == UInt32(layer) })
        let page = try #require(file.pageNumber(column: column, block: 0))
        return (try file.readPage(page), file.footer.pages[page].rowCount)
    }

    @Test func curvatureTables() throws {
        let schema = StoreSchema(
            layers: ["a", "b", "c"].map {
                LayerSchema(name: $0, inputDimension: 2, outputDimension: 1, form: .factors(rank: 1))
            }, encoding: .f32)
        var details = CurvatureGroupDetails()
        details.algorithm = "gram"
        details.arithmetic = "double"
        details.solver = "lapack-all"
        details.passCount = 0x1_0203
        details.orthogonalityError = 0.25
        details.residual = 0.125
        details.spansRows = true
        let description = CurvatureDescription(
            scope: "per-läyer", algorithm: "kernel", rank: 0x405, capturedEnergy: 0.75, fittedGeneration: 0x607,
            fittedRowCount: 0x809, fittedRowDigest: Digest(high: 0x11, low: 0x22), provenance: "{\"a\":1}")
        let groups = [
            CurvatureGroupData(
                layers: [2, 0], gradientLength: 4, eigenvalues: [3, 2], basis: [1, 0, 0, 0, 0, 1, 0, 0.5], trace: 6.5,
                details: details),
            CurvatureGroupData(layers: [1], gradientLength: 2, eigenvalues: [], basis: [], trace: 0),
        ]
        let path = directory.path + "/found.curvature"
        _ = try CurvatureFile.write(
            groups, description: description, schema: schema, temporaryPath: path + ".writing", sealedPath: path)
        let file = try PagedFileReader(path: path, magic: .curvature)

        let kinds = try table("curvature.md", "Curvature file")
        let codes: [CurvatureColumnKind] = [.description, .group, .eigenvalues, .basis]
        expectKinds(kinds, codes.map { ($0.rawValue, "\($0)") })
        // The first group has all columns in the order of the table; the second, of rank 0, the first of its own.
        #expect(file.footer.columns.map(\.kind) == (codes + [.group]).map(\.rawValue))
        #expect(file.footer.columns.map(\.layer) == [0, 0, 0, 0, 1])

        try expect(
            try payload(file, CurvatureColumnKind.description.rawValue).bytes, try table("curvature.md", "Description"),
            [
                ("rank", .number(0x405)), ("the part of the trace", .real(0.75)), ("generation", .number(0x607)),
                ("live rows", .number(0x809)), ("of these rows", .digest(Digest(high: 0x11, low: 0x22))),
                ("scope", .text("per-läyer")), ("algorithm", .text("kernel")), ("provenance", .text("{\"a\":1}")),
            ])
        try expect(
            try payload(file, CurvatureColumnKind.group.rawValue).bytes, try table("curvature.md", "Group"),
            [
                ("D:", .number(4)), ("rank r", .number(2)), ("trace", .real(6.5)), ("number of layers", .number(2)),
                ("their places", .numbers([2, 0])), ("passes", .number(0x1_0203)),
                ("orthogonality error", .real(0.25)), ("residual", .real(0.125)), ("1 if", .number(1)),
                ("algorithm", .text("gram")), ("arithmetic", .text("double")), ("solver", .text("lapack-all")),
            ])
        let values = try payload(file, CurvatureColumnKind.eigenvalues.rawValue)
        #expect(types(kinds[2][3]) == ["f64"])
        #expect(values.bytes == littleEndian((3.0).bitPattern) + littleEndian((2.0).bitPattern) && values.rows == 2)
        let basis = try payload(file, CurvatureColumnKind.basis.rawValue)
        #expect(types(kinds[3][3]) == ["f32"] && kinds[3][3].contains("\(CurvatureFile.numbersPerPage)"))
        #expect(basis.bytes == groups[0].basis.flatMap { littleEndian($0.bitPattern) } && basis.rows == 8)
        #expect(file.footer.rowCount == 2 && file.footer.rowsPerBlock == CurvatureFile.numbersPerPage)
    }

    @Test func basisTable() throws {
        let layer = LayerWhitening(
            name: "a", inputDimension: 2, outputDimension: 1, leftEigenvalues: [4, 1], rightEigenvalues: [0.5],
            left: [1, 0.5, 0.5, 2], right: [3])
        let path = directory.path + "/found.basis"
        _ = try BasisFile.write(
            WhiteningBasis(epsilon: 0.125, sampleCount: 0x1_0203, layers: [layer]), to: path,
            temporaryPath: path + ".writing")
        let file = try PagedFileReader(path: path, magic: .basis)

        let rows = try table("basis.md", "Basis file")
        let codes: [BasisColumnKind] = [.description, .eigenvalues, .left, .right]
        expectKinds(rows, codes.map { ($0.rawValue, "\($0)") })
        #expect(file.footer.columns.map(\.kind) == codes.map(\.rawValue))

        #expect(types(rows[0][3]) == ["f64", "u64"])
        let description = try payload(file, BasisColumnKind.description.rawValue)
        #expect(description.bytes == littleEndian((0.125).bitPattern) + littleEndian(UInt64(0x1_0203)))
        #expect(description.rows == 1)
        #expect(types(rows[1][3]) == ["f64"])
        let values = try payload(file, BasisColumnKind.eigenvalues.rawValue)
        #expect(values.bytes == [4.0, 1.0, 0.5].flatMap { littleEndian($0.bitPattern) } && values.rows == 3)
        #expect(types(rows[2][3]) == ["f32"] && rows[2][3].contains("\(BasisFile.numbersPerPage)"))
        let left = try payload(file, BasisColumnKind.left.rawValue)
        #expect(left.bytes == layer.left.flatMap { littleEndian($0.bitPattern) } && left.rows == 4)
        let right = try payload(file, BasisColumnKind.right.rawValue)
        #expect(right.bytes == littleEndian(Float(3).bitPattern) && right.rows == 1)
    }

    @Test func ranksThatNoPageCouldHoldAreRefused() throws {
        func description(rank: UInt64) throws(CatalogCodingError) -> CoordinatesDescription {
            let words: [UInt64] = [1, 2, 3, 4, UInt64(Encoding.int8.rawValue), 1, rank]
            return try CoordinatesDescription(payload: words.flatMap { littleEndian($0) }, rowCount: 5, rowsPerBlock: 5)
        }
        #expect(try description(rank: 256).ranks == [256])
        for rank in [1 << 29, 1 << 62, UInt64.max] {
            #expect(throws: CatalogCodingError.self) { () throws(CatalogCodingError) in try description(rank: rank) }
        }
    }

    @Test func coordinatesTables() throws {
        let store = StoreDirectory(path: directory.path)
        try createDirectory(store.temporaryPath)
        try createDirectory(store.coordinatesPath)
        let description = CoordinatesDescription(
            curvature: Digest(high: 0x11, low: 0x22), segment: Digest(high: 0x33, low: 0x44), encoding: .f16,
            rowCount: 3, rowsPerBlock: 32, ranks: [2, 0])
        let values: [Float] = [1, 0.5, -2, 0.25, 4, 8]
        var writer = try CoordinatesWriter(description, directory: store)
        let groups = [
            EigenCoordinates(rank: 2, values: values, outsideNorms: [1, 2, 3]),
            EigenCoordinates(rank: 0, values: [], outsideNorms: [4, 5, 6]),
        ]
        for (number, group) in groups.enumerated() {
            try writer.append(try #require(EncodedCoordinates(group, encoding: .f16)), block: 0, group: number)
        }
        _ = try writer.seal()
        let file = try PagedFileReader(path: store.coordinatesPath + "/" + description.fileName, magic: .coordinates)

        let rows = try table("coordinates.md", "Coordinates file")
        let codes: [CoordinatesColumnKind] = [.description, .outsideNorms, .values]
        expectKinds(rows, codes.map { ($0.rawValue, "\($0)") })
        #expect(file.footer.columns.map(\.kind) == (codes + [.outsideNorms]).map(\.rawValue))
        #expect(file.footer.columns.map(\.layer) == [0, 0, 0, 1])

        let fields = try table("coordinates.md", "Description")
        try expect(
            try payload(file, CoordinatesColumnKind.description.rawValue).bytes, fields,
            [
                ("of the curvature", .digest(Digest(high: 0x11, low: 0x22))),
                ("of the segment", .digest(Digest(high: 0x33, low: 0x44))), ("encoding", .number(2)),
                ("number of groups", .number(2)), ("rank", .numbers([2, 0])),
            ])
        let codesInText = fields[2][2].split { !($0.isLetter || $0.isNumber) }.suffix(7).map(String.init)
        #expect(codesInText == ["1", "f32", "2", "f16", "or", "4", "int8"])
        #expect(Encoding.f32.rawValue == 1 && Encoding.f16.rawValue == 2 && Encoding.int8.rawValue == 4)
        #expect(Set(CoordinatesDescription.encodings) == [.f32, .f16, .int8])

        #expect(types(rows[1][3]) == ["f32"])
        let norms = try payload(file, CoordinatesColumnKind.outsideNorms.rawValue, layer: 1)
        #expect(norms.bytes == [4, 5, 6].flatMap { littleEndian(Float($0).bitPattern) } && norms.rows == 3)
        let stored = try payload(file, CoordinatesColumnKind.values.rawValue)
        #expect(stored.bytes == encodeVectors(values.span, rowCount: 3, length: 2, encoding: .f16) && stored.rows == 3)
    }
}

/// The little-endian bytes of a number.
private func littleEndian(_ value: some FixedWidthInteger & UnsignedInteger) -> [UInt8] {
    withUnsafeBytes(of: value.littleEndian) { Array($0) }
}
