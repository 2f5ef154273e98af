import Checksum
import Curvature
import Interchange
import Schema
import Scoring
import Store

/// Answers a query on a store's current generation.
///
/// Plans first, then scans the rows block by block on all workers. Top-k is exact, ties by id; results do not depend on the
/// number of workers. Memory: `Plan.memoryBytes` and the bases of the curvature groups used.
public func runQuery(
    _ request: QueryRequest, on storePath: String, control: OperationControl = OperationControl()
) throws -> QueryResult {
    try QuerySession(request, storePath: storePath).run(control: control)
}

/// The plan of a query, without running it.
public func explainQuery(_ request: QueryRequest, on storePath: String) throws -> Plan {
    try QuerySession(request, storePath: storePath).plan
}

/// One query against one snapshot: names resolved, curvature loaded, planned.
private struct QuerySession {
    let request: QueryRequest
    let rows: LiveRows
    let queries: QueryGradients?
    let curvature: LoadedCurvature?
    let groups: [DampedGroup]
    /// tr(H_l) by layer of the store, for methods that divide by it.
    let scales: [Double]?
    /// Whether the curvature was fitted on exactly the rows that are scored.
    let curvatureIsCurrent: Bool
    let plan: Plan
    let warnings: [String]

    init(_ request: QueryRequest, storePath: String) throws {
        let method = request.method
        if request.damping != nil, !method.needsCurvature {
            throw EngineError.dampingNotApplicable(method: method.rawValue)
        }
        let snapshot = try Snapshot.open(at: storePath, named: request.snapshotName)
        guard snapshot.rowCount > 0 else { throw EngineError.storeEmpty(path: storePath) }
        let schema = snapshot.schema
        let selection = try selectLayers(request.layerPatterns, of: schema)

        var queries: QueryGradients?
        var warnings: [String] = []
        if method.needsQueries {
            guard let path = request.queriesPath else { throw EngineError.queriesMissing(method: method.rawValue) }
            let batch = try FactorBatch(path: path, metadataPath: request.queryMetadataPath)
            let basis = try SchemaBasis(of: snapshot, for: [batch])
            queries = try QueryGradients(batch, schema: schema, basis: basis, selection: selection)
        } else if request.queriesPath != nil {
            warnings.append("self-influence is a property of the stored examples; the queries were not read")
        }

        var layers = queries?.layers ?? selection
        var curvature: LoadedCurvature?
        if method.needsCurvature {
            let loaded = try LoadedCurvature(
                snapshot, identifier: request.curvature, storePath: storePath, method: method, layers: layers)
            if loaded.isGlobal {
                guard selection.count == schema.layers.count else {
                    throw EngineError.selectionNeedsPerLayer(selected: selection.count, fitted: schema.layers.count)
                }
                // Global curvature spreads a query over all layers, those it lacks included.
                layers = Array(schema.layers.indices)
            }
            if let warning = loaded.staleness(of: snapshot) { warnings.append(warning) }
            curvature = loaded
        }
        let damping = request.damping ?? .standard(for: schema)
        groups = try curvature?.groups.map { try DampedGroup($0, schema: schema, damping: damping) } ?? []

        let live = try LiveRows(snapshot)
        scales = method.needsLayerScales ? try layerScales(of: live, workers: request.workers) : nil
        if method.needsLayerScales, schema.basis == nil {
            warnings.append(
                "the store is not whitened: '\(method.rawValue)' only gives each layer the same weight, unless the gradients "
                    + "were whitened before they were ingested")
        }
        let rows = try live.selecting(request.rows, workers: request.workers)
        guard rows.rowCount > 0 else { throw EngineError.selectionEmpty(path: storePath) }
        self.request = request
        self.rows = rows
        self.queries = queries
        self.curvature = curvature
        curvatureIsCurrent = curvature?.staleness(of: snapshot) == nil
        self.warnings = warnings
        plan = Planner.plan(
            method: method, layers: layers, queryCount: queries?.batch.rowCount ?? 1, queryRank: queries?.largestRank,
            basisRanks: Dictionary(
                uniqueKeysWithValues: groups.flatMap { group in group.layers.map { ($0, group.rank) } }),
            statistics: try rows.statistics(), workers: request.workers, memoryBytes: request.memoryBytes)
    }

