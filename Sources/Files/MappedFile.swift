import CPlatform

/// A file as memory. Reading costs no copy, and the page cache is the only place where its bytes are.
///
/// If the file is truncated meanwhile, the missing pages read as zeros and `hasShrunk` becomes true (instead of SIGBUS): whoever
/// reads must ask before using what came of it.
public final class MappedFile: Sendable {
    /// As the file was opened.
    public let path: String
    private let slot: CInt
    nonisolated(unsafe) private let bytes: UnsafeRawBufferPointer

    init(path: String, slot: CInt, bytes: UnsafeRawBufferPointer) {
        self.path = path
        self.slot = slot
        unsafe self.bytes = bytes
    }

    deinit { lorif_unmap_file(slot) }

    /// Whether a page was missing when it was read.
    public var hasShrunk: Bool { lorif_mapping_has_faulted(slot) != 0 }

    /// The bytes of a range of the file, which must be within it; valid as long as this object.
    public func bytes(_ range: Range<Int>) -> FileBytes {
        precondition(range.lowerBound >= 0 && range.upperBound <= bytes.count, "range outside the mapping")
        return unsafe FileBytes(owner: self, bytes: UnsafeRawBufferPointer(rebasing: bytes[range]))
    }
}
