public import Checksum
import Foundation
import Interchange
public import Schema
import Store

/// How to ingest.
public struct IngestOptions: Sendable {
    /// The encoding of a store that is created; must agree with an existing store. nil: the store's, or `Encoding.standard`.
    public var encoding: Encoding?
    /// The ranks to factor full gradients to; nil keeps them dense in a new store, and follows the store's layers otherwise.
    public var rank: RankChoice?
    /// The coordinates of a store that is created; an existing one has its own.
    public var basis: BasisChoice
    /// A JSONL file of user metadata for all batches; nil: the file of the same name beside each batch, if there is one.
    public var metadataPath: String?
    /// What to do with rows whose id the store, or an earlier row, has.
    public var onDuplicate: DuplicatePolicy
    /// What becomes visible together.
    public var atomicity: Atomicity
    /// Bytes that decoded rows may take, on top of the batches' ids.
    public var memoryBytes: Int
    /// Threads that read and factor.
    public var workers: Int

    /// Bytes for decoded rows unless the caller says otherwise.
    public static let defaultMemoryBytes = 1 << 30

    /// Options; everything has a default.
    public init(
        encoding: Encoding? = nil, rank: RankChoice? = nil, basis: BasisChoice = .ofBatches,
        metadataPath: String? = nil,
        onDuplicate: DuplicatePolicy = .error, atomicity: Atomicity = .command,
        memoryBytes: Int = IngestOptions.defaultMemoryBytes, workers: Int = availableProcessorCount()
    ) {
        self.encoding = encoding
        self.rank = rank
        self.basis = basis
        self.metadataPath = metadataPath
        self.onDuplicate = onDuplicate
        self.atomicity = atomicity
        self.memoryBytes = memoryBytes
        self.workers = workers
    }
}

/// What to do with a row whose id is taken.
public enum DuplicatePolicy: String, Sendable, CaseIterable {
    /// Refuse the whole ingest.
    case error
    /// Keep the row that is there.
    case skip
    /// The new row takes the place; the old one is deleted in the same commit.
    case replace
}

/// What an ingest of several files makes visible together.
public enum Atomicity: String, Sendable, CaseIterable {
    /// All files or none.
    case command
    /// Each file by itself: after an error or a crash the files before it are in the store.
    case file
}

/// What an ingest did.
public struct IngestReport: Sendable {
    /// One batch file.
    public struct Batch: Sendable {
        /// The file.
        public let path: String
        /// Rows in the file.
        public let rowCount: Int
        /// Rows left out because their id was taken.
        public let skippedRowCount: Int
        /// The digest of the whole file.
        public let digest: Digest
        /// Whether this very file was ingested before, so that nothing was added.
        public let alreadyPresent: Bool
    }

    /// The files, in the order given.
    public let batches: [Batch]
    /// The store's layers and encoding.
    public let schema: StoreSchema
    /// Rows added.
    public let rowCount: Int
    /// Rows deleted because new ones took their ids.
    public let replacedRowCount: Int
    /// Bytes of the segment files added.
    public let byteCount: Int
    /// Live rows of the store afterwards.
    public let totalRowCount: Int
    /// Bytes of the input files of the rows added.
    public let inputByteCount: Int
    /// Share of Σ‖G‖² that the stored factors keep, for full gradients that were factored here; nil when none were.
    public let keptEnergy: Double?
    /// The same by layer, for layers factored here.
    public let keptEnergyByLayer: [(layer: String, share: Double)]
    /// The store's generation afterwards.
    public let generation: UInt64
    /// Whether the store was created by this ingest.
    public let createdStore: Bool
    /// What should be known about the rows, for example factors that were whitened after their truncation.
    public let notes: [String]
}

