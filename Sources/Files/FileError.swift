public import SystemPackage

/// What the file system refused, or a file that is not what it should be.
public enum FileError: Error, Hashable, Sendable {
    /// A system call failed.
    case failed(operation: String, path: String, errno: Errno)
    /// The file ends before the bytes that were asked for.
    case shortRead(path: String, offset: Int, expected: Int, found: Int)
    /// The name that was to be created is taken.
    case alreadyExists(path: String)
    /// There is nothing at that path.
    case missing(path: String)
    /// A regular file was expected: this is a directory, a pipe, a device …
    case notRegularFile(path: String)
    /// A directory was expected.
    case notDirectory(path: String)

    /// The error of the system call that has just failed on `path`.
    static func last(_ operation: String, _ path: String) -> FileError {
        make(operation, path, Errno(rawValue: systemErrno()))
    }

    static func make(_ operation: String, _ path: String, _ errno: Errno) -> FileError {
        switch errno {
        case .fileExists: .alreadyExists(path: path)
        case .noSuchFileOrDirectory: .missing(path: path)
        default: .failed(operation: operation, path: path, errno: errno)
        }
    }
}

extension FileError: CustomStringConvertible {
    /// One line: what was attempted, where, and what came back.
    public var description: String {
        switch self {
        case .failed(let operation, let path, let errno):
            "cannot \(operation) \(path): \(errno)" + (Self.remedy(errno.rawValue).map { "; \($0)" } ?? "")
        case .shortRead(let path, let offset, let expected, let found):
            "\(path) is too short: \(expected) bytes expected at offset \(offset), \(found) found"
        case .alreadyExists(let path): "\(path) exists already"
        case .missing(let path): "\(path) does not exist"
        case .notRegularFile(let path): "\(path) is not a regular file"
        case .notDirectory(let path): "\(path) is not a directory"
        }
    }

    /// What a user can do about an errno, where that is clear.
    public static func remedy(_ code: Int32) -> String? {
        switch Errno(rawValue: code) {
        case .noSpace: "make room on that disk and give the command again"
        case .diskQuotaExceeded: "make room within the quota and give the command again"
        case .tooManyOpenFiles: "allow more open files ('ulimit -n 4096') and give the command again"
        default: nil
        }
    }
}
