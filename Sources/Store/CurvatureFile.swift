import Checksum
import Files
import Format
import Schema

/// How the eigenpairs of one group were found, and how good they are.
public struct CurvatureGroupDetails: Hashable, Sendable {
    /// How H was formed: a name, as the fit gives it.
    public var algorithm = ""
    /// In which precision.
    public var arithmetic = ""
    /// How the eigenpairs were found.
    public var solver = ""
    /// Passes over the rows.
    public var passCount = 0
    /// max |V Vᵀ − I|.
    public var orthogonalityError = 0.0
    /// max ‖H v − s² v‖ / s²_1.
    public var residual = 0.0
    /// Whether the basis spans every row that it was fitted on.
    public var spansRows = false

    /// Nothing known.
    public init() {}

    func write(to writer: inout ByteWriter) {
        writer.write(UInt64(passCount))
        writer.write(orthogonalityError)
        writer.write(residual)
        writer.write(UInt64(spansRows ? 1 : 0))
        writer.write(string: algorithm)
        writer.write(string: arithmetic)
        writer.write(string: solver)
    }

    init(from reader: inout CatalogReader) throws(CatalogCodingError) {
        passCount = try reader.readCount()
        orthogonalityError = try reader.readDouble()
        residual = try reader.readDouble()
        let flag: UInt64 = try reader.read()
        guard flag <= 1 else { throw .rule(expected: "0 or 1", found: "\(flag)") }
        spansRows = flag == 1
        algorithm = try reader.readString()
        arithmetic = try reader.readString()
        solver = try reader.readString()
    }
}

/// The eigenpairs of one group of layers that share an eigenbasis.
public struct CurvatureGroupData: Hashable, Sendable {
    /// Positions of the layers in the schema, in the order of the basis vectors' coordinates.
    public var layers: [Int]
    /// Σ d1·d2 over the layers: the length of a basis vector.
    public var gradientLength: Int
    /// Of the curvature matrix, descending.
    public var eigenvalues: [Double]
    /// rank × gradientLength, row-major; row k is the eigenvector of `eigenvalues[k]`.
    public var basis: [Float]
    /// Of the whole matrix, so that what the kept pairs miss is known.
    public var trace: Double
    /// How the pairs were found.
    public var details: CurvatureGroupDetails

    /// A group; `basis` must have eigenvalues.count · gradientLength numbers.
    public init(
        layers: [Int], gradientLength: Int, eigenvalues: [Double], basis: [Float], trace: Double,
        details: CurvatureGroupDetails = CurvatureGroupDetails()
    ) {
        self.layers = layers
        self.gradientLength = gradientLength
        self.eigenvalues = eigenvalues
        self.basis = basis
        self.trace = trace
        self.details = details
    }
}

/// Column kinds of a curvature file; the column's `layer` field is the number of the group.
enum CurvatureColumnKind: UInt8 {
    /// One page: the `CurvatureDescription`.
    case description = 32
    /// One page a group: layers, lengths and trace.
    case group = 33
    /// One page: f64.
    case eigenvalues = 34
    /// Pages of at most `CurvatureFile.numbersPerPage` f32 each, the block being the page's number.
    case basis = 35
}

/// A curvature artefact: a paged file whose footer digest is its name.
struct CurvatureFile {
    /// 16 MiB of f32.
    static let numbersPerPage = 4 << 20

    private let reader: PagedFileReader
    private let schema: StoreSchema
    private let record: CurvatureRecord

    /// Opens the file that a record names.
    init(path: String, record: CurvatureRecord, schema: StoreSchema) throws(StoreError) {
        do {
            reader = try PagedFileReader(path: path, magic: .curvature, expecting: record.identity)
        } catch .file(.missing(_)) {
            throw .fileOfCatalogMissing(path: path)
        }
        // Encoding and ranks may have changed since the fit; gradients have not changed their shape.
        guard let fitted = try? StoreSchema(decoding: reader.footer.schema), fitted.hasSameGradients(as: schema) else {
            throw .schemaDiffers(path: path)
        }
        self.schema = schema
        self.record = record
    }

    // MARK: - Writing

