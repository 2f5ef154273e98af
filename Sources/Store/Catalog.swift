import Checksum
import Format
import Glibc
import LMDB
import Schema

/// Everything that the catalog says about one generation, decoded and checked.
struct CatalogContents: Sendable {
    var state: StateRecord
    var schema: StoreSchema
    /// Ascending by number.
    var segments: [SegmentInfo] = []
    /// By segment number; only segments with deleted rows.
    var tombstones: [UInt64: Tombstones] = [:]
    /// In the order of their digests.
    var curvatures: [CurvatureRecord] = []
    var ingests: [Digest: IngestRecord] = [:]
    /// By name.
    var snapshots: [String: SnapshotRecord] = [:]
    /// What the rows are called, if they are not called after the files that hold them.
    var rowIdentity: RowIdentity?

    var rowCount: Int { segments.reduce(0) { $0 + $1.rowCount } }
    var deletedCount: Int { tombstones.values.reduce(0) { $0 + $1.deletedCount } }
}

/// Records to put and to remove: what a commit changes.
struct CatalogChanges {
    var puts: [CatalogKey: [UInt8]] = [:]
    var removals: Set<CatalogKey> = []

    mutating func put(_ payload: [UInt8], _ key: CatalogKey) {
        puts[key] = CatalogValue.seal(payload, key: key.bytes)
    }
}

/// The catalog: one LMDB environment, opened for as long as the value lives.
struct Catalog {
    let path: String
    private let environment: Environment

    var isReadOnly: Bool { environment.isReadOnly }

    static func open(at path: String) throws(StoreError) -> Catalog {
        do { return Catalog(path: path, environment: try Environment.open(at: path)) } catch { throw .catalog(error) }
    }

    /// Makes the catalog of a new store: generation 0, no rows.
    static func create(at path: String, identity: StoreIdentity, schema: StoreSchema) throws(StoreError) -> Catalog {
        let state = StateRecord(
            storeIdentity: identity, generation: 0, transaction: 0, nextSegmentNumber: 0, nextRowNumber: 0,
            recordCount: 0, recordDigest: 0, activeCurvature: nil)
        return try create(at: path, contents: CatalogContents(state: state, schema: schema))
    }

    /// Makes a catalog with these records in an existing empty directory.
    static func create(at path: String, contents: CatalogContents) throws(StoreError) -> Catalog {
        let catalog: Catalog
        do {
            catalog = Catalog(path: path, environment: try Environment.create(at: path))
        } catch {
            throw .catalog(error)
        }
        try catalog.commit(try contents.allRecords(), state: contents.state, replacing: nil)
        return catalog
    }

    /// Reads and checks the whole catalog, also that it is of that store if one is given. O(segments).
    func load(expecting identity: StoreIdentity?) throws(StoreError) -> CatalogContents {
        let (entries, transaction): ([Entry], UInt64)
        do {
            (entries, transaction) = try environment.read { (try $0.entries(), $0.number) }
        } catch {
            throw Catalog.storeError(error, path: path)
        }
        return try decode(entries, transaction: transaction, expecting: identity)
    }

    /// Applies changes in one transaction, whose success is the commit point.
    ///
    /// `state` carries what the caller decides; counts, digest and transaction number are filled in here. `generation` is that of
    /// the state the changes were made for (nil for a new catalog): another one means that somebody wrote without the lock.
    /// `commitInDoubt` means that the outcome must be looked up after reopening; every other error, that nothing has changed.
    @discardableResult
    func commit(
        _ changes: CatalogChanges, state: StateRecord, replacing generation: UInt64?
    ) throws(StoreError) -> StateRecord {
        do {
            return try environment.write { transaction in
                if let generation { try checkGeneration(transaction, generation) }
                for key in changes.removals { try transaction.remove(key: key.bytes) }
                for (key, value) in changes.puts { try transaction.put(value, forKey: key.bytes) }
                var state = state
                let others = try transaction.entries().filter { $0.key != CatalogKey.state.bytes }
                state.transaction = transaction.number
                state.recordCount = UInt64(others.count)
                state.recordDigest = Catalog.digest(of: others)
                let key = CatalogKey.state.bytes
                try transaction.put(CatalogValue.seal(state.payload, key: key), forKey: key)
                return state
            }
        } catch {
            throw Catalog.storeError(error, path: path)
        }
    }

