import Checksum
import Interchange
public import Schema
import Store

/// What a pack wrote.
public struct PackReport: Sendable {
    /// Rows in the segment.
    public let rowCount: Int
    /// Bytes of the file.
    public let byteCount: Int
    /// The segment's identity: attaching it twice adds it once.
    public let digest: String
    /// Its layers and encoding.
    public let schema: StoreSchema
    /// Share of Σ‖G‖² kept, where full gradients were factored.
    public let keptEnergy: Double?
    /// What should be known about the rows.
    public let notes: [String]
}

/// Writes factor batches as one self-contained segment file, without a store: for workers that `attach` joins later.
///
/// The layers and the basis are those of `storePath` if given (read once, not locked), otherwise those of the first batch. Rows must have ids, since
/// only a store can number them.
public func packSegment(
    _ batchPaths: [String], to outputPath: String, layersOf storePath: String?, options: IngestOptions,
    control: OperationControl = OperationControl()
) throws -> PackReport {
    guard let firstPath = batchPaths.first else { throw EngineError.invalidRequest("no batch files given") }
    guard try StoreWriter.isPathFree(outputPath) else {
        throw EngineError.invalidRequest("\(outputPath) exists already: a segment is written under a new name")
    }
    var batches = [try FactorBatch(path: firstPath, metadataPath: options.metadataPath)]
    for path in batchPaths.dropFirst() {
        batches.append(try FactorBatch(path: path, metadataPath: options.metadataPath))
    }
    let schema: StoreSchema
    let basis: SchemaBasis?
    if let storePath {
        let snapshot = try Snapshot.open(at: storePath)
        schema = snapshot.schema
        basis = try SchemaBasis(of: snapshot, for: batches)
    } else {
        if case .whitening = options.basis {
            throw EngineError.invalidRequest("a segment cannot carry a basis of its own: make a store or name a basis")
        }
        let design = try StoreDesign(
            path: outputPath, batch: batches[0], rank: options.rank, encoding: options.encoding ?? .standard,
            basis: options.basis, control: control)
        schema = design.schema
        basis = design.basis
    }
    if let encoding = options.encoding, encoding != schema.encoding {
        throw EngineError.settingMismatch(setting: "--encoding", expected: schema.encoding.name, found: encoding.name)
    }
    var seen: [[UInt8]: String] = [:]
    let matches = try batches.map { batch in
        guard let identifiers = batch.identifiers else { throw EngineError.identifiersMissing(path: batch.path) }
        if batches.count > 1 {
            for (row, identifier) in identifiers.enumerated() {
                if let earlier = seen.updateValue(batch.path, forKey: Array(identifier.utf8)) {
                    throw EngineError.duplicateIdentifier(
                        path: batch.path, row: row, identifier: identifier, where: "in \(earlier)")
                }
            }
        }
        return try BatchMatch(batch, schema: schema, basis: basis)
    }
    let total = batches.reduce(0) { $0 + $1.rowCount }
    guard total <= Limits.segmentRowCount else {
        throw EngineError.invalidRequest(
            "\(total) rows are too many for one segment, which holds \(Limits.segmentRowCount): pack them into several")
    }

    var packer = try SegmentPacker(
        schema: schema, path: outputPath,
        provenance: "{\"batches\":\(JSONText.array(batches.map(\.path)))}")
    var energy = EnergyTally(layerCount: schema.layers.count)
    var completed = 0
    for match in matches {
        let rowsAtOnce = try match.rowsAtOnce(memoryBytes: options.memoryBytes, workers: options.workers)
        for start in stride(from: 0, to: match.batch.rowCount, by: rowsAtOnce) {
            try control.cancellation.check()
            let rows = start..<min(match.batch.rowCount, start + rowsAtOnce)
            try packer.append(try match.readBlock(rows, workers: options.workers, energy: &energy))
            completed += rows.count
            control.report(
                ProgressUpdate(stage: "pack", completedCount: completed, totalCount: total, byteCount: 0))
        }
    }
    let identity = try packer.seal()
    return PackReport(
        rowCount: identity.rowCount, byteCount: identity.fileLength, digest: identity.footerDigest.description,
        schema: schema, keptEnergy: energy.keptShare, notes: matches.compactMap(\.note))
}
