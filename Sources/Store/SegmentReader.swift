import Files
public import Format
import Kernels
public import Schema

/// Which factors of a layer, or its dense rows.
public enum VectorSide: Hashable, Sendable {
    case left
    case right
    case dense
}

/// Everything that a segment knows about one example.
public struct SegmentRow: Sendable {
    /// The example's id.
    public let identifier: String
    /// One tile of one row for each layer, empty if not asked for.
    public let tiles: [LayerTile]
    /// The user's metadata, nil without any.
    public let metadata: MetadataRecord?
    /// The norm bound of each layer.
    public let norms: [Float]
    /// The residual norm bound of each layer.
    public let residualNorms: [Float]
}

/// Reads a segment: blocks of tiles, ids, metadata and norms, each page verified before it is decoded.
///
/// Immutable and safe to use from any number of threads. Keeps the footer only: the caller caches what it wants to keep.
public final class SegmentReader: Sendable {
    /// What the file is, as the catalog remembers it.
    public let identity: SegmentIdentity
    let file: PagedFileReader
    let footer: SegmentFooter

    /// Opens a segment and reads its footer: one read when the identity is known, else header, tail and footer.
    public convenience init(path: String, expecting expected: SegmentIdentity? = nil) throws(StoreError) {
        let file: ReadableFile
        do { file = try ReadableFile(path: path) } catch { throw .file(error) }
        try self.init(file: file, expecting: expected)
    }

    /// The same for a file that is open already, and may have lost its name since.
    convenience init(file: ReadableFile, expecting expected: SegmentIdentity?) throws(StoreError) {
        try self.init(file: file, expectingFile: expected?.file, rowCount: expected?.rowCount)
    }

    /// The same where the number of rows may be unknown.
    init(
        file opened: ReadableFile, expectingFile expected: PagedFileIdentity?, rowCount: Int? = nil
    ) throws(StoreError) {
        let path = opened.path
        file = try PagedFileReader(file: opened, magic: .segment, expecting: expected)
        do {
            footer = try SegmentFooter(validating: file.footer)
            if let rowCount, rowCount != footer.rowCount {
                throw FormatError.rowCount(found: footer.rowCount, limit: rowCount)
            }
        } catch let error as FormatError {
            throw .format(path: path, error)
        } catch {
            preconditionFailure("no other error is thrown here")
        }
        identity = SegmentIdentity(rowCount: footer.rowCount, file: file.identity)
    }

    /// As given to `init`.
    public var path: String { file.path }
    /// What every row has.
    public var schema: StoreSchema { footer.schema }
    /// Rows of the segment.
    public var rowCount: Int { footer.rowCount }
    /// Rows of every block but the last.
    public var rowsPerBlock: Int { footer.rowsPerBlock }
    /// How many row blocks there are.
    public var blockCount: Int { footer.blockCount }
    /// Where the rows came from: the JSON text given to the writer.
    public var provenance: String { footer.footer.provenance }
    /// Names of the metadata fields that any row has, in order of first appearance.
    public var fieldNames: [String] { footer.fieldNames }
    /// Bounds of the norms of each block's rows.
    public var blockStatistics: [BlockStatistics] { footer.statistics }
    /// Whether this program may derive new files from this one (no unknown read-only flag is set).
    public var isDerivable: Bool { footer.footer.header.readOnlyCompatibleFlags == 0 }

    /// The rows of a block.
    public func rows(ofBlock block: Int) -> Range<Int> { footer.rows(ofBlock: block) }

    /// The block of a row.
    public func block(ofRow row: Int) -> Int {
        precondition((0..<rowCount).contains(row))
        return row / rowsPerBlock
    }

    /// Asks the kernel to begin reading the pages of a block.
    func prefetch(block: Int) {
        guard let first = file.pageNumber(column: 0, block: block),
            let last = file.pageNumber(column: footer.layout.identifierColumn, block: block)
        else { return }
        file.file.prefetch(Int(file.footer.pages[first].offset)..<Int(file.footer.pages[last].end))
    }

