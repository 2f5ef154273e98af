public import Checksum
import Files
import Format
import Glibc
public import Schema

/// What a commit did.
public struct CommitSummary: Hashable, Sendable {
    /// The generation that the store now has.
    public let generation: UInt64
    /// Rows added.
    public let addedRowCount: Int
    /// Rows deleted.
    public let deletedRowCount: Int
    /// The segments added.
    public let segments: [SegmentInfo]
}

/// The one writer of a store: holds the store's lock for as long as it lives.
///
///     let writer = try StoreWriter.open(at: path)
///     try writer.append(block)
///     try writer.commit()
///
/// Rows, deletions and ingest records wait until `commit`, which makes them visible all at once; `abandon` forgets them. Whatever
/// fails before the commit leaves the store as it was. Not for concurrent use.
public final class StoreWriter {
    let directory: StoreDirectory
    private let lock: FileLock
    var catalog: Catalog?
    var contents: CatalogContents
    var committed: SegmentSet
    /// Files that an interrupted writer had left and `open` has removed.
    public let recoveredPaths: [String]
    /// JSON text kept in the footer of the segments that are begun from now on.
    public var provenance = "{}"

    /// Rows after which a segment is closed; smaller in tests.
    var segmentRowLimit = Limits.segmentRowCount

    // Of the transaction under way.
    var rows: RowAccumulator
    var segment: OpenSegment?
    var sealed: [SealedSegment] = []
    /// Hashes of the ids of the transaction. Two different ids with one hash are taken for equal: one chance in 10⁵ at 10⁷ rows.
    var newHashes: Set<UInt64> = []
    var pendingTombstones: [UInt64: Tombstones] = [:]
    var pendingIngests: [Digest: IngestRecord] = [:]
    var deletedRowCount = 0
    /// The number of the next row without an id, rows of this transaction included.
    public internal(set) var nextRowNumber: UInt64
    var nextSegmentNumber: UInt64
    var hasEnded = false

    // MARK: - Opening

    /// Makes an empty store under a path that must be free, and opens it.
    ///
    /// Throws what `make` and `open` throw; what `open` throws leaves the new store.
    public static func create(
        at path: String, schema: StoreSchema, basis: StoredBasis? = nil
    ) throws(StoreError) -> StoreWriter {
        try make(at: path, schema: schema, basis: basis)
        return try open(at: path)
    }

    /// Makes an empty store under a path that must be free.
    ///
    /// Everything is built beside the path and then renamed: a failure leaves nothing behind. `basis` must be the one that the
    /// schema names, if it names one. Throws `.pathTaken`, `.file`, `.schemaRefused` or `.basisRequired`, among others.
    public static func make(
        at path: String, schema: StoreSchema, basis: StoredBasis? = nil
    ) throws(StoreError) {
        do { try schema.validate() } catch { throw .schemaRefused(error) }
        if let digest = schema.basis, digest != basis?.digest { throw .basisRequired(digest) }
        let path = StoreDirectory.trimmed(path)
        guard try wrapping({ () throws(FileError) in try fileStatus(path) }) == nil else {
            throw .pathTaken(path: path)
        }
        let identity = StoreIdentity.random()
        StoreDirectory.sweepUnfinished(beside: path)
        let unfinished = StoreDirectory.unfinished(.creating, of: path, identity: identity)
        do throws(StoreError) {
            let lock = try wrapping { () throws(FileError) in
                try StoreDirectory.build(at: unfinished.path, identity: identity)
            }
            defer { withExtendedLifetime(lock) {} }
            if schema.basis != nil, let basis { try unfinished.install(basis) }
            _ = try Catalog.create(at: unfinished.catalogPath, identity: identity, schema: schema)
            try wrapping { () throws(FileError) in
                try synchronizeDirectory(unfinished.catalogPath)
                try synchronizeDirectory(unfinished.path)
                try moveDirectory(unfinished.path, to: path)
            }
        } catch {
            unfinished.removeUnfinished()
            throw error
        }
    }

    /// Opens a store for writing: takes the lock, checks the catalog, removes what an interrupted writer has left.
    ///
    /// Throws `.locked` when another writer is at work, `.storeNotWritable`, or what `Snapshot.open` throws.
    public static func open(at path: String) throws(StoreError) -> StoreWriter {
        let (directory, identity) = try StoreDirectory.open(path)
        guard isWritable(directory.path), isWritable(directory.segmentsPath) else {
            throw .storeNotWritable(path: path)
        }
        let lock = try wrapping { () throws(FileError) in try FileLock.acquire(path: directory.lockPath) }
        guard let lock else { throw .locked(lockPath: directory.lockPath) }
        let catalog = try Catalog.open(at: directory.catalogPath)
        guard !catalog.isReadOnly else { throw .storeNotWritable(path: path) }
        let contents = try catalog.load(expecting: identity)
        let recovered = try Recovery.sweep(directory, contents: contents)
        return StoreWriter(directory: directory, lock: lock, catalog: catalog, contents: contents, recovered: recovered)
    }

    private init(
        directory: StoreDirectory, lock: FileLock, catalog: Catalog, contents: CatalogContents, recovered: [String]
    ) {
        self.directory = directory
        self.lock = lock
        self.catalog = catalog
        self.contents = contents
        committed = SegmentSet(directory: directory, schema: contents.schema, segments: contents.segments)
        recoveredPaths = recovered
        rows = RowAccumulator(schema: contents.schema)
        nextRowNumber = contents.state.nextRowNumber
        nextSegmentNumber = contents.state.nextSegmentNumber
    }

