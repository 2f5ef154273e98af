import Checksum
import Foundation
public import Interchange
import Kernels
import Schema
import Store
import Synchronization

/// What an export wrote.
public struct ExportReport: Sendable {
    /// Rows written.
    public let rowCount: Int
    /// The type of the numbers in the file.
    public let elementType: ElementType
    /// Bytes of the file.
    public let byteCount: Int
    /// The JSONL file with the rows' metadata; nil when no row has any.
    public let metadataPath: String?
    /// A copy of the store's whitening basis, which the numbers are in; nil when there is none.
    public let basisPath: String?
}

extension Database {
    /// Writes rows as a factor batch, and their metadata as JSONL beside it: the inverse of `ingest`.
    ///
    /// Numbers are those stored. They are written in the type that holds them without loss: that of the store, or f32 where
    /// scaled codes do not fit it. Rows of a whitened store stay in its basis: the batch names it, and X.basis beside X.safetensors has
    /// it, so that another store can be made of both. Memory: a block per worker.
    public func export(
        to destination: String, _ selection: RowSelection = .all, snapshotName: String? = nil,
        workers: Int = availableProcessorCount(),
        control: OperationControl = OperationControl()
    ) throws -> ExportReport {
        guard destination.hasSuffix(".safetensors") else {
            throw EngineError.invalidRequest("\(destination): the name of an exported batch must end in .safetensors")
        }
        let snapshot = try Snapshot.open(at: path, named: snapshotName)
        let rows = try LiveRows(snapshot).selecting(selection, workers: workers)
        guard rows.rowCount > 0 else {
            throw snapshot.rowCount > 0 ? EngineError.selectionEmpty(path: path) : .storeEmpty(path: path)
        }
        let preferred: ElementType =
            switch snapshot.schema.encoding {
            case .f16: .f16
            case .bf16: .bf16
            default: .f32
            }
        let identifiers = try rows.readAllIdentifiers()
        var elementType = preferred
        do {
            try writeBatch(
                rows, identifiers: identifiers, as: preferred, to: destination, workers: workers, control: control)
        } catch is NumberNotRepresentable {
            elementType = .f32
            try writeBatch(
                rows, identifiers: identifiers, as: .f32, to: destination, workers: workers, control: control)
        }
        let metadataPath = try writeMetadata(
            rows, identifiers: identifiers, to: String(destination.dropLast(".safetensors".count)) + ".jsonl")
        let basis = try snapshot.exportBasis(to: basisPath(of: destination))
        return ExportReport(
            rowCount: rows.rowCount, elementType: elementType,
            byteCount: (try? FileManager.default.attributesOfItem(atPath: destination)[.size] as? Int).flatMap { $0 }
                ?? 0,
            metadataPath: metadataPath, basisPath: basis == nil ? nil : basisPath(of: destination))
    }
}

/// A stored number that the 16-bit type does not hold exactly.
private struct NumberNotRepresentable: Error {}

private func writeBatch(
    _ rows: LiveRows, identifiers: [String], as elementType: ElementType, to path: String, workers: Int,
    control: OperationControl
) throws {
    let layers = rows.snapshot.schema.layers
    let writer = Mutex<FactorBatchWriter?>(
        try FactorBatchWriter(
            path: path, layers: layers, elementType: elementType, rowCount: rows.rowCount, identifiers: identifiers,
            basis: rows.snapshot.schema.basis))
    let done = Atomic<Int>(0)
    try forEachIndex(below: rows.blocks.count, workers: workers) { index, _ in
        try control.cancellation.check()
        let block = rows.blocks[index]
        for layer in layers.indices {
            let tile = try rows.readTile(block: index, layer: layer)
            guard isRepresentable(tile, as: elementType) else { throw NumberNotRepresentable() }
            try writer.withLock { try $0?.write(tile, layer: layer, firstRow: block.firstOrdinal) }
        }
        let completed = done.add(block.rowCount, ordering: .relaxed).newValue
        control.report(
            ProgressUpdate(
                stage: "export", completedCount: completed, totalCount: rows.rowCount, byteCount: 0))
    }
    try writer.withLock { writer in
        if let whole = writer.take() { try whole.finish() }
    }
}

private func isRepresentable(_ tile: LayerTile, as elementType: ElementType) -> Bool {
    guard elementType == .f16 else { return true }
    for values in [tile.left, tile.right, tile.dense] {
        var widened = [Float](repeating: 0, count: values.count)
        let narrowed = narrowToFloat16(values.span)
        var target = widened.mutableSpan
        widen(float16: narrowed.span.bytes, into: &target)
        if widened != values { return false }
    }
    return true
}

/// Writes one JSON object per row that has metadata; no file when none has.
private func writeMetadata(_ rows: LiveRows, identifiers: [String], to path: String) throws -> String? {
    var lines = ""
    for block in rows.blocks.indices {
        let first = rows.blocks[block].firstOrdinal
        for (row, record) in try rows.readMetadata(block: block).enumerated() {
            guard let record else { continue }
            lines += JSONText.object(record, leading: [("id", .string(identifiers[first + row]))]) + "\n"
        }
    }
    guard !lines.isEmpty else { return nil }
    do {
        try lines.write(toFile: path, atomically: true, encoding: .utf8)
    } catch {
        throw EngineError.outputFailed(path: path, reason: error.localizedDescription)
    }
    return path
}
