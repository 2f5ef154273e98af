import ArgumentParser
import Engine

/// `lorif attach`: packed segments into a store.
struct Attach: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Take packed segment files into a store.",
        discussion: """
            Every segment is checked whole and copied; all become visible by one commit. Layers and encoding must be the \
            store's. A segment that was attached before adds nothing, so that a command can be repeated after a crash.

              lorif attach store worker-*.segment
            """)

    @Argument(help: "The store; created with the segments' layers if there is none.")
    var store: String
    @Argument(help: ArgumentHelp("Segment files written by 'lorif pack'.", valueName: "segment"))
    var segments: [String]
    @OptionGroup var progress: ProgressOptions
    @Flag(help: "Print JSON.")
    var json = false

    func run() throws {
        let report = try withProgress(progress) { try Database(at: store).attach(segments, control: $0) }
        for note in report.notes { standardError("lorif: note: \(note)\n") }
        if json {
            try printJSON(
                Report(
                    store: store, attached: report.attachedPaths, alreadyPresent: report.presentPaths,
                    rows: report.addedRowCount, totalRows: report.totalRowCount, generation: report.generation))
            return
        }
        for path in report.presentPaths { standardOutput("\(path): already attached, nothing added\n") }
        standardOutput(
            "\(grouped(report.addedRowCount)) rows added from \(report.attachedPaths.count) "
                + (report.attachedPaths.count == 1 ? "segment, " : "segments, ")
                + "\(grouped(report.totalRowCount)) in all\n")
    }

    private struct Report: Encodable {
        let store: String
        let attached, alreadyPresent: [String]
        let rows, totalRows: Int
        let generation: UInt64
    }
}
