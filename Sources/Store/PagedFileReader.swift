import Checksum
import Files
public import Format
import Synchronization
import Zstd

/// Reads a paged file: the footer at once, pages on demand, each verified before it is used.
///
///     let reader = try PagedFileReader(path: path, magic: .curvature, expecting: identity)
///     let payload = try reader.readPage(column: 0, block: 0)
///
/// Immutable and safe to use from any number of threads. Keeps no page: the caller caches what it wants to keep.
public final class PagedFileReader: Sendable {
    /// As given to `init`.
    public let path: String
    /// The file's length, footer and digest.
    public let identity: PagedFileIdentity
    /// Decoded and valid by the rules of the container.
    public let footer: FileFooter
    let file: ReadableFile
    /// Page numbers by (column, block).
    private let pageNumbers: [UInt64: Int]
    /// The file as memory, from the first time that it is wanted so.
    private let mapping = Mutex<MappedFile?>(nil)
    /// The file for direct reads, from the first time that it is wanted so.
    private let directFile = Mutex<DirectFile??>(nil)

    /// Opens the file and reads its footer: one read when the identity is known, else header, tail and footer.
    ///
    /// With an identity the file must be that very one. Throws `.format` for every broken rule. Memory: O(footer).
    public convenience init(
        path: String, magic: FileMagic, expecting expected: PagedFileIdentity? = nil
    ) throws(StoreError) {
        let file: ReadableFile
        do { file = try ReadableFile(path: path) } catch { throw .file(error) }
        try self.init(file: file, magic: magic, expecting: expected)
    }

    /// The same for a file that is open already, and may have lost its name since.
    init(file: ReadableFile, magic: FileMagic, expecting expected: PagedFileIdentity?) throws(StoreError) {
        path = file.path
        self.file = file
        do {
            let tail: FileTail
            let header: FileHeader?
            if let expected {
                header = nil
                tail = expected.tail
                guard file.byteCount == expected.fileLength else {
                    throw FormatError.fileLength(expected: expected.fileLength, found: file.byteCount)
                }
                try tail.validatePosition()
            } else {
                header = try Self.readHeader(file, magic: magic)
                tail = try Self.readTail(file)
            }
            footer = try Self.readFooter(file, tail: tail, magic: magic)
            if let header { try Self.compare(header, footer.header) }
            identity = PagedFileIdentity(tail)
        } catch let error as FileError {
            throw .file(error)
        } catch let error as FormatError {
            throw .format(path: path, error)
        } catch {
            preconditionFailure("no other error is thrown here")
        }
        var numbers = [UInt64: Int](minimumCapacity: footer.pages.count)
        for (index, page) in footer.pages.enumerated() { numbers[page.seed] = index }
        pageNumbers = numbers
    }

    /// The page of a column in a block, nil if there is none.
    public func pageNumber(column: Int, block: Int) -> Int? {
        guard let column = UInt32(exactly: column), let block = UInt32(exactly: block) else { return nil }
        return pageNumbers[PageEntry.seed(column: column, block: block)]
    }

    /// The payload of the page of a column in a block, verified and decompressed; the page must exist.
    public func readPage(column: Int, block: Int) throws(StoreError) -> [UInt8] {
        guard let number = pageNumber(column: column, block: block) else {
            preconditionFailure("column \(column) has no page in block \(block)")
        }
        return try readPage(number)
    }

    /// The payload of a page by its number in the page index, verified and decompressed.
    public func readPage(_ number: Int) throws(StoreError) -> [UInt8] {
        let stored = try readStored(number)
        // A raw page is its payload: no copy.
        return footer.pages[number].codec == .raw ? stored : try payload(of: number, checked: stored.span.bytes)
    }

    /// The payload of a page, verified: where it lies in the mapped file or in what a window has read, or decompressed.
    ///
    /// What came of it must not be used before `checkMapping`.
    func pageInPlace(_ number: Int, window: DirectWindow? = nil) throws(StoreError) -> PageBytes {
        let entry = footer.pages[number]
        let stored = try storedInPlace(number, window)
        do throws(StoreError) {
            try expectChecksum(of: number, stored: stored.span)
        } catch {
            try checkMapping()
            throw error
        }
        return entry.codec == .raw ? PageBytes(stored) : PageBytes(try payload(of: number, checked: stored.span))
    }

    /// A page to be checked while it is used.
    func openPage(_ number: Int, window: DirectWindow? = nil) throws(StoreError) -> OpenPage {
        guard footer.pages[number].codec == .raw else {
            return OpenPage(try pageInPlace(number, window: window), of: self, number: number, isChecked: true)
        }
        return OpenPage(
            PageBytes(try storedInPlace(number, window)), of: self, number: number, isChecked: false)
    }

    private func storedInPlace(_ number: Int, _ window: DirectWindow?) throws(StoreError) -> FileBytes {
        let entry = footer.pages[number]
        let range = Int(entry.offset)..<Int(entry.end)
        if let window, let bytes = try wrapping({ () throws(FileError) in try window.bytes(range) }) { return bytes }
        return try mapped().bytes(range)
    }

    /// Throws unless `checksum` is that of the page.
    func expect(_ checksum: UInt64, of number: Int) throws(StoreError) {
        try checkMapping()
        let entry = footer.pages[number]
        guard checksum == entry.checksum else {
            throw .pageChecksum(path: path, location(of: number), expected: entry.checksum, found: checksum)
        }
    }

    /// Throws if the file has been truncated under the mapping.
    func checkMapping() throws(StoreError) {
        guard mapping.withLock({ $0?.hasShrunk ?? false }) else { return }
        throw .file(.shortRead(path: path, offset: 0, expected: identity.fileLength, found: 0))
    }

