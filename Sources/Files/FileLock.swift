import Glibc

/// An exclusive lock, held for as long as the value lives, and released by the kernel when the process dies.
///
/// An open-file-description lock: unlike a classic POSIX lock it also excludes a second holder in the same process, and is
/// not lost when some other descriptor of the file is closed. The file itself stays.
public final class FileLock: Sendable {
    /// The lock file.
    public let path: String
    private let descriptor: CInt
    /// F_OFD_SETLK of Linux's <fcntl.h>, which the importer does not show.
    private static let setLock: CInt = 37

    private init(path: String, descriptor: CInt) {
        self.path = path
        self.descriptor = descriptor
    }

    deinit {
        close(descriptor)
    }

    /// Takes the lock, creating the file if need be; nil when somebody else holds it.
    public static func acquire(path: String) throws(FileError) -> FileLock? {
        let descriptor = retryingInterrupts { open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0o600) }
        guard descriptor >= 0 else { throw .last("open", path) }
        let lock = FileLock(path: path, descriptor: descriptor)
        var request = flock()
        request.l_type = Int16(F_WRLCK)
        request.l_whence = Int16(SEEK_SET)
        guard unsafe fcntl(descriptor, setLock, &request) == 0 else {
            if errno == EAGAIN || errno == EACCES { return nil }
            throw .last("lock", path)
        }
        return lock
    }
}
