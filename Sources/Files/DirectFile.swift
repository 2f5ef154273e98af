import CPlatform
import Glibc

/// A file that is read past the page cache (O_DIRECT): what is read once costs no memory afterwards, and throws nothing else out.
///
/// Good for files that do not fit the page cache, with several reads under way at once.
public final class DirectFile: Sendable {
    /// Offsets, lengths and memory of direct reads are multiples of this.
    public static let alignment = 4096

    private let file: ReadableFile
    private let descriptor: CInt

    /// nil where the file system has no direct reads (tmpfs, some overlays).
    init?(_ file: ReadableFile, descriptor source: CInt) {
        let descriptor = retryingInterrupts { lorif_open_direct(source) }
        guard descriptor >= 0 else { return nil }
        self.file = file
        self.descriptor = descriptor
    }

    deinit { close(descriptor) }

    /// The bytes of a range of the file, which must not be empty; nil if the file system refuses the read after all.
    ///
    /// Reads whole units of `alignment` around the range. A file that has become shorter is an error.
    public func read(_ range: Range<Int>) throws(FileError) -> DirectBytes? {
        precondition(!range.isEmpty && range.lowerBound >= 0, "nothing to read")
        let first = range.lowerBound / Self.alignment * Self.alignment
        let end = (range.upperBound + Self.alignment - 1) / Self.alignment * Self.alignment
        let bytes = DirectBytes(firstOffset: first, capacity: end - first)
        var done = 0
        while first + done < range.upperBound {
            let count = retryingInterrupts {
                unsafe pread(descriptor, bytes.memory.baseAddress! + done, end - first - done, off_t(first + done))
            }
            if count < 0, systemErrno() == EINVAL { return nil }
            guard count >= 0 else { throw .last("read", file.path) }
            done += count
            // A read that ends within a unit has met the end of the file.
            if first + done < range.upperBound, count == 0 || done % Self.alignment != 0 {
                throw .shortRead(
                    path: file.path, offset: range.lowerBound, expected: range.count,
                    found: max(0, first + done - range.lowerBound))
            }
        }
        return bytes
    }
}

/// Bytes of a file that a direct read has brought into memory of their own.
public final class DirectBytes: Sendable {
    private let firstOffset: Int
    nonisolated(unsafe) fileprivate let memory: UnsafeMutableRawBufferPointer

    fileprivate init(firstOffset: Int, capacity: Int) {
        self.firstOffset = firstOffset
        unsafe memory = .allocate(byteCount: capacity, alignment: DirectFile.alignment)
    }

    deinit { unsafe memory.deallocate() }

    /// Bytes that the memory takes.
    public var byteCount: Int { memory.count }

    /// The bytes of a range of the file, which must be within what was asked for.
    public func bytes(_ range: Range<Int>) -> FileBytes {
        let first = range.lowerBound - firstOffset
        precondition(first >= 0 && first + range.count <= memory.count, "range outside what was read")
        return unsafe FileBytes(
            owner: self, bytes: UnsafeRawBufferPointer(rebasing: memory[first..<first + range.count]))
    }
}
