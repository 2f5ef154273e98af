import Files
import Format
import Glibc
public import Schema

/// What a compaction did.
public struct CompactionSummary: Hashable, Sendable {
    /// The generation that the store now has.
    public let generation: UInt64
    /// Whether anything was to be done; if not, there was no commit.
    public let isChanged: Bool
    /// Deleted rows whose bytes are gone (but for those that a named snapshot still has).
    public let droppedRowCount: Int
    /// Segments before and after.
    public let segmentCounts: Change
    /// Bytes of the segments before and after.
    public let byteCounts: Change

    /// A number before and after.
    public struct Change: Hashable, Sendable {
        /// Before the compaction.
        public let before: Int
        /// After it.
        public let after: Int
    }
}

/// What happens to the segments, in row order.
private enum CompactionStep {
    /// Stays under its number: everything before it stays too.
    case keep(Int)
    /// The same file under a new number, since rows before it get new numbers.
    case carry(Int)
    /// Live rows of these go into new segments.
    case merge([Int])
}

extension StoreWriter {
    /// Merges small segments and drops deleted rows, in a commit of its own; rows keep their order, ids, metadata and every bit.
    ///
    /// With another schema (of the same layers: encoding and ranks may differ) all rows are decoded, handed to `transform` in
    /// blocks, and encoded anew. Segments that are large and have no deleted rows stay as they are.
    /// Old files are removed unless a named snapshot has them; open snapshots keep them readable. `progress` gets the live rows
    /// done since the last call and may throw to stop; an error or a crash before the commit leaves the store as it was.
    /// Nothing else may be pending. Memory: a few row blocks, and 16 bytes for each row of an output segment.
    public func compact(
        as newSchema: StoreSchema? = nil, transform: (RowBlock) throws -> RowBlock = { $0 },
        progress: (Int) throws -> Void = { _ in }
    ) throws -> CompactionSummary {
        try checkAlive()
        precondition(!hasPendingChanges, "rows or deletions are pending: commit or abandon them first")
        let schema = newSchema ?? contents.schema
        do { try schema.validate() } catch { throw StoreError.schemaRefused(error) }
        let isReencoding = schema != contents.schema
        let steps = isReencoding ? [.merge(Array(contents.segments.indices))] : compactionSteps()
        let before = contents
        var changes = false
        for case .merge in steps { changes = true }
        guard changes || isReencoding else { return summary(isChanged: false, before: before) }
        do {
            var kept: [SegmentInfo] = []
            for step in steps {
                switch step {
                case .keep(let position): kept.append(contents.segments[position])
                case .carry(let position):
                    try carry(position)
                    try progress(contents.segments[position].rowCount)
                case .merge(let positions):
                    if isReencoding {
                        try reencode(positions, as: schema, transform: transform, progress: progress)
                    } else {
                        try move(positions, progress: progress)
                    }
                }
            }
            try commitCompaction(kept: kept, schema: schema)
        } catch {
            abandon()
            throw error
        }
        removeUnnamed(before.segments)
        return summary(isChanged: true, before: before)
    }

    private func summary(isChanged: Bool, before: CatalogContents) -> CompactionSummary {
        func bytes(_ contents: CatalogContents) -> Int { contents.segments.reduce(0) { $0 + $1.identity.fileLength } }
        return CompactionSummary(
            generation: generation, isChanged: isChanged,
            droppedRowCount: before.deletedCount - contents.deletedCount,
            segmentCounts: .init(before: before.segments.count, after: contents.segments.count),
            byteCounts: .init(before: bytes(before), after: bytes(contents)))
    }

    /// Runs of segments that are small or have deleted rows are merged; a lone one only if it has deleted rows.
    private func compactionSteps() -> [CompactionStep] {
        var steps: [CompactionStep] = []
        var run: [Int] = []
        var numbersStay = true
        func settle(_ position: Int) {
            steps.append(numbersStay ? .keep(position) : .carry(position))
        }
        func endRun() {
            if run.count == 1, contents.tombstones[contents.segments[run[0]].number] == nil {
                settle(run[0])
            } else if !run.isEmpty {
                steps.append(.merge(run))
                numbersStay = false
            }
            run = []
        }
        for (position, segment) in contents.segments.enumerated() {
            let isLarge =
                segment.rowCount > segmentRowLimit / 2 || segment.identity.fileLength > Limits.segmentBytes / 2
            if isLarge, contents.tombstones[segment.number] == nil {
                endRun()
                settle(position)
            } else {
                run.append(position)
            }
        }
        endRun()
        return steps
    }

