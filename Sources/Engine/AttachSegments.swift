import Foundation
import Schema
import Store

/// What an attach did.
public struct AttachReport: Sendable {
    /// Segments added.
    public let attachedPaths: [String]
    /// Segments that the store has already.
    public let presentPaths: [String]
    /// Rows added.
    public let addedRowCount: Int
    /// Live rows afterwards.
    public let totalRowCount: Int
    /// The store's generation afterwards.
    public let generation: UInt64
    /// What should be known about it.
    public let notes: [String]
}

extension Database {
    /// Takes packed segments into a store by one commit, creating the store with their layers if there is none.
    ///
    /// All of them or none: a damaged segment, other layers or a taken id refuses the whole command, and a store that it has created is
    /// removed. A segment that was attached before adds nothing.
    public func attach(
        _ segmentPaths: [String], control: OperationControl = OperationControl()
    ) throws -> AttachReport {
        guard let firstPath = segmentPaths.first else { throw EngineError.invalidRequest("no segment files given") }
        let isNew = try StoreWriter.isPathFree(path)
        let writer =
            isNew
            ? try StoreWriter.create(at: path, schema: try SegmentReader.openInput(firstPath).schema)
            : try StoreWriter.open(at: path)
        defer { writer.abandon() }
        do {
            if writer.schema.layers.isEmpty { try writer.adopt(try SegmentReader.openInput(firstPath).schema) }
            return try attachAll(segmentPaths, to: writer, control: control)
        } catch {
            writer.abandon()
            // Still under the writer's lock, so that nobody else can have put rows into it.
            if isNew, writer.rowCount == 0 { try? FileManager.default.removeItem(atPath: path) }
            throw error
        }
    }
}

private func attachAll(
    _ segmentPaths: [String], to writer: StoreWriter, control: OperationControl
) throws -> AttachReport {
    var attached: [String] = []
    var present: [String] = []
    for (index, path) in segmentPaths.enumerated() {
        try control.cancellation.check()
        if try writer.attach(path) { attached.append(path) } else { present.append(path) }
        control.report(
            ProgressUpdate(
                stage: "attach", completedCount: (index + 1) * 1000 / segmentPaths.count, totalCount: 1000,
                byteCount: 0,
                unit: .share))
    }
    let summary = try writer.commit()
    let notes = try writer.extendCoordinates(workers: availableProcessorCount(), control: control)
    return AttachReport(
        attachedPaths: attached, presentPaths: present, addedRowCount: summary.addedRowCount,
        totalRowCount: writer.rowCount, generation: writer.generation, notes: notes)
}
