import ArgumentParser
import Checksum
import Engine
import Store

/// `lorif snapshot`: names for generations.
struct SnapshotCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "snapshot",
        abstract: "Give the store's present state a name that keeps it readable.",
        discussion: """
            Later ingests, deletions and compactions do not touch it: 'query', 'export' and 'inspect' take --snapshot NAME. It \
            keeps old files, so that a compaction saves no space until it is dropped.

              lorif snapshot store before-cleaning
              lorif snapshot store --list
              lorif snapshot store --drop before-cleaning
            """)

    @Argument(help: "The store.")
    var store: String
    @Argument(help: "The new name: letters, digits, '.', '_' and '-'.")
    var name: String?
    @Option(help: ArgumentHelp("Forget this snapshot.", valueName: "name"))
    var drop: String?
    @Flag(help: "List the snapshots.")
    var list = false
    @Flag(help: "Print JSON.")
    var json = false

    func validate() throws {
        guard [name != nil, drop != nil, list].filter({ $0 }).count == 1 else {
            throw ValidationError("give a NAME, --drop NAME or --list")
        }
    }

    func run() throws {
        if let name {
            let record = try Database(at: store).nameSnapshot(name)
            if json { return try printJSON(Report(record)) }
            standardOutput("\(name): generation \(record.generation), \(grouped(record.rowCount)) rows\n")
        } else if let drop {
            try Database(at: store).dropSnapshot(drop)
            if json { return try printJSON(["dropped": drop]) }
            standardOutput("\(drop) dropped\n")
        } else {
            let records = try Database(at: store).namedSnapshots()
            if json { return try printJSON(records.map(Report.init)) }
            guard !records.isEmpty else { return standardOutput("no snapshots\n") }
            var rows = [["snapshot", "generation", "rows", "segments", "curvature"]]
            for record in records {
                rows.append([
                    record.name, "\(record.generation)", grouped(record.rowCount), grouped(record.segments.count),
                    record.curvature.map { String($0.digest.description.prefix(12)) } ?? "none",
                ])
            }
            standardOutput(table(rows, right: [1, 2, 3]))
        }
    }

    private struct Report: Encodable {
        let snapshot: String
        let generation: UInt64
        let rows, segments: Int
        let curvature: String?

        init(_ record: SnapshotRecord) {
            snapshot = record.name
            generation = record.generation
            rows = record.rowCount
            segments = record.segments.count
            curvature = record.curvature?.digest.description
        }
    }
}