    /// Writes a temporary file and seals it under another temporary name; the caller moves it to the name of its digest.
    static func write(
        _ groups: [CurvatureGroupData], description: CurvatureDescription, schema: StoreSchema, temporaryPath: String,
        sealedPath: String
    ) throws(StoreError) -> PagedFileIdentity {
        try validate(groups, schema: schema)
        var file = try PagedFileWriter(magic: .curvature, schema: schema.encoded(), temporaryPath: temporaryPath)
        var writer = ByteWriter()
        description.write(to: &writer)
        let column = file.addColumn(ColumnDescriptor(kind: CurvatureColumnKind.description.rawValue))
        try file.append(writer.bytes, column: column, block: 0, rowCount: 1, compression: .none)
        var blockCount = 1
        for (number, group) in groups.enumerated() {
            func descriptor(_ kind: CurvatureColumnKind) -> ColumnDescriptor {
                ColumnDescriptor(kind: kind.rawValue, layer: UInt32(number))
            }
            let groupColumn = file.addColumn(descriptor(.group))
            try file.append(encode(group), column: groupColumn, block: 0, rowCount: 1, compression: .none)
            guard !group.eigenvalues.isEmpty else { continue }
            let valueColumn = file.addColumn(descriptor(.eigenvalues))
            var values = ByteWriter()
            for value in group.eigenvalues { values.write(value) }
            try file.append(
                values.bytes, column: valueColumn, block: 0, rowCount: group.eigenvalues.count,
                compression: .none)
            let basisColumn = file.addColumn(descriptor(.basis))
            for (block, start) in stride(from: 0, to: group.basis.count, by: numbersPerPage).enumerated() {
                let numbers = group.basis[start..<min(start + numbersPerPage, group.basis.count)]
                try file.append(
                    bytes(of: numbers), column: basisColumn, block: block, rowCount: numbers.count, compression: .none)
                blockCount = max(blockCount, block + 1)
            }
        }
        return try file.seal(
            as: sealedPath, rowCount: groups.count, rowsPerBlock: numbersPerPage, blockCount: blockCount,
            provenance: description.provenance)
    }

    private static func bytes(of numbers: ArraySlice<Float>) -> [UInt8] {
        var bytes = [UInt8]()
        bytes.reserveCapacity(numbers.count * 4)
        for number in numbers {
            let word = number.bitPattern
            bytes.append(UInt8(truncatingIfNeeded: word))
            bytes.append(UInt8(truncatingIfNeeded: word >> 8))
            bytes.append(UInt8(truncatingIfNeeded: word >> 16))
            bytes.append(UInt8(truncatingIfNeeded: word >> 24))
        }
        return bytes
    }

    private static func encode(_ group: CurvatureGroupData) -> [UInt8] {
        var writer = ByteWriter()
        writer.write(UInt64(group.gradientLength))
        writer.write(UInt64(group.eigenvalues.count))
        writer.write(group.trace)
        writer.write(UInt64(group.layers.count))
        for layer in group.layers { writer.write(UInt32(layer)) }
        group.details.write(to: &writer)
        return writer.bytes
    }

    /// Each layer in at most one group, lengths that fit the schema, finite numbers, eigenvalues descending.
    private static func validate(_ groups: [CurvatureGroupData], schema: StoreSchema) throws(StoreError) {
        func require(_ condition: Bool, _ what: String, _ expected: String, _ found: String) throws(StoreError) {
            guard condition else { throw .curvatureShape(what: what, expected: expected, found: found) }
        }
        var seen: Set<Int> = []
        for (number, group) in groups.enumerated() {
            for layer in group.layers {
                try require(
                    schema.layers.indices.contains(layer) && seen.insert(layer).inserted, "layers of group \(number)",
                    "layers of the schema, each once", "layer \(layer)")
            }
            let length = group.layers.reduce(0) { $0 + schema.layers[$1].gradientLength }
            try require(
                !group.layers.isEmpty && group.gradientLength == length, "gradient length of group \(number)",
                "\(length)", "\(group.gradientLength)")
            let (count, overflow) = group.eigenvalues.count.multipliedReportingOverflow(by: length)
            try require(
                !overflow && group.basis.count == count, "basis of group \(number)",
                "\(group.eigenvalues.count) × \(length) numbers", "\(group.basis.count)")
            try require(
                group.trace.isFinite && group.eigenvalues.allSatisfy(\.isFinite) && group.basis.allSatisfy(\.isFinite),
                "numbers of group \(number)", "finite numbers", "NaN or infinity")
            try require(
                zip(group.eigenvalues, group.eigenvalues.dropFirst()).allSatisfy { $0 >= $1 },
                "eigenvalues of group \(number)", "descending order", "another order")
        }
    }

    // MARK: - Reading

    /// All groups, each page verified.
    func readGroups() throws(StoreError) -> [CurvatureGroupData] {
        var groups: [CurvatureGroupData] = []
        for number in 0..<reader.footer.rowCount {
            guard let header = column(.group, number), reader.pageNumber(column: header, block: 0) != nil else {
                throw shape("group \(number)", "a group page", "none")
            }
            let group = try decode(try reader.readPage(column: header, block: 0), number: number)
            groups.append(try readNumbers(of: group, number: number))
        }
        try CurvatureFile.validate(groups, schema: schema)
        return groups
    }

    /// Every damage of the file.
    func damages(progress: (Int) -> Bool = { _ in true }) -> [StoreError] {
        var damages = reader.damages(progress: progress)
        guard damages.isEmpty else { return damages }
        do throws(StoreError) {
            _ = try readGroups()
            let found = try readDescription()
            if found != record.description {
                throw shape("description", "the description in the catalog", "another one")
            }
        } catch {
            damages.append(error)
        }
        return damages
    }

