import CLMDB
import Files
import Glibc
import Synchronization

/// The one `MDB_env` of a file in this process.
final class EnvironmentCore: Sendable {
    let path: String
    let identity: FileIdentity
    let isReadOnly: Bool

    // An MDB_env with MDB_NOTLS may be used from any thread; closing and resizing happen under the exclusive gate only.
    private nonisolated(unsafe) let environment: OpaquePointer
    private let gate = ResizeGate()
    private let checkedTransaction = Mutex<UInt64?>(nil)
    private let poisoned = Atomic<Bool>(false)

    /// Upper bound of the map: what x86-64 user space can hold.
    private static let maximumMapByteCount = 1 << 46
    private static let maximumReaderCount: UInt32 = 1024
    /// Of liblmdb 0.9 on 64-bit systems: a head and a cache line for each reader. It makes a shorter file longer.
    private static let lockFileByteCount = 192 + (Int(maximumReaderCount) - 1) * 64

    var isPoisoned: Bool { poisoned.load(ordering: .acquiring) }
    private var dataPath: String { path + "/data.mdb" }

    init(path: String, creating: Bool, mapByteCount: Int) throws(LMDBError) {
        if let name = try networkFileSystemName(at: path) { throw .networkFileSystem(path: path, name: name) }
        var wantedByteCount = mapByteCount
        if !creating {
            // liblmdb reads the meta pages through its map as soon as it opens: they must be sound before.
            let file = try LMDBError.wrappingFiles { () throws(FileError) in try ReadableFile(path: path + "/data.mdb")
            }
            let (first, second) = try SnapshotCheck.readMetaPages(file)
            for (number, meta) in [first, second].enumerated() where meta.transaction % 2 != number {
                // A fresh file has transaction 0 on both.
                guard meta.transaction == 0 else {
                    throw .damaged(
                        path: file.path, page: UInt64(number), rule: "a transaction of its parity",
                        found: "\(meta.transaction)")
                }
            }
            let lastPage = max(first.lastPage, second.lastPage)
            // A last page far beyond the file is damage: it would reserve an absurd map. Unwritten pages are few.
            guard lastPage < UInt64(2 * (file.byteCount / first.pageBytes) + 1024) else {
                throw .damaged(
                    path: file.path, page: 0, rule: "a last page in a file of \(file.byteCount) bytes",
                    found: "\(lastPage)")
            }
            wantedByteCount = max(wantedByteCount, 2 * (Int(lastPage) + 1) * first.pageBytes)
        }
        // Closing it drops this process's locks on it: there are none, since no other environment here has this path.
        try LMDBError.wrappingFiles { () throws(FileError) in
            try allocateFile(path + "/lock.mdb", byteCount: EnvironmentCore.lockFileByteCount)
        }
        let opened = try EnvironmentCore.openHandle(path, mapByteCount: wantedByteCount)
        environment = opened.handle
        isReadOnly = opened.isReadOnly
        self.path = path
        do throws(LMDBError) {
            guard
                let status = try LMDBError.wrappingFiles({ () throws(FileError) in try fileStatus(path + "/data.mdb") })
            else { throw .missing(path: path) }
            identity = status.identity
            // Slots of readers that died would keep their pages for ever.
            var deadCount: Int32 = 0
            let code = mdb_reader_check(opened.handle, &deadCount)
            guard code == MDB_SUCCESS else { throw .make("check the readers of", path, code) }
        } catch {
            mdb_env_close(opened.handle)
            throw error
        }
        if !creating {
            do {
                try read { _ in }
            } catch let error as LMDBError {
                mdb_env_close(opened.handle)
                throw error
            } catch {
                preconditionFailure("an empty read throws only LMDBError, not \(error)")
            }
        }
    }

    func close() {
        mdb_env_close(environment)
    }

    private static func openHandle(
        _ path: String, mapByteCount: Int
    ) throws(LMDBError) -> (handle: OpaquePointer, isReadOnly: Bool) {
        var code = attempt(path, flags: 0, mapByteCount: mapByteCount)
        if case .opened(let handle) = code { return (handle, false) }
        if case .refused(let reason) = code, reason == EROFS || reason == EACCES || reason == EPERM {
            code = attempt(path, flags: UInt32(MDB_RDONLY), mapByteCount: mapByteCount)
            if case .opened(let handle) = code { return (handle, true) }
            if case .refused(let reason) = code, reason == EACCES { throw .lockFileNotWritable(path: path) }
        }
        guard case .refused(let reason) = code else { preconditionFailure("opened handles were returned above") }
        if reason == MDB_VERSION_MISMATCH { throw .unsupportedVersion(path: path, found: 0) }
        throw .make("open", path, reason)
    }

