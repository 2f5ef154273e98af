import Dispatch
import Format
import Schema
import Synchronization

extension SegmentReader {
    /// Checks every byte of the file on all cores, decodes ids, index, norms and metadata, and gives all damages in file order.
    ///
    /// `progress` gets the bytes read since the last call; false stops. Memory: a few mebibytes for each core, 32 bytes for
    /// each row, and the norms of a few blocks.
    public func damages(progress: (Int) -> Bool = { _ in true }) -> [StoreError] {
        let contents = Mutex(SegmentContents(self))
        var isStopped = false
        let damages = file.damages(
            progress: { count in
                isStopped = !progress(count)
                return !isStopped
            },
            isWanted: { number in
                switch SegmentColumnKind(rawValue: file.footer.columns[Int(file.footer.pages[number].column)].kind) {
                // Every byte string of the right length is a valid page of vectors.
                case .left, .right, .dense, nil: false
                case .norms, .residualNorms, .identifiers, .identifierIndex, .field: true
                }
            },
            content: { (page, payload) throws(StoreError) in
                let content = try self.content(page, payload)
                try contents.withLock { (contents) throws(StoreError) in try contents.add(content, self) }
            })
        // With pages missing, what follows would only repeat that they are.
        guard damages.isEmpty, !isStopped else { return damages }
        return contents.withLock { $0 }.indexDamage(self).map { [$0] } ?? []
    }

    /// Checks every byte; throws the first damage.
    public func verify() throws(StoreError) {
        if let first = damages().first { throw first }
    }

    /// Opens a segment and gives all its damages: one if it cannot be opened, none if it is whole.
    public static func damages(
        path: String, expecting identity: SegmentIdentity? = nil, progress: (Int) -> Bool = { _ in true }
    ) -> [StoreError] {
        do throws(StoreError) {
            return try SegmentReader(path: path, expecting: identity).damages(progress: progress)
        } catch {
            return [error]
        }
    }

    /// Decodes a page of anything but vectors.
    private func content(_ number: Int, _ payload: [UInt8]) throws(StoreError) -> PageContent {
        let entry = file.footer.pages[number]
        let block = Int(entry.block)
        let rows = rows(ofBlock: block)
        guard let kind = SegmentColumnKind(rawValue: file.footer.columns[Int(entry.column)].kind) else {
            preconditionFailure("a footer with an unknown column is refused")
        }
        do throws(FormatError) {
            switch kind {
            case .left, .right, .dense: preconditionFailure("pages of vectors are not asked for")
            case .norms:
                return .norms(
                    block: block,
                    rowNorms: try NormPage.rowNorms(payload, layerCount: schema.layers.count, rowCount: rows.count))
            case .residualNorms:
                return .residualNorms(
                    block: block,
                    rowNorms: try NormPage.rowNorms(payload, layerCount: schema.layers.count, rowCount: rows.count))
            case .identifiers:
                return .identifiers(rows: rows, hashes: try IdentifierPage.hashes(payload, rowCount: rows.count))
            case .identifierIndex:
                return .index(
                    block: block,
                    try IdentifierIndexPage.decode(payload, entryCount: rows.count, segmentRowCount: rowCount))
            case .field:
                _ = try FieldPage.decode(payload, rowCount: rows.count)
                return .field
            }
        } catch {
            throw .page(path: path, file.location(of: number), error)
        }
    }
}

/// What a page holds, as far as it is compared with others.
private enum PageContent {
    case norms(block: Int, rowNorms: [Double])
    case residualNorms(block: Int, rowNorms: [Double])
    case identifiers(rows: Range<Int>, hashes: [UInt64])
    case index(block: Int, [IdentifierIndexEntry])
    case field
}

/// What a verification collects from page to page, in any order, to compare them with each other.
private struct SegmentContents: Sendable {
    /// Hash of each row's id.
    private var hashes: [UInt64]
    /// By block.
    private var index: [[IdentifierIndexEntry]]
    /// Row norms and residual row norms of blocks of which one has been seen.
    private var norms: [Int: [Double]] = [:]
    private var residualNorms: [Int: [Double]] = [:]

    init(_ reader: SegmentReader) {
        hashes = [UInt64](repeating: 0, count: reader.rowCount)
        index = [[IdentifierIndexEntry]](repeating: [], count: reader.blockCount)
    }

    mutating func add(_ content: PageContent, _ reader: SegmentReader) throws(StoreError) {
        switch content {
        case .norms(let block, let norms):
            self.norms[block] = norms
            try compareStatistics(block, reader)
        case .residualNorms(let block, let norms):
            residualNorms[block] = norms
            try compareStatistics(block, reader)
        case .identifiers(let rows, let hashes): self.hashes.replaceSubrange(rows, with: hashes)
        case .index(let block, let entries): index[block] = entries
        case .field: break
        }
    }

    private mutating func compareStatistics(_ block: Int, _ reader: SegmentReader) throws(StoreError) {
        guard let stored = norms[block], let lost = residualNorms[block] else { return }
        norms[block] = nil
        residualNorms[block] = nil
        guard BlockStatistics(rowNorms: stored, rowResidualNorms: lost) == reader.blockStatistics[block] else {
            throw .wrongStatistics(path: reader.path, block: block)
        }
    }

    /// The first thing wrong with the index, if anything is. On all cores.
    ///
    /// It must be sorted from page to page, name each row under the row's hash, and no two ids may be equal. Entries that ascend by
    /// hash and row are different ones, and as there are as many as rows, every row is named once.
    func indexDamage(_ reader: SegmentReader) -> StoreError? {
        let found = Mutex<(block: Int, error: StoreError)?>(nil)
        DispatchQueue.concurrentPerform(iterations: index.count) { block in
            do throws(StoreError) {
                try checkIndex(block, reader)
            } catch {
                found.withLock { first in
                    if block < first?.block ?? Int.max { first = (block, error) }
                }
            }
        }
        return found.withLock { $0 }?.error
    }

    private func checkIndex(_ block: Int, _ reader: SegmentReader) throws(StoreError) {
        var last = block > 0 ? index[block - 1].last : nil
        for entry in index[block] {
            guard hashes[entry.row] == entry.hash else { throw .wrongIndex(path: reader.path, row: entry.row) }
            defer { last = entry }
            guard let previous = last else { continue }
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
