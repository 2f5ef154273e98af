import ArgumentParser
import Curvature
import Engine
import Foundation

/// `lorif query`: rank the stored examples for query gradients.
struct Query: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Rank the training examples that helped or harmed a query.",
        discussion: """
            Positive scores mean that training on the example lowers the query's loss. QUERIES is a factor batch; its layers \
            may be full gradients (best) or factors, and may be fewer than the store's. A whitened store whitens raw queries itself.

              lorif query store queries.safetensors --top 5 --bottom 5
              lorif query store queries.safetensors --method cosine --format jsonl
              lorif query store queries.safetensors --layers '*.mlp.*' --top 3
              lorif query store queries.safetensors --scores scores.safetensors --top 0
              lorif query store --method self-influence --top 20
            """)

    @Argument(help: "The store.")
    var store: String
    @Argument(help: "Query gradients, a factor batch file; not used by self-influence.")
    var queries: String?
    @Option(help: "influence, dot, cosine, whitened-dot, whitened-cosine, self-influence or relatif.")
    var method: Method = .influence
    @Option(
        help: ArgumentHelp(
            "λ = ρ · tr(H)/D, per layer or globally; 1 unless said, 10 for a whitened store.", valueName: "rho"))
    var relativeDamping: Double?
    @Option(help: ArgumentHelp("Absolute λ in (H + λI)⁻¹, H = Σ g gᵀ without 1/N.", valueName: "lambda"))
    var damping: Double?
    @Option(help: ArgumentHelp("A fitted curvature by (a prefix of) its id; the newest unless said.", valueName: "id"))
    var curvature: String?
    @Option(help: ArgumentHelp("Score only layers that match; may be repeated.", valueName: "glob"))
    var layers: [String] = []
    @Option(
        help: ArgumentHelp(
            "Score only examples that pass, as in \"source = 'bible' and length > 64\".", valueName: "condition"))
    var `where`: String?
    @Option(help: ArgumentHelp("Ask the store as it was when it got this name.", valueName: "name"))
    var snapshot: String?
    @Option(help: "Examples with the highest scores to list.")
    var top: Int = 10
    @Option(help: "Examples with the lowest scores to list.")
    var bottom: Int = 0
    @Option(help: ArgumentHelp("Write all scores to this .safetensors or .npy file.", valueName: "file"))
    var scores: String?
    @Option(help: "table, jsonl or csv.")
    var format: AnswerFormat = .table
    @Option(help: ArgumentHelp("Write the answer here instead of standard output.", valueName: "file"))
    var output: String?
    @Option(help: ArgumentHelp("JSONL file with the queries' metadata.", valueName: "file"))
    var metadata: String?
    @Flag(help: "Print how the query would be answered, and stop.")
    var explain = false
    @Flag(help: "With --explain: print JSON.")
    var json = false

    func validate() throws {
        if damping != nil, relativeDamping != nil {
            throw ValidationError("give --damping or --relative-damping, not both")
        }
        for (name, value) in [("--damping", damping), ("--relative-damping", relativeDamping)] {
            if let value, !(value > 0 && value.isFinite) {
                throw ValidationError("\(name) must be a positive number, not \(value)")
            }
        }
        for (name, value) in [("--top", top), ("--bottom", bottom)] where !(0...1_000_000).contains(value) {
            throw ValidationError("\(name) must be from 0 to 1000000, not \(value)")
        }
        if let scores, !scores.hasSuffix(".safetensors"), !scores.hasSuffix(".npy") {
            throw ValidationError("--scores: the file must end in .safetensors or .npy, not '\(scores)'")
        }
        if method.needsQueries, queries == nil {
            throw ValidationError("method '\(method.rawValue)' needs a file of query gradients")
        }
        if json, !explain { throw ValidationError("--json goes with --explain; answers come as --format jsonl") }
    }

    func run() throws {
        var request = QueryRequest(method: method)
        request.queriesPath = queries
        request.queryMetadataPath = metadata
        request.damping = damping.map(Damping.absolute) ?? relativeDamping.map(Damping.relative)
        request.curvature = curvature
        request.layerPatterns = layers
        if let condition = self.where { request.rows = .filter(try RowFilter(parsing: condition)) }
        request.snapshotName = snapshot
        request.topCount = top
        request.bottomCount = bottom
        request.scoresPath = scores
        if explain {
            try printPlan(try explainQuery(request, on: store))
            return
        }
        let started = ContinuousClock.now
        let result = try withProgress { try runQuery(request, on: store, control: $0) }
        let elapsed = seconds(ContinuousClock.now - started)
        for warning in result.warnings { standardError("lorif: note: \(warning)\n") }
        let text =
            switch format {
            case .table:
                answerTable(
                    result, elapsedSeconds: elapsed, width: output == nil ? Terminal.width : 120,
                    scoresPath: scores)
            case .jsonl: try answerLines(result)
            case .csv: answerCSV(result)
            }
        if let output {
            do {
                try text.write(toFile: output, atomically: true, encoding: .utf8)
            } catch {
                throw CommandFailure(code: .environment, message: "\(output): \(error.localizedDescription)")
            }
        } else {
            standardOutput(text)
        }
    }

    private func printPlan(_ plan: Plan) throws {
        if json {
            try printJSON(
                PlanReport(
                    form: plan.form.rawValue, layers: plan.layers.count, queries: plan.queryCount, rows: plan.rowCount,
                    queriesPerScan: plan.queriesPerScan, scans: plan.scanCount, workers: plan.workers,
                    bytes: plan.byteCount, flops: plan.flopCount, memoryBytes: plan.memoryBytes))
            return
        }
        standardOutput(
            table([
                ["form", plan.form.rawValue],
                ["layers", grouped(plan.layers.count)],
                ["queries", "\(grouped(plan.queryCount)), \(grouped(plan.queriesPerScan)) in a scan"],
                ["rows", grouped(plan.rowCount)],
                ["scans", grouped(plan.scanCount)],
                ["reads", byteText(plan.byteCount)],
                ["arithmetic", String(format: "%.3g GFLOP", Double(plan.flopCount) / 1e9)],
                ["memory", byteText(plan.memoryBytes)],
                ["workers", grouped(plan.workers)],
            ]))
    }

    private struct PlanReport: Encodable {
        let form: String
        let layers, queries, rows, queriesPerScan, scans, workers, bytes, flops, memoryBytes: Int
    }
}

/// How answers are printed.
enum AnswerFormat: String, ExpressibleByArgument, CaseIterable {
    case table, jsonl, csv
}