    func run(control: OperationControl) throws -> QueryResult {
        let queryIdentifiers = queries?.identifiers ?? [Method.selfInfluence.rawValue]
        let sink = try request.scoresPath.map { path in
            try ScoreSink(
                path: path, queryCount: plan.queryCount, exampleCount: rows.rowCount,
                metadata: try scoreMetadata(queryIdentifiers: queryIdentifiers))
        }
        let examples = ExampleReader(rows)
        var answers: [QueryAnswer] = []
        for scan in 0..<plan.scanCount {
            let first = scan * plan.queriesPerScan
            let range = first..<min(plan.queryCount, first + plan.queriesPerScan)
            let scanner = RowScanner(
                rows: rows, prepared: try prepare(range), firstQuery: first, topCount: request.topCount,
                bottomCount: request.bottomCount, workers: plan.workers, examples: examples, sink: sink)
            let lists = try scanner.scan(
                completedRowCount: scan * rows.rowCount, totalRowCount: plan.scanCount * rows.rowCount,
                control: control)
            let metadata = try queries?.batch.metadata(rows: range)
            for (offset, query) in range.enumerated() {
                answers.append(
                    QueryAnswer(
                        identifier: queryIdentifiers[query], metadata: metadata?[offset],
                        top: try examples.resolve(lists.top[offset]),
                        bottom: try examples.resolve(lists.bottom[offset])))
            }
        }
        try sink?.finish()
        return QueryResult(
            method: request.method, answers: answers, damping: dampingUsed, basis: rows.snapshot.schema.basis,
            curvature: curvature?.record.digest, scope: curvature?.scopeName, curvatureRowCount: curvature?.rowCount,
            layerNames: plan.layers.map { rows.snapshot.schema.layers[$0].name }, plan: plan,
            generation: rows.snapshot.generation, rowCount: rows.rowCount, warnings: warnings)
    }

    private var dampingUsed: DampingUsed? {
        guard curvature != nil else { return nil }
        let relative: Double? =
            switch request.damping ?? .standard(for: rows.snapshot.schema) {
            case .relative(let ratio): ratio
            case .absolute: nil
            }
        return DampingUsed(relative: relative, lambdas: groups.map(\.lambda))
    }

    /// Reads a range of queries and puts them into the form that is scored.
    private func prepare(_ range: Range<Int>) throws -> PreparedScan {
        let schema = rows.snapshot.schema
        var scorers: [LayerScorer] = []
        let weights = plan.layers.map { layer in scales.map { $0[layer] > 0 ? 1 / $0[layer] : 0 } ?? 1 }
        var queryNorms: [Double] = []
        if let queries, curvature != nil {
            var folded: [Int: [Float]] = [:]
            for group in groups {
                let gradients = try group.layers.map { try queries.readFull(layer: $0, queries: range) }
                let preconditioned = try group.precondition(
                    gradients, queryCount: range.count, forFittedRows: curvatureIsCurrent, workers: plan.workers)
                for (layer, values) in zip(group.layers, preconditioned) { folded[layer] = values }
            }
            scorers = plan.layers.map { layer in
                guard let values = folded[layer] else { preconditionFailure("layer \(layer) is in no curvature group") }
                return LayerScorer(layer: schema.layers[layer], queryCount: range.count, form: .full(values))
            }
        } else if let queries {
            var squared = [Double](repeating: 0, count: range.count)
            for (layer, weight) in zip(plan.layers, weights) {
                scorers.append(
                    LayerScorer(
                        layer: schema.layers[layer], queryCount: range.count,
                        form: try queries.readForm(layer: layer, queries: range, weight: weight)))
                guard request.method.isCosine else { continue }
                for (query, value) in try queries.squaredNorms(layer: layer, queries: range).enumerated() {
                    squared[query] += weight * value
                }
            }
            queryNorms = squared.map { $0.squareRoot() }
        }
        return PreparedScan(
            method: request.method, queryCount: range.count, layers: plan.layers, scorers: scorers,
            weights: weights, queryNorms: queryNorms, groups: request.method.needsSelfInfluence ? groups : [],
            curvatureIsCurrent: curvatureIsCurrent)
    }

    /// What a score file says about itself (Formats/scores.md).
    private func scoreMetadata(queryIdentifiers: [String]) throws -> [String: String] {
        var metadata: [String: String] = [
            "query_ids": JSONText.array(queryIdentifiers),
            "example_ids": JSONText.array(try rows.readAllIdentifiers()),
            "method": request.method.rawValue,
            "layers": JSONText.array(plan.layers.map { rows.snapshot.schema.layers[$0].name }),
            "generation": String(rows.snapshot.generation),
            "sign": "positive = training on the example lowers the query's loss",
            "store": rows.snapshot.identity.description,
        ]
        if let basis = rows.snapshot.schema.basis { metadata["basis"] = basis.description }
        if let scales {
            metadata["layer_scales"] =
                "[" + plan.layers.map { JSONText.number(scales[$0]) }.joined(separator: ",") + "]"
        }
        if let curvature, let used = dampingUsed {
            metadata["curvature"] = curvature.record.digest.description
            metadata["scope"] = curvature.scopeName
            metadata["damping_kind"] = used.relative == nil ? "absolute" : "relative"
            metadata["damping"] = JSONText.number(used.relative ?? used.lambdas.first ?? 0)
            metadata["lambdas"] = "[" + used.lambdas.map { JSONText.number($0) }.joined(separator: ",") + "]"
        }
        return metadata
    }
}

extension Damping {
    /// The damping of a query that names none.
    static func standard(for schema: StoreSchema) -> Damping {
        .relative(schema.basis == nil ? QueryRequest.defaultRelativeDamping : QueryRequest.whitenedRelativeDamping)
    }
}
