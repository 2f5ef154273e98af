import Interchange
import Scoring
import Store

/// Answers a query from several stores, of one checkpoint each: every score is the weighted mean of the members' scores.
///
/// This is TRAK's ensemble (arXiv 2303.14186, section 3.2) and TracIn's sum over checkpoints. Examples and queries are matched by id;
/// all members must have the same, and what differs is in the warnings. Metadata comes from the first member. Scores of the members
/// go to temporary files, 4 bytes each.
public func runEnsembleQuery(
    _ run: ScoringRun, request: QueryRequest, control: OperationControl = OperationControl()
) throws -> QueryResult {
    let scored = try RunScores(run, request: request, control: control)
    var result = scored.results[0]
    let snapshot = try Snapshot.open(at: run.members[0].store, named: request.snapshotName)
    let rows = try LiveRows(snapshot).selecting(request.rows, workers: request.workers)
    let ordinals = places(of: scored.exampleIdentifiers, in: try rows.readAllIdentifiers())
    let examples = ExampleReader(rows)
    let known = Dictionary(result.answers.map { ($0.identifier, $0) }, uniquingKeysWith: { first, _ in first })
    let sink = try request.scoresPath.map { path in
        try ScoreSink(
            path: path, queryCount: scored.queryIdentifiers.count, dampingCount: 1,
            exampleCount: scored.exampleIdentifiers.count,
            metadata: [
                "query_ids": JSONText.array(scored.queryIdentifiers),
                "example_ids": JSONText.array(scored.exampleIdentifiers),
                "method": run.method.rawValue,
                "ensemble": JSONText.array(run.members.map(\.store)),
                "weights": "[" + run.members.map { JSONText.number($0.weight) }.joined(separator: ",") + "]",
                "sign": "positive = training on the example lowers the query's loss",
            ])
    }
    var answers: [QueryAnswer] = []
    for (query, identifier) in scored.queryIdentifiers.enumerated() {
        try control.cancellation.check()
        let scores = try scored.scores(query: query)
        var top = TopK(
            capacity: min(request.topCount, scores.count), direction: .top, limit: request.leastScores.of(identifier))
        var bottom = TopK(
            capacity: min(request.bottomCount, scores.count), direction: .bottom,
            limit: request.greatestScores.of(identifier))
        for (index, score) in scores.enumerated() {
            top.insert(score, ordinal: ordinals[index])
            bottom.insert(score, ordinal: ordinals[index])
        }
        try sink?.write(query: query, firstExample: 0, scores: scores.span)
        answers.append(
            QueryAnswer(
                identifier: identifier, metadata: known[identifier]?.metadata, dampingIndex: 0,
                top: try examples.resolve(try top.results { try examples.identifier(ordinal: $0) }),
                bottom: try examples.resolve(try bottom.results { try examples.identifier(ordinal: $0) }),
                groups: [], totalMagnitude: sumOfMagnitudes(scores.span), distribution: nil, unrankedRange: nil))
    }
    try sink?.finish()
    var warnings = scored.results.flatMap(\.warnings)
    for (member, memberResult) in zip(run.members, scored.results) {
        let missing = memberResult.rowCount - scored.exampleIdentifiers.count
        if missing > 0 {
            warnings.append("\(missing) examples of \(member.store) are not in every store and were not scored")
        }
    }
    result.answers = answers
    result.warnings = warnings
    result.rowCount = scored.exampleIdentifiers.count
    return result
}