    /// The file for direct reads; nil where the file system has none.
    var direct: DirectFile? {
        directFile.withLock { known in
            if let known { return known }
            let opened = file.direct()
            known = .some(opened)
            return opened
        }
    }

    private func mapped() throws(StoreError) -> MappedFile {
        try mapping.withLock { (mapping) throws(StoreError) -> MappedFile in
            if let mapping { return mapping }
            let new = try wrapping { () throws(FileError) in try file.map() }
            mapping = new
            return new
        }
    }

    /// A page's bytes as they are stored, if they have its checksum.
    func readStored(_ number: Int) throws(StoreError) -> [UInt8] {
        let entry = footer.pages[number]
        let stored = try wrapping { () throws(FileError) in
            try file.read(at: Int(entry.offset), count: Int(entry.storedLength))
        }
        try expectChecksum(of: number, stored: stored.span.bytes)
        return stored
    }

    func expectChecksum(of number: Int, stored: RawSpan) throws(StoreError) {
        let entry = footer.pages[number]
        let checksum = xxh3(stored, seed: entry.seed)
        guard checksum == entry.checksum else {
            throw .pageChecksum(path: path, location(of: number), expected: entry.checksum, found: checksum)
        }
    }

    /// The payload that a page's stored bytes hold; their checksum must be right.
    func payload(of number: Int, checked stored: RawSpan) throws(StoreError) -> [UInt8] {
        let entry = footer.pages[number]
        guard entry.codec == .zstd else { return unsafe stored.withUnsafeBytes { unsafe Array($0) } }
        do {
            var decompressor = try ZstdDecompressor()
            let planes = try decompressor.decompress(stored, expectedByteCount: Int(entry.rawLength))
            let stride = Int(entry.byteSplitStride)
            return stride == 1 ? planes : BytePlanes.join(planes.span.bytes, stride: stride)
        } catch {
            throw .pageCompression(path: path, location(of: number), error)
        }
    }

    /// Where a page is, for errors and reports.
    public func location(of number: Int) -> PageLocation {
        let entry = footer.pages[number]
        return PageLocation(
            page: number, column: footer.columns[Int(entry.column)].words(in: footer.header.magic),
            block: Int(entry.block), offset: Int(entry.offset), storedLength: Int(entry.storedLength))
    }

    static func readHeader(_ file: ReadableFile, magic: FileMagic) throws -> FileHeader {
        let count = FileGeometry.headerByteCount
        let bytes = try file.read(at: 0, count: min(count, file.byteCount))
        // A file of another kind is told by its first bytes, however short it is.
        let start = Array(bytes.prefix(8))
        guard start == Array(magic.rawValue.utf8) else {
            throw FormatError.wrongMagic(part: .header, expected: magic.rawValue, found: start)
        }
        return try FileHeader(decoding: bytes, magic: magic)
    }

    static func readTail(_ file: ReadableFile) throws -> FileTail {
        let count = FileGeometry.tailByteCount
        guard file.byteCount >= count + FileGeometry.headerByteCount else {
            throw FormatError.partSize(
                part: .tail, expected: count, found: file.byteCount - FileGeometry.headerByteCount)
        }
        return try FileTail(
            decoding: try file.read(at: file.byteCount - count, count: count), fileLength: file.byteCount)
    }

    /// Reads footer, padding and tail at once; the tail in the file must be `tail`.
    static func readFooter(_ file: ReadableFile, tail: FileTail, magic: FileMagic) throws -> FileFooter {
        let bytes = try file.read(at: tail.footerOffset, count: file.byteCount - tail.footerOffset)
        let footerBytes = Array(bytes.prefix(tail.footerLength))
        let digest = Digest(of: footerBytes)
        guard digest == tail.footerDigest else {
            throw FormatError.footerDigest(expected: tail.footerDigest, found: digest)
        }
        let found = try FileTail(
            decoding: Array(bytes.suffix(FileGeometry.tailByteCount)), fileLength: file.byteCount)
        guard found == tail else {
            throw FormatError.footerDigest(expected: tail.footerDigest, found: found.footerDigest)
        }
        let padding = bytes[tail.footerLength..<bytes.count - FileGeometry.tailByteCount]
        if let index = padding.firstIndex(where: { $0 != 0 }) {
            throw FormatError.reservedNotZero(part: .footer, offset: index, found: padding[index])
        }
        return try FileFooter(decoding: footerBytes, footerOffset: tail.footerOffset, magic: magic)
    }

    static func compare(_ header: FileHeader, _ repeated: FileHeader) throws(FormatError) {
        guard header.copyForFooter == repeated.copyForFooter else { throw .headerCopyDiffers }
        guard header.schemaDigest == repeated.schemaDigest else {
            throw .schemaDigest(expected: header.schemaDigest, found: repeated.schemaDigest)
        }
    }
}

extension ColumnDescriptor {
    /// The column in words.
    func words(in magic: FileMagic) -> String {
        guard magic == .segment, let kind = SegmentColumnKind(rawValue: kind) else {
            return "column kind \(kind), layer \(layer)"
        }
        return switch kind {
        case .left: "left factors of layer \(layer), component \(component)"
        case .right: "right factors of layer \(layer), component \(component)"
        case .dense: "matrices of layer \(layer)"
        case .norms: "norms"
        case .residualNorms: "residual norms"
        case .identifiers: "identifiers"
        case .identifierIndex: "identifier index"
        case .field: "metadata field \"\(name)\""
        }
    }
}