    private enum Attempt {
        case opened(OpaquePointer)
        case refused(Int32)
    }

    private static func attempt(_ path: String, flags: UInt32, mapByteCount: Int) -> Attempt {
        var handle: OpaquePointer?
        var code = mdb_env_create(&handle)
        guard code == MDB_SUCCESS, let handle else { return .refused(code) }
        code = mdb_env_set_mapsize(handle, mapByteCount)
        if code == MDB_SUCCESS { code = mdb_env_set_maxreaders(handle, maximumReaderCount) }
        if code == MDB_SUCCESS { code = mdb_env_open(handle, path, flags | UInt32(MDB_NOTLS), 0o600) }
        guard code == MDB_SUCCESS else {
            mdb_env_close(handle)
            return .refused(code)
        }
        return .opened(handle)
    }

    // MARK: - Transactions

    func read<Result>(_ body: (borrowing ReadTransaction) throws -> Result) throws -> Result {
        // Each round either ends or finds that another commit has overtaken it; a bound keeps a bug from spinning.
        for _ in 0..<1000 {
            gate.enterShared()
            do {
                defer { gate.leaveShared() }
                let handle = try begin(flags: UInt32(MDB_RDONLY))
                defer { mdb_txn_abort(handle) }
                if try check(UInt64(UInt(bitPattern: mdb_txn_id(handle)))) {
                    return try body(ReadTransaction(access: TransactionAccess(handle: handle, path: path)))
                }
            } catch LMDBError.failed(_, _, MDB_MAP_RESIZED, _) {
                try resize(to: 0)
            }
        }
        throw LMDBError.failed(
            operation: "begin a transaction on", path: path, code: EAGAIN, message: "commits keep overtaking it")
    }

    func write<Result>(_ body: (borrowing WriteTransaction) throws -> Result) throws -> Result {
        guard !isReadOnly else { throw LMDBError.readOnly(path: path) }
        while true {
            gate.enterShared()
            do {
                defer { gate.leaveShared() }
                return try writeOnce(body)
            } catch LMDBError.failed(_, _, MDB_MAP_FULL, _) {
                try grow()
            } catch LMDBError.failed(_, _, MDB_MAP_RESIZED, _) {
                try resize(to: 0)
            }
        }
    }

    private func writeOnce<Result>(_ body: (borrowing WriteTransaction) throws -> Result) throws -> Result {
        let handle = try begin(flags: 0)
        let result: Result
        let oldMetaPage: (offset: Int, bytes: [UInt8])
        do {
            // The transaction under way has the next number; it works on the state before.
            guard try check(UInt64(UInt(bitPattern: mdb_txn_id(handle))) &- 1) else {
                throw LMDBError.damaged(
                    path: dataPath, page: 0, rule: "the state that the writer's lock protects", found: "a later one")
            }
            result = try body(WriteTransaction(access: TransactionAccess(handle: handle, path: path)))
            oldMetaPage = try metaPage(replacedBy: UInt64(UInt(bitPattern: mdb_txn_id(handle))))
        } catch {
            mdb_txn_abort(handle)
            throw error
        }
        let code = mdb_txn_commit(handle)
        switch code {
        case MDB_SUCCESS: return result
        // Found before anything was written: pages are allocated from the map first.
        case MDB_MAP_FULL: throw LMDBError.make("commit to", path, code)
        default:
            poisoned.store(true, ordering: .releasing)
            // When its write of the meta page fails, liblmdb writes the page with the old number and the new roots, which nobody
            // can tell from a damaged newer state. If this fails too, the next reader says so.
            try? overwriteFile(dataPath, at: oldMetaPage.offset, with: oldMetaPage.bytes)
            throw LMDBError.commitInDoubt(path: path, code: code, message: LMDBError.message(code))
        }
    }

