/// How a page's bytes are stored.
public enum PageCodec: UInt8, Hashable, Sendable {
    case raw = 0
    case zstd = 1
}

/// One page in the page index: where it is, how it is stored, and the checksum of its stored bytes.
public struct PageEntry: Hashable, Sendable {
    /// Bytes of an encoded entry.
    public static let byteCount = 40

    /// The column's number in the column table.
    public var column: UInt32
    /// The number of the row block.
    public var block: UInt32
    /// Of the first stored byte in the file.
    public var offset: UInt64
    /// Bytes in the file.
    public var storedLength: UInt32
    /// Bytes after decompression.
    public var rawLength: UInt32
    /// How the bytes are stored.
    public var codec: PageCodec
    /// Bytes are split into this many planes before compression: 1, 2 or 4; 1 for raw pages.
    public var byteSplitStride: UInt8
    /// Rows (or index entries) in the page.
    public var rowCount: UInt32
    /// XXH3-64 of the stored bytes, seeded with `seed`, so that a page in the place of another is damage.
    public var checksum: UInt64

    /// A value of these parts.
    public init(
        column: UInt32, block: UInt32, offset: UInt64, storedLength: UInt32, rawLength: UInt32, codec: PageCodec,
        byteSplitStride: UInt8, rowCount: UInt32, checksum: UInt64
    ) {
        self.column = column
        self.block = block
        self.offset = offset
        self.storedLength = storedLength
        self.rawLength = rawLength
        self.codec = codec
        self.byteSplitStride = byteSplitStride
        self.rowCount = rowCount
        self.checksum = checksum
    }

    /// The seed of the checksum of a page: column in the high half, block in the low one.
    public static func seed(column: UInt32, block: UInt32) -> UInt64 { UInt64(column) << 32 | UInt64(block) }

    /// The seed of this page's checksum.
    public var seed: UInt64 { Self.seed(column: column, block: block) }

    /// The stored bytes' end in the file; entries from a validated footer cannot overflow here.
    public var end: UInt64 { offset + UInt64(storedLength) }

    func write(to writer: inout ByteWriter) {
        writer.write(column)
        writer.write(block)
        writer.write(offset)
        writer.write(storedLength)
        writer.write(rawLength)
        writer.write(codec.rawValue)
        writer.write(byteSplitStride)
        writer.write(UInt16(0))
        writer.write(rowCount)
        writer.write(checksum)
    }

    init(from reader: inout PartReader, page: Int) throws(FormatError) {
        column = try reader.read()
        block = try reader.read()
        offset = try reader.read()
        storedLength = try reader.read()
        rawLength = try reader.read()
        let code: UInt8 = try reader.read()
        guard let codec = PageCodec(rawValue: code) else { throw .unknownCodec(page: page, found: code) }
        self.codec = codec
        byteSplitStride = try reader.read()
        try reader.readZeros(count: 2)
        rowCount = try reader.read()
        checksum = try reader.read()
    }
}
