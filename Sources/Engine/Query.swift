import Checksum
import Curvature
import Interchange
import Schema
import Scoring
import Store

/// One query against one snapshot: names resolved, curvature loaded, planned.
struct QuerySession {
    let request: QueryRequest
    let rows: LiveRows
    let queries: QueryGradients?
    /// Queries that are answered as one.
    let queryGroups: QueryGroups?
    let selection: LayerSelection
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

    /// `readCurvature` gives the eigenpairs of a curvature of the snapshot.
    init(
        _ request: QueryRequest, snapshot: Snapshot, readCurvature: (Digest) throws -> [CurvatureGroupData]
    ) throws {
        try request.validate()
        let method = request.method
        let storePath = snapshot.path
        guard snapshot.rowCount > 0 else { throw EngineError.storeEmpty(path: storePath) }
        let schema = snapshot.schema
        let selection = try LayerSelection(request.layerPatterns, of: schema)
        let live = try LiveRows(snapshot)

        var queries: QueryGradients?
        var warnings: [String] = []
        if method.needsQueries {
            if !request.queryExamples.isEmpty {
                queries = try QueryGradients(
                    examples: request.queryExamples, of: live, selection: selection.layers, workers: request.workers)
            } else {
                guard let path = request.queriesPath else { throw EngineError.queriesMissing(method: method.rawValue) }
                let batch = try FactorBatch(path: path, metadataPath: request.queryMetadataPath)
                let basis = try SchemaBasis(of: snapshot, for: [batch])
                queries = try QueryGradients(batch, schema: schema, basis: basis, selection: selection.layers)
            }
        } else if request.queriesPath != nil {
            warnings.append("self-influence is a property of the stored examples; the queries were not read")
        }
        queryGroups = try queries.flatMap { queries in
            guard request.aggregation != .none else { return nil }
            return try QueryGroups(
                metadata: try queries.metadata(0..<queries.count), field: request.aggregationField,
                aggregation: request.aggregation)
        }

        var layers = queries?.layers ?? selection.layers
        var curvature: LoadedCurvature?
        if method.needsCurvature {
            let loaded = try LoadedCurvature(
                snapshot, identifier: request.curvature, method: method, layers: layers, read: readCurvature)
            if loaded.isGlobal {
                guard selection.layers.count == schema.layers.count else {
                    throw EngineError.selectionNeedsPerLayer(
                        selected: selection.layers.count, fitted: schema.layers.count)
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

        if let given = request.layerScales {
            scales = try layerScales(given, schema: schema, layers: layers)
        } else {
            scales = method.needsLayerScales ? try layerScales(of: live, workers: request.workers) : nil
        }
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
        self.selection = selection
        self.curvature = curvature
        curvatureIsCurrent = curvature?.staleness(of: snapshot) == nil
        self.warnings = warnings
        coordinates =
            method.needsSelfInfluence ? curvature.flatMap { StoredCoordinates(rows: rows, curvature: $0) } : nil
        let folds = request.foldsAggregation
        plan = try Planner(
            demand: ScanDemand(
                method: method, layers: layers, queryCount: (folds ? queryGroups?.names.count : queries?.count) ?? 1,
                dampingCount: curvature == nil ? 1 : groups.count, queryRank: folds ? nil : queries?.largestRank,
                basisRanks: Dictionary(
                    uniqueKeysWithValues: groups[0].flatMap { group in group.layers.map { ($0, group.rank) } }),
                wantsAllScores: request.scoresPath != nil || request.groupField != nil
                    || request.wantsDistribution
                    || (queryGroups != nil && !folds),
                isOneScan: queryGroups != nil && !folds, allowsMeasuredErrors: request.guarantee == .none,
                rankedCount: request.topCount + request.bottomCount, kernel: request.kernel,
                readPath: request.readPath),
            statistics: try rows.statistics(coordinates: coordinates), machine: request.machine,
            processorCount: request.workers, workers: request.scanWorkers, memoryBytes: request.memoryBytes
        ).plan()
    }

    /// Names of the score rows of each damping.
    private var outputNames: [String] {
        queryGroups?.names ?? queries?.identifiers ?? [Method.selfInfluence.rawValue]
    }

    private var preparation: ScanPreparation {
        ScanPreparation(
            method: request.method, schema: rows.snapshot.schema, layers: plan.layers, queries: queries,
            folding: request.foldsAggregation
                ? queryGroups.map { ($0, request.aggregation == .mean) } : nil,
            groups: groups, scales: scales, curvatureIsCurrent: curvatureIsCurrent, workers: plan.workers,
            queriesAtOnce: plan.queriesPerScan, kernel: plan.kernel, wantsContributions: request.wantsContributions)
    }

    func run(control: OperationControl) throws -> QueryResult {
        let started = ContinuousClock.now
        let names = outputNames
        let sink = try request.scoresPath.map { path in
            try ScoreSink(
                path: path, queryCount: names.count * plan.dampingCount, dampingCount: plan.dampingCount,
                exampleCount: rows.rowCount, metadata: try scoreMetadata(queryIdentifiers: names))
        }
        let reduction = request.foldsAggregation ? nil : queryGroups.map { ($0, request.aggregation) }
        let rowGroups = try request.groupField.map {
            try RowGroups(rows, field: $0, workers: request.workers)
        }
        let preparation = preparation
        let examples = ExampleReader(rows)
        var answers: [QueryAnswer] = []
        var meter = ScanMeter()
        var unreadRowCount = 0
        for scan in 0..<plan.scanCount {
            let first = scan * plan.queriesPerScan
            let prepared = try meter.timing(\.preparationSeconds) {
                try preparation.prepare(first..<min(plan.queryCount, first + plan.queriesPerScan))
            }
            let outputNames = (0..<(reduction == nil ? prepared.queryCount : names.count * plan.dampingCount)).map {
                names[(first + $0) % names.count]
            }
            let scanner = RowScanner(
                rows: rows, prepared: prepared,
                output: ScanOutput(
                    aggregation: reduction, firstQuery: first, topCount: request.topCount,
                    bottomCount: request.bottomCount, leastScores: outputNames.map(request.leastScores.of),
                    greatestScores: outputNames.map(request.greatestScores.of), sink: sink, rowGroups: rowGroups,
                    wantsDistribution: request.wantsDistribution,
                    deadline: request.deadlineSeconds.map { started + .seconds($0) }),
                workers: plan.workers, examples: examples, coordinates: coordinates,
                directSegments: plan.directSegments)
            let found = try scanner.scan(
                completedRowCount: scan * rows.rowCount, totalRowCount: plan.scanCount * rows.rowCount,
                control: control)
            meter.add(found.meter)
            unreadRowCount = max(unreadRowCount, found.unreadRowCount)
            answers += try self.answers(found, prepared: prepared, first: first, names: names, examples: examples)
        }
        try sink?.finish()
        meter.coordinatesByteCount += (coordinates?.byteCount ?? 0) * plan.scanCount
        var warnings = warnings + (coordinates?.notes ?? [])
        if unreadRowCount > 0 {
            warnings.append(
                "the deadline left \(unreadRowCount) of \(rows.rowCount) examples unread: the answer is the best of the others"
            )
        }
        return QueryResult(
            method: request.method, aggregation: request.aggregation,
            guarantee: plan.kernel == .leadingPairs ? .none : .exact, answers: answers, dampings: dampingsUsed,
            basis: rows.snapshot.schema.basis, curvature: curvature?.record.digest, scope: curvature?.scopeName,
            curvatureRowCount: curvature?.rowCount,
            layerNames: plan.layers.map { rows.snapshot.schema.layers[$0].name }, plan: plan, meter: meter,
            generation: rows.snapshot.generation, rowCount: rows.rowCount, unreadRowCount: unreadRowCount,
            warnings: warnings)
    }

    /// The answers of one scan, with ids, metadata and what else was asked for.
    private func answers(
        _ found: RowScanner.Findings, prepared: PreparedScan, first: Int, names: [String], examples: ExampleReader
    ) throws -> [QueryAnswer] {
        var contributions: [[Int: [LayerContribution]]] = []
        if request.wantsContributions {
            let scores = zip(found.top, found.bottom).map { top, bottom in
                Dictionary((top + bottom).map { ($0.ordinal, $0.score) }, uniquingKeysWith: { first, _ in first })
            }
            contributions = try LayerContributions(rows: rows, prepared: prepared, selection: selection).of(scores)
        }
        return try found.top.indices.map { offset in
            let output = first + offset
            let place = output % names.count
            let metadata =
                queryGroups == nil ? try queries?.metadata(place..<place + 1).first.flatMap { $0 } : nil
            func resolve(_ entries: [TopK.Entry]) throws -> [RankedExample] {
                var resolved = try examples.resolve(entries)
                guard request.wantsContributions else { return resolved }
                for (index, entry) in entries.enumerated() {
                    resolved[index].contributions = contributions[offset][entry.ordinal] ?? []
                }
                return resolved
            }
            let top = try resolve(found.top[offset])
            var groups = found.groups.isEmpty ? [] : found.groups[offset]
            if let field = request.groupField {
                let names = top.map { $0.metadata?[field]?.text ?? RowGroups.nameOfNone }
                for index in groups.indices { groups[index].topCount = names.count { $0 == groups[index].name } }
            }
            return QueryAnswer(
                identifier: names[place], metadata: metadata, dampingIndex: output / names.count, top: top,
                bottom: try resolve(found.bottom[offset]), groups: groups, totalMagnitude: found.magnitudes[offset],
                distribution: found.histograms.isEmpty ? nil : found.histograms[offset],
                unrankedRange: found.refined[offset].range)
        }
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
        if request.aggregation != .none { metadata["aggregate"] = request.aggregation.rawValue }
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
