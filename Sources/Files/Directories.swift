import CPlatform
import Glibc

/// Device and inode of a file: two paths with the same identity are the same file.
public struct FileIdentity: Hashable, Sendable {
    /// st_dev.
    public let device: UInt64
    /// st_ino.
    public let inode: UInt64
}

/// What is at a path.
public struct FileStatus: Hashable, Sendable {
    /// The kinds that a store cares about.
    public enum Kind: Hashable, Sendable {
        case regular, directory, other
    }

    /// Regular file, directory or something else.
    public let kind: Kind
    /// Its length in bytes.
    public let byteCount: Int
    /// Device and inode.
    public let identity: FileIdentity
}

/// What is at `path`, symbolic links followed; nil when there is nothing.
public func fileStatus(_ path: String) throws(FileError) -> FileStatus? {
    var status = stat()
    guard stat(path, &status) == 0 else {
        if errno == ENOENT { return nil }
        throw .last("examine", path)
    }
    let kind: FileStatus.Kind =
        switch status.st_mode & S_IFMT {
        case S_IFREG: .regular
        case S_IFDIR: .directory
        default: .other
        }
    return FileStatus(
        kind: kind, byteCount: Int(status.st_size),
        identity: FileIdentity(device: UInt64(status.st_dev), inode: UInt64(status.st_ino)))
}

/// Makes the names in a directory durable: creations, renames and removals before this call survive a power loss.
public func synchronizeDirectory(_ path: String) throws(FileError) {
    try OpenedDirectory(path).synchronize()
}

/// A directory that is opened before a name in it changes, so that afterwards nothing but the synchronisation can fail.
struct OpenedDirectory: ~Copyable {
    private let path: String
    private let descriptor: CInt

    init(_ path: String) throws(FileError) {
        self.path = path
        descriptor = try Self.open(path)
    }

    /// The directory of the name `path`.
    init(of path: String) throws(FileError) { try self.init(parentDirectory(of: path)) }

    deinit { close(descriptor) }

    private static func open(_ path: String) throws(FileError) -> CInt {
        let descriptor = retryingInterrupts { Glibc.open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) }
        guard descriptor >= 0 else { throw .last("open", path) }
        return descriptor
    }

    /// Makes the names in it durable.
    func synchronize() throws(FileError) {
        guard fsync(descriptor) == 0 else { throw .last("synchronize", path) }
    }
}

/// Creates one directory (mode 0700); the name must be free.
public func createDirectory(_ path: String) throws(FileError) {
    guard mkdir(path, 0o700) == 0 else { throw .last("create directory", path) }
}

/// Removes a file; one that is not there is an error.
public func removeFile(_ path: String) throws(FileError) {
    guard unlink(path) == 0 else { throw .last("remove", path) }
}

/// Removes an empty directory.
public func removeDirectory(_ path: String) throws(FileError) {
    guard rmdir(path) == 0 else { throw .last("remove", path) }
}

/// The names in a directory, sorted by bytes, without `.` and `..`.
public func fileNames(inDirectory path: String) throws(FileError) -> [String] {
    guard let directory = unsafe opendir(path) else {
        if errno == ENOTDIR { throw .notDirectory(path: path) }
        throw .last("list", path)
    }
    defer { unsafe closedir(directory) }
    var names: [String] = []
    while true {
        errno = 0
        guard let entry = unsafe readdir(directory) else {
            guard errno == 0 else { throw .last("list", path) }
            break
        }
        let name = unsafe withUnsafeBytes(of: &entry.pointee.d_name) { buffer in
            unsafe String(decoding: buffer.prefix { $0 != 0 }, as: UTF8.self)
        }
        if name != ".", name != ".." { names.append(name) }
    }
    return names.sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }
}

/// Whether this process may create files in a directory (or write the file) at `path`.
public func isWritable(_ path: String) -> Bool {
    access(path, W_OK) == 0
}

/// Gives a directory another name on the same file system and makes it durable; an empty directory of that name is replaced.
public func moveDirectory(_ path: String, to finalPath: String) throws(FileError) {
    let directory = try OpenedDirectory(of: finalPath)
    guard rename(path, finalPath) == 0 else { throw .last("rename to", finalPath) }
    try directory.synchronize()
}

/// Gives a file the name of another one, which it replaces, durably: at every moment the name is that of one of them.
public func replaceFile(_ finalPath: String, by path: String) throws(FileError) {
    let directory = try OpenedDirectory(of: finalPath)
    guard rename(path, finalPath) == 0 else { throw .last("rename to", finalPath) }
    try directory.synchronize()
}

/// Gives a file that will be written through a shared mapping all its blocks, creating it (mode 0600) if need be.
///
/// A page of such a mapping that finds no space on the disk would be a SIGBUS. Where this process may not write, nothing happens.
/// No link is followed.
public func allocateFile(_ path: String, byteCount: Int) throws(FileError) {
    let descriptor = retryingInterrupts { open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0o600) }
    guard descriptor >= 0 else {
        if [EROFS, EACCES, EPERM].contains(errno) { return }
        throw .last("open", path)
    }
    defer { close(descriptor) }
    guard lorif_allocate(descriptor, Int64(byteCount)) == 0 else { throw .last("allocate", path) }
}

/// Writes bytes into a file that exists, durably. No link is followed.
public func overwriteFile(_ path: String, at offset: Int, with bytes: [UInt8]) throws(FileError) {
    let descriptor = retryingInterrupts { open(path, O_WRONLY | O_NOFOLLOW | O_CLOEXEC) }
    guard descriptor >= 0 else { throw .last("open", path) }
    defer { close(descriptor) }
    var done = 0
    while done < bytes.count {
        let rest = Array(bytes[done...])
        let count = retryingInterrupts { unsafe pwrite(descriptor, rest, rest.count, off_t(offset + done)) }
        guard count > 0 else { throw .last("write", path) }
        done += count
    }
    guard fsync(descriptor) == 0 else { throw .last("synchronize", path) }
}
