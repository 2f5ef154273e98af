import CLMDB

/// A key and its value, copied out of the map.
public struct Entry: Hashable, Sendable {
    /// 1 to 511 bytes.
    public let key: [UInt8]
    /// The value's bytes.
    public let value: [UInt8]

    /// An entry; the lengths are checked when it is written.
    public init(key: [UInt8], value: [UInt8]) {
        self.key = key
        self.value = value
    }
}

/// A consistent state, readable within the closure of `Environment.read`.
public struct ReadTransaction: ~Copyable {
    let access: TransactionAccess

    /// The number of the transaction that committed this state; 0 for an empty environment.
    public var number: UInt64 { access.number }

    /// The value of a key, copied; nil when there is none.
    public func value(forKey key: [UInt8]) throws(LMDBError) -> [UInt8]? {
        try access.value(forKey: key)
    }

    /// All entries whose keys start with `prefix`, in key order (bytes, then length). O(result) memory.
    public func entries(withPrefix prefix: [UInt8] = []) throws(LMDBError) -> [Entry] {
        try access.entries(withPrefix: prefix)
    }
}

/// The write transaction, within the closure of `Environment.write`.
public struct WriteTransaction: ~Copyable {
    let access: TransactionAccess

    /// The number that this transaction's state will have.
    public var number: UInt64 { access.number }

    /// The value of a key as of this transaction, copied; nil when there is none.
    public func value(forKey key: [UInt8]) throws(LMDBError) -> [UInt8]? {
        try access.value(forKey: key)
    }

    /// All entries whose keys start with `prefix`, as of this transaction.
    public func entries(withPrefix prefix: [UInt8] = []) throws(LMDBError) -> [Entry] {
        try access.entries(withPrefix: prefix)
    }

    /// Sets a value, replacing what the key had. Keys have 1 to 511 bytes.
    public func put(_ value: [UInt8], forKey key: [UInt8]) throws(LMDBError) {
        try access.put(value, forKey: key)
    }

    /// Removes a key; false when there was none.
    @discardableResult
    public func remove(key: [UInt8]) throws(LMDBError) -> Bool {
        try access.remove(key: key)
    }
}

/// The calls into liblmdb; every pointer into the map lives inside one of these functions.
struct TransactionAccess {
    let handle: OpaquePointer
    let path: String
    private let database: MDB_dbi

    init(handle: OpaquePointer, path: String) throws(LMDBError) {
        self.handle = handle
        self.path = path
        var database: MDB_dbi = 0
        let code = mdb_dbi_open(handle, nil, 0, &database)
        guard code == MDB_SUCCESS else { throw .make("open the database of", path, code) }
        self.database = database
    }

    var number: UInt64 { UInt64(UInt(bitPattern: mdb_txn_id(handle))) }

    func value(forKey key: [UInt8]) throws(LMDBError) -> [UInt8]? {
        checkKey(key)
        var result: [UInt8]?
        var key = key
        let code = key.withUnsafeMutableBytes { keyBytes in
            var keyValue = MDB_val(mv_size: keyBytes.count, mv_data: keyBytes.baseAddress)
            var found = MDB_val()
            let code = mdb_get(handle, database, &keyValue, &found)
            if code == MDB_SUCCESS { result = copy(found) }
            return code
        }
        guard code == MDB_SUCCESS || code == MDB_NOTFOUND else { throw .make("read from", path, code) }
        return result
    }

    func entries(withPrefix prefix: [UInt8]) throws(LMDBError) -> [Entry] {
        var cursor: OpaquePointer?
        let openCode = mdb_cursor_open(handle, database, &cursor)
        guard openCode == MDB_SUCCESS, let cursor else { throw .make("read from", path, openCode) }
        defer { mdb_cursor_close(cursor) }
        var entries: [Entry] = []
        var prefixCopy = prefix
        let code = prefixCopy.withUnsafeMutableBytes { prefixBytes in
            var key = MDB_val(mv_size: prefixBytes.count, mv_data: prefixBytes.baseAddress)
            var value = MDB_val()
            var code = mdb_cursor_get(cursor, &key, &value, prefix.isEmpty ? MDB_FIRST : MDB_SET_RANGE)
            while code == MDB_SUCCESS {
                let keyBytes = copy(key)
                guard keyBytes.starts(with: prefix) else { break }
                entries.append(Entry(key: keyBytes, value: copy(value)))
                code = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)
            }
            return code
        }
        guard code == MDB_SUCCESS || code == MDB_NOTFOUND else { throw .make("read from", path, code) }
        return entries
    }

    func put(_ value: [UInt8], forKey key: [UInt8]) throws(LMDBError) {
        checkKey(key)
        var (key, value) = (key, value)
        let code = key.withUnsafeMutableBytes { keyBytes in
            value.withUnsafeMutableBytes { valueBytes in
                var keyValue = MDB_val(mv_size: keyBytes.count, mv_data: keyBytes.baseAddress)
                var dataValue = MDB_val(mv_size: valueBytes.count, mv_data: valueBytes.baseAddress)
                return mdb_put(handle, database, &keyValue, &dataValue, 0)
            }
        }
        guard code == MDB_SUCCESS else { throw .make("write to", path, code) }
    }

    func remove(key: [UInt8]) throws(LMDBError) -> Bool {
        checkKey(key)
        var key = key
        let code = key.withUnsafeMutableBytes { keyBytes in
            var keyValue = MDB_val(mv_size: keyBytes.count, mv_data: keyBytes.baseAddress)
            return mdb_del(handle, database, &keyValue, nil)
        }
        guard code == MDB_SUCCESS || code == MDB_NOTFOUND else { throw .make("write to", path, code) }
        return code == MDB_SUCCESS
    }

    private func checkKey(_ key: [UInt8]) {
        precondition((1...PageLayout.maximumKeyBytes).contains(key.count), "a key of \(key.count) bytes")
    }

    private func copy(_ value: MDB_val) -> [UInt8] {
        Array(UnsafeRawBufferPointer(start: value.mv_data, count: value.mv_size))
    }
}
