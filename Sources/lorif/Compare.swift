import ArgumentParser
import Curvature
import Engine

/// `lorif compare`: the same queries scored in several ways.
struct Compare: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Score the same queries in several ways; compare cost and ranking.",
        discussion: """
            A RUN is STORE,QUERIES[,METHOD][,rho=R][,lambda=L][,curvature=ID][,weight=W][,name=TEXT]; runs joined by '+' are \
            one: the weighted mean of their scores, an ensemble of checkpoints. The first RUN is what the others are compared \
            with. Queries and examples are matched by id.

              lorif compare store,queries.safetensors store,queries.safetensors,dot
              lorif compare logra,q.safetensors,name=LoGRA lorif,q.safetensors,rho=10
              lorif compare logra,q.safetensors trak1,q1.safetensors+trak2,q2.safetensors
            """)

    @Argument(help: "What to compare: STORE,QUERIES and settings, separated by commas.")
    var runs: [String]
    @Option(help: "Of how many best examples the agreement is counted.")
    var top: Int = 10
    @Option(
        help: ArgumentHelp("Score only examples that pass this condition on their metadata.", valueName: "condition"))
    var `where`: String?
    @OptionGroup var progress: ProgressOptions
    @Flag(help: "Print JSON.")
    var json = false

    func validate() throws {
        guard runs.count >= 2 else { throw ValidationError("give at least two runs to compare") }
        guard (1...1_000_000).contains(top) else {
            throw ValidationError("--top must be from 1 to 1000000, not \(top)")
        }
        for run in runs { _ = try ScoringRun(parsing: run) }
    }

    func run() throws {
        var request = QueryRequest()
        if let machine = MachineModel.load() { request.machine = machine }
        if let condition = self.where { request.rows = .filter(try RowFilter(parsing: condition)) }
        let runs = try runs.map { try ScoringRun(parsing: $0) }
        let options = request
        let report = try withProgress(progress) { try compareRuns(runs, topCount: top, request: options, control: $0) }
        for comparison in report.comparisons {
            for warning in comparison.warnings { standardError("lorif: note: \(comparison.run.name): \(warning)\n") }
        }
        if json { return try printJSON(Report(report)) }
        var rows = [
            [
                "run", "method", "stored B/example", "read B/example", "seconds", "top \(report.topCount) shared",
                "rank corr.",
            ]
        ]
        for comparison in report.comparisons {
            rows.append([
                comparison.run.name, comparison.run.method.rawValue,
                grouped(Int(comparison.bytesPerExample.rounded())),
                grouped(Int(comparison.scannedBytesPerExample.rounded())), decimal(comparison.seconds, 2),
                decimal(comparison.sharedTopCount, 2), comparison.rankCorrelation.map { decimal($0, 3) } ?? "none",
            ])
        }
        standardOutput(table(rows, right: [2, 3, 4, 5, 6]))
        standardOutput(
            "\(grouped(report.queryCount)) queries, \(grouped(report.exampleCount)) examples; compared with "
                + "\(report.comparisons[0].run.name)\n")
    }

    private struct Report: Encodable {
        struct Run: Encodable {
            let name, method: String
            let stores: [String]
            let storedBytesPerExample, readBytesPerExample, seconds, sharedTop: Double
            let rankCorrelation: Double?
            let rows: Int
        }
        let top, queries, examples: Int
        let runs: [Run]

        init(_ report: RunComparisonReport) {
            top = report.topCount
            queries = report.queryCount
            examples = report.exampleCount
            runs = report.comparisons.map {
                Run(
                    name: $0.run.name, method: $0.run.method.rawValue, stores: $0.run.members.map(\.store),
                    storedBytesPerExample: $0.bytesPerExample, readBytesPerExample: $0.scannedBytesPerExample,
                    seconds: $0.seconds, sharedTop: $0.sharedTopCount, rankCorrelation: $0.rankCorrelation,
                    rows: $0.rowCount)
            }
        }
    }
}

extension ScoringRun {
    /// A run as the command line has it: STORE,QUERIES and settings; several joined by '+'.
    init(parsing text: String) throws {
        self.init(name: "", members: [])
        var method: Method?
        for member in text.split(separator: "+", omittingEmptySubsequences: false) {
            let parts = member.split(separator: ",", omittingEmptySubsequences: false).map(String.init)
            guard parts.count >= 2, !parts[0].isEmpty, !parts[1].isEmpty else {
                throw ValidationError("'\(member)': expected STORE,QUERIES and settings, separated by commas")
            }
            var added = Member(store: parts[0], queriesPath: parts[1])
            for part in parts.dropFirst(2) {
                let pieces = part.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
                if pieces.count == 1 {
                    guard let found = Method(rawValue: part), found.needsQueries else {
                        throw ValidationError("'\(part)' in '\(text)' is no method that scores queries, and no setting")
                    }
                    guard method == nil || method == found else {
                        throw ValidationError("'\(text)': an ensemble has one method")
                    }
                    method = found
                } else {
                    try set(pieces[0], pieces[1], of: &added, in: text)
                }
            }
            members.append(added)
        }
        self.method = method ?? .influence
        if name.isEmpty { name = members.map(\.store).joined(separator: "+") }
    }

    private mutating func set(_ key: String, _ value: String, of member: inout Member, in text: String) throws {
        func positive() throws -> Double {
            guard let number = Double(value), number > 0, number.isFinite else {
                throw ValidationError("'\(key)=\(value)' in '\(text)': expected a positive number")
            }
            return number
        }
        switch key {
        case "rho": damping = .relative(try positive())
        case "lambda": damping = .absolute(try positive())
        case "weight": member.weight = try positive()
        case "curvature": member.curvature = value
        case "name": name = value
        default:
            throw ValidationError(
                "'\(key)' in '\(text)': expected rho, lambda, curvature, weight or name before the '='")
        }
    }
}
