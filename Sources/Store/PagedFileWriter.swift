import Checksum
import Files
public import Format

/// Writes a paged file: header, pages, footer, tail. Used for segments and for curvature artefacts.
///
///     var writer = try PagedFileWriter(magic: .curvature, schema: schemaBytes, temporaryPath: path)
///     let eigenvalues = writer.addColumn(ColumnDescriptor(kind: 32, layer: 0))
///     try writer.append(payload, column: eigenvalues, block: 0, rowCount: rank, compression: .none)
///     let identity = try writer.seal(as: finalPath, rowCount: rank, rowsPerBlock: rank, blockCount: 1, provenance: "{}")
///
/// The same calls give the same bytes. A thread of its own writes: up to 64 MiB of pages are held until then, and the
/// page index. A writer that dies unsealed leaves no file.
public struct PagedFileWriter: ~Copyable {
    private let file: FileAppender
    /// Bytes handed to the file.
    private var writtenByteCount = 0
    private let header: FileHeader
    private let schema: [UInt8]
    private var columns: [ColumnDescriptor] = []
    private var pages: [PageEntry] = []
    /// Bytes not yet handed to the file: many pages are small.
    private var pending: [UInt8] = []
    private static let pendingByteLimit = 4 << 20
    /// Pages of at least this size are written from where they are.
    private static let uncopiedPageByteCount = 128 << 10

    /// Creates the temporary file. `schema` is kept in the footer and not interpreted; its digest goes into the header.
    public init(magic: FileMagic, schema: [UInt8], temporaryPath: String) throws(StoreError) {
        do {
            file = try FileAppender(temporaryPath: temporaryPath)
        } catch {
            throw .file(error)
        }
        header = FileHeader(magic: magic, schemaDigest: Digest(of: schema))
        self.schema = schema
        pending = header.encoded()
    }

    /// Bytes of the file so far, without footer and tail.
    public var byteCount: Int { writtenByteCount + pending.count }

    /// How many columns have been added.
    public var columnCount: Int { columns.count }

    /// Adds a column to the table, at any time before `seal`, and gives its number.
    public mutating func addColumn(_ column: ColumnDescriptor) -> Int {
        columns.append(column)
        return columns.count - 1
    }

    /// Encodes a payload and appends its page.
    public mutating func append(
        _ payload: [UInt8], column: Int, block: Int, rowCount: Int, compression: PageCompression
    ) throws(StoreError) {
        try append(
            try EncodedPage(payload, column: column, block: block, rowCount: rowCount, compression: compression))
    }

    /// Appends a page; each (column, block) once, the column added before.
    public mutating func append(_ page: EncodedPage) throws(StoreError) {
        precondition(page.column < columns.count, "the column must be added before its pages")
        try pad(to: FileGeometry.alignment(ofPage: page.stored.count))
        pages.append(
            PageEntry(
                column: UInt32(page.column), block: UInt32(page.block), offset: UInt64(byteCount),
                storedLength: UInt32(page.stored.count), rawLength: UInt32(page.rawLength), codec: page.codec,
                byteSplitStride: UInt8(page.byteSplitStride), rowCount: UInt32(page.rowCount), checksum: page.checksum))
        if page.stored.count >= Self.uncopiedPageByteCount {
            try flush()
            try write(page.stored)
        } else {
            try append(bytes: page.stored)
        }
    }

    /// Writes footer and tail, makes the file durable and gives it its name, which must be free.
    ///
    /// Every page's block must be below `blockCount`. `rowCount` and `rowsPerBlock` mean what the user of the container wants.
    public consuming func seal(
        as finalPath: String, rowCount: Int, rowsPerBlock: Int, blockCount: Int, statistics: [UInt8] = [],
        provenance: String
    ) throws(StoreError) -> PagedFileIdentity {
        precondition(pages.allSatisfy { $0.block < blockCount })
        try pad(to: FileGeometry.alignment)
        let footer = FileFooter(
            header: header, schema: schema, rowCount: rowCount, rowsPerBlock: rowsPerBlock, blockCount: blockCount,
            statistics: statistics, columns: columns, pages: pages, provenance: provenance
        ).encoded()
        let footerOffset = byteCount
        try append(bytes: footer)
        try pad(to: FileGeometry.alignment)
        let identity = PagedFileIdentity(
            fileLength: byteCount + FileGeometry.tailByteCount, footerOffset: footerOffset, footerLength: footer.count,
            footerDigest: Digest(of: footer))
        try append(bytes: identity.tail.encoded())
        try flush()
        do {
            try file.seal(as: finalPath)
        } catch {
            throw .file(error)
        }
        return identity
    }

    private mutating func pad(to alignment: Int) throws(StoreError) {
        let remainder = byteCount % alignment
        guard remainder != 0 else { return }
        try append(bytes: [UInt8](repeating: 0, count: alignment - remainder))
    }

    private mutating func append(bytes: [UInt8]) throws(StoreError) {
        if pending.count + bytes.count <= Self.pendingByteLimit {
            pending.append(contentsOf: bytes)
            return
        }
        try flush()
        if bytes.count < Self.pendingByteLimit {
            pending.reserveCapacity(Self.pendingByteLimit)
            pending.append(contentsOf: bytes)
        } else {
            try write(bytes)
        }
    }

    private mutating func flush() throws(StoreError) {
        guard !pending.isEmpty else { return }
        try write(pending)
        pending = []
    }

    private mutating func write(_ bytes: [UInt8]) throws(StoreError) {
        do {
            try file.append(bytes)
        } catch {
            throw .file(error)
        }
        writtenByteCount += bytes.count
    }
}
