import CPlatform
import Glibc

/// A regular file open for reading at any offset, from any number of threads.
///
/// Reads go through `pread` into memory that the caller owns: what was verified is what is used, and a file that shrinks
/// while it is read gives an error and not a signal.
public final class ReadableFile: Sendable {
    /// As given to `init`.
    public let path: String
    /// The file's length when it was opened.
    public let byteCount: Int
    /// Device and inode: the same for two paths of the same file.
    public let identity: FileIdentity

    private let descriptor: CInt

    /// Opens the file; a directory, pipe or device is refused.
    public init(path: String) throws(FileError) {
        // O_NONBLOCK: opening a pipe must fail below and not wait for a writer.
        let descriptor = retryingInterrupts { open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK) }
        guard descriptor >= 0 else { throw .last("open", path) }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else {
            let error = FileError.last("examine", path)
            close(descriptor)
            throw error
        }
        guard status.st_mode & S_IFMT == S_IFREG else {
            close(descriptor)
            throw .notRegularFile(path: path)
        }
        self.path = path
        self.byteCount = Int(status.st_size)
        self.identity = FileIdentity(device: UInt64(status.st_dev), inode: UInt64(status.st_ino))
        self.descriptor = descriptor
    }

    deinit {
        close(descriptor)
    }

    /// Exactly `count` bytes from `offset` on; fewer is an error.
    public func read(at offset: Int, count: Int) throws(FileError) -> [UInt8] {
        try check(offset: offset, count: count)
        var failure: FileError?
        let bytes = [UInt8](unsafeUninitializedCapacity: count) { buffer, initializedCount in
            do throws(FileError) {
                try unsafe fill(UnsafeMutableRawBufferPointer(buffer), from: offset)
                initializedCount = count
            } catch {
                failure = error
            }
        }
        if let failure { throw failure }
        return bytes
    }

    /// Asks the kernel to begin reading a range, which will be read soon. A hint.
    public func prefetch(_ range: Range<Int>) {
        _ = posix_fadvise(descriptor, off_t(range.lowerBound), off_t(range.count), POSIX_FADV_WILLNEED)
    }

    /// Asks the kernel to forget what it has of the file in memory, for measurements. A hint.
    public func evict() { _ = posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED) }

    /// The file as memory, from now on; empty files cannot be mapped.
    public func map() throws(FileError) -> MappedFile {
        precondition(byteCount > 0, "an empty file cannot be mapped")
        var address: UnsafeRawPointer?
        let slot = unsafe lorif_map_file(descriptor, byteCount, &address)
        guard slot >= 0, let address = unsafe address else { throw .last("map", path) }
        return unsafe MappedFile(
            path: path, slot: slot, bytes: UnsafeRawBufferPointer(start: address, count: byteCount))
    }

    /// The same file for direct reads; nil where the file system has none.
    public func direct() -> DirectFile? { DirectFile(self, descriptor: descriptor) }

    /// Bytes of a range that are in the page cache; nil if the system cannot say.
    public func residentByteCount(_ range: Range<Int>) -> Int? {
        let count = lorif_resident_byte_count(descriptor, Int64(range.lowerBound), Int64(range.count))
        return count < 0 ? nil : Int(count)
    }

    /// Fills `buffer` from `offset` on; fewer bytes are an error.
    public func read(at offset: Int, into buffer: inout MutableRawSpan) throws(FileError) {
        try check(offset: offset, count: buffer.byteCount)
        try buffer.withUnsafeMutableBytes { (bytes) throws(FileError) in
            try unsafe fill(bytes, from: offset)
        }
    }

    private func check(offset: Int, count: Int) throws(FileError) {
        precondition(count >= 0)
        // Also keeps a hostile count from becoming a huge allocation.
        guard offset >= 0, offset <= byteCount, count <= byteCount - offset else {
            throw .shortRead(path: path, offset: offset, expected: count, found: max(0, byteCount - max(0, offset)))
        }
    }

    private func fill(_ buffer: UnsafeMutableRawBufferPointer, from offset: Int) throws(FileError) {
        var done = 0
        while done < buffer.count {
            let count = retryingInterrupts {
                unsafe pread(descriptor, buffer.baseAddress! + done, buffer.count - done, off_t(offset + done))
            }
            guard count >= 0 else { throw .last("read", path) }
            guard count > 0 else {
                throw .shortRead(path: path, offset: offset, expected: buffer.count, found: done)
            }
            done += count
        }
    }
}