    /// The record of a file that no catalog names, checked whole.
    static func record(ofFile path: String) throws(StoreError) -> CurvatureRecord {
        let reader = try PagedFileReader(path: path, magic: .curvature)
        let schema: StoreSchema
        do { schema = try StoreSchema(decoding: reader.footer.schema) } catch { throw .format(path: path, error) }
        let unknown = CurvatureDescription(
            scope: "", algorithm: "", rank: 0, capturedEnergy: 0, fittedGeneration: 0, fittedRowCount: 0,
            fittedRowDigest: Digest(high: 0, low: 0))
        let file = try CurvatureFile(
            path: path,
            record: CurvatureRecord(identity: reader.identity, description: unknown, addedGeneration: 0), schema: schema
        )
        let record = CurvatureRecord(
            identity: reader.identity, description: try file.readDescription(), addedGeneration: 0)
        if let damage = try CurvatureFile(path: path, record: record, schema: schema).damages().first {
            throw damage
        }
        return record
    }

    private func readDescription() throws(StoreError) -> CurvatureDescription {
        guard let column = column(.description, 0), reader.pageNumber(column: column, block: 0) != nil else {
            throw shape("description", "a page", "none")
        }
        do throws(CatalogCodingError) {
            var page = CatalogReader(try readPayload(column, 0))
            let description = try CurvatureDescription(from: &page)
            try page.expectEnd()
            return description
        } catch {
            throw shape("description", error.texts.expected, error.texts.found)
        }
    }

    /// A page whose damage has been ruled out before; its error is repeated as a broken rule.
    private func readPayload(_ column: Int, _ block: Int) throws(CatalogCodingError) -> [UInt8] {
        do { return try reader.readPage(column: column, block: block) } catch {
            throw .rule(expected: "a whole page", found: "\(error)")
        }
    }

    private func column(_ kind: CurvatureColumnKind, _ group: Int) -> Int? {
        reader.footer.columns.firstIndex { $0.kind == kind.rawValue && $0.layer == UInt32(group) }
    }

    private func shape(_ what: String, _ expected: String, _ found: String) -> StoreError {
        .curvatureShape(what: "\(reader.path): \(what)", expected: expected, found: found)
    }

    private func decode(_ bytes: [UInt8], number: Int) throws(StoreError) -> (CurvatureGroupData, rank: Int) {
        do throws(CatalogCodingError) {
            var page = CatalogReader(bytes)
            let length = try page.readCount()
            let rank = try page.readCount()
            let trace = try page.readDouble()
            let layerCount = try page.readCount()
            var layers: [Int] = []
            // Not reserved: the count is not trusted, the bytes end it.
            for _ in 0..<layerCount { layers.append(Int(try page.read(UInt32.self))) }
            let details = try CurvatureGroupDetails(from: &page)
            try page.expectEnd()
            let group = CurvatureGroupData(
                layers: layers, gradientLength: length, eigenvalues: [], basis: [], trace: trace, details: details)
            return (group, rank)
        } catch {
            throw shape("group \(number)", error.texts.expected, error.texts.found)
        }
    }

    private func readNumbers(
        of decoded: (group: CurvatureGroupData, rank: Int), number: Int
    ) throws(StoreError) -> CurvatureGroupData {
        var group = decoded.group
        guard decoded.rank > 0 else { return group }
        guard let valueColumn = column(.eigenvalues, number), let basisColumn = column(.basis, number),
            reader.pageNumber(column: valueColumn, block: 0) != nil
        else { throw shape("group \(number)", "eigenvalues and basis", "none") }
        let values = try reader.readPage(column: valueColumn, block: 0)
        let (byteCount, tooMany) = decoded.rank.multipliedReportingOverflow(by: 8)
        guard !tooMany, values.count == byteCount else {
            throw shape("group \(number)", "\(decoded.rank) eigenvalues", "\(values.count) bytes")
        }
        group.eigenvalues = (0..<decoded.rank).map { index in
            Double(bitPattern: (0..<8).reduce(0) { $0 | UInt64(values[8 * index + $1]) << UInt64(8 * $1) })
        }
        let (count, overflow) = decoded.rank.multipliedReportingOverflow(by: group.gradientLength)
        guard !overflow else { throw shape("group \(number)", "a basis", "rank \(decoded.rank)") }
        var block = 0
        while group.basis.count < count, reader.pageNumber(column: basisColumn, block: block) != nil {
            append(try reader.readPage(column: basisColumn, block: block), to: &group.basis)
            block += 1
        }
        guard group.basis.count == count else {
            throw shape("basis of group \(number)", "\(count) numbers", "\(group.basis.count)")
        }
        return group
    }

    private func append(_ bytes: [UInt8], to numbers: inout [Float]) {
        bytes.withUnsafeBytes { raw in
            for offset in stride(from: 0, to: raw.count - 3, by: 4) {
                let word = raw.loadUnaligned(fromByteOffset: offset, as: UInt32.self)
                numbers.append(Float(bitPattern: UInt32(littleEndian: word)))
            }
        }
    }
}

extension StoreSchema {
    /// Whether layers agree in name, order and shape, and the basis, however they are stored.
    func hasSameGradients(as other: StoreSchema) -> Bool {
        layers.count == other.layers.count && basis == other.basis
            && zip(layers, other.layers).allSatisfy {
                $0.name == $1.name && $0.inputDimension == $1.inputDimension && $0.outputDimension == $1.outputDimension
            }
    }
}
