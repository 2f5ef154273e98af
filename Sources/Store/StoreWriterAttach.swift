import Checksum
import Files
import Format
import Glibc
import Schema

extension StoreWriter {
    /// Takes in a segment written elsewhere (`SegmentPacker`); it waits for `commit` like appended rows.
    ///
    /// The file is checked whole, copied, and left as it is. Returns false when the very same
    /// segment was taken in before, now or by an earlier commit. Throws `.attachmentRefused`, `.identifierInStore`
    /// or `.identifierRepeated`; rows already appended must have been committed.
    public func attach(_ path: String) throws(StoreError) -> Bool {
        try checkAlive()
        precondition(rows.rowCount == 0 && segment == nil, "appended rows are pending: commit or abandon them first")
        let source = try openSource(path)
        let digest = source.identity.footerDigest
        guard ingestRecord(ofFile: digest) == nil else { return false }

        var identifiers: [String] = []
        for block in 0..<source.blockCount { identifiers += try source.readIdentifiers(block: block) }
        if let place = try locate(identifiers).keys.min() {
            throw .identifierInStore(identifier: identifiers[place])
        }
        if let place = pendingPlaces(of: identifiers).first {
            throw .identifierRepeated(identifier: identifiers[place])
        }
        let firstRowNumber = try take(in: source, identifiers: identifiers)
        recordIngest(
            ofFile: digest, path: path, rowCount: source.rowCount, firstRowNumber: firstRowNumber,
            provenance: source.provenance)
        return true
    }

    /// Opens and checks a segment that is not yet the store's: whatever is wrong with it is refused input, not a damaged store.
    private func openSource(_ path: String) throws(StoreError) -> SegmentReader {
        let source = try SegmentReader.openInput(path)
        if let damage = source.damages().first { throw .attachmentRefused(path: path, reason: "\(damage)") }
        guard source.schema.basis == schema.basis else {
            func words(_ basis: Digest?) -> String { basis.map { "rows in the basis \($0)" } ?? "rows in no basis" }
            throw .attachmentRefused(
                path: path,
                reason: "expected \(words(schema.basis)) as in the store, found \(words(source.schema.basis))")
        }
        guard source.schema == schema else {
            throw .attachmentRefused(
                path: path,
                reason: "expected \(schema.layers.count) layers in \(schema.encoding.name) as in the store, found "
                    + "\(source.schema.layers.count) in \(source.schema.encoding.name), or others by name, shape or rank"
            )
        }
        return source
    }

    /// Copies a segment under its own number and lists it as sealed; gives the running number of its first row.
    private func take(in source: SegmentReader, identifiers: [String]) throws(StoreError) -> UInt64 {
        let number = nextSegmentNumber
        nextSegmentNumber += 1
        let path = directory.segmentPath(number)
        do {
            try copyFile(
                source.path, temporaryPath: directory.temporaryPath + "/" + SegmentInfo.fileName(number), as: path)
        } catch {
            throw .file(error)
        }
        do {
            // The copy is what counts: what was checked before could have changed since.
            let reader = try SegmentReader(path: path, expecting: source.identity)
            let firstRowNumber = nextRowNumber
            sealed.append(
                SealedSegment(
                    number: number, firstRowNumber: firstRowNumber, identity: source.identity, reader: reader))
            for identifier in identifiers { newHashes.insert(IdentifierCandidate(identifier).hash) }
            pendingRowCount += source.rowCount
            nextRowNumber += UInt64(source.rowCount)
            return firstRowNumber
        } catch {
            unlink(path)
            throw error
        }
    }
}

extension SegmentReader {
    /// Opens a segment that is not a store's yet: whatever is wrong with it is refused input (`.attachmentRefused`).
    public static func openInput(_ path: String) throws(StoreError) -> SegmentReader {
        switch Result(catching: { () throws(StoreError) in try SegmentReader(path: path) }) {
        case .success(let reader): return reader
        case .failure(.file(.missing(_))): throw .attachmentRefused(path: path, reason: "there is no such file")
        case .failure(.file(let error)): throw .file(error)
        case .failure(let error):
            if case .format(_, let rule) = error, case .wrongMagic(.header, _, _) = rule {
                throw .attachmentRefused(
                    path: path, reason: "it does not begin with LORIFSEG; 'lorif pack' makes segments")
            }
            throw .attachmentRefused(path: path, reason: "\(error)")
        }
    }
}
