import Glibc

/// Copies a file durably: its bytes go to a temporary name and get the final one, which must be free, when they are safe.
///
/// 8 MiB of memory. A failure leaves neither name behind.
public func copyFile(_ path: String, temporaryPath: String, as finalPath: String) throws(FileError) {
    let source = try ReadableFile(path: path)
    var target = try DurableFile(temporaryPath: temporaryPath)
    var offset = 0
    while offset < source.byteCount {
        let count = min(8 << 20, source.byteCount - offset)
        let bytes = try source.read(at: offset, count: count)
        try target.append(bytes.span.bytes)
        offset += count
    }
    try target.seal(as: finalPath)
}

/// Gives a file a second, durable name, which must be free: a hard link where the file system can, else a copy.
public func linkOrCopyFile(_ path: String, temporaryPath: String, as finalPath: String) throws(FileError) {
    if link(path, finalPath) == 0 { return try synchronizeDirectory(parentDirectory(of: finalPath)) }
    guard [EPERM, EOPNOTSUPP, ENOSYS, EMLINK, EXDEV].contains(errno) else { throw .last("link to", finalPath) }
    try copyFile(path, temporaryPath: temporaryPath, as: finalPath)
}
