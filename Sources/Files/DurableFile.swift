import CPlatform
import Glibc
import SystemPackage

/// A file being written under a temporary name, which gets its real name only when its bytes are on disk.
///
/// Invariant: a file at the final name is whole. A file that is not sealed is closed and removed when the value dies; after an
/// error the value is good for nothing but dying (a failed `fsync` must never be retried: the kernel has dropped the pages).
public struct DurableFile: ~Copyable, Sendable {
    /// The name until `seal`.
    public let temporaryPath: String
    /// Bytes appended so far.
    public private(set) var byteCount = 0

    private let descriptor: CInt
    private var isSealed = false
    /// Up to where the kernel has been asked to write appended bytes to disk.
    private var writebackOffset = 0
    private static let writebackByteCount = 8 << 20

    /// Creates the temporary file; the name must be free and the final name must be on the same file system.
    ///
    /// Its mode is 0600, or for a file that the user has named whatever the umask leaves.
    public init(temporaryPath: String, isForOthers: Bool = false) throws(FileError) {
        let flags = O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC
        let descriptor = retryingInterrupts { open(temporaryPath, flags, isForOthers ? 0o666 : 0o600) }
        guard descriptor >= 0 else { throw .last("create", temporaryPath) }
        self.temporaryPath = temporaryPath
        self.descriptor = descriptor
    }

    deinit {
        close(descriptor)
        if !isSealed { unlink(temporaryPath) }
    }

    /// Adds bytes at the end.
    public mutating func append(_ bytes: RawSpan) throws(FileError) {
        try write(bytes, at: byteCount)
        byteCount += bytes.byteCount
        // The disk works while the file grows, so that the fsync of `seal` finds little left to do.
        if byteCount - writebackOffset >= Self.writebackByteCount {
            lorif_begin_writeback(descriptor, Int64(writebackOffset), Int64(byteCount - writebackOffset))
            writebackOffset = byteCount
        }
    }

    /// Writes bytes at an offset, beyond the end if need be (the gap reads as zeros); does not move the append position.
    /// Different threads may write different ranges.
    public func write(_ bytes: RawSpan, at offset: Int) throws(FileError) {
        precondition(offset >= 0)
        try bytes.withUnsafeBytes { (buffer) throws(FileError) in
            var done = 0
            while done < buffer.count {
                let count = retryingInterrupts {
                    unsafe pwrite(descriptor, buffer.baseAddress! + done, buffer.count - done, off_t(offset + done))
                }
                guard count >= 0 else { throw .last("write", temporaryPath) }
                guard count > 0 else {
                    throw .failed(operation: "write", path: temporaryPath, errno: .ioError)
                }
                done += count
            }
        }
    }

    /// Gives the file that length; what is new reads as zeros.
    public func setLength(_ byteCount: Int) throws(FileError) {
        guard retryingInterrupts({ ftruncate(descriptor, off_t(byteCount)) }) == 0 else {
            throw .last("resize", temporaryPath)
        }
    }

    /// Makes the bytes so far durable, under the temporary name.
    public func synchronize() throws(FileError) {
        guard fsync(descriptor) == 0 else { throw .last("synchronize", temporaryPath) }
    }

    /// Makes the bytes durable, then the name: fsync, rename, fsync of both directories.
    ///
    /// A name that is taken is an error unless `replacing`. When the last step (a directory's fsync) fails, the file may be
    /// there under its final name, whole; the caller must treat it as not committed.
    public consuming func seal(as finalPath: String, replacing: Bool = false) throws(FileError) {
        guard fsync(descriptor) == 0 else { throw .last("synchronize", temporaryPath) }
        let final = try OpenedDirectory(of: finalPath)
        let temporary = try OpenedDirectory(of: temporaryPath)
        if replacing {
            guard rename(temporaryPath, finalPath) == 0 else { throw .last("rename to", finalPath) }
        } else {
            try renameWithoutReplacing(temporaryPath, to: finalPath)
        }
        isSealed = true
        try final.synchronize()
        if parentDirectory(of: temporaryPath) != parentDirectory(of: finalPath) { try temporary.synchronize() }
    }
}

/// Gives a file another name on the same file system, which must be free, and makes both names' change durable.
public func moveFile(_ path: String, to finalPath: String) throws(FileError) {
    let final = try OpenedDirectory(of: finalPath)
    let temporary = try OpenedDirectory(of: path)
    try renameWithoutReplacing(path, to: finalPath)
    try final.synchronize()
    if parentDirectory(of: path) != parentDirectory(of: finalPath) { try temporary.synchronize() }
}

private func renameWithoutReplacing(_ path: String, to finalPath: String) throws(FileError) {
    // link refuses a taken name, which rename does not. After a crash before unlink both names are there: the temporary
    // one is swept with everything else in its directory.
    if link(path, finalPath) == 0 {
        guard unlink(path) != 0 else { return }
        // Two names would be neither done nor not done. If the new one cannot be taken back it is done, and the old one is left over.
        let failure = FileError.last("remove", path)
        guard unlink(finalPath) != 0 else { throw failure }
        return
    }
    // File systems without hard links; the check can lose a race only against a program that ignores the store's lock.
    guard [EPERM, EOPNOTSUPP, ENOSYS, EMLINK].contains(errno) else { throw .last("rename to", finalPath) }
    guard access(finalPath, F_OK) != 0 else { throw .alreadyExists(path: finalPath) }
    guard rename(path, finalPath) == 0 else { throw .last("rename to", finalPath) }
}
