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
              lorif query store --by-id train-00417 --method cosine
              lorif query store queries.safetensors --aggregate mean --group-by source
              lorif query store queries.safetensors --layers 'mlp=*.mlp.*' --per-layer
              lorif query store queries.safetensors --explain analyze
              lorif query one q1.safetensors --checkpoint two,q2.safetensors,weight=2
            """)

    @Argument(help: "The store.")
    var store: String
    @Argument(help: "Query gradients, a factor batch file; not used by self-influence.")
    var queries: String?
    @Option(
        help: ArgumentHelp(
            "Instead of QUERIES: a stored example by its id; may be repeated.", valueName: "id"))
    var byId: [String] = []
    @Option(
        help:
            "influence, dot, cosine, normalized-dot, l2, whitened-dot, whitened-cosine, self-influence, relatif or influence-cosine."
    )
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
    @Option(
        help: ArgumentHelp(
            "Score only layers that match; NAME=GLOB names a group for --per-layer; may be repeated.", valueName: "glob"
        ))
    var layers: [String] = []
    @Flag(help: "Say what each layer, or named group of layers, adds to the scores of the listed examples.")
    var perLayer = false
    @Option(help: "Make one answer of several queries: none, sum, mean or max of their scores for each example.")
    var aggregate: QueryAggregation = .none
    @Option(
        help: ArgumentHelp(
            "With --aggregate: one answer for each value of this field of the queries' metadata.", valueName: "field"))
    var aggregateBy: String?
    @Option(
        help: ArgumentHelp(
            "Add up the scores of the examples by the value of this metadata field.", valueName: "field"))
    var groupBy: String?
    @Option(
        help: ArgumentHelp(
            "Score only examples that pass, as in \"source = 'bible' and length > 64\".", valueName: "condition"))
    var `where`: String?
    @Option(
        help: ArgumentHelp(
            "Score only the examples with the ids in this file: one on each line, or a JSON array.", valueName: "file"))
    var among: String?
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
    @Option(
        help: ArgumentHelp(
            "exact: the ranked examples are certainly the best. none: a full-rank query is first scored by its leading singular "
                + "pairs, and examples are left out when five standard deviations of the measured error keep them below."
        ))
    var guarantee: Guarantee = .exact
    @Option(
        help: ArgumentHelp("Stop after so long, as in 5s or 200ms, with the best of what was read.", valueName: "time"))
    var deadline: TimeLimit?
    @Option(
        help: ArgumentHelp(
            "Memory for queries and scores; more queries take several scans.", valueName: "size"))
    var memory = ByteCount(2 << 30)
    @Option(
        help: ArgumentHelp(
            "How to read what is not in memory: through the page cache, past it (direct), or as the plan finds best.",
            valueName: "auto|cache|direct"))
    var read: ReadPath = .automatic
    @Option(
        help: ArgumentHelp(
            "How to compute, instead of as the plan finds fastest; see --explain.",
            valueName: "tiles|pages|whole-numbers|tables|leading-pairs"))
    var kernel: Plan.Kernel?
    @Option(help: ArgumentHelp("Threads; all processors unless said.", valueName: "n"))
    var threads: Int?
    @Option(
        defaultAsFlag: Explanation.plan,
        help: ArgumentHelp(
            "Print how the query would be answered, and stop; with analyze: answer it, then say what was done.",
            valueName: "plan|analyze"))
    var explain: Explanation?
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
        if method.needsQueries, queries == nil, byId.isEmpty {
            throw ValidationError("method '\(method.rawValue)' needs a file of query gradients, or --by-id")
        }
        if let threads, !(1...1024).contains(threads) {
            throw ValidationError("--threads must be from 1 to 1024, not \(threads)")
        }
        if ensemble != nil {
            guard (damping?.values.count ?? relativeDamping?.values.count ?? 1) == 1, explain == nil else {
                throw ValidationError("an average over checkpoints or curvatures takes one damping, and no --explain")
            }
            guard aggregate == .none, groupBy == nil, !perLayer, deadline == nil, byId.isEmpty else {
                throw ValidationError(
                    "an average over checkpoints or curvatures goes without --aggregate, --group-by, --per-layer, --deadline and --by-id"
                )
            }
            for run in checkpoint { _ = try ScoringRun(parsing: run) }
        }
        if json, explain == nil { throw ValidationError("--json goes with --explain; answers come as --format jsonl") }
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
        request.queryExamples = byId
        request.aggregation = aggregate
        request.aggregationField = aggregateBy
        request.groupField = groupBy
        request.wantsContributions = perLayer
        request.deadlineSeconds = deadline?.seconds
        request.guarantee = guarantee
        request.memoryBytes = memory.value
        request.readPath = read
        request.kernel = kernel
        if let machine = MachineModel.load() { request.machine = machine }
        if let threads {
            request.workers = threads
            request.scanWorkers = threads
        }
        let filter = try self.where.map { try RowFilter(parsing: $0) }
        if let among {
            let identifiers = try readIdentifiers(fromFile: among)
            request.rows = filter.map { .among(identifiers, $0) } ?? .identifiers(identifiers)
        } else if let filter {
            request.rows = .filter(filter)
        }
        request.snapshotName = snapshot
        request.topCount = top
        request.bottomCount = bottom
        request.scoresPath = scores
        if explain == .plan {
            let plan = try Database(at: store).plan(request)
            if json { try printJSON(PlanReport(plan)) } else { standardOutput(planTable(plan)) }
            return
        }
        let started = ContinuousClock.now
        let asked = request
        let ensemble = try self.ensemble?(request)
        // With nothing half written, even a step that does not look for Ctrl-C can be left.
        let isOnlyRead = scores == nil && ensemble == nil
        let result = try withProgress(
            promptExit: isOnlyRead ? EngineError.cancelled.description : nil
        ) {
            if let ensemble { return try runEnsembleQuery(ensemble, request: asked, control: $0) }
            return try Database(at: store).answer(asked, control: $0)
        }
        let elapsed = seconds(ContinuousClock.now - started)
        for warning in result.warnings { standardError("lorif: note: \(warning)\n") }
        if explain == .analyze, json {
            try printJSON(PlanReport(result.plan, result.meter))
            return
        }
        var text =
            switch format {
            case .table:
                answerTable(
                    result, elapsedSeconds: elapsed, width: output == nil ? Terminal.width : 120,
                    scoresPath: scores)
            case .jsonl: try answerLines(result)
            case .csv: answerCSV(result)
            }
        if explain == .analyze {
            let analysis = planTable(result.plan, result.meter)
            if format == .table { text += "\n" + analysis } else { standardError(analysis) }
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
}

/// How answers are printed.
enum AnswerFormat: String, ExpressibleByArgument, CaseIterable {
    case table, jsonl, csv
}