extension Database {
    /// Appends factor batches to a store, creating it from the first batch's layers if there is none.
    ///
    /// Headers, layers and ids of all batches are checked before anything is written, and all rows become visible by one commit:
    /// after any error the store is as it was, and a store that would have been created is not there. With `Atomicity.file` each file has
    /// a commit of its own. Memory: `memoryBytes` and the batches' ids, whatever the size of the files.
    public func ingest(
        _ batchPaths: [String], options: IngestOptions = IngestOptions(),
        control: OperationControl = OperationControl()
    ) throws -> IngestReport {
        guard let firstPath = batchPaths.first else { throw EngineError.invalidRequest("no batch files given") }
        var batches = [try FactorBatch(path: firstPath, metadataPath: options.metadataPath)]
        for path in batchPaths.dropFirst() {
            batches.append(try FactorBatch(path: path, metadataPath: options.metadataPath))
        }
        guard try StoreWriter.isPathFree(path) else {
            let writer = try StoreWriter.open(at: path)
            defer { writer.abandon() }
            if let encoding = options.encoding, encoding != writer.schema.encoding {
                throw EngineError.settingMismatch(
                    setting: "--encoding", expected: writer.schema.encoding.name, found: encoding.name)
            }
            guard writer.schema.layers.isEmpty else {
                try checkSettings(of: writer.schema, options: options)
                let basis = try SchemaBasis(of: writer.snapshot(), for: batches)
                return try IngestOperation(
                    batches, schema: writer.schema, basis: basis, writer: writer, options: options
                )
                .run(createdStore: false, control: control)
            }
            let design = try StoreDesign(
                path: path, batch: batches[0], rank: options.rank, encoding: writer.schema.encoding,
                basis: options.basis, control: control)
            defer { design.discard() }
            let operation = try IngestOperation(
                batches, schema: design.schema, basis: design.basis, writer: writer, options: options)
            try writer.adopt(design.schema, basis: design.storedBasis)
            return try operation.run(createdStore: false, notes: design.notes, control: control)
        }

        let design = try StoreDesign(
            path: path, batch: batches[0], rank: options.rank, encoding: options.encoding ?? .standard,
            basis: options.basis, control: control)
        defer { design.discard() }
        for batch in batches { _ = try BatchMatch(batch, schema: design.schema, basis: design.basis) }
        let writer = try StoreWriter.create(at: path, schema: design.schema, basis: design.storedBasis)
        do {
            return try IngestOperation(
                batches, schema: design.schema, basis: design.basis, writer: writer, options: options
            ).run(createdStore: true, notes: design.notes, control: control)
        } catch {
            writer.abandon()
            // Still under the writer's lock, so that nobody else can have put rows into it.
            if writer.rowCount == 0 { try? FileManager.default.removeItem(atPath: path) }
            throw error
        }
    }
}

/// Refuses options that contradict the layers or the basis of an existing store.
private func checkSettings(of schema: StoreSchema, options: IngestOptions) throws {
    switch options.basis {
    case .ofBatches: break
    case .whitening:
        throw EngineError.settingMismatch(
            setting: "--whiten-from",
            expected: schema.basis.map { "the basis \($0)" } ?? "gradients as they were given",
            found: "another basis: whitening is decided when a store is created")
    case .existing(let path):
        let digest = try StoredBasis(path: basisPath(of: path)).digest
        guard digest == schema.basis else {
            throw EngineError.settingMismatch(
                setting: "--basis-from",
                expected: schema.basis.map { "the basis \($0)" } ?? "gradients as they were given",
                found: "the basis \(digest)")
        }
    }
    guard let rank = options.rank else { return }
    guard case .byPattern = rank else {
        throw EngineError.invalidRequest("--energy: the store has its ranks; they are decided when it is created")
    }
    let chosen = try chosenRanks(rank, layers: schema.layers, sample: nil, basis: nil)
    for (layer, chosen) in zip(schema.layers, chosen) where layer.rank != chosen {
        throw EngineError.settingMismatch(
            setting: "--rank",
            expected: (layer.rank.map { "rank \($0)" } ?? "full matrices") + " at layer '\(layer.name)'",
            found: chosen.map { "rank \($0)" } ?? "full matrices")
    }
}

/// One ingest under the writer's lock.
private struct IngestOperation {
    let schema: StoreSchema
    let writer: StoreWriter
    let options: IngestOptions
    let sources: [Source]
    let notes: [String]

    /// A batch with what has been decided about its rows.
    struct Source {
        let match: BatchMatch
        let digest: Digest
        let alreadyPresent: Bool
        /// Rows to leave out; empty when all are taken.
        var skippedRows: Set<Int> = []
        var batch: FactorBatch { match.batch }
    }

    /// Checks layers and ids of every batch; reads each file once for its digest.
    init(
        _ batches: [FactorBatch], schema: StoreSchema, basis: SchemaBasis?, writer: StoreWriter,
        options: IngestOptions
    ) throws {
        var sources: [Source] = []
        var digests: Set<Digest> = []
        for batch in batches {
            let match = try BatchMatch(batch, schema: schema, basis: basis)
            let digest = try batch.digest()
            let present = writer.ingestRecord(ofFile: digest) != nil || !digests.insert(digest).inserted
            sources.append(Source(match: match, digest: digest, alreadyPresent: present))
        }
        self.sources = try Self.decideDuplicates(sources, writer: writer, policy: options.onDuplicate)
        notes = sources.filter { !$0.alreadyPresent }.compactMap(\.match.note)
        self.schema = schema
        self.writer = writer
        self.options = options
    }

