public import Checksum
import Curvature
public import Schema
public import Store

/// What writing coordinates did.
public struct CoordinatesReport: Sendable {
    /// How they are kept.
    public let encoding: Encoding
    /// Rows that got coordinates, deleted ones included.
    public let writtenRowCount: Int
    /// What all coordinates of the curvature cover and take now; nil if there are none.
    public let coverage: CoordinatesCoverage?
    /// Segments that have none, and why.
    public let notes: [String]
}

/// How the coordinates of a store's rows will be written, within a budget of memory.
public struct CoordinatesPlan: Sendable {
    /// Threads.
    public let workers: Int
    /// Peak memory of the process meanwhile, the bases and the program itself included.
    public let memoryBytes: Int

    /// What it takes to know of a group of layers.
    struct Group {
        let layers: [Int]
        let gradientLength: Int
        let rank: Int
    }

    /// As many workers as the memory is enough for; throws ``CurvatureError/insufficientMemory`` if it is not for one.
    init(
        _ groups: [Group], of snapshot: Snapshot, memoryBytes budget: Int, workers most: Int
    ) throws {
        let layers = snapshot.schema.layers
        let rowsPerBlock =
            try snapshot.segments.indices.map { segment in
                let reader = try snapshot.segmentReader(segment)
                return min(reader.rowsPerBlock, reader.rowCount)
            }.max() ?? 0
        let bases = groups.reduce(FitPlan.processBytes) { $0 + $1.rank * ($1.gradientLength * 4 + 8) }
        let tasks = groups.map { Self.taskBytes($0, layers: layers, rowsPerBlock: rowsPerBlock) }
        // What a wave of blocks leaves to be written, at f32's size at most.
        let kept = groups.map { rowsPerBlock * ($0.rank + 1) * 4 }
        func bytes(_ workers: Int) -> Int {
            let blocks = CoordinatesPass.blocksAtOnce(groupCount: tasks.count, workers: workers)
            return bases + workers * (tasks.max() ?? 0) + blocks * kept.reduce(0, +)
        }
        var workers = most
        while workers > 1, bytes(workers) > budget { workers -= 1 }
        if bytes(workers) > budget,
            let largest = groups.max(by: { $0.rank * $0.gradientLength < $1.rank * $1.gradientLength })
        {
            throw CurvatureError.insufficientMemory(
                layers: largest.layers.map { layers[$0].name }, gradientLength: largest.gradientLength,
                rowCount: snapshot.rowCount, needed: bytes(workers), budget: budget)
        }
        self.workers = workers
        memoryBytes = bytes(workers)
    }

    /// One group's rows of a block: the stored numbers, decoded and as pages; the buffers of a projection; the coordinates, before
    /// and after they are encoded.
    private static func taskBytes(_ group: Group, layers: [LayerSchema], rowsPerBlock: Int) -> Int {
        let numbers = group.layers.reduce(0) { $0 + layers[$1].storedNumberCount }
        let coordinates = rowsPerBlock * (group.rank + 1) * 8
        let lengths = group.layers.map { layers[$0].gradientLength }
        return rowsPerBlock * numbers * 8 + coordinates
            + FittedCurvature.projectionBytes(lengths: lengths, rank: group.rank, rowCount: rowsPerBlock)
    }
}

/// Writes the coordinates of every row of a store in a curvature, segment by segment, where they are not there yet.
///
/// One pass over the rows of those segments; 2·rows·r·D operations in Double. Memory: the decoded rows and the coordinates of a block for each
/// worker. Stopping loses the segment that is being written.
struct CoordinatesPass {
    let writer: StoreWriter
    let record: CurvatureRecord
    let encoding: Encoding
    /// Whether files that are there are read whole before they are trusted.
    let isThorough: Bool
    let workers: Int

    func run(control: OperationControl) throws -> CoordinatesReport {
        let snapshot = writer.snapshot()
        let missing = snapshot.segments.indices.filter { !isWritten($0, of: snapshot) }
        var notes: [String] = []
        var writtenRowCount = 0
        if !missing.isEmpty {
            let groups = try snapshot.readCurvature(record.digest)
            let curvatures = groups.map { group in
                FittedCurvature(
                    scope: .global,
                    groups: [CurvatureGroup(group, layers: Array(group.layers.indices), schema: snapshot.schema)])
            }
            let total = missing.reduce(0) { $0 + snapshot.segments[$1].rowCount }
            var completed = 0
            for segment in missing {
                let rowCount = snapshot.segments[segment].rowCount
                let isWritten = try write(segment, of: snapshot, groups: groups, curvatures: curvatures) { count in
                    try control.cancellation.check()
                    completed += count
                    control.report(
                        ProgressUpdate(
                            stage: "coordinates", completedCount: completed, totalCount: total, byteCount: 0))
                }
                if isWritten {
                    writtenRowCount += rowCount
                } else {
                    notes.append(
                        "no coordinates for \(rowCount) rows of \(snapshot.segments[segment].fileName): they are too large beside "
                            + "those of the fit")
                }
            }
        }
        return CoordinatesReport(
            encoding: encoding, writtenRowCount: writtenRowCount,
            coverage: snapshot.coordinatesCoverage(of: record.digest), notes: notes)
    }

