public import Checksum
import Files
import Format
public import Schema

/// Column kinds of a basis file; the column's `layer` field is the place of the layer in the file's schema.
enum BasisColumnKind: UInt8 {
    /// One page: ε and the number of examples.
    case description = 48
    /// One page a layer: f64, d1 eigenvalues of C1, then d2 of C2.
    case eigenvalues = 49
    /// Pages of at most `BasisFile.numbersPerPage` f32 each: W1.
    case left = 50
    /// The same: W2.
    case right = 51
}

/// A whitening basis on disk: a paged file whose footer digest is its name. See Formats/basis.md.
///
/// Equal bases have equal bytes: nothing in the file says where or when it was made.
public enum BasisFile {
    /// 16 MiB of f32.
    static let numbersPerPage = 4 << 20

    /// The name of the file with that digest.
    static func fileName(_ digest: Digest) -> String { "\(digest).basis" }

    // MARK: - Writing

    /// Writes a basis under a path that must be free, by way of a temporary name; gives its digest.
    public static func write(
        _ basis: WhiteningBasis, to path: String, temporaryPath: String
    ) throws(StoreError) -> Digest {
        let schema = schema(of: basis)
        do { try schema.validate() } catch { throw .schemaRefused(error) }
        var file = try PagedFileWriter(magic: .basis, schema: schema.encoded(), temporaryPath: temporaryPath)
        var description = ByteWriter()
        description.write(basis.epsilon)
        description.write(UInt64(basis.sampleCount))
        let column = file.addColumn(ColumnDescriptor(kind: BasisColumnKind.description.rawValue))
        try file.append(description.bytes, column: column, block: 0, rowCount: 1, compression: .none)
        var blockCount = 1
        for (place, layer) in basis.layers.enumerated() {
            func descriptor(_ kind: BasisColumnKind) -> ColumnDescriptor {
                ColumnDescriptor(kind: kind.rawValue, layer: UInt32(place))
            }
            var values = ByteWriter()
            for value in layer.leftEigenvalues + layer.rightEigenvalues { values.write(value) }
            let valueColumn = file.addColumn(descriptor(.eigenvalues))
            try file.append(
                values.bytes, column: valueColumn, block: 0,
                rowCount: layer.inputDimension + layer.outputDimension, compression: .none)
            for (kind, map) in [(BasisColumnKind.left, layer.left), (.right, layer.right)] {
                let mapColumn = file.addColumn(descriptor(kind))
                for (block, start) in stride(from: 0, to: map.count, by: numbersPerPage).enumerated() {
                    let numbers = map[start..<min(start + numbersPerPage, map.count)]
                    var bytes = ByteWriter()
                    for number in numbers { bytes.write(number.bitPattern) }
                    try file.append(
                        bytes.bytes, column: mapColumn, block: block, rowCount: numbers.count, compression: .none)
                    blockCount = max(blockCount, block + 1)
                }
            }
        }
        return try file.seal(
            as: path, rowCount: basis.layers.count, rowsPerBlock: numbersPerPage, blockCount: blockCount,
            provenance: "{}"
        ).footerDigest
    }

    /// The layers in the form in which the file's schema has them: a store's encoding and ranks are no part of a basis.
    private static func schema(of basis: WhiteningBasis) -> StoreSchema {
        StoreSchema(
            layers: basis.layers.map {
                LayerSchema(
                    name: $0.name, inputDimension: $0.inputDimension, outputDimension: $0.outputDimension,
                    form: .factors(rank: 1))
            }, encoding: .f32)
    }

    // MARK: - Reading

    /// The basis in a file and its digest, every byte verified; the file must be the one of `expected`, if that is given.
    public static func read(
        _ path: String, expecting expected: Digest? = nil
    ) throws(StoreError) -> (basis: WhiteningBasis, digest: Digest) {
        let reader = try PagedFileReader(path: path, magic: .basis)
        let digest = reader.identity.footerDigest
        if let expected, expected != digest {
            throw .basisDamaged(path: path, expected: "the basis \(expected)", found: "the basis \(digest)")
        }
        if let damage = reader.damages(progress: { _ in true }).first { throw damage }
        let schema: StoreSchema
        do { schema = try StoreSchema(decoding: reader.footer.schema) } catch { throw .format(path: path, error) }
        return (try BasisReader(file: reader, schema: schema).read(), digest)
    }
}