    /// Gives a segment's file a second name, under the next number.
    private func carry(_ position: Int) throws {
        let old = contents.segments[position]
        let number = takeSegmentNumber()
        let path = directory.segmentPath(number)
        try wrapping { () throws(FileError) in
            try linkOrCopyFile(
                directory.segmentPath(old.number),
                temporaryPath: directory.temporaryPath + "/" + SegmentInfo.fileName(number), as: path)
        }
        do throws(StoreError) {
            sealed.append(
                SealedSegment(
                    number: number, firstRowNumber: old.firstRowNumber, identity: old.identity,
                    reader: try SegmentReader(path: path, expecting: old.identity)))
        } catch {
            unlink(path)
            throw error
        }
    }

    private func takeSegmentNumber() -> UInt64 {
        defer { nextSegmentNumber += 1 }
        return nextSegmentNumber
    }

    // MARK: - Rows

    /// Live rows of the segments into new segments, bit for bit.
    private func move(_ positions: [Int], progress: (Int) throws -> Void) throws {
        var output = CompactionOutput(writer: self, schema: schema, firstRowNumber: firstRowNumber(positions))
        let rowsPerBlock = schema.rowsPerBlock
        try forEachLiveBlock(positions) { rows, isLast in
            while rows.rowCount >= rowsPerBlock || (isLast && rows.rowCount > 0) {
                let block = rows.take(min(rows.rowCount, rowsPerBlock))
                try output.append(block)
                try progress(block.rowCount)
            }
        }
        try output.finish()
    }

    /// Live rows of the segments, decoded, transformed and encoded, into new segments.
    private func reencode(
        _ positions: [Int], as newSchema: StoreSchema, transform: (RowBlock) throws -> RowBlock,
        progress: (Int) throws -> Void
    ) throws {
        var output = CompactionOutput(writer: self, schema: newSchema, firstRowNumber: firstRowNumber(positions))
        // Both the rows before and after the transformation must fit in memory.
        let chunkRowCount = min(schema.rowsPerBlock, newSchema.rowsPerBlock)
        var waiting = RowAccumulator(schema: newSchema)
        try forEachLiveBlock(positions) { rows, isLast in
            while rows.rowCount >= chunkRowCount || (isLast && rows.rowCount > 0) {
                let chunk = rows.take(min(rows.rowCount, chunkRowCount))
                let block = try transform(try chunk.readBlock())
                try block.validate(against: newSchema)
                waiting.append(block)
                let isEnd = isLast && rows.rowCount == 0
                while waiting.rowCount >= newSchema.rowsPerBlock || (isEnd && waiting.rowCount > 0) {
                    let full = waiting.take(min(waiting.rowCount, newSchema.rowsPerBlock))
                    try output.append(full)
                }
                try progress(chunk.rowCount)
            }
        }
        try output.finish()
    }

    private func firstRowNumber(_ positions: [Int]) -> UInt64 {
        positions.first.map { contents.segments[$0].firstRowNumber } ?? 0
    }

    /// Adds block after block of live rows to a queue that `body` empties as it likes; all of it when told that it is the last.
    private func forEachLiveBlock(_ positions: [Int], _ body: (inout GatheredRows, _ isLast: Bool) throws -> Void)
        throws
    {
        var queue = GatheredRows()
        for position in positions {
            let reader = try committed.reader(position)
            let deleted = contents.tombstones[contents.segments[position].number]
            for block in 0..<reader.blockCount {
                // The disk reads a block ahead.
                if block + 1 < reader.blockCount { reader.prefetch(block: block + 1) }
                let rows = reader.rows(ofBlock: block)
                let live = rows.filter { deleted?.isDeleted($0) != true }.map { $0 - rows.lowerBound }
                queue.append(BlockPart(reader: reader, block: block, rows: live))
                try body(&queue, false)
            }
        }
        try body(&queue, true)
    }

    // MARK: - Commit

