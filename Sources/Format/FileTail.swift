public import Checksum

/// The last 64 bytes of a paged file: where the footer is, and its digest, which is the file's identity.
public struct FileTail: Hashable, Sendable {
    static let magic = "LORIFEND"

    /// Where the footer begins.
    public var footerOffset: Int
    /// Bytes of the footer, without padding.
    public var footerLength: Int
    /// Bytes of the whole file.
    public var fileLength: Int
    /// The digest of the footer's bytes.
    public var footerDigest: Digest

    /// A value of these parts.
    public init(footerOffset: Int, footerLength: Int, fileLength: Int, footerDigest: Digest) {
        self.footerOffset = footerOffset
        self.footerLength = footerLength
        self.fileLength = fileLength
        self.footerDigest = footerDigest
    }

    /// The 64 bytes.
    public func encoded() -> [UInt8] {
        var writer = ByteWriter()
        writer.write(bytes: Array(Self.magic.utf8))
        writer.write(UInt64(footerOffset))
        writer.write(UInt64(footerLength))
        writer.write(UInt64(fileLength))
        writer.write(footerDigest.low)
        writer.write(footerDigest.high)
        writer.write(UInt64(0))
        writer.write(xxh3(writer.bytes))
        return writer.bytes
    }

    /// The tail in the last 64 bytes of a file of `fileLength` bytes.
    public init(decoding bytes: [UInt8], fileLength actualLength: Int) throws(FormatError) {
        guard bytes.count == FileGeometry.tailByteCount else {
            throw .partSize(part: .tail, expected: FileGeometry.tailByteCount, found: bytes.count)
        }
        var reader = PartReader(bytes, part: .tail)
        let found = try reader.readBytes(count: 8)
        guard found == Array(Self.magic.utf8) else {
            throw .wrongMagic(part: .tail, expected: Self.magic, found: found)
        }
        let checksum = xxh3(bytes.span.extracting(0..<56).bytes)
        let footerOffset = try reader.read(UInt64.self)
        let footerLength = try reader.read(UInt64.self)
        let fileLength = try reader.read(UInt64.self)
        let digest = try reader.readDigest()
        let reservedOffset = reader.offset
        let reserved = try reader.readBytes(count: 8)
        let expected = try reader.read(UInt64.self)
        guard checksum == expected else {
            throw .checksumMismatch(part: .tail, expected: expected, found: checksum)
        }
        if let index = reserved.firstIndex(where: { $0 != 0 }) {
            throw .reservedNotZero(part: .tail, offset: reservedOffset + index, found: reserved[index])
        }
        guard fileLength == UInt64(actualLength) else {
            throw .fileLength(expected: Int(clamping: fileLength), found: actualLength)
        }
        self.init(
            footerOffset: Int(clamping: footerOffset), footerLength: Int(clamping: footerLength),
            fileLength: actualLength, footerDigest: Digest(high: digest.high, low: digest.low))
        try validatePosition()
    }

    /// The footer begins aligned after the header, and its end, aligned, is where the tail begins.
    public func validatePosition() throws(FormatError) {
        let misplaced = FormatError.footerPosition(offset: footerOffset, length: footerLength, fileLength: fileLength)
        guard footerOffset >= FileGeometry.headerByteCount, footerOffset % FileGeometry.alignment == 0, footerLength > 0
        else { throw misplaced }
        let (end, overflow) = footerOffset.addingReportingOverflow(footerLength)
        guard !overflow, let tailOffset = FileGeometry.aligned(end, to: FileGeometry.alignment),
            case let (length, lengthOverflow) = tailOffset.addingReportingOverflow(FileGeometry.tailByteCount),
            !lengthOverflow, length == fileLength
        else { throw misplaced }
    }
}