/// Decodes the pages of a basis file, which are whole.
private struct BasisReader {
    let file: PagedFileReader
    let schema: StoreSchema

    func read() throws(StoreError) -> WhiteningBasis {
        let footer = file.footer
        guard schema.basis == nil, schema.encoding == .f32, schema.layers.allSatisfy({ $0.rank == 1 }) else {
            throw damaged("layers as rank 1 in f32", "a schema of another kind")
        }
        guard footer.rowCount == schema.layers.count, footer.columns.count == 1 + 3 * schema.layers.count,
            footer.columns.first?.kind == BasisColumnKind.description.rawValue
        else { throw damaged("a description and 3 columns for each of \(schema.layers.count) layers", "others") }
        var layers: [LayerWhitening] = []
        for (place, layer) in schema.layers.enumerated() {
            let first = 1 + 3 * place
            for (offset, kind) in [BasisColumnKind.eigenvalues, .left, .right].enumerated() {
                let column = footer.columns[first + offset]
                guard column.kind == kind.rawValue, column.layer == UInt32(place) else {
                    throw damaged("eigenvalues, left and right of layer \(place)", "column kind \(column.kind)")
                }
            }
            layers.append(try read(layer, firstColumn: first))
        }
        let description = try bytes(column: 0, count: 16)
        let epsilon = Double(bitPattern: word(description, at: 0))
        guard epsilon.isFinite, epsilon > 0, let count = Int(exactly: word(description, at: 8)) else {
            throw damaged("a positive epsilon and a count", "\(epsilon)")
        }
        return WhiteningBasis(epsilon: epsilon, sampleCount: count, layers: layers)
    }

    private func read(_ layer: LayerSchema, firstColumn: Int) throws(StoreError) -> LayerWhitening {
        let (d1, d2) = (layer.inputDimension, layer.outputDimension)
        let raw = try bytes(column: firstColumn, count: 8 * (d1 + d2))
        let values = (0..<(d1 + d2)).map { Double(bitPattern: word(raw, at: 8 * $0)) }
        guard values.allSatisfy({ $0.isFinite && $0 >= 0 }) else {
            throw damaged("eigenvalues of layer \(layer.name) that are finite and not negative", "others")
        }
        return LayerWhitening(
            name: layer.name, inputDimension: d1, outputDimension: d2, leftEigenvalues: Array(values.prefix(d1)),
            rightEigenvalues: Array(values.suffix(d2)), left: try map(column: firstColumn + 1, order: d1, layer),
            right: try map(column: firstColumn + 2, order: d2, layer))
    }

    private func map(column: Int, order: Int, _ layer: LayerSchema) throws(StoreError) -> [Float] {
        var numbers: [Float] = []
        var block = 0
        while numbers.count < order * order {
            let count = min(BasisFile.numbersPerPage, order * order - numbers.count)
            let page = try bytes(column: column, block: block, count: 4 * count)
            for index in 0..<count {
                numbers.append(Float(bitPattern: UInt32(truncatingIfNeeded: word(page, at: 4 * index, byteCount: 4))))
            }
            block += 1
        }
        guard numbers.allSatisfy(\.isFinite) else {
            throw damaged("finite maps of layer \(layer.name)", "NaN or infinity")
        }
        return numbers
    }

    private func bytes(column: Int, block: Int = 0, count: Int) throws(StoreError) -> [UInt8] {
        guard let number = file.pageNumber(column: column, block: block) else {
            throw damaged("a page of column \(column), block \(block)", "none")
        }
        let bytes = try file.readPage(number)
        guard bytes.count == count else {
            throw damaged("\(count) bytes in column \(column), block \(block)", "\(bytes.count)")
        }
        return bytes
    }

    private func word(_ bytes: [UInt8], at offset: Int, byteCount: Int = 8) -> UInt64 {
        (0..<byteCount).reduce(0) { $0 | UInt64(bytes[offset + $1]) << UInt64(8 * $1) }
    }

    private func damaged(_ expected: String, _ found: String) -> StoreError {
        .basisDamaged(path: file.path, expected: expected, found: found)
    }
}
