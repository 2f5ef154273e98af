public import Checksum
import Files
import Format
import Glibc
import LMDB
import Schema

/// The segment being written.
struct OpenSegment: ~Copyable {
    var writer: SegmentWriter
    let number: UInt64
    let firstRowNumber: UInt64
    var identifiers: [String] = []
}

/// A segment that has its final name but is not yet in the catalog.
struct SealedSegment {
    let number: UInt64
    let firstRowNumber: UInt64
    let identity: SegmentIdentity
    let reader: SegmentReader
}

extension StoreWriter {
    // MARK: - Segments

    /// Encodes one block into the open segment, which it may begin or fill.
    func writeBlock(_ block: RowBlock) throws(StoreError) {
        if segment == nil {
            let number = nextSegmentNumber
            nextSegmentNumber += 1
            let waiting = UInt64(rows.rowCount + block.rowCount)
            segment = OpenSegment(
                writer: try SegmentWriter(
                    schema: schema, temporaryPath: directory.temporaryPath + "/" + SegmentInfo.fileName(number),
                    provenance: provenance),
                number: number, firstRowNumber: nextRowNumber - waiting)
        }
        try segment?.writer.append(block)
        segment?.identifiers += block.identifiers
        let rowCount = segment?.writer.rowCount ?? 0
        let byteCount = segment?.writer.byteCount ?? 0
        let isFull = rowCount + schema.rowsPerBlock > segmentRowLimit || byteCount >= Limits.segmentBytes
        if isFull { try sealSegment() }
    }

    /// Closes the open segment: its ids are checked against the store, then it gets its final name.
    private func sealSegment() throws(StoreError) {
        guard let open = segment.take() else { return }
        if let place = try locate(open.identifiers).keys.min() {
            throw .identifierInStore(identifier: open.identifiers[place])
        }
        let (number, firstRowNumber) = (open.number, open.firstRowNumber)
        let path = directory.segmentPath(number)
        let identity = try open.writer.seal(as: path)
        do {
            // Reading the footer back catches a file that is not what was meant to be written.
            let reader = try SegmentReader(path: path, expecting: identity)
            sealed.append(
                SealedSegment(number: number, firstRowNumber: firstRowNumber, identity: identity, reader: reader))
        } catch {
            unlink(path)
            throw error
        }
    }

    // MARK: - Commit

    /// Makes everything since the last commit visible and durable, all at once.
    ///
    /// An error means that the store is as it was, and everything since the last commit is forgotten; only `.commitInDoubt` means
    /// that it is unknown, and ends the writer: open the store again and compare the generation. With nothing to commit the
    /// generation stays.
    @discardableResult
    public func commit() throws(StoreError) -> CommitSummary {
        try checkAlive()
        guard hasPendingChanges else {
            return CommitSummary(generation: generation, addedRowCount: 0, deletedRowCount: 0, segments: [])
        }
        return try abandoningOnError { () throws(StoreError) in
            while rows.rowCount > 0 { try writeBlock(rows.take(min(rows.rowCount, schema.rowsPerBlock))) }
            try sealSegment()
            return try commitSealed()
        }
    }

    private func commitSealed() throws(StoreError) -> CommitSummary {
        let added = sealed.map {
            SegmentInfo(
                number: $0.number, firstRowNumber: $0.firstRowNumber, addedGeneration: generation + 1,
                identity: $0.identity)
        }
        var next = contents
        var changes = CatalogChanges()
        for segment in added { changes.put(segment.payload, CatalogKey(.segment, segment.number)) }
        for (number, tombstones) in pendingTombstones {
            changes.put(try tombstones.payload(), CatalogKey(.tombstones, number))
        }
        for (digest, record) in pendingIngests { changes.put(record.payload, CatalogKey(.ingest, digest)) }
        next.segments += added
        next.tombstones.merge(pendingTombstones) { $1 }
        next.ingests.merge(pendingIngests) { $1 }
        next.state.nextRowNumber = nextRowNumber
        next.state.nextSegmentNumber = nextSegmentNumber
        let summary = CommitSummary(
            generation: generation + 1, addedRowCount: added.reduce(0) { $0 + $1.rowCount },
            deletedRowCount: deletedRowCount, segments: added)
        try publish(changes, next)
        return summary
    }

    /// The commit point: one transaction on the catalog. On return `contents` is the new state and nothing is pending.
    func publish(_ changes: CatalogChanges, _ next: CatalogContents) throws(StoreError) {
        var next = next
        next.state.generation = generation + 1
        do throws(StoreError) {
            // Not bound to a name here: resolving a doubt must be able to close the environment.
            guard let state = try catalog?.commit(changes, state: next.state, replacing: generation) else {
                throw StoreError.writerEnded(path: path)
            }
            next.state = state
        } catch .commitInDoubt(_, let reason) {
            next.state = try resolveDoubt(expecting: next.state.generation, reason: reason)
        }
        var readers = committed.openReaders
        for segment in sealed { readers[segment.number] = segment.reader }
        // From here on the catalog names these files: they are not this writer's to remove.
        sealed = []
        contents = next
        committed = SegmentSet(
            directory: directory, schema: next.schema, segments: next.segments, readers: readers)
        abandon()
    }

