import ArgumentParser
import Engine
import Store

/// `lorif copy`: a second store with the same contents.
struct Copy: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Copy a store, while it may be in use.",
        discussion: """
            The copy has everything of the newest generation, named snapshots included, and lives its own life. On the same file \
            system it takes no space: both share the files, which never change. --full copies the bytes, as a backup should.

              lorif copy store experiment
              lorif copy store /mnt/backup/store --full
            """)

    @Argument(help: "The store.")
    var store: String
    @Argument(help: "Where the copy goes; the path must be free.")
    var destination: String
    @Flag(help: "Copy the bytes of every file, also where a hard link would do.")
    var full = false
    @OptionGroup var progress: ProgressOptions
    @Flag(help: "Print JSON.")
    var json = false

    func run() throws {
        let summary = try withProgress(progress) {
            try Database(at: store).copy(to: destination, copiesFiles: full, control: $0)
        }
        if json {
            try printJSON(
                Report(
                    store: store, destination: destination, generation: summary.generation,
                    linkedFiles: summary.linkedFileCount, copiedFiles: summary.copiedFileCount,
                    bytes: summary.byteCount))
        } else {
            standardOutput(
                "\(destination): generation \(summary.generation), \(byteText(summary.byteCount)) in "
                    + "\(grouped(summary.linkedFileCount)) shared and \(grouped(summary.copiedFileCount)) copied files\n"
            )
        }
    }

    private struct Report: Encodable {
        let store, destination: String
        let generation: UInt64
        let linkedFiles, copiedFiles, bytes: Int
    }
}
