import ArgumentParser
import Engine

/// `lorif export`: rows back into a factor batch.
struct Export: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Write examples as a factor batch file, with their metadata beside it.",
        discussion: """
            The inverse of ingest: numbers as they are stored, in the type that holds them exactly. Those of a whitened store \
            stay in its basis, which is written beside the batch as .basis; 'lorif ingest other OUT.safetensors' finds it there.

              lorif export store part.safetensors --where "source = 'bible'"
            """)

    @Argument(help: "The store.")
    var store: String
    @Argument(help: ArgumentHelp("The file to write.", valueName: "out.safetensors"))
    var output: String
    @OptionGroup var rows: RowOptions
    @Option(help: ArgumentHelp("Export from the store as it was when it got this name.", valueName: "name"))
    var snapshot: String?
    @OptionGroup var progress: ProgressOptions
    @Flag(help: "Print JSON.")
    var json = false

    func run() throws {
        let selection = try rows.selection() ?? .all
        let report = try withProgress(progress) {
            try Database(at: store).export(to: output, selection, snapshotName: snapshot, control: $0)
        }
        if json {
            try printJSON(
                Report(
                    output: output, metadata: report.metadataPath, rows: report.rowCount,
                    type: "\(report.elementType)", bytes: report.byteCount, basis: report.basisPath))
        } else {
            standardOutput(
                "\(grouped(report.rowCount)) rows in \(output), \(report.elementType), \(byteText(report.byteCount))"
                    + (report.metadataPath.map { "; metadata in \($0)" } ?? "")
                    + (report.basisPath.map { "; whitened by \($0)" } ?? "") + "\n")
        }
    }

    private struct Report: Encodable {
        let output: String
        let metadata: String?
        let rows: Int
        let type: String
        let bytes: Int
        let basis: String?
    }
}