    deinit {
        removeSealedFiles()
    }

    /// The store's path.
    public var path: String { directory.path }
    /// The layers and the encoding of every row.
    public var schema: StoreSchema { contents.schema }
    /// The last committed generation.
    public var generation: UInt64 { contents.state.generation }
    /// Live rows of the last commit.
    public var rowCount: Int { contents.rowCount - contents.deletedCount }
    /// Rows appended since the last commit.
    public internal(set) var pendingRowCount = 0

    /// The last commit as readers see it.
    public func snapshot() -> Snapshot { Snapshot(directory: directory, contents: contents) }

    /// What the store, or the transaction under way, remembers of a batch file.
    public func ingestRecord(ofFile digest: Digest) -> IngestRecord? {
        pendingIngests[digest] ?? contents.ingests[digest]
    }

    // MARK: - Rows

    /// Adds rows; they are encoded as soon as a block is full.
    ///
    /// Throws `.identifierRepeated` for an id that came before in this transaction, `.blockShape` and others for a block that
    /// does not fit the schema; then, and only then, the transaction goes on without this block. Any other error has abandoned it.
    /// Ids that live rows of the store have are found when the segment is closed, at the latest by `commit` (`.identifierInStore`);
    /// `locate` finds them before.
    public func append(_ block: RowBlock) throws(StoreError) {
        try checkAlive()
        try block.validate(against: schema)
        var hashes: [UInt64] = []
        hashes.reserveCapacity(block.rowCount)
        for identifier in block.identifiers {
            let hash = IdentifierCandidate(identifier).hash
            guard newHashes.insert(hash).inserted else {
                newHashes.subtract(hashes)
                throw .identifierRepeated(identifier: identifier)
            }
            hashes.append(hash)
        }
        rows.append(block)
        pendingRowCount += block.rowCount
        nextRowNumber += UInt64(block.rowCount)
        try abandoningOnError { () throws(StoreError) in
            while rows.rowCount >= schema.rowsPerBlock { try writeBlock(rows.take(schema.rowsPerBlock)) }
        }
    }

    /// Adds rows that have no ids of their own: each gets its running number, in decimal, counted through the life of the store.
    ///
    /// `block.identifiers` is replaced; the number of rows is that of the tiles.
    public func appendNumbering(_ block: RowBlock) throws(StoreError) {
        var block = block
        let count = block.tiles.first?.rowCount ?? 0
        block.identifiers = (0..<UInt64(count)).map { String(nextRowNumber + $0) }
        do {
            try append(block)
        } catch .identifierRepeated(let identifier) {
            throw .identifierAssignedTaken(identifier: identifier)
        }
    }

    /// Where live rows of the last commit have these ids, by place in `identifiers`; deletions under way count as done.
    public func locate(_ identifiers: [String]) throws(StoreError) -> [Int: RowLocation] {
        try committed.locate(identifiers, tombstones: contents.tombstones.merging(pendingTombstones) { $1 })
    }

    /// Which of these ids rows of the transaction under way have, by place.
    public func pendingPlaces(of identifiers: [String]) -> [Int] {
        identifiers.indices.filter { newHashes.contains(IdentifierCandidate(identifiers[$0]).hash) }
    }

    /// Deletes the live rows of the last commit that have these ids, from the next commit on; gives the ids that none has.
    public func delete(identifiers: [String]) throws(StoreError) -> [String] {
        try checkAlive()
        let locations = try locate(identifiers)
        for location in locations.values {
            let segment = contents.segments[location.segment]
            var tombstones =
                pendingTombstones[segment.number] ?? contents.tombstones[segment.number]
                ?? Tombstones(rowCount: segment.rowCount)
            if tombstones.delete(location.row) { deletedRowCount += 1 }
            pendingTombstones[segment.number] = tombstones
        }
        return identifiers.indices.filter { locations[$0] == nil }.map { identifiers[$0] }
    }

    /// Notes that a batch file has been taken in whole, for provenance and so that it is not taken twice.
    public func recordIngest(
        ofFile digest: Digest, path: String, rowCount: Int, firstRowNumber: UInt64, provenance: String = "{}"
    ) {
        pendingIngests[digest] = IngestRecord(
            fileDigest: digest, path: path, rowCount: rowCount, firstRowNumber: firstRowNumber,
            generation: generation + 1, provenance: provenance)
    }

    /// Forgets everything since the last commit; the store is as it was then.
    public func abandon() {
        segment = nil
        removeSealedFiles()
        rows.removeAll()
        newHashes = []
        pendingTombstones = [:]
        pendingIngests = [:]
        deletedRowCount = 0
        pendingRowCount = 0
        nextRowNumber = contents.state.nextRowNumber
    }

    /// Removes the segments that no catalog names; what cannot be removed now is swept by the next writer.
    private func removeSealedFiles() {
        for segment in sealed { unlink(directory.segmentPath(segment.number)) }
        sealed = []
    }

    // MARK: - Errors

    func checkAlive() throws(StoreError) {
        guard !hasEnded else { throw .writerEnded(path: path) }
    }

    func abandoningOnError<Result>(_ body: () throws(StoreError) -> Result) throws(StoreError) -> Result {
        do {
            return try body()
        } catch {
            abandon()
            throw error
        }
    }

    var hasPendingChanges: Bool {
        pendingRowCount > 0 || !pendingTombstones.isEmpty || !pendingIngests.isEmpty
    }
}