    /// Finds ids that the store or several batches have, and applies the policy to them.
    private static func decideDuplicates(
        _ sources: [Source], writer: StoreWriter, policy: DuplicatePolicy
    ) throws -> [Source] {
        var sources = sources
        var places: [[UInt8]: (source: Int, row: Int)] = [:]
        for index in sources.indices where !sources[index].alreadyPresent {
            guard let identifiers = sources[index].batch.identifiers else { continue }
            let path = sources[index].batch.path
            let stored = try writer.locate(identifiers)
            if policy == .error, let row = stored.keys.min() {
                throw EngineError.duplicateIdentifier(
                    path: path, row: row, identifier: identifiers[row], where: "in the store")
            }
            if policy == .skip { sources[index].skippedRows.formUnion(stored.keys) }
            guard sources.count > 1 else { continue }
            for (row, identifier) in identifiers.enumerated() {
                // As bytes: String takes composed and decomposed letters for equal.
                let key = Array(identifier.utf8)
                guard let earlier = places.updateValue((index, row), forKey: key) else { continue }
                switch policy {
                case .error:
                    throw EngineError.duplicateIdentifier(
                        path: path, row: row, identifier: identifier,
                        where: "in \(sources[earlier.source].batch.path), row \(earlier.row)")
                case .skip:
                    sources[index].skippedRows.insert(row)
                    places[key] = earlier
                case .replace:
                    // The last file wins.
                    sources[earlier.source].skippedRows.insert(earlier.row)
                }
            }
        }
        return sources
    }

    func run(createdStore: Bool, notes: [String] = [], control: OperationControl) throws -> IngestReport {
        let totalRowCount = sources.reduce(0) { $0 + $1.batch.rowCount }
        var energy = EnergyTally(layerCount: schema.layers.count)
        var completedCount = 0
        var inputByteCount = 0
        var commits: [CommitSummary] = []
        for source in sources {
            let batch = source.batch
            guard !source.alreadyPresent else {
                completedCount += batch.rowCount
                continue
            }
            let rowsAtOnce = try source.match.rowsAtOnce(memoryBytes: options.memoryBytes, workers: options.workers)
            if options.onDuplicate == .replace, let identifiers = batch.identifiers {
                _ = try writer.delete(
                    identifiers: identifiers.indices.filter { !source.skippedRows.contains($0) }.map { identifiers[$0] }
                )
            }
            let firstRowNumber = writer.nextRowNumber
            for start in stride(from: 0, to: batch.rowCount, by: rowsAtOnce) {
                try control.cancellation.check()
                let rows = start..<min(batch.rowCount, start + rowsAtOnce)
                try append(rows, of: source, energy: &energy)
                completedCount += rows.count
                control.report(
                    ProgressUpdate(
                        stage: "ingest", completedCount: completedCount, totalCount: totalRowCount,
                        byteCount: inputByteCount + batch.byteCount / batch.rowCount * rows.upperBound))
            }
            inputByteCount += batch.byteCount
            writer.recordIngest(
                ofFile: source.digest, path: batch.path, rowCount: batch.rowCount - source.skippedRows.count,
                firstRowNumber: firstRowNumber, provenance: batch.provenanceText)
            if options.atomicity == .file { commits.append(try writer.commit()) }
        }
        try control.cancellation.check()
        commits.append(try writer.commit())
        let coordinatesNotes = try writer.extendCoordinates(workers: options.workers, control: control)
        let segments = commits.flatMap(\.segments)
        return IngestReport(
            batches: sources.map {
                IngestReport.Batch(
                    path: $0.batch.path, rowCount: $0.batch.rowCount, skippedRowCount: $0.skippedRows.count,
                    digest: $0.digest, alreadyPresent: $0.alreadyPresent)
            }, schema: schema, rowCount: commits.reduce(0) { $0 + $1.addedRowCount },
            replacedRowCount: commits.reduce(0) { $0 + $1.deletedRowCount },
            byteCount: segments.reduce(0) { $0 + $1.identity.fileLength }, totalRowCount: writer.rowCount,
            inputByteCount: inputByteCount, keptEnergy: energy.keptShare,
            keptEnergyByLayer: energy.keptShares.map { (schema.layers[$0.layer].name, $0.share) },
            generation: writer.generation, createdStore: createdStore, notes: notes + self.notes + coordinatesNotes)
    }

    /// Reads, factors and appends some rows of a batch, all layers at once.
    private func append(_ rows: Range<Int>, of source: Source, energy: inout EnergyTally) throws {
        let block = try source.match.readBlock(rows, workers: options.workers, energy: &energy)
        guard source.batch.identifiers != nil else { return try writer.appendNumbering(block) }
        let kept = rows.filter { !source.skippedRows.contains($0) }
        if kept.count == rows.count {
            try writer.append(block)
        } else if !kept.isEmpty {
            try writer.append(block.selecting(kept.map { $0 - rows.lowerBound }))
        }
    }

}

extension RowBlock {
    /// The given rows, in the given order.
    func selecting(_ rows: [Int]) -> RowBlock {
        RowBlock(
            identifiers: rows.map { identifiers[$0] }, tiles: tiles.map { $0.selecting(rows) },
            residualNorms: residualNorms.map { $0.map { norms in rows.map { norms[$0] } } },
            metadata: metadata.isEmpty ? [] : rows.map { metadata[$0] })
    }
}
