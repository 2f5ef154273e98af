public import Files
public import Format
public import Zstd

/// What can go wrong with a store: the world's mistakes, never the caller's.
public enum StoreError: Error, Hashable, Sendable {
    // Group: paged files and segments.
    /// The file system refused.
    case file(FileError)
    /// A part of a file breaks a rule of its format.
    case format(path: String, FormatError)
    /// A page breaks a rule of its contents.
    case page(path: String, PageLocation, FormatError)
    /// A page's stored bytes are not those that were written there.
    case pageChecksum(path: String, PageLocation, expected: UInt64, found: UInt64)
    /// A page's checksum holds but it does not decompress to what the index says.
    case pageCompression(path: String, PageLocation, ZstdError)
    /// A byte between the parts of a file is not zero.
    case paddingNotZero(path: String, offset: Int, found: UInt8)
    /// Statistics in the footer are not those of the norm pages.
    case wrongStatistics(path: String, block: Int)
    /// The identifier index does not name each row's identifier once.
    case wrongIndex(path: String, row: Int)
    /// Two rows of a segment have the same identifier.
    case duplicateIdentifier(path: String, identifier: String, rows: [Int])
    /// Compression is not possible.
    case compression(ZstdError)
    /// The schema cannot be stored.
    case schemaRefused(FormatError)
    /// A block's tiles, residual norms or metadata do not fit the schema or each other.
    case blockShape(what: String, expected: Int, found: Int)
    /// NaN or infinity in a tile.
    case notFinite(layer: String, row: Int)
    /// An identifier is longer than `Limits.identifierBytes`.
    case identifierTooLong(row: Int, byteCount: Int)
    /// Two rows given to one segment have equal identifiers (or, once in ten million segments, equal hashes).
    case equalIdentifiers(rows: [Int])
    /// A metadata field appears twice in one example, or its name is too long, or a segment has too many fields.
    case metadataField(name: String, row: Int, reason: String)
    /// The values of a metadata field of one block do not fit a page.
    case metadataTooLarge(name: String, byteCount: Int, limit: Int)
    /// A segment is full: it takes no further row.
    case segmentFull(rowCount: Int, limit: Int)
    /// A segment without rows cannot be sealed.
    case emptySegment
    // End of group.
}

/// Where a page is: in the index, in the scan order, in the file.
public struct PageLocation: Hashable, Sendable {
    /// Its place in the page index.
    public let page: Int
    /// What it holds, in words.
    public let column: String
    /// The row block.
    public let block: Int
    /// Of its first stored byte in the file.
    public let offset: Int
    /// Bytes in the file.
    public let storedLength: Int
}

extension PageLocation: CustomStringConvertible {
    /// Where the page is, in words.
    public var description: String {
        "page \(page) (\(column), block \(block), \(storedLength) bytes at offset \(offset))"
    }
}

extension StoreError: CustomStringConvertible {
    /// One line: which file and place, what was expected, what was found.
    public var description: String {
        switch self {
        case .file(let error): error.description
        case .format(let path, let error): "\(path): \(error)"
        case .page(let path, let location, let error): "\(path): \(location): \(error)"
        case .pageChecksum(let path, let location, let expected, let found):
            "\(path): \(location) is damaged: checksum expected \(hexadecimal(expected)), found \(hexadecimal(found))"
        case .pageCompression(let path, let location, let error): "\(path): \(location): \(error)"
        case .paddingNotZero(let path, let offset, let found):
            "\(path): byte at offset \(offset) is padding and must be zero, found \(found)"
        case .wrongStatistics(let path, let block):
            "\(path): the footer's statistics of block \(block) are not those of its norms"
        case .wrongIndex(let path, let row): "\(path): the identifier index does not lead to row \(row)"
        case .duplicateIdentifier(let path, let identifier, let rows):
            "\(path): rows \(rows) have the same identifier \"\(identifier)\""
        case .compression(let error): error.description
        case .schemaRefused(let error): "the store cannot hold these layers: \(error)"
        case .blockShape(let what, let expected, let found):
            "a row block has \(found) \(what), expected \(expected)"
        case .notFinite(let layer, let row): "layer \(layer), row \(row) of the block: NaN or infinity"
        case .identifierTooLong(let row, let byteCount):
            "identifier of row \(row) has \(byteCount) bytes, more than the limit"
        case .equalIdentifiers(let rows): "rows \(rows) of one segment have equal identifiers"
        case .metadataField(let name, let row, let reason): "metadata field \"\(name)\" of row \(row): \(reason)"
        case .metadataTooLarge(let name, let byteCount, let limit):
            "metadata field \"\(name)\" takes \(byteCount) bytes in one block, at most \(limit) fit: shorten the texts"
        case .segmentFull(let rowCount, let limit): "a segment cannot hold \(rowCount) rows, at most \(limit)"
        case .emptySegment: "a segment needs at least one row"
        }
    }
}

func hexadecimal(_ word: UInt64) -> String {
    let digits = String(word, radix: 16)
    return String(repeating: "0", count: 16 - digits.count) + digits
}
