public import Checksum
public import Files
public import Format
public import LMDB
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
    /// A stored norm is below the norm of the stored numbers, or something is not a number.
    case wrongNorm(path: String, layer: String, row: Int, stored: Float, found: Double)
    /// An identifier has live rows in two files.
    case identifierLiveTwice(identifier: String, files: [String])
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

    // Group: directory, catalog and commits.
    /// The catalog's database refused.
    case catalog(LMDBError)
    /// There is nothing at the path.
    case storeMissing(path: String)
    /// The path is a file or something else that cannot hold a store.
    case notADirectory(path: String)
    /// A directory, but not a store.
    case notAStore(path: String)
    /// Something is there already where a store was to be created.
    case pathTaken(path: String)
    /// The folder is not there in which something was to be created.
    case folderMissing(path: String, folder: String)
    /// The store may only be read: by permission, or because of the file system.
    case storeNotWritable(path: String)
    /// Another writer is at work.
    case locked(lockPath: String)
    /// The identity file breaks a rule.
    case identityDamaged(path: String, expected: String, found: String)
    /// Written by a newer program.
    case storeVersion(path: String, major: UInt16, incompatibleFlags: UInt64)
    /// A catalog record breaks a rule.
    case catalogDamaged(path: String, record: String, expected: String, found: String)
    /// The catalog names a file that is not there.
    case fileOfCatalogMissing(path: String)
    /// The schema of a file is not that of the store.
    case schemaDiffers(path: String)
    /// A row's identifier is in the store already.
    case identifierInStore(identifier: String)
    /// Two rows of one transaction have the same identifier.
    case identifierRepeated(identifier: String)
    /// Identifiers that no live row has; the first of them.
    case identifiersUnknown(count: Int, first: String)
    /// An identifier that the store gives to rows without one is taken by a row that brought its own.
    case identifierAssignedTaken(identifier: String)
    /// Whether a commit happened could not be found out: the store must be opened again.
    case commitInDoubt(path: String, reason: String)
    /// The store has a later state than this writer wrote, although it holds the lock.
    case generationDiffers(path: String, expected: UInt64, found: UInt64)
    /// An earlier error has ended this writer; open another.
    case writerEnded(path: String)
    /// No snapshot of that name.
    case snapshotUnknown(name: String, known: [String])
    /// There is a snapshot of that name already.
    case snapshotTaken(name: String)
    /// Not a name for a snapshot.
    case snapshotName(name: String)
    /// No curvature of that name.
    case curvatureUnknown(Digest)
    /// A segment file that was to be attached is damaged, or has other layers or another encoding than the store.
    case attachmentRefused(path: String, reason: String)
    /// A basis file that was to be taken over is not one, or is damaged.
    case basisRefused(path: String, reason: String)
    /// The store's basis file is not what was written.
    case basisDamaged(path: String, expected: String, found: String)
    /// The store is not whitened.
    case basisMissing(path: String)
    /// Rows in this basis are to go into a new store, which must have it.
    case basisRequired(Digest)
    /// A curvature breaks a rule.
    case curvatureShape(what: String, expected: String, found: String)
    /// A coordinates file is not what its name says, or breaks a rule.
    case coordinatesDamaged(path: String, expected: String, found: String)
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
        case .wrongNorm(let path, let layer, let row, let stored, let found):
            "\(path): layer \(layer), row \(row): the norm is stored as at most \(stored), found \(found)"
        case .identifierLiveTwice(let identifier, let files):
            "identifier \"\(identifier)\" has live rows in \(files.joined(separator: " and "))"
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
        case .catalog(let error): error.description
        case .storeMissing(let path): "there is no store at \(path); 'lorif ingest \(path) BATCH' makes one"
        case .notADirectory(let path): "\(path) is not a directory, so not a store"
        case .notAStore(let path): "\(path) is not a lorif store: it has no lorif.store"
        case .pathTaken(let path): "\(path) exists already: a store is created under a new name"
        case .folderMissing(let path, let folder):
            "\(path) cannot be written: there is no folder \(folder); make it with 'mkdir -p \(folder)'"
        case .storeNotWritable(let path):
            "the store \(path) can only be read: no permission to write, or a read-only disk"
        case .attachmentRefused(let path, let reason): "\(path): cannot be attached: \(reason)"
        case .locked(let lockPath): "another program is writing to this store: it holds the lock \(lockPath)"
        case .identityDamaged(let path, let expected, let found):
            "\(path) is damaged: expected \(expected), found \(found)"
        case .storeVersion(let path, let major, let flags):
            "\(path) was written by a newer lorif (format \(major), features \(hexadecimal(flags)))"
        case .catalogDamaged(let path, let record, let expected, let found):
            "the catalog of \(path) is damaged: \(record): expected \(expected), found \(found)"
        case .fileOfCatalogMissing(let path): "\(path) is missing although the catalog names it"
        case .schemaDiffers(let path): "\(path) has another schema than the store"
        case .identifierInStore(let identifier): "identifier \"\(identifier)\" is in the store already"
        case .identifierRepeated(let identifier): "identifier \"\(identifier)\" comes twice"
        case .identifiersUnknown(let count, let first):
            "\(count) identifiers are not in the store, the first of them \"\(first)\""
        case .identifierAssignedTaken(let identifier):
            "rows without identifiers are numbered, but \"\(identifier)\" is taken: give these rows identifiers"
        case .commitInDoubt(let path, let reason):
            "\(path): it is not known whether the commit happened, open the store to see: \(reason)"
        case .generationDiffers(let path, let expected, let found):
            "\(path): generation \(expected) expected, found \(found): something wrote without the lock"
        case .writerEnded(let path): "\(path): this writer has ended after an error"
        case .snapshotUnknown(let name, let known):
            "the store has no snapshot \"\(name)\"; it has " + (known.isEmpty ? "none" : known.joined(separator: ", "))
        case .snapshotTaken(let name): "there is a snapshot \"\(name)\" already: drop it first or choose another name"
        case .snapshotName(let name):
            "\"\(name)\" cannot name a snapshot: 1 to \(SnapshotRecord.nameByteLimit) letters, digits, '.', '_' and '-'"
        case .curvatureUnknown(let digest): "the store has no curvature \(digest)"
        case .basisRefused(let path, let reason): "\(path): no basis can be taken from it: \(reason)"
        case .basisDamaged(let path, let expected, let found):
            "\(path) is damaged: expected \(expected), found \(found)"
        case .basisMissing(let path): "\(path): the store is not whitened, so it has no basis"
        case .basisRequired(let digest):
            "the rows are in the basis \(digest): create the store with it first ('lorif create STORE --basis-from FILE')"
        case .curvatureShape(let what, let expected, let found):
            "curvature: \(what): expected \(expected), found \(found)"
        case .coordinatesDamaged(let path, let expected, let found):
            "\(path) is damaged: expected \(expected), found \(found); 'lorif fit --coordinates' writes it anew"
        }
    }
}

func hexadecimal(_ word: UInt64) -> String {
    let digits = String(word, radix: 16)
    return String(repeating: "0", count: 16 - digits.count) + digits
}