    private func checkGeneration(_ transaction: borrowing WriteTransaction, _ generation: UInt64) throws {
        let key = CatalogKey.state.bytes
        let value = try transaction.value(forKey: key) ?? []
        let found: StateRecord
        do throws(CatalogCodingError) {
            found = try StateRecord(payload: CatalogValue.open(value, key: key))
        } catch {
            throw damaged(key, error)
        }
        guard found.generation == generation else {
            throw StoreError.generationDiffers(path: path, expected: generation, found: found.generation)
        }
    }

    /// The sum mod 2^128 over the records: independent of their order, and known without reading what a commit leaves alone.
    static func digest(of entries: [Entry]) -> UInt128 {
        entries.reduce(0) { sum, entry in
            let digest = Digest(of: entry.key + entry.value)
            return sum &+ (UInt128(digest.high) << 64 | UInt128(digest.low))
        }
    }

    private static func storeError(_ error: any Error, path: String) -> StoreError {
        switch error {
        case let error as StoreError: error
        case LMDBError.commitInDoubt(let path, _, let message): .commitInDoubt(path: path, reason: message)
        case let error as LMDBError: .catalog(error)
        default: preconditionFailure("no other error is thrown in a transaction: \(error)")
        }
    }

    // MARK: - Decoding

    private func damaged(_ key: [UInt8], _ error: CatalogCodingError) -> StoreError {
        let (expected, found) = error.texts
        return damaged(key, expected: expected, found: found)
    }

    private func damaged(_ key: [UInt8], expected: String, found: String) -> StoreError {
        let kind = key.first.flatMap(CatalogRecordKind.init(rawValue:)).map { "\($0)" } ?? "unknown kind"
        let hex = key.prefix(32).map { String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }.joined()
        return .catalogDamaged(path: path, record: "\(kind) record \(hex)", expected: expected, found: found)
    }

    private func decode(
        _ entries: [Entry], transaction: UInt64, expecting identity: StoreIdentity?
    ) throws(StoreError) -> CatalogContents {
        guard let stateEntry = entries.first(where: { $0.key == CatalogKey.state.bytes }),
            let schemaEntry = entries.first(where: { $0.key == CatalogKey.schema.bytes })
        else {
            throw .catalogDamaged(
                path: path, record: "state and schema", expected: "one of each", found: "\(entries.count) records")
        }
        let state = try opening(stateEntry) { (payload) throws(CatalogCodingError) in try StateRecord(payload: payload)
        }
        let others = entries.filter { $0.key != CatalogKey.state.bytes }
        func require(_ condition: Bool, _ expected: String, _ found: String) throws(StoreError) {
            guard condition else { throw damaged(stateEntry.key, expected: expected, found: found) }
        }
        if let identity {
            try require(state.storeIdentity == identity, "store \(identity)", "\(state.storeIdentity)")
        }
        try require(state.transaction == transaction, "transaction \(transaction)", "\(state.transaction)")
        try require(state.recordCount == UInt64(others.count), "\(state.recordCount) records", "\(others.count)")
        try require(state.recordDigest == Catalog.digest(of: others), "the digest of all records", "another one")
        var contents = CatalogContents(state: state, schema: try schema(schemaEntry))
        for entry in others { try add(entry, to: &contents) }
        try checkReferences(contents)
        return contents
    }

    private func opening<Value>(
        _ entry: Entry, _ decode: ([UInt8]) throws(CatalogCodingError) -> Value
    ) throws(StoreError) -> Value {
        do throws(CatalogCodingError) {
            return try decode(CatalogValue.open(entry.value, key: entry.key))
        } catch {
            throw damaged(entry.key, error)
        }
    }

