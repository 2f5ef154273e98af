import ArgumentParser
import Engine

/// `lorif delete`: examples out of every later answer.
struct Delete: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Delete examples.",
        discussion: """
            The examples are gone from every later answer at once; their bytes stay in the files until 'lorif compact'. An id \
            that is not in the store is an error, and nothing is deleted, unless --ignore-missing is given.

              lorif delete store --ids removed.txt
              lorif delete store --where "source = 'forum' and year < 2010"
            """)

    @Argument(help: "The store.")
    var store: String
    @OptionGroup var rows: RowOptions
    @Flag(help: "Pass over ids that are not in the store.")
    var ignoreMissing = false
    @Flag(help: "Print JSON.")
    var json = false

    func validate() throws {
        if rows.ids == nil, rows.where == nil { throw ValidationError("say which: --ids FILE or --where CONDITION") }
    }

    func run() throws {
        guard let selection = try rows.selection() else { return }
        let report = try Database(at: store).delete(selection, ignoresMissing: ignoreMissing)
        if json {
            try printJSON(
                Report(
                    store: store, deletedRows: report.deletedRowCount, rows: report.rowCount,
                    missing: report.missingIdentifiers, generation: report.generation,
                    curvatureStale: report.curvatureIsStale))
            return
        }
        standardOutput("\(grouped(report.deletedRowCount)) rows deleted, \(grouped(report.rowCount)) left\n")
        if !report.missingIdentifiers.isEmpty {
            standardOutput("\(grouped(report.missingIdentifiers.count)) ids were not in the store\n")
        }
        if report.curvatureIsStale {
            standardOutput("the curvature still counts deleted rows; 'lorif fit \(store)' brings it up to date\n")
        }
    }

    private struct Report: Encodable {
        let store: String
        let deletedRows, rows: Int
        let missing: [String]
        let generation: UInt64
        let curvatureStale: Bool
    }
}
