public import Checksum
import Format
public import Schema

/// What a sealed segment is, as the catalog remembers it.
public struct SegmentIdentity: Hashable, Sendable {
    /// Rows of the segment.
    public let rowCount: Int
    /// Bytes of the whole file.
    public let fileLength: Int
    /// Where the footer begins.
    public let footerOffset: Int
    /// Bytes of the footer, without padding.
    public let footerLength: Int
    /// The digest of the footer's bytes.
    public let footerDigest: Digest

    /// A value of these parts.
    public init(rowCount: Int, fileLength: Int, footerOffset: Int, footerLength: Int, footerDigest: Digest) {
        self.rowCount = rowCount
        self.fileLength = fileLength
        self.footerOffset = footerOffset
        self.footerLength = footerLength
        self.footerDigest = footerDigest
    }

    init(rowCount: Int, file: PagedFileIdentity) {
        self.init(
            rowCount: rowCount, fileLength: file.fileLength, footerOffset: file.footerOffset,
            footerLength: file.footerLength, footerDigest: file.footerDigest)
    }

    /// The identity of the paged file.
    var file: PagedFileIdentity {
        PagedFileIdentity(
            fileLength: fileLength, footerOffset: footerOffset, footerLength: footerLength, footerDigest: footerDigest)
    }
}

/// Writes one segment, block after block, and seals it.
///
/// The same blocks give the same bytes, on any number of cores. Memory: the block given, about as much again while it is
/// encoded, and 16 bytes for each row of the segment. A writer that dies unsealed leaves no file.
public struct SegmentWriter: ~Copyable {
    /// What every row has.
    public let schema: StoreSchema
    /// Rows appended so far.
    public private(set) var rowCount = 0

    private let layout: SegmentLayout
    private let provenance: String
    private var file: PagedFileWriter
    private var blockCount = 0
    private var hashes: [UInt64] = []
    private var statistics: [BlockStatistics] = []
    private var fieldColumns: [String: Int] = [:]

    /// Creates the temporary file of a segment; `provenance` is a JSON text kept in the footer.
    ///
    /// Throws `.schemaRefused` when the schema is beyond the format's limits.
    public init(schema: StoreSchema, temporaryPath: String, provenance: String) throws(StoreError) {
        do {
            try schema.validate()
        } catch {
            throw .schemaRefused(error)
        }
        guard !schema.layers.isEmpty else {
            throw .schemaRefused(.layerCount(found: 0, limit: Limits.layerCount))
        }
        let layout = SegmentLayout(schema: schema)
        var file = try PagedFileWriter(magic: .segment, schema: schema.encoded(), temporaryPath: temporaryPath)
        for column in layout.columns { _ = file.addColumn(column) }
        self.schema = schema
        self.layout = layout
        self.provenance = provenance
        self.file = file
    }

    /// Bytes of the file so far, without index and footer.
    public var byteCount: Int { file.byteCount }

    /// Adds a block of 1 to `schema.rowsPerBlock` rows; only the last block of a segment may have fewer than that.
    ///
    /// Throws `.blockShape`, `.notFinite`, `.metadataField` … for a block that cannot be stored; after an error the writer is good for
    /// nothing but dying.
    public mutating func append(_ block: RowBlock) throws(StoreError) {
        precondition(rowCount == blockCount * schema.rowsPerBlock, "only the last block of a segment may be short")
        precondition((1...schema.rowsPerBlock).contains(block.rowCount), "a block has 1 to rowsPerBlock rows")
        guard rowCount + block.rowCount <= Limits.segmentRowCount else {
            throw .segmentFull(rowCount: rowCount + block.rowCount, limit: Limits.segmentRowCount)
        }
        try block.validate(against: schema)
        try append(try block.encoded(layout: layout, block: blockCount))
    }

    /// Adds a block whose rows are gathered from other segments, bit for bit; the same rules as for `append`.
    mutating func append(_ rows: GatheredRows) throws(StoreError) {
        precondition(rowCount == blockCount * schema.rowsPerBlock, "only the last block of a segment may be short")
        precondition((1...schema.rowsPerBlock).contains(rows.rowCount), "a block has 1 to rowsPerBlock rows")
        try append(try rows.encoded(layout: layout, block: blockCount))
    }

    private mutating func append(_ block: EncodedBlock) throws(StoreError) {
        let fields = try FieldValues(block.metadata, rowCount: block.rowCount)
        let maximumPageCount = block.layers.map(\.count).max() ?? 0
        for component in 0..<maximumPageCount / 2 {
            for (layer, pages) in zip(schema.layers, block.layers) where (layer.rank ?? 0) > component {
                try file.append(pages[2 * component])
                try file.append(pages[2 * component + 1])
            }
        }
        for (layer, pages) in zip(schema.layers, block.layers) where layer.rank == nil {
            try file.append(pages[0])
        }
        try file.append(block.norms.page)
        try file.append(block.residualNorms.page)
        try file.append(block.identifiers.page)
        try append(fields, rowCount: block.rowCount)
        statistics.append(
            BlockStatistics(rowNorms: block.norms.rowNorms, rowResidualNorms: block.residualNorms.rowNorms))
        hashes.append(contentsOf: block.identifiers.hashes)
        rowCount += block.rowCount
        blockCount += 1
    }

    /// Writes the identifier index, footer and tail, makes the file durable and gives it its name, which must be free.
    ///
    /// Throws `.emptySegment` without rows and `.equalIdentifiers` when two rows have the same id.
    public consuming func seal(as finalPath: String) throws(StoreError) -> SegmentIdentity {
        guard rowCount > 0 else { throw .emptySegment }
        var entries = hashes.enumerated().map { IdentifierIndexEntry(hash: $1, row: $0) }
        entries.sort()
        for index in entries.indices.dropFirst() where entries[index].hash == entries[index - 1].hash {
            throw .equalIdentifiers(rows: [entries[index - 1].row, entries[index].row])
        }
        for block in 0..<blockCount {
            let range = block * schema.rowsPerBlock..<min(rowCount, (block + 1) * schema.rowsPerBlock)
            try file.append(
                try EncodedPage(
                    IdentifierIndexPage.encode(entries[range]), column: layout.identifierIndexColumn, block: block,
                    rowCount: range.count, compression: .none))
        }
        let identity = try file.seal(
            as: finalPath, rowCount: rowCount, rowsPerBlock: schema.rowsPerBlock, blockCount: blockCount,
            statistics: BlockStatistics.encode(statistics), provenance: provenance)
        return SegmentIdentity(rowCount: rowCount, file: identity)
    }

    /// Adds columns for fields not seen before, then writes the pages of the block's fields in column order.
    private mutating func append(_ fields: FieldValues, rowCount blockRowCount: Int) throws(StoreError) {
        var pages: [(column: Int, values: [MetadataValue?])] = []
        for (name, values) in fields.inOrderOfAppearance {
            let column: Int
            if let known = fieldColumns[name] {
                column = known
            } else {
                guard fieldColumns.count < Limits.metadataFieldCount else {
                    throw .metadataField(
                        name: name, row: rowCount, reason: "a segment has at most \(Limits.metadataFieldCount) fields")
                }
                column = file.addColumn(SegmentLayout.fieldColumn(named: name))
                fieldColumns[name] = column
            }
            pages.append((column, values))
        }
        pages.sort { $0.column < $1.column }
        for page in pages {
            try file.append(
                try EncodedPage(
                    FieldPage.encode(page.values), column: page.column, block: blockCount, rowCount: blockRowCount,
                    compression: .zstd(byteSplitStride: 1)))
        }
    }
}
