public import Checksum

/// A rule of the format that some bytes break; one case for each rule.
public enum FormatError: Error, Hashable, Sendable {
    // Any part.
    case truncated(part: FilePart, offset: Int, needed: Int, available: Int)
    case partSize(part: FilePart, expected: Int, found: Int)
    case trailingBytes(part: FilePart, count: Int)
    case reservedNotZero(part: FilePart, offset: Int, found: UInt8)
    case notUTF8(part: FilePart, offset: Int)
    case numberTooLarge(part: FilePart, offset: Int, found: UInt64)
    case checksumMismatch(part: FilePart, expected: UInt64, found: UInt64)

    // Header and tail.
    case wrongMagic(part: FilePart, expected: String, found: [UInt8])
    case unsupportedVersion(major: UInt16, minor: UInt16)
    case unknownIncompatibleFlags(UInt64)
    case headerLength(expected: Int, found: Int)
    case fileLength(expected: Int, found: Int)
    case footerPosition(offset: Int, length: Int, fileLength: Int)
    case footerDigest(expected: Digest, found: Digest)
    case schemaDigest(expected: Digest, found: Digest)
    case headerCopyDiffers

    // Schema.
    case unknownEncoding(UInt8)
    case layerCount(found: Int, limit: Int)
    case layerName(layer: Int, byteCount: Int, limit: Int)
    case duplicateLayerName(layer: Int, name: String)
    case dimension(layer: Int, found: Int, limit: Int)
    case gradientLength(layer: Int, found: Int, limit: Int)
    case unknownForm(layer: Int, found: UInt8)
    case rank(layer: Int, found: Int, limit: Int)
    case blockTooLarge(layer: Int, pageByteCount: Int, limit: Int)

    // Rows and blocks.
    case rowCount(found: Int, limit: Int)
    case rowsPerBlock(found: Int)
    case blockCount(expected: Int, found: Int)
    case statistics(block: Int)

    // Columns.
    case columnCount(expected: Int, found: Int)
    case unexpectedColumn(column: Int, expected: ColumnDescriptor, found: ColumnDescriptor)
    case fieldCount(found: Int, limit: Int)
    case fieldName(column: Int, byteCount: Int, limit: Int)
    case duplicateFieldName(column: Int, name: String)

    // Page index.
    case pageColumn(page: Int, found: Int, columnCount: Int)
    case pageBlock(page: Int, found: Int, blockCount: Int)
    case unknownCodec(page: Int, found: UInt8)
    case byteSplitStride(page: Int, found: UInt8, rawLength: Int)
    case pageLength(page: Int, storedLength: Int, rawLength: Int)
    case pageMisaligned(page: Int, offset: Int, alignment: Int)
    case pageOverlaps(page: Int, offset: Int, previousEnd: Int)
    case pageGap(page: Int, expectedOffset: Int, found: Int)
    case pageOutOfRange(page: Int, offset: Int, length: Int, limit: Int)
    case duplicatePage(page: Int, column: Int, block: Int)
    case missingPage(column: Int, block: Int)
    case unexpectedPage(page: Int, column: Int, block: Int)
    case pageRowCount(page: Int, expected: Int, found: Int)
    case pageRawLength(page: Int, expected: Int, found: Int)

    // Page contents.
    case offsetsNotAscending(part: FilePart, row: Int)
    case offsetsEnd(part: FilePart, expected: Int, found: Int)
    case identifierLength(row: Int, byteCount: Int, limit: Int)
    case hashesNotAscending(entry: Int)
    case indexRow(entry: Int, found: Int, rowCount: Int)
    case unknownTag(row: Int, found: UInt8)
    case valueLength(row: Int, tag: UInt8, found: Int)
    case normNotANorm(layer: Int, row: Int, found: UInt16)

    init(_ part: FilePart, _ failure: ByteReader.Failure) {
        switch failure {
        case .truncated(let offset, let needed, let available):
            self = .truncated(part: part, offset: offset, needed: needed, available: available)
        case .notUTF8(let offset): self = .notUTF8(part: part, offset: offset)
        case .nonzeroPadding(let offset): self = .reservedNotZero(part: part, offset: offset, found: 1)
        }
    }
}