    /// The raw bytes of a vector page, verified but not decoded, for kernels that work on codes (see Formats/page.md).
    public func readPayload(_ side: VectorSide, block: Int, layer: Int, component: Int = 0) throws(StoreError)
        -> [UInt8]
    {
        try file.readPage(column: column(side, layer: layer, component: component), block: block)
    }

    /// The same without a copy where the file has the payload as it is. What came of it must not be used before `checkMapping`.
    public func payload(
        _ side: VectorSide, block: Int, layer: Int, component: Int = 0, window: DirectWindow? = nil
    ) throws(StoreError) -> PageBytes {
        try file.pageInPlace(pageNumber(side, block: block, layer: layer, component: component), window: window)
    }

    /// The same, to be checked while it is used: nothing that came of it may be used before `OpenPage.finish`.
    public func openPage(
        _ side: VectorSide, block: Int, layer: Int, component: Int = 0, window: DirectWindow? = nil
    ) throws(StoreError) -> OpenPage {
        try file.openPage(pageNumber(side, block: block, layer: layer, component: component), window: window)
    }

    private func pageNumber(_ side: VectorSide, block: Int, layer: Int, component: Int) -> Int {
        guard let page = file.pageNumber(column: column(side, layer: layer, component: component), block: block) else {
            preconditionFailure("a valid footer has this page")
        }
        return page
    }

    /// Throws if the file was truncated while payloads of it were read.
    public func checkMapping() throws(StoreError) { try file.checkMapping() }

    /// Bytes of the file that are in the page cache; nil if the system cannot say.
    public var residentByteCount: Int? { file.file.residentByteCount(0..<identity.fileLength) }

    /// Whether the file system has reads past the page cache.
    public var canReadDirectly: Bool { file.file.direct() != nil }

    /// What a vector page takes in the file.
    public func storedByteCount(_ side: VectorSide, block: Int, layer: Int, component: Int = 0) -> Int {
        Int(file.footer.pages[pageNumber(side, block: block, layer: layer, component: component)].storedLength)
    }

    private func column(_ side: VectorSide, layer: Int, component: Int) -> Int {
        switch side {
        case .left: footer.layout.leftColumn(layer: layer, component: component)
        case .right: footer.layout.rightColumn(layer: layer, component: component)
        case .dense: footer.layout.denseColumn(layer: layer)
        }
    }

    /// A layer's rows of a block, verified and decoded.
    public func readTile(block: Int, layer: Int) throws(StoreError) -> LayerTile {
        try readTile(block: block, layer: layer, componentCount: schema.layers[layer].rank ?? 0)
    }

    /// A layer's rows of a block, with the leading components only: a tile of lower rank. Dense layers take 0.
    public func readTile(block: Int, layer index: Int, componentCount: Int) throws(StoreError) -> LayerTile {
        let layer = schema.layers[index]
        let rowCount = rows(ofBlock: block).count
        // What a footer declares is allocated once a page has shown to be that long.
        guard let rank = layer.rank else {
            let payload = try readPayload(.dense, block: block, layer: index)
            var dense = [Float](repeating: 0, count: rowCount * layer.gradientLength)
            decode(payload, rowCount: rowCount, component: 0, length: layer.gradientLength, into: &dense)
            return LayerTile(layer: layer, rowCount: rowCount, dense: dense)
        }
        precondition((1...rank).contains(componentCount), "a tile has 1 to rank components")
        func values(_ side: VectorSide, length: Int) throws(StoreError) -> [Float] {
            var values: [Float] = []
            for component in 0..<componentCount {
                let payload = try readPayload(side, block: block, layer: index, component: component)
                if component == 0 { values = [Float](repeating: 0, count: componentCount * rowCount * length) }
                decode(payload, rowCount: rowCount, component: component, length: length, into: &values)
            }
            return values
        }
        let left = try values(.left, length: layer.inputDimension)
        let right = try values(.right, length: layer.outputDimension)
        let partial = LayerSchema(
            name: layer.name, inputDimension: layer.inputDimension, outputDimension: layer.outputDimension,
            form: .factors(rank: componentCount))
        return LayerTile(layer: partial, rowCount: rowCount, left: left, right: right)
    }

