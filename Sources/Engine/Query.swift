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
    /// The groups with each damping.
    let groups: [[DampedGroup]]
    /// tr(H_l) by layer of the store, for methods that divide by it.
    let scales: [Double]?
    /// Whether the curvature was fitted on exactly the rows that are scored.
    let curvatureIsCurrent: Bool
    /// Stored coordinates of the rows, for methods that need self-influence.
    let coordinates: StoredCoordinates?
    let plan: Plan
    let warnings: [String]

    init(_ request: QueryRequest, storePath: String) throws {
        let method = request.method
        if !request.dampings.isEmpty, !method.needsCurvature {
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
        groups = try Self.dampings(of: request, schema: schema).map { damping in
            try curvature?.groups.map { try DampedGroup($0, schema: schema, damping: damping) } ?? []
        }

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
        coordinates =
            method.needsSelfInfluence ? curvature.flatMap { StoredCoordinates(rows: rows, curvature: $0) } : nil
        plan = Planner.plan(
            method: method, layers: layers, queryCount: queries?.batch.rowCount ?? 1,
            dampingCount: curvature == nil ? 1 : groups.count, queryRank: queries?.largestRank,
            basisRanks: Dictionary(
                uniqueKeysWithValues: groups[0].flatMap { group in group.layers.map { ($0, group.rank) } }),
            statistics: try rows.statistics(coordinates: coordinates), workers: request.workers,
            memoryBytes: request.memoryBytes)
    }

    func run(control: OperationControl) throws -> QueryResult {
        let queryIdentifiers = queries?.identifiers ?? [Method.selfInfluence.rawValue]
        let sink = try request.scoresPath.map { path in
            try ScoreSink(
                path: path, queryCount: plan.queryCount, dampingCount: plan.dampingCount, exampleCount: rows.rowCount,
                metadata: try scoreMetadata(queryIdentifiers: queryIdentifiers))
        }
        let examples = ExampleReader(rows)
        var answers: [QueryAnswer] = []
        for scan in 0..<plan.scanCount {
            let first = scan * plan.queriesPerScan
            let range = first..<min(plan.queryCount, first + plan.queriesPerScan)
            let scanner = RowScanner(
                rows: rows, prepared: try prepare(range), firstQuery: first, topCount: request.topCount,
                bottomCount: request.bottomCount, workers: plan.workers, examples: examples, sink: sink,
                coordinates: coordinates)
            let lists = try scanner.scan(
                completedRowCount: scan * rows.rowCount, totalRowCount: plan.scanCount * rows.rowCount,
                control: control)
            let metadata = try queries.map { queries in
                try pieces(of: range).flatMap { try queries.batch.metadata(rows: $0.queries) }
            }
            for (offset, query) in range.enumerated() {
                answers.append(
                    QueryAnswer(
                        identifier: queryIdentifiers[query % queryIdentifiers.count], metadata: metadata?[offset],
                        dampingIndex: query / queryIdentifiers.count,
                        top: try examples.resolve(lists.top[offset]),
                        bottom: try examples.resolve(lists.bottom[offset])))
            }
        }
        try sink?.finish()
        return QueryResult(
            method: request.method, answers: answers, dampings: dampingsUsed, basis: rows.snapshot.schema.basis,
            curvature: curvature?.record.digest, scope: curvature?.scopeName, curvatureRowCount: curvature?.rowCount,
            layerNames: plan.layers.map { rows.snapshot.schema.layers[$0].name }, plan: plan,
            generation: rows.snapshot.generation, rowCount: rows.rowCount,
            warnings: warnings + (coordinates?.notes ?? []))
    }

    /// The dampings asked for, or the default one.
    private static func dampings(of request: QueryRequest, schema: StoreSchema) -> [Damping] {
        request.dampings.isEmpty ? [.standard(for: schema)] : request.dampings
    }

    private var dampingsUsed: [DampingUsed] {
        guard curvature != nil else { return [] }
        return zip(Self.dampings(of: request, schema: rows.snapshot.schema), groups).map {
            DampingUsed(damping: $0, lambdas: $1.map(\.lambda))
        }
    }

    /// A range of scored queries, which count through all dampings, cut by damping.
    private func pieces(of range: Range<Int>) -> [(damping: Int, queries: Range<Int>)] {
        let count = plan.queryCount / plan.dampingCount
        return (0..<plan.dampingCount).compactMap { damping in
            let part = range.clamped(to: (damping * count)..<((damping + 1) * count))
            guard !part.isEmpty else { return nil }
            return (damping, (part.lowerBound - damping * count)..<(part.upperBound - damping * count))
        }
    }

    /// Reads a range of queries and puts them into the form that is scored.
    private func prepare(_ range: Range<Int>) throws -> PreparedScan {
        let schema = rows.snapshot.schema
        var scorers: [LayerScorer] = []
        let weights = plan.layers.map { layer in scales.map { $0[layer] > 0 ? 1 / $0[layer] : 0 } ?? 1 }
        var queryNorms: [Double] = []
        if let queries, curvature != nil {
            var folded: [Int: [Float]] = [:]
            for (damping, part) in pieces(of: range) {
                for group in groups[damping] {
                    let gradients = try group.layers.map { try queries.readFull(layer: $0, queries: part) }
                    let preconditioned = try group.precondition(
                        gradients, queryCount: part.count, forFittedRows: curvatureIsCurrent, workers: plan.workers)
                    for (layer, values) in zip(group.layers, preconditioned) {
                        folded[layer, default: []].append(contentsOf: values)
                    }
                }
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
        let dampings = pieces(of: range)
        return PreparedScan(
            method: request.method, queryCount: range.count, layers: plan.layers, scorers: scorers,
            weights: weights,
            queryNorms: queryNorms,
            groups: request.method.needsSelfInfluence ? dampings.map { groups[$0.damping] } : [],
            dampingOfQuery: dampings.enumerated().flatMap { place, piece in piece.queries.map { _ in place } },
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
        let used = dampingsUsed
        if let curvature, let first = used.first {
            let values = used.map { JSONText.number($0.value) }
            let lambdas = used.map { "[" + $0.lambdas.map { JSONText.number($0) }.joined(separator: ",") + "]" }
            metadata["curvature"] = curvature.record.digest.description
            metadata["scope"] = curvature.scopeName
            metadata["damping_kind"] = first.relative == nil ? "absolute" : "relative"
            metadata["damping"] = used.count == 1 ? values[0] : "[" + values.joined(separator: ",") + "]"
            metadata["lambdas"] = used.count == 1 ? lambdas[0] : "[" + lambdas.joined(separator: ",") + "]"
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
