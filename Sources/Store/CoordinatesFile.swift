public import Checksum
import Files
import Format
import Kernels
public import Schema

/// What a coordinates file holds: the rows of which segment, in the eigenbases of which curvature.
public struct CoordinatesDescription: Hashable, Sendable {
    /// The curvature's name.
    public let curvature: Digest
    /// The digest of the segment's footer. Not its number: a compaction may give the same file another one.
    public let segment: Digest
    /// How the coordinates are kept: f32, f16 or int8.
    public let encoding: Encoding
    /// Rows of the segment, deleted ones included.
    public let rowCount: Int
    /// Rows of every block of the segment but the last.
    public let rowsPerBlock: Int
    /// Eigenpairs of each group of the curvature.
    public let ranks: [Int]

    /// The encodings that coordinates may have.
    public static let encodings: [Encoding] = [.int8, .f16, .f32]

    /// A description of known parts.
    public init(
        curvature: Digest, segment: Digest, encoding: Encoding, rowCount: Int, rowsPerBlock: Int, ranks: [Int]
    ) {
        precondition(Self.encodings.contains(encoding), "coordinates are kept as f32, f16 or int8")
        self.curvature = curvature
        self.segment = segment
        self.encoding = encoding
        self.rowCount = rowCount
        self.rowsPerBlock = rowsPerBlock
        self.ranks = ranks
    }

    /// How many row blocks there are.
    public var blockCount: Int { (rowCount + rowsPerBlock - 1) / rowsPerBlock }

    /// Rows of a block.
    public func rowCount(ofBlock block: Int) -> Int { min(rowsPerBlock, rowCount - block * rowsPerBlock) }

    static func fileName(curvature: Digest, segment: Digest) -> String { "\(curvature)-\(segment).coordinates" }

    var fileName: String { Self.fileName(curvature: curvature, segment: segment) }

    var payload: [UInt8] {
        var writer = ByteWriter()
        writer.write(curvature)
        writer.write(segment)
        writer.write(UInt64(encoding.rawValue))
        writer.write(UInt64(ranks.count))
        for rank in ranks { writer.write(UInt64(rank)) }
        return writer.bytes
    }

    init(payload: [UInt8], rowCount: Int, rowsPerBlock: Int) throws(CatalogCodingError) {
        var reader = CatalogReader(payload)
        curvature = try reader.readDigest()
        segment = try reader.readDigest()
        let code = try reader.read(UInt64.self)
        guard let encoding = Self.encodings.first(where: { UInt64($0.rawValue) == code }) else {
            throw .rule(expected: "f32, f16 or int8", found: "encoding \(code)")
        }
        self.encoding = encoding
        let count = try reader.readCount()
        var ranks: [Int] = []
        // Not reserved: the count is not trusted, the bytes end it.
        for _ in 0..<count { ranks.append(try reader.readCount()) }
        try reader.expectEnd()
        // What pages must hold is computed from ranks: no product of these with rows of a block overflows.
        if let rank = ranks.first(where: { $0 > Limits.gradientLength }) {
            throw .rule(expected: "ranks of at most \(Limits.gradientLength)", found: "\(rank)")
        }
        guard rowsPerBlock > 0, rowCount > 0 else { throw .rule(expected: "rows", found: "none") }
        self.ranks = ranks
        self.rowCount = rowCount
        self.rowsPerBlock = rowsPerBlock
    }
}

/// Column kinds of a coordinates file; the column's `layer` field is the number of the group.
enum CoordinatesColumnKind: UInt8 {
    /// One page: the `CoordinatesDescription`.
    case description = 64
    /// A page a block: f32, `EigenCoordinates.outsideNorms`.
    case outsideNorms = 65
    /// A page a block: encoded vectors of length rank; none for a group of rank 0.
    case values = 66
}

/// One group's rows of one block as the bytes of their pages.
public struct EncodedCoordinates: Sendable {
    let norms: [UInt8]
    let values: [UInt8]

    /// Encodes rows; nil if a number is not finite.
    public init?(_ rows: EigenCoordinates, encoding: Encoding) {
        guard rows.values.allSatisfy(\.isFinite), rows.outsideNorms.allSatisfy(\.isFinite) else { return nil }
        var writer = ByteWriter()
        for norm in rows.outsideNorms { writer.write(norm.bitPattern) }
        norms = writer.bytes
        values =
            rows.rank == 0
            ? []
            : encodeVectors(rows.values.span, rowCount: rows.rowCount, length: rows.rank, encoding: encoding)
    }
}