    private func decode(
        _ payload: [UInt8], rowCount: Int, component: Int, length: Int, into values: inout [Float]
    ) {
        let first = component * rowCount * length
        var span = values.mutableSpan
        var part = span._mutatingExtracting(first..<first + rowCount * length)
        decodeVectors(
            payload.span.bytes, rowCount: rowCount, length: length, encoding: schema.encoding, into: &part)
    }

    /// The ids of a block.
    public func readIdentifiers(block: Int) throws(StoreError) -> [String] {
        let rowCount = rows(ofBlock: block).count
        return try read(column: footer.layout.identifierColumn, block: block) { (bytes) throws(FormatError) in
            try IdentifierPage.decode(bytes, rowCount: rowCount)
        }
    }

    /// The metadata of a block, fields in the order of `fieldNames`, some left out; nil for a row without any field.
    public func readMetadata(
        block: Int, except unwanted: Set<String> = []
    ) throws(StoreError) -> [MetadataRecord?] {
        var records = [MetadataRecord?](repeating: nil, count: rows(ofBlock: block).count)
        for (index, name) in fieldNames.enumerated() where !unwanted.contains(name) {
            guard let values = try readField(index, block: block) else { continue }
            for (row, value) in values.enumerated() {
                guard let value else { continue }
                records[row, default: MetadataRecord()].fields.append((name, value))
            }
        }
        return records
    }

    /// One metadata field of a block by its place in `fieldNames`; nil when no row of the block has it.
    public func readField(_ index: Int, block: Int) throws(StoreError) -> [MetadataValue?]? {
        let column = footer.layout.firstFieldColumn + index
        guard file.pageNumber(column: column, block: block) != nil else { return nil }
        let rowCount = rows(ofBlock: block).count
        return try read(column: column, block: block) { (bytes) throws(FormatError) in
            try FieldPage.decode(bytes, rowCount: rowCount)
        }
    }

    /// Upper bounds of ‖stored gradient‖, [layer][row].
    public func readNorms(block: Int) throws(StoreError) -> [[Float]] {
        try readNorms(column: footer.layout.normColumn, block: block)
    }

    /// Upper bounds of ‖gradient as given − stored gradient‖, [layer][row].
    public func readResidualNorms(block: Int) throws(StoreError) -> [[Float]] {
        try readNorms(column: footer.layout.residualNormColumn, block: block)
    }

    private func readNorms(column: Int, block: Int) throws(StoreError) -> [[Float]] {
        try readNormBits(column: column, block: block).map { $0.map { Float(bitPattern: UInt32($0) << 16) } }
    }

    /// The bfloat16 bits of a norm column, [layer][row].
    func readNormBits(column: Int, block: Int) throws(StoreError) -> [[UInt16]] {
        let rowCount = rows(ofBlock: block).count
        let layerCount = schema.layers.count
        return try read(column: column, block: block) { (bytes) throws(FormatError) in
            try NormPage.bits(bytes, layerCount: layerCount, rowCount: rowCount)
        }
    }

    /// Everything about one example, or all but its factors. Reads the pages of the example's block, decodes the one row.
    public func readRow(_ row: Int, withTiles: Bool = true) throws(StoreError) -> SegmentRow {
        let block = block(ofRow: row)
        let rowInBlock = row - rows(ofBlock: block).lowerBound
        var tiles: [LayerTile] = []
        for (index, layer) in schema.layers.enumerated() where withTiles {
            guard let rank = layer.rank else {
                let dense = try readVector(.dense, block, index, 0, rowInBlock, layer.gradientLength)
                tiles.append(LayerTile(layer: layer, rowCount: 1, dense: dense))
                continue
            }
            var left: [Float] = []
            var right: [Float] = []
            for component in 0..<rank {
                left += try readVector(.left, block, index, component, rowInBlock, layer.inputDimension)
                right += try readVector(.right, block, index, component, rowInBlock, layer.outputDimension)
            }
            tiles.append(LayerTile(layer: layer, rowCount: 1, left: left, right: right))
        }
        return SegmentRow(
            identifier: try identifier(ofRow: row), tiles: tiles,
            metadata: try readMetadata(block: block)[rowInBlock],
            norms: try readNorms(block: block).map { $0[rowInBlock] },
            residualNorms: try readResidualNorms(block: block).map { $0[rowInBlock] })
    }

