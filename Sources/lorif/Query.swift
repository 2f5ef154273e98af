import ArgumentParser
import Curvature
import Engine
import Foundation
import Schema

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
              lorif query store queries.safetensors --relative-damping 0.1,1,10
              lorif query store queries.safetensors --scores scores.safetensors --top 0
              lorif query store --method self-influence --top 20
              lorif query one q1.safetensors --checkpoint two,q2.safetensors,weight=2
            """)

    @Argument(help: "The store.")
    var store: String
    @Argument(help: "Query gradients, a factor batch file; not used by self-influence.")
    var queries: String?
    @Option(help: "influence, dot, cosine, whitened-dot, whitened-cosine, self-influence or relatif.")
    var method: Method = .influence
    @Option(
        help: ArgumentHelp(
            "λ = ρ · tr(H)/D, per layer or globally; 1 unless said, 10 for a whitened store. Several, as in 0.1,1,10, "
                + "take one scan.",
            valueName: "rho"))
    var relativeDamping: NumberList?
    @Option(
        help: ArgumentHelp("Absolute λ in (H + λI)⁻¹, H = Σ g gᵀ without 1/N; one or several.", valueName: "lambda"))
    var damping: NumberList?
    @Option(
        help: ArgumentHelp(
            "A fitted curvature by (a prefix of) its id; the active one unless said. Of several, as in 3f,a0, the scores are averaged.",
            valueName: "id"))
    var curvature: String?
    @Option(
        help: ArgumentHelp(
            "Another checkpoint's store, queries and settings (as a RUN of 'lorif compare'), whose scores are averaged with these; "
                + "may be repeated.",
            valueName: "run"))
    var checkpoint: [String] = []
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
            for value in value?.values ?? [] where !(value > 0 && value.isFinite) {
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
        if ensemble != nil {
            guard (damping?.values.count ?? relativeDamping?.values.count ?? 1) == 1, !explain else {
                throw ValidationError("an average over checkpoints or curvatures takes one damping, and no --explain")
            }
            for run in checkpoint { _ = try ScoringRun(parsing: run) }
        }
        if json, !explain { throw ValidationError("--json goes with --explain; answers come as --format jsonl") }
    }

    func run() throws {
        var request = QueryRequest(method: method)
        request.queriesPath = queries
        request.queryMetadataPath = metadata
        request.dampings =
            damping.map { $0.values.map(Damping.absolute) } ?? relativeDamping.map { $0.values.map(Damping.relative) }
            ?? []
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
        let asked = request
        let ensemble = try self.ensemble?(request)
        let result = try withProgress {
            if let ensemble { return try runEnsembleQuery(ensemble, request: asked, control: $0) }
            return try runQuery(asked, on: store, control: $0)
        }
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

    /// How the run of several stores or curvatures is made, nil if there is only one of each.
    private var ensemble: ((QueryRequest) throws -> ScoringRun)? {
        let curvatures = curvature?.split(separator: ",").map(String.init) ?? []
        guard method.needsQueries, let queries, !checkpoint.isEmpty || curvatures.count > 1 else { return nil }
        return { request in
            let named: [String?] = curvatures.isEmpty ? [nil] : curvatures
            var members = named.map { ScoringRun.Member(store: store, queriesPath: queries, curvature: $0) }
            for text in checkpoint { members += try ScoringRun(parsing: text).members }
            return ScoringRun(name: "ensemble", members: members, method: method, damping: request.dampings.first)
        }
    }

    private func printPlan(_ plan: Plan) throws {
        if json {
            try printJSON(
                PlanReport(
                    form: plan.form.rawValue, layers: plan.layers.count, queries: plan.queryCount, rows: plan.rowCount,
                    queriesPerScan: plan.queriesPerScan, scans: plan.scanCount, workers: plan.workers,
                    bytes: plan.byteCount, flops: plan.flopCount, memoryBytes: plan.memoryBytes,
                    coordinatesRows: plan.coordinatesRowCount, coordinates: plan.coordinatesEncoding?.name))
            return
        }
        let selfInfluence =
            plan.coordinatesEncoding.map {
                "coordinates (\($0.name)) of \(grouped(plan.coordinatesRowCount)) rows, factors of "
                    + grouped(plan.rowCount - plan.coordinatesRowCount)
            } ?? "factors of all rows"
        standardOutput(
            table(
                [
                    ["form", plan.form.rawValue],
                    ["layers", grouped(plan.layers.count)],
                    [
                        "queries",
                        (plan.dampingCount > 1
                            ? "\(grouped(plan.queryCount / plan.dampingCount)) × \(plan.dampingCount) dampings"
                            : grouped(plan.queryCount)) + ", \(grouped(plan.queriesPerScan)) in a scan",
                    ],
                    ["rows", grouped(plan.rowCount)],
                    ["scans", grouped(plan.scanCount)],
                    ["reads", byteText(plan.byteCount)],
                    ["arithmetic", String(format: "%.3g GFLOP", Double(plan.flopCount) / 1e9)],
                    ["memory", byteText(plan.memoryBytes)],
                    ["workers", grouped(plan.workers)],
                ] + (method.needsSelfInfluence ? [["self-influence", selfInfluence]] : [])))
    }

    private struct PlanReport: Encodable {
        let form: String
        let layers, queries, rows, queriesPerScan, scans, workers, bytes, flops, memoryBytes, coordinatesRows: Int
        let coordinates: String?
    }
}

/// How answers are printed.
enum AnswerFormat: String, ExpressibleByArgument, CaseIterable {
    case table, jsonl, csv
}
