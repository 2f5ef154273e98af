import ArgumentParser
import Engine
import Store

/// `lorif repair`: saves what can be saved.
struct Repair: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Save what can be saved of a damaged store.",
        discussion: """
            Checks every byte. A damaged segment is written anew from its undamaged blocks; a catalog that cannot be read is rebuilt \
            from the files. Damaged originals go to STORE/quarantine/. What is lost is named, by id where ids can be read. Exit \
            code 0: nothing is lost; 1: something is.

            With the catalog goes the knowledge of what was deleted: deleted examples that have not been compacted away come back.

            A damaged whitening basis cannot be computed again; --basis-from puts a copy of it in its place.

              lorif repair store
              lorif repair store --basis-from exported.basis
            """)

    @Argument(help: "The store.")
    var store: String
    @Option(
        help: ArgumentHelp(
            "A whole copy of the store's basis: a .basis file, an exported batch with one beside it, or a store.",
            valueName: "file"))
    var basisFrom: String?
    @OptionGroup var progress: ProgressOptions
    @Flag(help: "Print JSON.")
    var json = false

    func run() throws {
        let report = try withProgress(progress) { try Database(at: store).repair(basisFrom: basisFrom, control: $0) }
        let isComplete =
            report.lostRows.isEmpty && report.lostFields.isEmpty && report.catalogDamage == nil
            && report.droppedSnapshots.isEmpty && report.basisDamage == nil
        if json {
            try printJSON(
                Report(
                    store: store, changed: report.isChanged, catalogDamage: report.catalogDamage,
                    damages: report.damages, basisDamage: report.basisDamage,
                    lost: report.lostRows.map {
                        .init(
                            file: $0.file, firstRow: $0.rows?.lowerBound, rows: $0.rows?.count, ids: $0.identifiers,
                            reason: $0.reason)
                    },
                    lostFields: report.lostFields.map {
                        .init(
                            file: $0.file, field: $0.field, firstRow: $0.rows.lowerBound, rows: $0.rows.count,
                            ids: $0.identifiers)
                    }, removed: report.removedPaths, quarantined: report.quarantinedPaths,
                    salvaged: report.salvagedFiles,
                    supersededRows: report.supersededRowCount, droppedSnapshots: report.droppedSnapshots,
                    rows: report.rowCount, generation: report.generation))
        } else {
            show(report)
        }
        if !isComplete { leave(.no) }
    }

    private func show(_ report: RepairReport) {
        for path in report.removedPaths { standardOutput("removed: \(path), left by an interrupted command\n") }
        if let damage = report.basisDamage {
            standardOutput(
                """
                damaged: \(damage)
                The rows are whole, but the basis that they are in cannot be computed from them: give a copy of it with \
                --basis-from (the .basis file of an export, or another copy of the store).

                """)
        }
        guard report.isChanged else {
            return standardOutput(report.basisDamage == nil ? "sound: nothing to repair\n" : "nothing was changed\n")
        }
        for damage in report.damages { standardOutput("damaged: \(damage)\n") }
        if let damage = report.catalogDamage {
            standardOutput(
                """
                the catalog was rebuilt from the files: \(damage)
                WARNING: which examples were deleted is lost with it. Deleted examples that had not been compacted away are \
                BACK: delete them again. Lost too: named snapshots, and which batch files were ingested.

                """)
            if report.supersededRowCount > 0 {
                standardOutput(
                    "\(grouped(report.supersededRowCount)) rows stay deleted, because a later segment has their ids\n")
            }
        }
        for file in report.salvagedFiles { standardOutput("saved: \(file), written anew from its whole blocks\n") }
        for lost in report.lostRows {
            let rows = lost.rows.map { "rows \($0.lowerBound) to \($0.upperBound - 1)" } ?? "all rows"
            standardOutput("LOST: \(rows) of \(lost.file): \(lost.reason)\n")
            for identifier in lost.identifiers ?? [] { standardOutput("LOST: example '\(identifier)'\n") }
        }
        for lost in report.lostFields {
            standardOutput(
                "LOST: metadata field '\(lost.field)' of rows \(lost.rows.lowerBound) to \(lost.rows.upperBound - 1) of "
                    + "\(lost.file)\n")
        }
        for name in report.droppedSnapshots { standardOutput("LOST: snapshot \(name)\n") }
        for path in report.quarantinedPaths { standardOutput("moved: \(path)\n") }
        standardOutput("\(grouped(report.rowCount)) rows, generation \(report.generation)\n")
    }

    private struct Report: Encodable {
        struct Lost: Encodable {
            let file: String
            let firstRow, rows: Int?
            let ids: [String]?
            let reason: String
        }
        struct LostValues: Encodable {
            let file, field: String
            let firstRow, rows: Int
            let ids: [String]
        }
        let store: String
        let changed: Bool
        let catalogDamage: String?
        let damages: [String]
        let basisDamage: String?
        let lost: [Lost]
        let lostFields: [LostValues]
        let removed: [String]
        let quarantined, salvaged: [String]
        let supersededRows: Int
        let droppedSnapshots: [String]
        let rows: Int
        let generation: UInt64
    }
}
