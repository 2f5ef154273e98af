import Checksum
import Schema

/// The footer of a paged file: everything a reader needs to find, check and name its pages.
///
/// A value decoded from bytes obeys every rule of the container; what columns mean is judged by the user of the container.
public struct FileFooter: Hashable, Sendable {
    /// Version and flags, and the digest of the schema.
    public var header: FileHeader
    /// The encoded schema; opaque here.
    public var schema: [UInt8]
    /// Rows of the file, as its kind counts them.
    public var rowCount: Int
    /// Rows of every block but the last.
    public var rowsPerBlock: Int
    /// How many row blocks there are.
    public var blockCount: Int
    /// Statistics of the blocks; opaque here.
    public var statistics: [UInt8]
    /// The column table.
    public var columns: [ColumnDescriptor]
    /// In file order.
    public var pages: [PageEntry]
    /// Where the contents came from: a JSON text.
    public var provenance: String

    /// A footer of known parts; `header.schemaDigest` is set to that of `schema`.
    public init(
        header: FileHeader, schema: [UInt8], rowCount: Int, rowsPerBlock: Int, blockCount: Int, statistics: [UInt8],
        columns: [ColumnDescriptor], pages: [PageEntry], provenance: String
    ) {
        self.header = header
        self.header.schemaDigest = Digest(of: schema)
        self.schema = schema
        self.rowCount = rowCount
        self.rowsPerBlock = rowsPerBlock
        self.blockCount = blockCount
        self.statistics = statistics
        self.columns = columns
        self.pages = pages
        self.provenance = provenance
    }

    /// The footer's bytes, without padding.
    public func encoded() -> [UInt8] {
        var writer = ByteWriter()
        writer.write(bytes: header.copyForFooter)
        writer.write(UInt32(schema.count))
        writer.write(bytes: schema)
        writer.write(UInt64(rowCount))
        writer.write(UInt32(rowsPerBlock))
        writer.write(UInt32(blockCount))
        writer.write(UInt32(statistics.count))
        writer.write(bytes: statistics)
        writer.write(UInt32(columns.count))
        for column in columns { column.write(to: &writer) }
        writer.write(UInt64(pages.count))
        for page in pages { page.write(to: &writer) }
        writer.write(string: provenance)
        return writer.bytes
    }

    /// The footer in untrusted bytes that begin at `footerOffset` of their file.
    ///
    /// Allocates a small multiple of `bytes.count`, whatever the bytes claim. O(pages).
    public init(decoding bytes: [UInt8], footerOffset: Int, magic: FileMagic) throws(FormatError) {
        var reader = PartReader(bytes, part: .footer)
        let flags = try FileHeader.readCopy(&reader, magic: magic)
        guard flags.incompatible == 0 else { throw .unknownIncompatibleFlags(flags.incompatible) }
        let schema = try reader.readBytes(count: try reader.readCount())
        let rowCount = try reader.readLargeCount()
        let rowsPerBlock = try reader.readCount()
        let blockCount = try reader.readCount()
        let statistics = try reader.readBytes(count: try reader.readCount())

        let columnCount = try reader.readCount()
        try reader.expectRoom(count: columnCount, minimumByteCount: ColumnDescriptor.minimumByteCount)
        var columns: [ColumnDescriptor] = []
        columns.reserveCapacity(columnCount)
        for _ in 0..<columnCount { columns.append(try ColumnDescriptor(from: &reader)) }

        let pageCount = try reader.readLargeCount()
        try reader.expectRoom(count: pageCount, minimumByteCount: PageEntry.byteCount)
        var pages: [PageEntry] = []
        pages.reserveCapacity(pageCount)
        for page in 0..<pageCount { pages.append(try PageEntry(from: &reader, page: page)) }

        let provenance = try reader.readString()
        try reader.expectEnd()
        let header = FileHeader(
            magic: magic, schemaDigest: Digest(of: schema), minor: flags.minor,
            incompatibleFlags: flags.incompatible, readOnlyCompatibleFlags: flags.readOnlyCompatible,
            compatibleFlags: flags.compatible)
        self.init(
            header: header, schema: schema, rowCount: rowCount, rowsPerBlock: rowsPerBlock, blockCount: blockCount,
            statistics: statistics, columns: columns, pages: pages, provenance: provenance)
        try validatePages(footerOffset: footerOffset)
    }

    /// Pages are well-formed, unique, aligned, and follow each other from the header to the footer without gap or overlap.
    private func validatePages(footerOffset: Int) throws(FormatError) {
        var end = FileGeometry.headerByteCount
        var seen = Set<UInt64>(minimumCapacity: pages.count)
        for (index, page) in pages.enumerated() {
            guard page.column < columns.count else {
                throw .pageColumn(page: index, found: Int(page.column), columnCount: columns.count)
            }
            guard page.block < blockCount else {
                throw .pageBlock(page: index, found: Int(page.block), blockCount: blockCount)
            }
            guard seen.insert(page.seed).inserted else {
                throw .duplicatePage(page: index, column: Int(page.column), block: Int(page.block))
            }
            try validateLengths(of: page, index: index)
            end = try validatePosition(of: page, index: index, previousEnd: end, footerOffset: footerOffset)
        }
        let expected = FileGeometry.aligned(end, to: FileGeometry.alignment)
        guard expected == footerOffset else {
            throw .pageGap(page: pages.count, expectedOffset: expected ?? Int.max, found: footerOffset)
        }
    }

    private func validateLengths(of page: PageEntry, index: Int) throws(FormatError) {
        let stored = Int(page.storedLength)
        let raw = Int(page.rawLength)
        let fits =
            switch page.codec {
            case .raw: stored == raw
            case .zstd: stored < raw
            }
        guard fits, stored > 0, raw <= Limits.pageBytes else {
            throw .pageLength(page: index, storedLength: stored, rawLength: raw)
        }
        let strides: [UInt8] = page.codec == .raw ? [1] : [1, 2, 4]
        guard strides.contains(page.byteSplitStride), raw % Int(page.byteSplitStride) == 0 else {
            throw .byteSplitStride(page: index, found: page.byteSplitStride, rawLength: raw)
        }
    }

    private func validatePosition(
        of page: PageEntry, index: Int, previousEnd: Int, footerOffset: Int
    ) throws(FormatError) -> Int {
        let stored = Int(page.storedLength)
        let alignment = FileGeometry.alignment(ofPage: stored)
        guard let offset = Int(exactly: page.offset), case let (end, overflow) = offset.addingReportingOverflow(stored),
            !overflow, end <= footerOffset
        else {
            throw .pageOutOfRange(
                page: index, offset: Int(clamping: page.offset), length: stored, limit: footerOffset)
        }
        guard offset % alignment == 0 else {
            throw .pageMisaligned(page: index, offset: offset, alignment: alignment)
        }
        guard offset >= previousEnd else {
            throw .pageOverlaps(page: index, offset: offset, previousEnd: previousEnd)
        }
        let expected = FileGeometry.aligned(previousEnd, to: alignment) ?? Int.max
        guard offset == expected else { throw .pageGap(page: index, expectedOffset: expected, found: offset) }
        return end
    }
}