    private func commitCompaction(kept: [SegmentInfo], schema: StoreSchema) throws(StoreError) {
        let added = sealed.map {
            SegmentInfo(
                number: $0.number, firstRowNumber: $0.firstRowNumber, addedGeneration: generation + 1,
                identity: $0.identity)
        }
        var next = contents
        var changes = CatalogChanges()
        let keptNumbers = Set(kept.map(\.number))
        for segment in contents.segments where !keptNumbers.contains(segment.number) {
            changes.removals.insert(CatalogKey(.segment, segment.number))
            if next.tombstones.removeValue(forKey: segment.number) != nil {
                changes.removals.insert(CatalogKey(.tombstones, segment.number))
            }
        }
        for segment in added { changes.put(segment.payload, CatalogKey(.segment, segment.number)) }
        next.segments = kept + added
        next.state.nextSegmentNumber = nextSegmentNumber
        if schema == contents.schema {
            let identity = RowIdentity(files: next.fileDigest, rows: contents.rowDigest)
            changes.put(identity.payload, .rowIdentity)
            next.rowIdentity = identity
        } else {
            changes.put(schema.encoded(), .schema)
            if next.rowIdentity != nil { changes.removals.insert(.rowIdentity) }
            next.rowIdentity = nil
            next.schema = schema
        }
        try publish(changes, next)
        rows = RowAccumulator(schema: schema)
    }

    /// Removes files that no generation names any more. Not an error if it fails: the next writer sweeps them.
    func removeUnnamed(_ segments: [SegmentInfo]) {
        let names = contents.segmentFileNames
        for segment in segments where !names.contains(segment.fileName) {
            unlink(directory.segmentPath(segment.number))
        }
        try? synchronizeDirectory(directory.segmentsPath)
        directory.removeStrayCoordinates(contents)
    }

    /// Takes a finished output segment into the transaction.
    fileprivate func seal(_ open: consuming OpenSegment) throws(StoreError) {
        let (number, firstRowNumber) = (open.number, open.firstRowNumber)
        let path = directory.segmentPath(number)
        let identity = try open.writer.seal(as: path)
        do {
            let reader = try SegmentReader(path: path, expecting: identity)
            sealed.append(
                SealedSegment(number: number, firstRowNumber: firstRowNumber, identity: identity, reader: reader))
        } catch {
            unlink(path)
            throw error
        }
    }

    fileprivate func openOutput(schema: StoreSchema, firstRowNumber: UInt64) throws(StoreError) -> OpenSegment {
        let number = takeSegmentNumber()
        return OpenSegment(
            writer: try SegmentWriter(
                schema: schema, temporaryPath: directory.temporaryPath + "/" + SegmentInfo.fileName(number),
                provenance: provenance),
            number: number, firstRowNumber: firstRowNumber)
    }
}

/// The segments that a compaction writes, one after another.
private struct CompactionOutput: ~Copyable {
    let writer: StoreWriter
    let schema: StoreSchema
    /// Of the next segment to be begun.
    var firstRowNumber: UInt64
    var segment: OpenSegment?

    init(writer: StoreWriter, schema: StoreSchema, firstRowNumber: UInt64) {
        self.writer = writer
        self.schema = schema
        self.firstRowNumber = firstRowNumber
    }

    /// Adds a block to the open segment, which it may begin or fill.
    mutating func append(_ rows: GatheredRows) throws(StoreError) {
        try begin()
        try segment?.writer.append(rows)
        try advance(rows.rowCount)
    }

    mutating func append(_ block: RowBlock) throws(StoreError) {
        try begin()
        try segment?.writer.append(block)
        try advance(block.rowCount)
    }

    private mutating func begin() throws(StoreError) {
        if segment == nil { segment = try writer.openOutput(schema: schema, firstRowNumber: firstRowNumber) }
    }

    private mutating func advance(_ rowCount: Int) throws(StoreError) {
        firstRowNumber += UInt64(rowCount)
        let isFull =
            (segment?.writer.rowCount ?? 0) + schema.rowsPerBlock > writer.segmentRowLimit
            || (segment?.writer.byteCount ?? 0) >= Limits.segmentBytes
        if isFull { try finish() }
    }

    mutating func finish() throws(StoreError) {
        if let open = segment.take() { try writer.seal(open) }
    }
}