    /// Whether a segment has coordinates in this encoding that can be used.
    private func isWritten(_ segment: Int, of snapshot: Snapshot) -> Bool {
        guard let reader = (try? snapshot.coordinates(of: record.digest, segment: segment)) ?? nil,
            reader.description.encoding == encoding
        else { return false }
        return !isThorough || reader.isSound
    }

    /// Blocks in waves that give every worker something to do.
    static func blocksAtOnce(groupCount: Int, workers: Int) -> Int {
        max(1, (2 * workers + groupCount - 1) / max(1, groupCount))
    }

    /// Writes one segment's file; false if its coordinates do not fit into f32, and nothing is left behind.
    private func write(
        _ index: Int, of snapshot: Snapshot, groups: [CurvatureGroupData], curvatures: [FittedCurvature],
        advance: (Int) throws -> Void
    ) throws -> Bool {
        let reader = try snapshot.segmentReader(index)
        let description = CoordinatesDescription(
            curvature: record.digest, segment: snapshot.segments[index].identity.footerDigest, encoding: encoding,
            rowCount: reader.rowCount, rowsPerBlock: reader.rowsPerBlock, ranks: groups.map(\.eigenvalues.count))
        var file = try writer.beginCoordinates(description)
        let blocksAtOnce = Self.blocksAtOnce(groupCount: groups.count, workers: workers)
        let encoding = encoding
        for first in stride(from: 0, to: reader.blockCount, by: blocksAtOnce) {
            let blocks = first..<min(reader.blockCount, first + blocksAtOnce)
            try advance(0)
            let encoded = try mapConcurrently(below: blocks.count * groups.count, workers: workers) { task in
                let (block, group) = (first + task / groups.count, task % groups.count)
                let tiles = try groups[group].layers.map { try reader.readTile(block: block, layer: $0) }
                let rows = curvatures[group].eigenCoordinates(of: tiles, workers: 1)[0]
                return EncodedCoordinates(rows, encoding: encoding)
            }
            for (task, rows) in encoded.enumerated() {
                guard let rows else { return false }
                try file.append(rows, block: first + task / groups.count, group: task % groups.count)
            }
            try advance(blocks.reduce(0) { $0 + description.rowCount(ofBlock: $1) })
        }
        _ = try file.seal()
        return true
    }
}

/// A curvature that the store has, while writing the coordinates of its rows failed.
public struct CoordinatesUnfinished: Error {
    /// The curvature, which is whole and active.
    public let curvature: Digest
    /// Why not all coordinates were written. What is missing is written when the same is asked for again.
    public let cause: any Error
}

extension StoreWriter {
    /// Writes the coordinates of all rows in a curvature where they are missing, damaged or kept in another encoding.
    ///
    /// Throws ``CoordinatesUnfinished``, or `EngineError.cancelled`.
    func writeCoordinates(
        of record: CurvatureRecord, encoding: Encoding, workers: Int, control: OperationControl
    ) throws -> CoordinatesReport {
        do {
            return try CoordinatesPass(
                writer: self, record: record, encoding: encoding, isThorough: true, workers: workers
            ).run(control: control)
        } catch {
            if case EngineError.cancelled = error { throw error }
            throw CoordinatesUnfinished(curvature: record.digest, cause: error)
        }
    }

    /// Gives rows that were just added coordinates in the active curvature, if that one has coordinates; says what went wrong.
    ///
    /// The rows are committed: whatever fails here but an interruption costs only time later.
    func extendCoordinates(workers: Int, control: OperationControl) throws -> [String] {
        let snapshot = snapshot()
        guard let active = snapshot.activeCurvature, let coverage = snapshot.coordinatesCoverage(of: active) else {
            return []
        }
        do {
            return try CoordinatesPass(
                writer: self, record: try snapshot.curvature(active), encoding: coverage.encoding, isThorough: false,
                workers: workers
            ).run(control: control).notes
        } catch {
            try control.cancellation.check()
            return ["coordinates of the new rows were not written: \(error)"]
        }
    }
}
