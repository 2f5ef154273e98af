import Format
import Schema

extension SegmentReader {
    /// Checks every byte of the file and decodes ids, index, norms and metadata; throws the first damage.
    ///
    /// `progress` gets the bytes read since the last call. Memory: two pages and 8 bytes for each row.
    public func verify(progress: (Int) -> Void = { _ in }) throws(StoreError) {
        var first: StoreError?
        verify(progress: progress) { damage in
            first = damage
            return false
        }
        if let first { throw first }
    }

    /// Checks every byte of the file and gives all damages, in file order.
    public func damages(progress: (Int) -> Void = { _ in }) -> [StoreError] {
        var all: [StoreError] = []
        verify(progress: progress) { damage in
            all.append(damage)
            return true
        }
        return all
    }

    /// Opens a segment and gives all its damages: one if it cannot be opened, none if it is whole.
    public static func damages(
        path: String, expecting identity: SegmentIdentity? = nil, progress: (Int) -> Void = { _ in }
    ) -> [StoreError] {
        do {
            return try SegmentReader(path: path, expecting: identity).damages(progress: progress)
        } catch {
            return [error]
        }
    }

    private func verify(progress: (Int) -> Void, damage: (StoreError) -> Bool) {
        var contents = SegmentContents(self)
        var isWhole = true
        var goesOn = true
        file.verify(progress: progress) { (page, payload) throws(StoreError) in
            try contents.check(page, payload)
        } damage: { error in
            isWhole = false
            goesOn = damage(error)
            return goesOn
        }
        // With pages missing, what follows would only repeat that they are.
        guard isWhole, goesOn else { return }
        do {
            try contents.checkIndex()
        } catch {
            _ = damage(error)
        }
    }
}

/// What `verify` collects from page to page to compare them with each other.
private struct SegmentContents {
    private let reader: SegmentReader
    /// Hash of each row's id.
    private var hashes: [UInt64]
    private var index: [IdentifierIndexEntry] = []
    private var norms: [[Float]] = []

    init(_ reader: SegmentReader) {
        self.reader = reader
        hashes = [UInt64](repeating: 0, count: reader.rowCount)
        index.reserveCapacity(reader.rowCount)
    }

    /// Decodes a page, but for vectors, whose every byte string of the right length is valid.
    mutating func check(_ number: Int, _ payload: [UInt8]) throws(StoreError) {
        let entry = reader.file.footer.pages[number]
        let block = Int(entry.block)
        let rows = reader.rows(ofBlock: block)
        guard let kind = SegmentColumnKind(rawValue: reader.file.footer.columns[Int(entry.column)].kind) else { return }
        do {
            switch kind {
            case .left, .right, .dense: break
            case .norms:
                norms = try NormPage.decode(payload, layerCount: reader.schema.layers.count, rowCount: rows.count)
            case .residualNorms:
                let residualNorms = try NormPage.decode(
                    payload, layerCount: reader.schema.layers.count, rowCount: rows.count)
                guard
                    norms.isEmpty
                        || BlockStatistics(norms: norms, residualNorms: residualNorms)
                            == reader.blockStatistics[block]
                else { throw StoreError.wrongStatistics(path: reader.path, block: block) }
            case .identifiers:
                for (row, identifier) in zip(rows, try IdentifierPage.decode(payload, rowCount: rows.count)) {
                    hashes[row] = IdentifierIndexEntry.hash(of: identifier)
                }
            case .identifierIndex:
                index += try IdentifierIndexPage.decode(
                    payload, entryCount: rows.count, segmentRowCount: reader.rowCount)
            case .field: _ = try FieldPage.decode(payload, rowCount: rows.count)
            }
        } catch let error as FormatError {
            throw .page(path: reader.path, reader.file.location(of: number), error)
        } catch let error as StoreError {
            throw error
        } catch {
            preconditionFailure("no other error is thrown here")
        }
    }

    /// The index is sorted from page to page, names each row once under its hash, and no two ids are equal.
    func checkIndex() throws(StoreError) {
        var isSeen = [Bool](repeating: false, count: reader.rowCount)
        for (place, entry) in index.enumerated() {
            guard hashes[entry.row] == entry.hash, !isSeen[entry.row] else {
                throw .wrongIndex(path: reader.path, row: entry.row)
            }
            isSeen[entry.row] = true
            guard place > 0 else { continue }
            let previous = index[place - 1]
            guard previous < entry else { throw .wrongIndex(path: reader.path, row: entry.row) }
            if previous.hash == entry.hash {
                let identifier = try reader.identifier(ofRow: entry.row)
                guard try !reader.identifier(ofRow: previous.row).utf8.elementsEqual(identifier.utf8) else {
                    throw .duplicateIdentifier(
                        path: reader.path, identifier: identifier, rows: [previous.row, entry.row])
                }
            }
        }
    }
}
