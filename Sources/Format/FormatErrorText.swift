extension FormatError: CustomStringConvertible {
    /// One line: which part or page, what was expected, what was found. The caller names the file.
    public var description: String {
        partText ?? schemaText ?? columnText ?? pageIndexText ?? contentText
    }

    private var partText: String? {
        switch self {
        case .truncated(let part, let offset, let needed, let available):
            "\(part) ends too early: \(needed) bytes needed at its offset \(offset), \(available) left"
        case .partSize(let part, let expected, let found): "\(part) has \(found) bytes, expected \(expected)"
        case .trailingBytes(let part, let count): "\(count) bytes follow the end of the \(part)"
        case .reservedNotZero(let part, let offset, let found):
            "byte \(offset) of the \(part) must be zero, found \(found)"
        case .notUTF8(let part, let offset): "text at offset \(offset) of the \(part) is not UTF-8"
        case .numberTooLarge(let part, let offset, let found):
            "number at offset \(offset) of the \(part) is out of range: \(found)"
        case .checksumMismatch(let part, let expected, let found):
            "\(part) is damaged: checksum expected \(hexadecimal(expected)), found \(hexadecimal(found))"
        case .wrongMagic(let part, let expected, let found):
            "\(part) does not begin with \(expected): found bytes \(found)"
        case .unsupportedVersion(let major, let minor):
            "format version \(major).\(minor) is not supported (this program reads 1.x): use a newer lorif"
        case .unknownIncompatibleFlags(let flags):
            "file uses features unknown to this program (flags \(hexadecimal(flags))): use a newer lorif"
        case .headerLength(let expected, let found): "header length is \(found), expected \(expected)"
        case .fileLength(let expected, let found):
            "file has \(found) bytes, expected \(expected): it was cut or something was appended"
        case .footerPosition(let offset, let length, let fileLength):
            "footer at offset \(offset) with \(length) bytes does not fit a file of \(fileLength) bytes"
        case .footerDigest(let expected, let found):
            "footer is damaged or of another file: digest expected \(expected), found \(found)"
        case .schemaDigest(let expected, let found):
            "header names schema \(expected), the footer holds schema \(found)"
        case .headerCopyDiffers: "footer does not repeat the first 40 bytes of the header"
        default: nil
        }
    }

    private var schemaText: String? {
        switch self {
        case .unknownEncoding(let code): "unknown encoding \(code)"
        case .layerCount(let found, let limit): "\(found) layers, allowed are 1 to \(limit)"
        case .layerName(let layer, let byteCount, let limit):
            "name of layer \(layer) has \(byteCount) bytes, allowed are 1 to \(limit)"
        case .duplicateLayerName(let layer, let name): "layer \(layer) repeats the name \"\(name)\""
        case .dimension(let layer, let found, let limit):
            "layer \(layer) has dimension \(found), allowed are 1 to \(limit)"
        case .gradientLength(let layer, let found, let limit):
            "layer \(layer) has d1·d2 = \(found), at most \(limit) is allowed"
        case .unknownForm(let layer, let found): "layer \(layer) has unknown form \(found)"
        case .rank(let layer, let found, 0): "layer \(layer) is dense and must have rank 0, found \(found)"
        case .rank(let layer, let found, let limit): "layer \(layer) has rank \(found), allowed are 1 to \(limit)"
        case .blockTooLarge(let layer, let pageByteCount, let limit):
            "a block of layer \(layer) would take pages of \(pageByteCount) bytes, at most \(limit) are allowed:"
                + " use smaller projections or fewer bits"
        case .rowCount(let found, let limit): "\(found) rows, allowed are 1 to \(limit)"
        case .rowsPerBlock(let found): "\(found) rows per block, not a multiple of 32 in range"
        case .blockCount(let expected, let found): "\(found) blocks, expected \(expected)"
        case .statistics(let block): "statistics of block \(block) are not a range of norms"
        default: nil
        }
    }

    private var columnText: String? {
        switch self {
        case .columnCount(let expected, let found): "\(found) columns, expected at least \(expected)"
        case .unexpectedColumn(let column, let expected, let found):
            "column \(column) is \(found), expected \(expected)"
        case .fieldCount(let found, let limit): "\(found) metadata fields, at most \(limit) are allowed"
        case .fieldName(let column, let byteCount, let limit):
            "name of column \(column) has \(byteCount) bytes, at most \(limit) are allowed"
        case .duplicateFieldName(let column, let name): "column \(column) repeats the field name \"\(name)\""
        default: nil
        }
    }

    private var pageIndexText: String? {
        switch self {
        case .pageColumn(let page, let found, let columnCount):
            "page \(page) names column \(found) of \(columnCount)"
        case .pageBlock(let page, let found, let blockCount): "page \(page) names block \(found) of \(blockCount)"
        case .unknownCodec(let page, let found): "page \(page) has unknown codec \(found)"
        case .byteSplitStride(let page, let found, let rawLength):
            "page \(page) has byte-split stride \(found), which does not fit its codec or its \(rawLength) bytes"
        case .pageLength(let page, let storedLength, let rawLength):
            "page \(page) has impossible lengths: \(storedLength) bytes stored for \(rawLength) raw"
        case .pageMisaligned(let page, let offset, let alignment):
            "page \(page) begins at offset \(offset), not a multiple of \(alignment)"
        case .pageOverlaps(let page, let offset, let previousEnd):
            "page \(page) begins at offset \(offset), before the end \(previousEnd) of what precedes it"
        case .pageGap(let page, let expectedOffset, let found):
            "page \(page) begins at offset \(found), leaving a gap: expected \(expectedOffset)"
        case .pageOutOfRange(let page, let offset, let length, let limit):
            "page \(page) at offset \(offset) with \(length) bytes passes the footer at \(limit)"
        case .duplicatePage(let page, let column, let block):
            "page \(page) repeats column \(column), block \(block)"
        case .missingPage(let column, let block): "column \(column) has no page for block \(block)"
        case .unexpectedPage(let page, let column, let block):
            "page \(page) (column \(column), block \(block)) is out of its place in the scan order"
        case .pageRowCount(let page, let expected, let found):
            "page \(page) has \(found) rows, expected \(expected)"
        case .pageRawLength(let page, let expected, let found):
            "page \(page) has \(found) raw bytes, expected \(expected)"
        default: nil
        }
    }

    private var contentText: String {
        switch self {
        case .offsetsNotAscending(let part, let row): "\(part): offset of row \(row) is below the one before"
        case .offsetsEnd(let part, let expected, let found): "\(part): offsets end at \(found), expected \(expected)"
        case .identifierLength(let row, let byteCount, let limit):
            "identifier of row \(row) has \(byteCount) bytes, at most \(limit) are allowed"
        case .hashesNotAscending(let entry): "identifier index: entry \(entry) is out of order"
        case .indexRow(let entry, let found, let rowCount):
            "identifier index: entry \(entry) names row \(found) of \(rowCount)"
        case .unknownTag(let row, let found): "field page: row \(row) has unknown tag \(found)"
        case .valueLength(let row, let tag, let found):
            "field page: row \(row) has \(found) value bytes, which do not fit tag \(tag)"
        case .normNotANorm(let layer, let row, let found):
            "norm page: layer \(layer), row \(row) holds bits \(found), not a norm"
        default: "format rule broken"
        }
    }
}

func hexadecimal(_ word: UInt64) -> String {
    let digits = String(word, radix: 16)
    return String(repeating: "0", count: 16 - digits.count) + digits
}
