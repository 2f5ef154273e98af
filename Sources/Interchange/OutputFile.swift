import Files
import Synchronization

/// A file of known length that is filled in any order and appears under its name when it is whole, replacing what was there.
///
/// Until then it has a temporary name in the same directory; a value that dies unfinished takes the temporary file with it.
struct OutputFile: ~Copyable, Sendable {
    let path: String
    private let file: DurableFile
    private let byteCount: Int
    /// Every byte is written once: a file with a gap must not be taken for a result.
    private let writtenByteCount: Atomic<Int>

    init(path: String, byteCount: Int, header: [UInt8]) throws(InterchangeError) {
        let directory = Self.directory(of: path)
        let temporaryPath =
            directory + (directory.hasSuffix("/") ? "" : "/") + ".lorif-"
            + String(UInt64.random(in: .min ... .max), radix: 36) + ".tmp"
        let name = path
        file = try withInterchangeErrors {
            guard try fileStatus(directory)?.kind == .directory else {
                throw InterchangeError.noDirectory(path: name, directory: directory)
            }
            guard try fileStatus(name)?.kind != .directory else {
                throw InterchangeError.targetIsDirectory(path: name)
            }
            let file = try DurableFile(temporaryPath: temporaryPath, isForOthers: true)
            try file.setLength(byteCount)
            try file.write(header.span.bytes, at: 0)
            return file
        }
        self.path = path
        self.byteCount = byteCount
        writtenByteCount = Atomic(header.count)
    }

    /// Writes bytes at their place; different threads may write different ranges.
    func write(_ bytes: RawSpan, at offset: Int) throws(InterchangeError) {
        precondition(offset >= 0 && bytes.byteCount <= byteCount - offset)
        do {
            try file.write(bytes, at: offset)
        } catch {
            throw .file(error)
        }
        writtenByteCount.add(bytes.byteCount, ordering: .relaxed)
    }

    /// Makes the file durable and gives it its name.
    consuming func finish() throws(InterchangeError) {
        precondition(
            writtenByteCount.load(ordering: .acquiring) == byteCount, "\(path): every byte must be written once")
        let path = path
        do {
            try file.seal(as: path, replacing: true)
        } catch {
            throw .file(error)
        }
    }

    private static func directory(of path: String) -> String {
        guard let slash = path.lastIndex(of: "/") else { return "." }
        return slash == path.startIndex ? "/" : String(path[..<slash])
    }
}
