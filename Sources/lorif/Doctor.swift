import ArgumentParser
import Engine
import Foundation

/// `lorif doctor`: is everything as it should be, and what to do if it is not?
struct Doctor: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Check machine, libraries, limits and a store, and say what to do.",
        discussion: """
            Looks at the processor and the kernels for it, memory, measured rates, libraries and their settings, limits of the process and the Python \
            client; with a store also at its file system, room, state and, quickly, its files. Changes nothing. Each line is ok, warn or fail, \
            with what to do beneath. Exit code 0: nothing fails; 1: something does.

              lorif doctor
              lorif doctor store --json
            """)

    @Argument(help: "A store to look at as well.")
    var store: String?
    @Flag(help: "Print JSON.")
    var json = false

    func run() throws {
        let all = examineMachine() + [pythonFinding()] + (store.map { Database(at: $0).examine() } ?? [])
        // Topics in the order of their first findings, each in one place.
        var topics: [String] = []
        for finding in all where !topics.contains(finding.topic) { topics.append(finding.topic) }
        let findings = topics.flatMap { topic in all.filter { $0.topic == topic } }
        let worst = findings.map(\.level).max() ?? .ok
        if json {
            try printJSON(Report(level: worst, findings: findings))
        } else {
            print(findings)
        }
        if worst == .fail { leave(.no) }
    }

    private struct Report: Encodable {
        let level: Finding.Level
        let findings: [Finding]
    }

    private func print(_ findings: [Finding]) {
        let style = TextStyle.ofStandardOutput
        let width = Terminal.width
        let names = findings.map { displayWidth($0.name) }.max() ?? 0
        var topic = ""
        for finding in findings {
            if finding.topic != topic {
                topic = finding.topic
                standardOutput(style.bold(topic) + "\n")
            }
            let mark: (String) -> String =
                switch finding.level {
                case .ok: style.green
                case .warn: style.yellow
                case .fail: style.red
                }
            let indent = String(repeating: " ", count: 2 + 6 + names + 2)
            let words = wrapped(
                singleLine(finding.found).split(separator: " ").map(String.init), separator: " ",
                to: max(24, width - indent.count))
            standardOutput(
                "  " + mark(padded(finding.level.rawValue, to: 6)) + padded(finding.name, to: names + 2)
                    + words.joined(separator: "\n" + indent) + "\n")
            let advice = wrapped(
                (finding.advice ?? "").split(separator: " ").map(String.init), separator: " ",
                to: max(24, width - indent.count - 2))
            for (place, line) in advice.enumerated() {
                standardOutput(indent + (place == 0 ? "→ " : "  ") + line + "\n")
            }
        }
    }

    /// The Python package, as a shell here would find it.
    private func pythonFinding() -> Finding {
        let process = Process()
        let output = Pipe()
        process.executableURL = URL(filePath: "/usr/bin/env")
        process.arguments = ["python3", "-c", "import lorif; print(lorif.__file__)"]
        process.standardOutput = output
        process.standardError = FileHandle.nullDevice
        process.standardInput = FileHandle.nullDevice
        guard (try? process.run()) != nil else { return Finding("libraries", "Python client", "no python3 found") }
        let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        return Finding(
            "libraries", "Python client",
            process.terminationStatus == 0 && !text.isEmpty
                ? text.trimmingCharacters(in: .whitespacesAndNewlines)
                : "python3 has no package lorif; from a checkout: pip install Tools/python")
    }
}