/// Writes a coordinates file: for every block in order, every group in order. See Formats/coordinates.md.
public struct CoordinatesWriter: ~Copyable {
    private let description: CoordinatesDescription
    private var file: PagedFileWriter
    private let columns: [(norms: Int, values: Int?)]
    private let finalPath: String

    init(_ description: CoordinatesDescription, directory: StoreDirectory) throws(StoreError) {
        for (group, rank) in description.ranks.enumerated() {
            let byteCount = vectorPayloadByteCount(
                rowCount: description.rowCount(ofBlock: 0), length: rank, encoding: description.encoding)
            guard byteCount <= Limits.pageBytes else {
                throw .curvatureShape(
                    what: "coordinates of \(rank) eigenvectors (group \(group))",
                    expected: "at most \(Limits.pageBytes) bytes for a block of rows", found: "\(byteCount)")
            }
        }
        var file = try PagedFileWriter(
            magic: .coordinates, schema: [], temporaryPath: directory.temporaryPath + "/" + description.fileName)
        let column = file.addColumn(ColumnDescriptor(kind: CoordinatesColumnKind.description.rawValue))
        var columns: [(norms: Int, values: Int?)] = []
        for (group, rank) in description.ranks.enumerated() {
            let norms = file.addColumn(
                ColumnDescriptor(kind: CoordinatesColumnKind.outsideNorms.rawValue, layer: UInt32(group)))
            let values =
                rank == 0
                ? nil
                : file.addColumn(
                    ColumnDescriptor(kind: CoordinatesColumnKind.values.rawValue, layer: UInt32(group)))
            columns.append((norms, values))
        }
        try file.append(description.payload, column: column, block: 0, rowCount: 1, compression: .none)
        self.description = description
        self.columns = columns
        self.file = file
        finalPath = directory.coordinatesPath + "/" + description.fileName
    }

    /// Adds one group's rows of a block.
    public mutating func append(_ rows: EncodedCoordinates, block: Int, group: Int) throws(StoreError) {
        let rowCount = description.rowCount(ofBlock: block)
        try file.append(rows.norms, column: columns[group].norms, block: block, rowCount: rowCount, compression: .none)
        guard let column = columns[group].values else { return }
        try file.append(rows.values, column: column, block: block, rowCount: rowCount, compression: .none)
    }

    /// Makes the file durable and gives it its name, in place of another version of it; gives its length.
    public consuming func seal() throws(StoreError) -> Int {
        let (description, finalPath) = (description, finalPath)
        // Readers that have the other version open go on with it.
        try wrapping { () throws(FileError) in
            if try fileStatus(finalPath) != nil { try removeFile(finalPath) }
        }
        return try file.seal(
            as: finalPath, rowCount: description.rowCount, rowsPerBlock: description.rowsPerBlock,
            blockCount: description.blockCount, provenance: "{}"
        ).fileLength
    }
}

/// Reads a coordinates file, each page verified before it is decoded. Safe to use from any number of threads.
public final class CoordinatesReader: Sendable {
    /// What the file holds.
    public let description: CoordinatesDescription
    private let file: PagedFileReader

    /// Opens a file that must belong to this curvature and segment: header, footer and description are read and checked.
    init(path: String, curvature: Digest, segment: SegmentInfo) throws(StoreError) {
        file = try PagedFileReader(path: path, magic: .coordinates)
        let footer = file.footer
        let column = CoordinatesColumnKind.description.rawValue
        guard footer.columns.first?.kind == column, let page = file.pageNumber(column: 0, block: 0) else {
            throw .coordinatesDamaged(path: path, expected: "a description", found: "none")
        }
        let payload = try file.readPage(page)
        do throws(CatalogCodingError) {
            description = try CoordinatesDescription(
                payload: payload, rowCount: footer.rowCount, rowsPerBlock: footer.rowsPerBlock)
        } catch {
            throw .coordinatesDamaged(path: path, expected: error.texts.expected, found: error.texts.found)
        }
        func require<Value: Equatable>(_ what: String, _ expected: Value, _ found: Value) throws(StoreError) {
            guard expected == found else {
                throw .coordinatesDamaged(path: path, expected: "\(what) \(expected)", found: "\(found)")
            }
        }
        try require("curvature", curvature, description.curvature)
        try require("segment", segment.identity.footerDigest, description.segment)
        try require("rows", segment.rowCount, description.rowCount)
        try require("blocks", description.blockCount, footer.blockCount)
        try require("columns", Self.columns(description), footer.columns)
        // Every column but the description has a page in every block.
        try require("pages", 1 + (footer.columns.count - 1) * description.blockCount, footer.pages.count)
    }

