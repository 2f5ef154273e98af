import ArgumentParser
import Engine

/// `lorif query`: rank the stored examples for query gradients.
struct Query: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Rank the training examples that helped or harmed a query.",
        discussion: """
            Positive scores mean that training on the example lowers the query's loss; the share is that of |score| among all examples. \
            QUERIES is a factor batch; its layers may be full gradients (best) or factors, and may be fewer than the store's. \
            A whitened store whitens raw queries itself. Lists are 10 and 0 long unless said. In a terminal answers are coloured, unless \
            NO_COLOR is set.

              lorif query store queries.safetensors --top 5 --bottom 5
              lorif query store queries.safetensors --method cosine --format jsonl
              lorif query store queries.safetensors --layers '*.mlp.*' --top 3
              lorif query store queries.safetensors --relative-damping 0.1,1,10
              lorif query store queries.safetensors --output scores.safetensors
              lorif query store --method self-influence --top 20
              lorif query store --by-id train-00417 --method cosine
              cut -f1 ids.tsv | lorif query store --by-id - --format jsonl
              lorif query store queries.safetensors --aggregate mean --group-by source
              lorif query store queries.safetensors --layers 'mlp=*.mlp.*' --per-layer
              lorif query store queries.safetensors --explain analyze
              lorif query one q1.safetensors --checkpoint two,q2.safetensors,weight=2
            """)

    @Argument(help: "The store.")
    var store: String
    @Argument(help: "Query gradients, a factor batch file; not used by self-influence.")
    var queries: String?
    @OptionGroup var question: QuestionOptions
    @Option(help: ArgumentHelp("Ask the store as it was when it got this name.", valueName: "name"))
    var snapshot: String?
    @Option(
        help: ArgumentHelp(
            "Another checkpoint's store, queries and settings (as a RUN of 'lorif compare'), whose scores are averaged with these; "
                + "may be repeated.",
            valueName: "run"))
    var checkpoint: [String] = []
    @Flag(help: "Say what each layer, or named group of layers, adds to the scores of the listed examples.")
    var perLayer = false
    @OptionGroup var destination: AnswerDestination
    @Option(
        defaultAsFlag: Explanation.plan,
        help: ArgumentHelp(
            "Print how the query would be answered, and stop; with analyze: answer it, then say what was done.",
            valueName: "plan|analyze"))
    var explain: Explanation?
    @OptionGroup var progress: ProgressOptions
    @Flag(help: "With --explain: print JSON.")
    var json = false

    func validate() throws {
        try question.checkQueries(queries)
        if ensemble != nil {
            let dampings = question.damping ?? question.relativeDamping
            guard (dampings?.values.count ?? 1) == 1, explain == nil else {
                throw ValidationError("an average over checkpoints or curvatures takes one damping, and no --explain")
            }
            guard question.aggregate == .none, question.groupBy == nil, !perLayer, question.deadline == nil,
                question.byId.isEmpty
            else {
                throw ValidationError(
                    "an average over checkpoints or curvatures goes without --aggregate, --group-by, --per-layer, --deadline and --by-id"
                )
            }
            for run in checkpoint { _ = try ScoringRun(parsing: run) }
        }
        if json, explain == nil { throw ValidationError("--json goes with --explain; answers come as --format jsonl") }
    }

    func run() throws {
        let listsAnswers = destination.listsAnswers
        var request = try question.request(queries: queries, top: listsAnswers ? 10 : 0, bottom: 0)
        request.wantsContributions = perLayer
        request.snapshotName = snapshot
        request.scoresPath = destination.scoresPath
        if explain == .plan {
            let plan = try Database(at: store).plan(request)
            if json { try printJSON(PlanReport(plan)) } else { standardOutput(planTable(plan)) }
            return
        }
        let started = ContinuousClock.now
        let asked = request
        let ensemble = try self.ensemble?(request)
        // With nothing half written, even a step that does not look for Ctrl-C can be left.
        let isOnlyRead = request.scoresPath == nil && ensemble == nil
        let result = try withProgress(
            progress, promptExit: isOnlyRead ? EngineError.cancelled.description : nil
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
        try destination.write(result, elapsedSeconds: elapsed)
        if explain == .analyze {
            let analysis = planTable(result.plan, result.meter)
            if destination.printsText { standardOutput("\n" + analysis) } else { standardError(analysis) }
        }
    }

    /// How the run of several stores or curvatures is made, nil if there is only one of each.
    private var ensemble: ((QueryRequest) throws -> ScoringRun)? {
        let curvatures = question.curvature?.split(separator: ",").map(String.init) ?? []
        guard question.method.needsQueries, let queries, !checkpoint.isEmpty || curvatures.count > 1 else { return nil }
        return { request in
            let named: [String?] = curvatures.isEmpty ? [nil] : curvatures
            var members = named.map { ScoringRun.Member(store: store, queriesPath: queries, curvature: $0) }
            for text in checkpoint { members += try ScoringRun(parsing: text).members }
            return ScoringRun(
                name: "ensemble", members: members, method: question.method, damping: request.dampings.first)
        }
    }
}
