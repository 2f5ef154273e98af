import ArgumentParser
import Engine
import Store

/// `lorif verify`: is every byte as it was written?
struct Verify: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Check every byte of a store.",
        discussion: """
            Reads the catalog and all segment and curvature files, compares every checksum, and reports every damage with its \
            place. Exit code 0: sound; 1: damaged.

              lorif verify store
            """)

    @Argument(help: "The store.")
    var store: String
    @Flag(help: "Print JSON.")
    var json = false

    func run() throws {
        let started = ContinuousClock.now
        let report: Report
        do {
            let found = try withProgress { try verifyStore(at: store, control: $0) }
            report = Report(
                store: store, sound: found.isSound, damages: found.damages.map(\.description), orphans: found.orphans,
                bytes: found.byteCount, seconds: seconds(ContinuousClock.now - started))
        } catch let error as StoreError where error.category == .damaged {
            // The catalog itself: nothing further can be read.
            report = Report(
                store: store, sound: false, damages: [error.description], orphans: [], bytes: 0,
                seconds: seconds(ContinuousClock.now - started))
        }
        if json {
            try printJSON(report)
        } else {
            for damage in report.damages { standardOutput("damaged: \(damage)\n") }
            for orphan in report.orphans {
                standardOutput("note: \(orphan) belongs to no commit; the next writer removes it\n")
            }
            standardOutput(
                report.sound
                    ? "sound: \(byteText(report.bytes)) checked in \(durationText(report.seconds))\n"
                    : "\(report.damages.count) damaged places\n")
        }
        if !report.sound { leave(.no) }
    }

    private struct Report: Encodable {
        let store: String
        let sound: Bool
        let damages, orphans: [String]
        let bytes: Int
        let seconds: Double
    }
}
