public import Files

/// What went wrong with an LMDB environment.
public enum LMDBError: Error, Hashable, Sendable {
    /// liblmdb refused an operation; `code` is an `MDB_` constant or an errno.
    case failed(operation: String, path: String, code: Int32, message: String)
    /// A page breaks a rule of the format: the file is damaged. Found by reading, before liblmdb touched the page.
    case damaged(path: String, page: UInt64, rule: String, found: String)
    /// There is no environment in that directory.
    case missing(path: String)
    /// There is an environment already.
    case alreadyExists(path: String)
    /// Locks and shared mappings cannot be relied on there.
    case networkFileSystem(path: String, name: String)
    /// The data file has another format version.
    case unsupportedVersion(path: String, found: UInt32)
    /// The file system, or the permissions, allow reading only.
    case readOnly(path: String)
    /// Readers must register themselves in the lock file, which this user cannot write.
    case lockFileNotWritable(path: String)
    /// The commit may or may not have happened: close, reopen and look.
    case commitInDoubt(path: String, code: Int32, message: String)
    /// An earlier commit failed in doubt: this environment must be closed and reopened.
    case poisoned(path: String)
    /// The file system failed.
    case file(FileError)
}

extension LMDBError: CustomStringConvertible {
    /// One line: what, where, and what to do about it where that is known.
    public var description: String {
        switch self {
        case .failed(let operation, let path, let code, let message):
            "cannot \(operation) \(path): \(message) (LMDB \(code))"
                + (FileError.remedy(code).map { "; \($0)" } ?? "")
        case .damaged(let path, let page, let rule, let found):
            "\(path) is damaged: page \(page): expected \(rule), found \(found)"
        case .missing(let path): "there is no LMDB environment in \(path)"
        case .alreadyExists(let path): "there is an LMDB environment in \(path) already"
        case .networkFileSystem(let path, let name):
            "\(path) is on a network file system (\(name)), where locks and mappings are not reliable: use a local disk"
        case .unsupportedVersion(let path, let found): "\(path) has LMDB data version \(found), expected 1"
        case .readOnly(let path): "\(path) is open for reading only"
        case .lockFileNotWritable(let path):
            "\(path): readers must be able to write lock.mdb; ask the owner for permission, or copy the directory"
        case .commitInDoubt(let path, let code, let message):
            "\(path): the commit failed half-way and must be looked up: \(message) (LMDB \(code))"
        case .poisoned(let path): "\(path): an earlier commit failed; reopen the environment"
        case .file(let error): "\(error)"
        }
    }
}