    private func schema(_ entry: Entry) throws(StoreError) -> StoreSchema {
        let payload = try opening(entry) { (payload) throws(CatalogCodingError) in payload }
        do { return try StoreSchema(decoding: payload) } catch { throw .format(path: path, error) }
    }

    private func add(_ entry: Entry, to contents: inout CatalogContents) throws(StoreError) {
        let kind = entry.key.first.flatMap(CatalogRecordKind.init(rawValue:))
        switch (kind, CatalogKey.number(entry.key), CatalogKey.digest(entry.key)) {
        case (.schema, 0, _): return
        case (.segment, let number?, _):
            contents.segments.append(
                try opening(entry) { (payload) throws(CatalogCodingError) in
                    try SegmentInfo(number: number, payload: payload)
                })
        case (.tombstones, let number?, _):
            contents.tombstones[number] = try opening(entry) { (payload) throws(CatalogCodingError) in
                try Tombstones(payload: payload)
            }
        case (.curvature, _, let digest?):
            contents.curvatures.append(
                try opening(entry) { (payload) throws(CatalogCodingError) in
                    try CurvatureRecord(digest: digest, payload: payload)
                })
        case (.ingest, _, let digest?):
            contents.ingests[digest] = try opening(entry) { (payload) throws(CatalogCodingError) in
                try IngestRecord(fileDigest: digest, payload: payload)
            }
        case (.snapshot, _, _):
            let name = String(decoding: entry.key.dropFirst(), as: UTF8.self)
            guard SnapshotRecord.isName(name) else {
                throw damaged(entry.key, expected: "the name of a snapshot", found: "other bytes")
            }
            contents.snapshots[name] = try opening(entry) { (payload) throws(CatalogCodingError) in
                try SnapshotRecord(name: name, payload: payload)
            }
        case (.rowIdentity, 0, _):
            contents.rowIdentity = try opening(entry) { (payload) throws(CatalogCodingError) in
                try RowIdentity(payload: payload)
            }
        default: throw damaged(entry.key, expected: "a known kind of record", found: "\(entry.key.count) key bytes")
        }
    }

    private func checkReferences(_ contents: CatalogContents) throws(StoreError) {
        let byNumber = Dictionary(uniqueKeysWithValues: contents.segments.map { ($0.number, $0) })
        for (number, tombstones) in contents.tombstones {
            let rowCount = byNumber[number]?.rowCount
            guard rowCount == tombstones.rowCount else {
                throw damaged(
                    CatalogKey(.tombstones, number).bytes, expected: "a segment of \(tombstones.rowCount) rows",
                    found: rowCount.map { "\($0)" } ?? "none")
            }
        }
        let snapshotNumbers = contents.snapshots.values.flatMap { $0.segments.map(\.number) }
        if let number = snapshotNumbers.max(), number >= contents.state.nextSegmentNumber {
            throw damaged(
                CatalogKey.state.bytes, expected: "next segment above \(number)",
                found: "\(contents.state.nextSegmentNumber)")
        }
        if let last = contents.segments.last, last.number >= contents.state.nextSegmentNumber {
            throw damaged(
                CatalogKey.state.bytes, expected: "next segment above \(last.number)",
                found: "\(contents.state.nextSegmentNumber)")
        }
        var total = 0
        for segment in contents.segments {
            let (sum, overflow) = total.addingReportingOverflow(segment.rowCount)
            guard !overflow else {
                throw damaged(CatalogKey(.segment, segment.number).bytes, expected: "a row count", found: "overflow")
            }
            total = sum
        }
        if let active = contents.state.activeCurvature, !contents.curvatures.contains(where: { $0.digest == active }) {
            throw damaged(CatalogKey.state.bytes, expected: "an active curvature of this store", found: "\(active)")
        }
    }
}
