import CLMDB
import Files
import Synchronization

/// An LMDB environment: a small transactional map from byte keys to byte values, in one unnamed database.
///
/// Transactions are scoped: `read` and `write` run a closure, and no pointer into the map leaves it. Before a state is used for
/// the first time its pages are checked (see `PageWalker`), so that a damaged file gives an error and never a crash.
/// Opening the same file twice in one process gives the same underlying environment, because closing a second one would drop
/// the locks of the first. Never use it after fork.
public final class Environment: Sendable {
    /// The directory of data.mdb and lock.mdb.
    public let path: String
    let core: EnvironmentCore

    /// Makes an empty environment in an existing directory that has none, and opens it.
    public static func create(at path: String, mapByteCount: Int = defaultMapByteCount) throws(LMDBError) -> Environment
    {
        Environment(path: path, core: try EnvironmentRegistry.open(path, creating: true, mapByteCount: mapByteCount))
    }

    /// Opens an existing environment: for writing where the file system allows it, otherwise for reading only.
    public static func open(at path: String, mapByteCount: Int = defaultMapByteCount) throws(LMDBError) -> Environment {
        Environment(path: path, core: try EnvironmentRegistry.open(path, creating: false, mapByteCount: mapByteCount))
    }

    /// Address space reserved at first; the map grows when a commit needs more.
    public static let defaultMapByteCount = 1 << 30

    private init(path: String, core: EnvironmentCore) {
        self.path = path
        self.core = core
    }

    deinit {
        EnvironmentRegistry.release(core)
    }

    /// Whether only `read` works here.
    public var isReadOnly: Bool { core.isReadOnly }

    /// Runs `body` on a consistent state; whatever it returns must be copied out.
    ///
    /// Throws `LMDBError`, or what `body` throws. Keep it short: the state's pages cannot be reused meanwhile.
    public func read<Result>(_ body: (borrowing ReadTransaction) throws -> Result) throws -> Result {
        try core.read(body)
    }

    /// Runs `body` in the one write transaction: when it returns, the transaction is committed (durably); when it throws, aborted.
    ///
    /// When the map is too small, the transaction is aborted, the map doubled, and `body` run again: it must not leave traces
    /// elsewhere. After `commitInDoubt` the environment answers `poisoned` until it is closed and reopened.
    public func write<Result>(_ body: (borrowing WriteTransaction) throws -> Result) throws -> Result {
        try core.write(body)
    }
}

/// The environments of this process, one per file.
enum EnvironmentRegistry {
    private struct Entry {
        let core: EnvironmentCore
        var useCount: Int
    }

    // Opening and closing happen under the lock: a close must never overlap an open of the same file.
    private static let entries = Mutex<[FileIdentity: Entry]>([:])

    static func open(_ path: String, creating: Bool, mapByteCount: Int) throws(LMDBError) -> EnvironmentCore {
        try entries.withLock { (entries) throws(LMDBError) -> EnvironmentCore in
            let dataPath = path + "/data.mdb"
            let existing = try LMDBError.wrappingFiles { () throws(FileError) in try fileStatus(dataPath) }
            if creating {
                if existing != nil { throw .alreadyExists(path: path) }
            } else {
                guard let existing, existing.kind == .regular else { throw .missing(path: path) }
                if let entry = entries[existing.identity] {
                    guard !entry.core.isPoisoned else { throw .poisoned(path: path) }
                    entries[existing.identity] = Entry(core: entry.core, useCount: entry.useCount + 1)
                    return entry.core
                }
            }
            let core = try EnvironmentCore(path: path, creating: creating, mapByteCount: mapByteCount)
            entries[core.identity] = Entry(core: core, useCount: 1)
            return core
        }
    }

    static func release(_ core: EnvironmentCore) {
        entries.withLock { entries in
            guard var entry = entries[core.identity], entry.core === core else { return }
            entry.useCount -= 1
            if entry.useCount == 0 {
                entries[core.identity] = nil
                core.close()
            } else {
                entries[core.identity] = entry
            }
        }
    }
}

extension LMDBError {
    /// Runs file operations, giving their errors this module's type.
    static func wrappingFiles<Result>(_ body: () throws(FileError) -> Result) throws(LMDBError) -> Result {
        do { return try body() } catch { throw .file(error) }
    }

    static func make(_ operation: String, _ path: String, _ code: Int32) -> LMDBError {
        .failed(operation: operation, path: path, code: code, message: message(code))
    }

    static func message(_ code: Int32) -> String {
        guard let text = mdb_strerror(code) else { return "unknown error" }
        return String(cString: text)
    }
}
