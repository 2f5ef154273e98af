import ArgumentParser
import Curvature
import Engine
import Schema

/// What is asked of a store, and how: the options that `query`, `report` and `shell` share.
struct QuestionOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Instead of QUERIES: a stored example by its id; may be repeated. '-' reads ids from standard input, one on each line.",
            valueName: "id"))
    var byId: [String] = []
    @Option(
        help:
            "influence, dot, cosine, normalized-dot, l2, whitened-dot, whitened-cosine, self-influence, relatif or influence-cosine."
    )
    var method: Method = .influence
    @Option(
        help: ArgumentHelp(
            "λ = ρ · tr(H)/D, per layer or globally; 1 unless said, 30 for a whitened store. Several, as in 0.1,1,10, "
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
            "Score only layers that match; NAME=GLOB names a group whose contributions are added up; may be repeated.",
            valueName: "glob"))
    var layers: [String] = []
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
            "Score only the examples with the ids in this file ('-': standard input): one on each line, or a JSON array.",
            valueName: "file"))
    var among: String?
    @Option(help: "Examples with the highest scores to list.")
    var top: Int?
    @Option(help: "Examples with the lowest scores to list.")
    var bottom: Int?
    // Unconditional: a limit may be negative.
    @Option(
        parsing: .unconditional,
        help: ArgumentHelp(
            "List only examples that score at least this: a number, or a JSON file {\"QUERY\": NUMBER, …} with one for each query. "
                + "What cannot reach it is left out early.",
            valueName: "score|file.json"))
    var atLeast: ScoreLimitOption?
    @Option(
        parsing: .unconditional,
        help: ArgumentHelp(
            "The same for the lowest scores: only examples that score at most this.", valueName: "score|file.json"))
    var atMost: ScoreLimitOption?
    @Option(
        help: ArgumentHelp(
            "For whitened-dot and whitened-cosine, of a store that has a part of the rows: tr(H) of every layer over all of them, as "
                + "JSON {\"LAYER\": NUMBER, …}.",
            valueName: "file.json"))
    var layerScales: String?
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

    func validate() throws {
        if damping != nil, relativeDamping != nil {
            throw ValidationError("give --damping or --relative-damping, not both")
        }
        for (name, value) in [("--damping", damping), ("--relative-damping", relativeDamping)] {
            for value in value?.values ?? [] where !(value > 0 && value.isFinite) {
                throw ValidationError("\(name) must be a positive number, not \(value)")
            }
        }
        for (name, value) in [("--top", top), ("--bottom", bottom)] {
            if let value, !(0...1_000_000).contains(value) {
                throw ValidationError("\(name) must be from 0 to 1000000, not \(value)")
            }
        }
        if let threads, !(1...1024).contains(threads) {
            throw ValidationError("--threads must be from 1 to 1024, not \(threads)")
        }
    }

    /// Refuses a method that needs queries when there are none.
    func checkQueries(_ queries: String?) throws {
        if method.needsQueries, queries == nil, byId.isEmpty {
            throw ValidationError("method '\(method.rawValue)' needs a file of query gradients, or --by-id")
        }
    }

    /// The question about `queries`, a batch file; lists are as long as the options or else the arguments say.
    func request(queries: String?, top defaultTop: Int, bottom defaultBottom: Int) throws -> QueryRequest {
        var request = QueryRequest(method: method)
        request.queriesPath = queries
        request.queryExamples = try byId.flatMap { $0 == "-" ? try readIdentifiers(fromFile: $0) : [$0] }
        try checkQueries(queries)
        if !byId.isEmpty, request.queryExamples.isEmpty {
            throw CommandFailure(code: .inputRefused, message: "--by-id -: there are no ids on standard input")
        }
        request.queryMetadataPath = metadata
        request.dampings =
            damping.map { $0.values.map(Damping.absolute) } ?? relativeDamping.map { $0.values.map(Damping.relative) }
            ?? []
        request.curvature = curvature
        request.layerPatterns = layers
        request.aggregation = aggregate
        request.aggregationField = aggregateBy
        request.groupField = groupBy
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
        request.topCount = top ?? defaultTop
        request.bottomCount = bottom ?? defaultBottom
        if let layerScales {
            guard method.needsLayerScales else {
                throw CommandFailure(
                    code: .usage, message: "--layer-scales goes with --method whitened-dot or whitened-cosine")
            }
            request.layerScales = try readNumbers(
                fromFile: layerScales, of: "layer", example: "{\"h.0.attn\": 12.5}")
        }
        if let atLeast { request.leastScores = try atLeast.limits() }
        if let atMost { request.greatestScores = try atMost.limits() }
        return request
    }
}