    private func readVector(
        _ side: VectorSide, _ block: Int, _ layer: Int, _ component: Int, _ rowInBlock: Int, _ length: Int
    ) throws(StoreError) -> [Float] {
        let payload = try readPayload(side, block: block, layer: layer, component: component)
        return decodeVector(
            payload.span.bytes, row: rowInBlock, rowCount: rows(ofBlock: block).count, length: length,
            encoding: schema.encoding)
    }

    /// Reads a page and decodes its contents.
    func read<Value>(
        column: Int, block: Int, _ decode: ([UInt8]) throws(FormatError) -> Value
    ) throws(StoreError) -> Value {
        guard let number = file.pageNumber(column: column, block: block) else {
            preconditionFailure("a valid footer has this page")
        }
        let bytes = try file.readPage(number)
        do {
            return try decode(bytes)
        } catch {
            throw .page(path: path, file.location(of: number), error)
        }
    }
}

extension [MetadataRecord?] {
    fileprivate subscript(row: Int, default fallback: MetadataRecord) -> MetadataRecord {
        get { self[row] ?? fallback }
        set { self[row] = newValue }
    }
}

/// How much of a segment a kind of column takes.
public struct ColumnSummary: Hashable, Sendable {
    /// What the columns hold.
    public let kind: SegmentColumnKind
    /// The field's name, empty for other kinds.
    public let fieldName: String
    /// How many pages there are.
    public let pageCount: Int
    /// Their bytes after decompression.
    public let rawByteCount: Int
    /// Their bytes in the file.
    public let storedByteCount: Int
}

extension SegmentReader {
    /// Pages and bytes of each kind of column, fields one by one, in column order; kinds without pages are left out.
    public var columnSummaries: [ColumnSummary] {
        struct Key: Hashable {
            let kind: SegmentColumnKind
            let name: String
        }
        var order: [Key] = []
        var sums: [Key: (pages: Int, raw: Int, stored: Int)] = [:]
        for page in footer.footer.pages {
            let column = footer.footer.columns[Int(page.column)]
            guard let kind = SegmentColumnKind(rawValue: column.kind) else { continue }
            let key = Key(kind: kind, name: column.name)
            if sums[key] == nil { order.append(key) }
            sums[key, default: (0, 0, 0)].pages += 1
            sums[key, default: (0, 0, 0)].raw += Int(page.rawLength)
            sums[key, default: (0, 0, 0)].stored += Int(page.storedLength)
        }
        order.sort { $0.kind.rawValue < $1.kind.rawValue }
        return order.map { key in
            let sum = sums[key, default: (0, 0, 0)]
            return ColumnSummary(
                kind: key.kind, fieldName: key.name, pageCount: sum.pages, rawByteCount: sum.raw,
                storedByteCount: sum.stored)
        }
    }
}

extension SegmentReader {
    /// Stored bytes of each layer's factors or matrices, by position in the schema.
    public var storedLayerByteCounts: [Int] {
        var counts = [Int](repeating: 0, count: schema.layers.count)
        for page in footer.footer.pages {
            let column = footer.footer.columns[Int(page.column)]
            switch SegmentColumnKind(rawValue: column.kind) {
            case .left, .right, .dense: counts[Int(column.layer)] += Int(page.storedLength)
            default: break
            }
        }
        return counts
    }
}

/// One page of a segment, as its index has it.
public struct PageSummary: Hashable, Sendable {
    /// What the page holds, in words.
    public let column: String
    /// The row block.
    public let block: Int
    /// Of its first stored byte in the file.
    public let offset: Int
    /// Bytes in the file.
    public let storedByteCount: Int
    /// Bytes when decompressed.
    public let rawByteCount: Int
    /// XXH3-64 of the stored bytes.
    public let checksum: UInt64
}

extension SegmentReader {
    /// Every page, in file order.
    public var pageSummaries: [PageSummary] {
        footer.footer.pages.map { page in
            PageSummary(
                column: footer.footer.columns[Int(page.column)].description, block: Int(page.block),
                offset: Int(page.offset), storedByteCount: Int(page.storedLength), rawByteCount: Int(page.rawLength),
                checksum: page.checksum)
        }
    }
}