    /// The place that a commit will write last, and what is there now.
    private func metaPage(replacedBy transaction: UInt64) throws(LMDBError) -> (offset: Int, bytes: [UInt8]) {
        let file = try LMDBError.wrappingFiles { () throws(FileError) in try ReadableFile(path: dataPath) }
        let pageBytes = try SnapshotCheck.readMetaPages(file).0.pageBytes
        let offset = Int(transaction % 2) * pageBytes
        let bytes = try LMDBError.wrappingFiles { () throws(FileError) in
            try file.read(at: offset, count: MetaPage.byteCount)
        }
        return (offset, bytes)
    }

    private func begin(flags: UInt32) throws(LMDBError) -> OpaquePointer {
        guard !isPoisoned else { throw .poisoned(path: path) }
        var handle: OpaquePointer?
        var code = mdb_txn_begin(environment, nil, flags, &handle)
        if code == MDB_READERS_FULL {
            var deadCount: Int32 = 0
            _ = mdb_reader_check(environment, &deadCount)
            code = mdb_txn_begin(environment, nil, flags, &handle)
        }
        guard code == MDB_SUCCESS, let handle else { throw .make("begin a transaction on", path, code) }
        return handle
    }

    /// Checks the pages of that state unless they were checked before; false when commits have overtaken it.
    private func check(_ transaction: UInt64) throws(LMDBError) -> Bool {
        if checkedTransaction.withLock({ $0 == transaction }) { return true }
        switch try SnapshotCheck.check(path: dataPath, transaction: transaction) {
        case .accepted:
            checkedTransaction.withLock { $0 = transaction }
            return true
        case .overtaken: return false
        }
    }

    // MARK: - Map size

    private func grow() throws(LMDBError) {
        var information = MDB_envinfo()
        let code = mdb_env_info(environment, &information)
        guard code == MDB_SUCCESS else { throw .make("examine", path, code) }
        guard information.me_mapsize <= EnvironmentCore.maximumMapByteCount / 2 else {
            throw .failed(operation: "grow the map of", path: path, code: MDB_MAP_FULL, message: "it is full")
        }
        try resize(to: 2 * Int(information.me_mapsize))
    }

    /// 0 adopts the size that another process has given the file. liblmdb does not check for transactions under way.
    private func resize(to byteCount: Int) throws(LMDBError) {
        gate.enterExclusive()
        defer { gate.leaveExclusive() }
        let code = mdb_env_set_mapsize(environment, byteCount)
        guard code == MDB_SUCCESS else { throw .make("grow the map of", path, code) }
    }
}

/// Many transactions or one resize. A thread may enter shared again while a resize waits: waiting resizes do not block it.
final class ResizeGate: Sendable {
    private nonisolated(unsafe) let lock: UnsafeMutablePointer<pthread_rwlock_t>

    init() {
        lock = .allocate(capacity: 1)
        lock.initialize(to: pthread_rwlock_t())
        // glibc's default kind prefers readers, which is what the recursion above needs.
        let code = pthread_rwlock_init(lock, nil)
        precondition(code == 0, "pthread_rwlock_init: \(code)")
    }

    deinit {
        pthread_rwlock_destroy(lock)
        lock.deallocate()
    }

    func enterShared() { check(pthread_rwlock_rdlock(lock)) }
    func leaveShared() { check(pthread_rwlock_unlock(lock)) }
    func enterExclusive() { check(pthread_rwlock_wrlock(lock)) }
    func leaveExclusive() { check(pthread_rwlock_unlock(lock)) }

    private func check(_ code: Int32) {
        precondition(code == 0, "pthread_rwlock: \(code)")
    }
}

/// File systems on which locks or shared mappings cannot be relied on; nil for all others.
private func networkFileSystemName(at path: String) throws(LMDBError) -> String? {
    var status = statfs()
    guard statfs(path, &status) == 0 else {
        if errno == ENOENT || errno == ENOTDIR { throw .missing(path: path) }
        throw .make("examine the file system of", path, errno)
    }
    // The low 32 bits of f_type, from <linux/magic.h>.
    switch UInt32(truncatingIfNeeded: status.f_type) {
    case 0x6969: return "NFS"
    case 0xFF53_4D42: return "CIFS"
    case 0xFE53_4D42: return "SMB2"
    case 0x517B: return "SMB"
    case 0x0102_1997: return "9p"
    default: return nil
    }
}