    /// After an error of the commit itself: reads the state back from disk, and gives it if it is the new one.
    ///
    /// The old state means that nothing has happened, an ordinary error. If the state cannot be read, the new files must stay:
    /// the catalog may name them.
    private func resolveDoubt(expecting newGeneration: UInt64, reason: String) throws(StoreError) -> StateRecord {
        catalog = nil
        let state: StateRecord
        do {
            let reopened = try Catalog.open(at: directory.catalogPath)
            state = try reopened.load(expecting: contents.state.storeIdentity).state
            catalog = reopened
        } catch {
            hasEnded = true
            sealed = []
            throw .commitInDoubt(path: path, reason: "\(reason); \(error)")
        }
        guard state.generation == newGeneration else {
            // Nothing is damaged: liblmdb could not write, and the old state is the state.
            throw .catalog(.failed(operation: "commit to", path: directory.catalogPath, code: EIO, message: reason))
        }
        return state
    }

    // MARK: - Curvature

    /// Writes a curvature file and adds it to the store, in a commit of its own; gives its name.
    ///
    /// The same groups and description have the same name, and are stored once. Nothing else may be pending.
    public func writeCurvature(
        _ groups: [CurvatureGroupData], description: CurvatureDescription, activate: Bool = true
    ) throws(StoreError) -> Digest {
        try checkAlive()
        precondition(!hasPendingChanges, "rows or deletions are pending: commit or abandon them first")
        let temporaryPath = directory.temporaryPath + "/new.curvature"
        let sealedPath = directory.temporaryPath + "/sealed.curvature"
        let identity = try CurvatureFile.write(
            groups, description: description, schema: schema, temporaryPath: temporaryPath, sealedPath: sealedPath)
        let digest = identity.footerDigest
        if contents.curvatures.contains(where: { $0.digest == digest }) {
            try wrapping { () throws(FileError) in try removeFile(sealedPath) }
            if activate { try activateCurvature(digest) }
            return digest
        }
        let finalPath = directory.curvaturePath(digest)
        // A named snapshot may still have the very same file.
        let isNamed = contents.curvatureFileNames.contains(CurvatureRecord.fileName(digest))
        do {
            if isNamed { try removeFile(sealedPath) } else { try moveFile(sealedPath, to: finalPath) }
        } catch {
            unlink(sealedPath)
            if !isNamed { unlink(finalPath) }
            throw .file(error)
        }
        let record = CurvatureRecord(identity: identity, description: description, addedGeneration: generation + 1)
        var changes = CatalogChanges()
        changes.put(record.payload, CatalogKey(.curvature, digest))
        var next = contents
        next.curvatures = (next.curvatures + [record]).sorted { $0.digest < $1.digest }
        if activate { next.state.activeCurvature = digest }
        do {
            try publish(changes, next)
        } catch {
            // After a doubtful commit the catalog may name the file.
            if !hasEnded, !isNamed { unlink(finalPath) }
            throw error
        }
        return digest
    }

    /// Makes a curvature of the store the one that queries use, or none.
    public func activateCurvature(_ digest: Digest?) throws(StoreError) {
        try checkAlive()
        precondition(!hasPendingChanges, "rows or deletions are pending: commit or abandon them first")
        guard digest != contents.state.activeCurvature else { return }
        if let digest, !contents.curvatures.contains(where: { $0.digest == digest }) { throw .curvatureUnknown(digest) }
        var next = contents
        next.state.activeCurvature = digest
        try publish(CatalogChanges(), next)
    }

    /// Forgets a curvature and removes its file; readers that have not opened it yet can no longer do so.
    public func removeCurvature(_ digest: Digest) throws(StoreError) {
        try checkAlive()
        precondition(!hasPendingChanges, "rows or deletions are pending: commit or abandon them first")
        guard contents.curvatures.contains(where: { $0.digest == digest }) else { throw .curvatureUnknown(digest) }
        var next = contents
        next.curvatures.removeAll { $0.digest == digest }
        if next.state.activeCurvature == digest { next.state.activeCurvature = nil }
        var changes = CatalogChanges()
        changes.removals.insert(CatalogKey(.curvature, digest))
        try publish(changes, next)
        guard !contents.curvatureFileNames.contains(CurvatureRecord.fileName(digest)) else { return }
        // Not an error if it fails: the next writer sweeps what the catalog does not name.
        unlink(directory.curvaturePath(digest))
        directory.removeStrayCoordinates(contents)
    }
}
