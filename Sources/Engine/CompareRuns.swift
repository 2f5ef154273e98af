import Scoring
import Store

/// How one run compares with the reference.
public struct RunComparison: Sendable {
    /// The run.
    public let run: ScoringRun
    /// Bytes of the stores' segments for each live example, all members together.
    public let bytesPerExample: Double
    /// Bytes that the scan read for each example scored.
    public let scannedBytesPerExample: Double
    /// Wall time of its queries, with planning and reading.
    public let seconds: Double
    /// Examples scored by the first member.
    public let rowCount: Int
    /// Mean over queries of Spearman's rank correlation with the reference's scores; nil where every score is the same.
    public let rankCorrelation: Double?
    /// Mean over queries of how many of the reference's k best are among this run's k best.
    public let sharedTopCount: Double
    /// What was said of the queries.
    public let warnings: [String]
}

/// A comparison of several ways to score the same queries.
public struct RunComparisonReport: Sendable {
    /// The reference first; in the order given.
    public let comparisons: [RunComparison]
    /// k.
    public let topCount: Int
    /// Queries that all runs have, by id.
    public let queryCount: Int
    /// Examples that all runs have, by id: the agreement is on these.
    public let exampleCount: Int
}

/// Scores the same queries in several ways and says what each costs and how far it agrees with the first.
///
/// Queries and examples are matched by id; those that not all runs have are left out. Scores go to temporary files, 4 bytes each;
/// memory: what each query takes, and a few numbers for each example. `request` gives rows, workers, memory and snapshot.
public func compareRuns(
    _ runs: [ScoringRun], topCount: Int = 10, request: QueryRequest = QueryRequest(),
    control: OperationControl = OperationControl()
) throws -> RunComparisonReport {
    precondition(!runs.isEmpty, "nothing to compare")
    var scored: [RunScores] = []
    for run in runs {
        guard run.method.needsQueries else {
            throw EngineError.settingMismatch(
                setting: "method", expected: "one that scores queries", found: run.method.rawValue)
        }
        scored.append(try RunScores(run, request: request, control: control))
    }
    let queries = common(scored.map(\.queryIdentifiers))
    let examples = common(scored.map(\.exampleIdentifiers))
    for (shared, what) in [(queries, "query"), (examples, "example")] where shared.isEmpty {
        throw EngineError.nothingInCommon(what: what, run: runs.map(\.name).joined(separator: " and "))
    }
    let queryPlaces = scored.map { places(of: queries, in: $0.queryIdentifiers) }
    let columns = scored.map { run -> [Int]? in
        run.exampleIdentifiers == examples ? nil : places(of: examples, in: run.exampleIdentifiers)
    }
    var correlations = [[Double]](repeating: [], count: runs.count)
    var shared = [Int](repeating: 0, count: runs.count)
    for query in queries.indices {
        try control.cancellation.check()
        var reference: [Float] = []
        for (index, run) in scored.enumerated() {
            let all = try run.scores(query: queryPlaces[index][query])
            let scores = columns[index].map { columns in columns.map { all[$0] } } ?? all
            if index == 0 { reference = scores }
            if let value = RankAgreement.spearman(reference, scores) { correlations[index].append(value) }
            shared[index] += RankAgreement.sharedTop(reference, scores, count: topCount)
        }
    }
    let comparisons = scored.enumerated().map { index, run in
        RunComparison(
            run: run.run, bytesPerExample: run.bytesPerExample,
            scannedBytesPerExample: run.results.reduce(0) {
                $0 + Double($1.plan.byteCount) / Double(max(1, $1.rowCount))
            }, seconds: run.seconds, rowCount: run.results[0].rowCount,
            rankCorrelation: correlations[index].isEmpty
                ? nil : correlations[index].reduce(0, +) / Double(correlations[index].count),
            sharedTopCount: Double(shared[index]) / Double(queries.count), warnings: run.results.flatMap(\.warnings))
    }
    return RunComparisonReport(
        comparisons: comparisons, topCount: min(topCount, examples.count), queryCount: queries.count,
        exampleCount: examples.count)
}
