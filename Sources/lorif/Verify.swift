import ArgumentParser
import Engine
import Store

/// `lorif verify`: is every byte as it was written?
struct Verify: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Check every byte of a store, or that examples are erased.",
        discussion: """
            Level quick: the catalog and each file's length, footer and digest. Level full: every checksum of every segment and \
            curvature file. Level deep: also decodes every row, recomputes norms, and looks for repeated ids. Every damage is \
            reported with its place. Exit code 0: sound; 1: damaged.

            --erased looks for ids in every file of the store, deleted rows, old files and the catalog included. Exit code 0: \
            none of them is anywhere; 1: some are.

              lorif verify store --level quick
              lorif verify store --erased gone.txt
            """)

    @Argument(help: "The store.")
    var store: String
    @Option(help: "quick, full or deep.")
    var level: LevelName = .full
    @Option(
        help: ArgumentHelp(
            "Instead, look for the ids in this file: one on each line, or a JSON array.", valueName: "file"))
    var erased: String?
    @OptionGroup var progress: ProgressOptions
    @Flag(help: "Print JSON.")
    var json = false

    enum LevelName: String, ExpressibleByArgument, CaseIterable {
        case quick, full, deep

        var level: VerificationLevel {
            switch self {
            case .quick: .quick
            case .full: .full
            case .deep: .deep
            }
        }
    }

    func run() throws {
        if let erased { return try checkErased(try readIdentifiers(fromFile: erased)) }
        let started = ContinuousClock.now
        let report: Report
        do {
            let found = try withProgress(progress) { try Database(at: store).verify(level: level.level, control: $0) }
            report = Report(
                store: store, level: level.rawValue, sound: found.isSound, damages: found.damages.map(\.description),
                orphans: found.orphans, strays: found.strays, bytes: found.byteCount,
                seconds: seconds(ContinuousClock.now - started))
        } catch let error as StoreError where error.category == .damaged {
            // The catalog itself: nothing further can be read.
            report = Report(
                store: store, level: level.rawValue, sound: false, damages: [error.description], orphans: [],
                strays: [],
                bytes: 0, seconds: seconds(ContinuousClock.now - started))
        }
        if json {
            try printJSON(report)
        } else {
            for damage in report.damages { standardOutput("damaged: \(damage)\n") }
            for orphan in report.orphans {
                standardOutput("note: \(orphan) belongs to no commit; the next writer removes it\n")
            }
            for stray in report.strays { standardOutput("note: \(stray) is no part of a store\n") }
            standardOutput(
                report.sound
                    ? "sound: \(byteText(report.bytes)) checked in \(durationText(report.seconds))\n"
                    : "\(report.damages.count) damaged places; 'lorif repair \(store)' saves what can be saved\n")
        }
        if !report.sound { leave(.no) }
    }

    private func checkErased(_ identifiers: [String]) throws {
        let found = try withProgress(progress) { try Database(at: store).checkErasure(of: identifiers, control: $0) }
        if json {
            try printJSON(
                ErasureResult(
                    store: store, erased: found.isErased, ids: identifiers.count,
                    findings: found.findings.map { .init(id: $0.identifier, file: $0.path, place: $0.place) },
                    comparedOnly: found.shortIdentifierCount, files: found.fileCount, bytes: found.byteCount))
        } else {
            for finding in found.findings.prefix(20) {
                standardOutput("found: '\(finding.identifier)' in \(finding.path), \(finding.place)\n")
            }
            if found.findings.count > 20 { standardOutput("… and \(grouped(found.findings.count - 20)) more\n") }
            if found.shortIdentifierCount > 0 {
                standardOutput(
                    "note: \(grouped(found.shortIdentifierCount)) ids of fewer than \(ErasureCheck.searchedByteMinimum) "
                        + "bytes were compared with every stored id, but not looked for among other bytes\n")
            }
            standardOutput(
                found.isErased
                    ? "erased: none of \(grouped(identifiers.count)) ids in \(grouped(found.fileCount)) files, "
                        + "\(byteText(found.byteCount))\n"
                    : "not erased; 'lorif compact \(store)' drops deleted rows, 'lorif snapshot --drop' old files\n")
        }
        if !found.isErased { leave(.no) }
    }

    private struct Report: Encodable {
        let store, level: String
        let sound: Bool
        let damages, orphans, strays: [String]
        let bytes: Int
        let seconds: Double
    }

    private struct ErasureResult: Encodable {
        struct Finding: Encodable {
            let id, file, place: String
        }
        let store: String
        let erased: Bool
        let ids: Int
        let findings: [Finding]
        let comparedOnly, files, bytes: Int
    }
}