    private static func columns(_ description: CoordinatesDescription) -> [ColumnDescriptor] {
        var columns = [ColumnDescriptor(kind: CoordinatesColumnKind.description.rawValue)]
        for (group, rank) in description.ranks.enumerated() {
            let kinds: [CoordinatesColumnKind] = rank == 0 ? [.outsideNorms] : [.outsideNorms, .values]
            columns += kinds.map { ColumnDescriptor(kind: $0.rawValue, layer: UInt32(group)) }
        }
        return columns
    }

    /// The file's path.
    public var path: String { file.path }
    /// Bytes of the file.
    public var byteCount: Int { file.identity.fileLength }

    /// Every row of one group of a block, deleted ones included.
    public func read(block: Int, group: Int) throws(StoreError) -> EigenCoordinates {
        let rank = description.ranks[group]
        let rowCount = description.rowCount(ofBlock: block)
        let norms = try readPage(.outsideNorms, block: block, group: group)
        let outside = try Self.decodeNorms(norms, rowCount: rowCount, path: path)
        guard rank > 0 else { return EigenCoordinates(rank: 0, values: [], outsideNorms: outside) }
        let payload = try readPage(.values, block: block, group: group)
        try Self.expectLength(payload, rowCount: rowCount, rank: rank, encoding: description.encoding, path: path)
        var values = [Float](repeating: 0, count: rowCount * rank)
        var span = values.mutableSpan
        decodeVectors(
            payload.span.bytes, rowCount: rowCount, length: rank, encoding: description.encoding, into: &span)
        return EigenCoordinates(rank: rank, values: values, outsideNorms: outside)
    }

    private func readPage(_ kind: CoordinatesColumnKind, block: Int, group: Int) throws(StoreError) -> [UInt8] {
        let column = file.footer.columns.firstIndex { $0.kind == kind.rawValue && $0.layer == UInt32(group) }
        guard let column, let page = file.pageNumber(column: column, block: block) else {
            throw .coordinatesDamaged(path: path, expected: "a page of group \(group), block \(block)", found: "none")
        }
        return try file.readPage(page)
    }

    private static func decodeNorms(_ bytes: [UInt8], rowCount: Int, path: String) throws(StoreError) -> [Float] {
        guard bytes.count == 4 * rowCount else {
            throw .coordinatesDamaged(path: path, expected: "\(rowCount) norms", found: "\(bytes.count) bytes")
        }
        var norms: [Float] = []
        norms.reserveCapacity(rowCount)
        for row in 0..<rowCount {
            let word = (0..<4).reduce(UInt32(0)) { $0 | UInt32(bytes[4 * row + $1]) << (8 * UInt32($1)) }
            let norm = Float(bitPattern: word)
            guard norm.isFinite, norm >= 0 else {
                throw .coordinatesDamaged(path: path, expected: "norms", found: "\(norm)")
            }
            norms.append(norm)
        }
        return norms
    }

    private static func expectLength(
        _ payload: [UInt8], rowCount: Int, rank: Int, encoding: Encoding, path: String
    ) throws(StoreError) {
        let expected = vectorPayloadByteCount(rowCount: rowCount, length: rank, encoding: encoding)
        guard payload.count == expected else {
            throw .coordinatesDamaged(path: path, expected: "\(expected) bytes of a block", found: "\(payload.count)")
        }
    }

    /// Whether every byte is as it was written.
    public var isSound: Bool { damages().isEmpty }

    /// Everything in the file that is not as it was written; reads every byte.
    func damages(progress: (Int) -> Bool = { _ in true }) -> [StoreError] {
        let (description, path, columns) = (description, path, file.footer.columns)
        let pages = file.footer.pages
        return file.damages(
            progress: progress, isWanted: { pages[$0].column > 0 },
            content: { (number, payload) throws(StoreError) in
                let page = pages[number]
                let rowCount = description.rowCount(ofBlock: Int(page.block))
                let column = columns[Int(page.column)]
                if column.kind == CoordinatesColumnKind.outsideNorms.rawValue {
                    _ = try Self.decodeNorms(payload, rowCount: rowCount, path: path)
                } else {
                    try Self.expectLength(
                        payload, rowCount: rowCount, rank: description.ranks[Int(column.layer)],
                        encoding: description.encoding, path: path)
                }
            })
    }
}
