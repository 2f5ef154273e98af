import Checksum
import Files
import Format

/// The payload of a page: a range of the file where it lies in memory, or bytes of its own.
public struct PageBytes: Sendable {
    private let inFile: FileBytes?
    private let owned: [UInt8]

    init(_ inFile: FileBytes) {
        self.inFile = inFile
        owned = []
    }

    init(_ owned: [UInt8]) {
        inFile = nil
        self.owned = owned
    }

    /// The bytes themselves.
    public var span: RawSpan {
        @_lifetime(borrow self)
        borrowing get {
            if let inFile { return unsafe _overrideLifetime(inFile.span, borrowing: self) }
            return unsafe _overrideLifetime(owned.span.bytes, borrowing: self)
        }
    }
}

/// A page that is checked piece by piece, each just before it is used, while the processor's cache has it.
///
/// Nothing that came of the page may be used before `finish` has found its checksum right.
public struct OpenPage: ~Copyable {
    /// The payload.
    public let bytes: PageBytes
    private let reader: PagedFileReader
    private let number: Int
    /// nil for a page that has been checked already.
    private var hasher: ChecksumHasher?
    private var checkedCount = 0

    init(_ bytes: PageBytes, of reader: PagedFileReader, number: Int, isChecked: Bool) {
        self.bytes = bytes
        self.reader = reader
        self.number = number
        hasher = isChecked ? nil : ChecksumHasher(seed: reader.footer.pages[number].seed)
    }

    /// Takes the bytes up to a share of the page into the checksum.
    public mutating func check(upTo part: Int, of whole: Int) {
        let bytes = bytes
        let count = bytes.span.byteCount
        let end = part == whole ? count : count / whole * part
        guard end > checkedCount else { return }
        hasher?.update(bytes.span.extracting(checkedCount..<end))
        checkedCount = end
    }

    /// Throws unless the whole page has its checksum.
    public consuming func finish() throws(StoreError) {
        check(upTo: 1, of: 1)
        guard let checksum = hasher?.checksum() else { return }
        try reader.expect(checksum, of: number)
    }
}
