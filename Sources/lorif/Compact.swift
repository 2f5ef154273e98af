import ArgumentParser
import Engine
import Schema
import Store

/// `lorif compact`: fewer files, without deleted rows.
struct Compact: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Merge small segments, erase deleted examples, change encoding or rank.",
        discussion: """
            Without options no number changes: rows keep their order, ids, metadata and values, and the curvature stays valid. \
            Queries that are running go on with the files they have open. Safe to interrupt: until it is done the store is as \
            it was.

              lorif compact store
              lorif compact store --encoding q4 --rank 1
            """)

    @Argument(help: "The store.")
    var store: String
    @Option(help: "Store all numbers in another encoding.")
    var encoding: Encoding?
    @Option(help: "Cut factors (or factor full matrices) to this rank.")
    var rank: Int?
    @OptionGroup var progress: ProgressOptions
    @Flag(help: "Print JSON.")
    var json = false

    func validate() throws {
        if let rank, !(1...Limits.rank).contains(rank) {
            throw ValidationError("--rank must be from 1 to \(Limits.rank), not \(rank)")
        }
    }

    func run() throws {
        let started = ContinuousClock.now
        let report = try withProgress(progress) {
            try Database(at: store).compact(encoding: encoding, rank: rank, control: $0)
        }
        let elapsed = seconds(ContinuousClock.now - started)
        let summary = report.summary
        if json {
            try printJSON(
                Report(
                    store: store, changed: summary.isChanged, generation: summary.generation, rows: report.rowCount,
                    droppedRows: summary.droppedRowCount, segmentsBefore: summary.segmentCounts.before,
                    segments: summary.segmentCounts.after, bytesBefore: summary.byteCounts.before,
                    bytes: summary.byteCounts.after, encoding: report.schema.encoding.name,
                    valuesChanged: report.valuesChanged, curvatureStale: report.curvatureIsStale,
                    snapshots: report.snapshotNames, seconds: elapsed))
            return
        }
        guard summary.isChanged else {
            standardOutput("nothing to do: \(summary.segmentCounts.after) segments, no deleted rows\n")
            return
        }
        standardOutput(
            "\(grouped(summary.segmentCounts.before)) segments, \(byteText(summary.byteCounts.before)) → "
                + "\(grouped(summary.segmentCounts.after)), \(byteText(summary.byteCounts.after)); "
                + "\(grouped(summary.droppedRowCount)) deleted rows dropped, \(grouped(report.rowCount)) rows kept, "
                + "\(durationText(elapsed))\n")
        if !report.snapshotNames.isEmpty {
            standardOutput(
                "snapshots keep files from before the compaction: \(report.snapshotNames.joined(separator: ", "))\n")
        }
        if report.lostCoordinatesRowCount > 0 {
            standardOutput(
                "coordinates of \(grouped(report.lostCoordinatesRowCount)) rows are gone with their segments; 'lorif fit \(store)' with "
                    + "--coordinates writes them anew\n")
        }
        if report.curvatureIsStale {
            standardOutput("the curvature is out of date; 'lorif fit \(store)' brings it up to date\n")
        }
    }

    private struct Report: Encodable {
        let store: String
        let changed: Bool
        let generation: UInt64
        let rows, droppedRows, segmentsBefore, segments, bytesBefore, bytes: Int
        let encoding: String
        let valuesChanged, curvatureStale: Bool
        let snapshots: [String]
        let seconds: Double
    }
}
