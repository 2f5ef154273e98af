import LinearAlgebra
import Schema
import Scoring

/// What turns query gradients into the form that a scan scores.
struct ScanPreparation: Sendable {
    let method: Method
    let schema: StoreSchema
    /// Store positions of the layers scored, ascending.
    let layers: [Int]
    /// nil for self-influence.
    let queries: QueryGradients?
    /// Queries that are summed into one before the scan, and whether to their mean; nil: every query by itself.
    let folding: (groups: QueryGroups, isMean: Bool)?
    /// The damped groups of every damping.
    let groups: [[DampedGroup]]
    /// tr(H_l) by layer of the store, for methods that divide by it.
    let scales: [Double]?
    let curvatureIsCurrent: Bool
    let workers: Int
    /// Gradients that are read at once where queries are summed.
    let queriesAtOnce: Int
    /// Whether rows are scored in their pages, and whether by estimates.
    let kernel: Plan.Kernel
    /// Whether single rows will be scored layer by layer afterwards.
    let wantsContributions: Bool

    /// Scored vectors of each damping.
    private var vectorCount: Int { folding?.groups.names.count ?? queries?.count ?? 1 }

    /// A range of scored vectors, which count through all dampings, cut by damping.
    private func pieces(of range: Range<Int>) -> [(damping: Int, vectors: Range<Int>)] {
        let count = vectorCount
        return groups.indices.compactMap { damping in
            let part = range.clamped(to: (damping * count)..<((damping + 1) * count))
            guard !part.isEmpty else { return nil }
            return (damping, (part.lowerBound - damping * count)..<(part.upperBound - damping * count))
        }
    }

    /// Reads some of the queries and puts them into the form that is scored.
    func prepare(_ range: Range<Int>) throws -> PreparedScan {
        let weights = layers.map { layer in scales.map { $0[layer] > 0 ? 1 / $0[layer] : 0 } ?? 1 }
        var forms: [QueryForm] = []
        var queryNorms: [Double] = []
        if let queries {
            if !groups[0].isEmpty {
                (forms, queryNorms) = try preconditioned(queries, range)
            } else {
                (forms, queryNorms) = try direct(queries, range, weights: weights)
            }
        }
        let shapes = layers.map { schema.layers[$0] }
        var pageScan: PageScan?
        if kernel != .tiles {
            // One layer a worker: rounding the entries of tables and finding singular pairs takes longer than a scan of few rows.
            let prepared = forms
            pageScan = PageScan(
                layers: layers,
                scorers: try parallelMap(count: shapes.count, workers: workers) { position throws(LinearAlgebraError) in
                    let (layer, form) = (shapes[position], prepared[position])
                    if kernel == .leadingPairs { return try leadingPairs(layer, form, queryCount: range.count) }
                    return PageScorer(
                        layer: layer, encoding: schema.encoding, queryCount: range.count, form: form)
                }, refiner: kernel == .pages ? nil : RowRefiner(layers: shapes, forms: forms), queryCount: range.count)
        }
        let scorers =
            pageScan == nil || wantsContributions
            ? zip(shapes, forms).map { LayerScorer(layer: $0, queryCount: range.count, form: $1) } : []
        let pieces = pieces(of: range)
        return PreparedScan(
            method: method, queryCount: range.count, layers: layers, scorers: scorers, pageScan: pageScan,
            weights: weights,
            queryNorms: queryNorms, groups: method.needsSelfInfluence ? pieces.map { groups[$0.damping] } : [],
            dampingOfQuery: pieces.enumerated().flatMap { place, piece in piece.vectors.map { _ in place } },
            curvatureIsCurrent: curvatureIsCurrent)
    }

    /// The leading singular pairs of every query at one layer.
    private func leadingPairs(
        _ layer: LayerSchema, _ form: QueryForm, queryCount: Int
    ) throws(LinearAlgebraError) -> PageScorer {
        let (d1, d2) = (layer.inputDimension, layer.outputDimension)
        let pairCount = min(Plan.leadingPairCount, d1, d2)
        let pairs = try truncatedFactors(
            of: form.expanded(layer: layer, queryCount: queryCount).span, count: queryCount, d1: d1, d2: d2,
            rank: pairCount, isEstimate: true, workers: max(1, workers / layers.count))
        return PageScorer(
            layer: layer, encoding: schema.encoding, queryCount: queryCount, pairCount: pairCount,
            left: queryMajor(pairs.left, queryCount: queryCount, rank: pairCount, length: d1),
            right: queryMajor(pairs.right, queryCount: queryCount, rank: pairCount, length: d2))
    }

    /// The curvature folded into full-rank queries: P = (H + λI)⁻¹ q.
    private func preconditioned(
        _ queries: QueryGradients, _ range: Range<Int>
    ) throws -> (forms: [QueryForm], norms: [Double]) {
        var folded: [Int: [Float]] = [:]
        var squared = [Double](repeating: 0, count: method == .influenceCosine ? range.count : 0)
        // Rows have nothing outside the span of the fitted ones, but a query has, and it counts in the query's norm.
        let meetsFittedRowsOnly = curvatureIsCurrent && method != .influenceCosine
        var first = 0
        for (damping, part) in pieces(of: range) {
            for group in groups[damping] {
                let gradients = try group.layers.map { try full(queries, layer: $0, vectors: part) }
                let preconditioned = try group.precondition(
                    gradients, queryCount: part.count, forFittedRows: meetsFittedRowsOnly, workers: workers)
                for (position, layer) in group.layers.enumerated() {
                    folded[layer, default: []].append(contentsOf: preconditioned[position])
                    guard method == .influenceCosine else { continue }
                    let length = schema.layers[layer].gradientLength
                    for query in 0..<part.count {
                        for index in query * length..<(query + 1) * length {
                            squared[first + query] +=
                                Double(gradients[position][index]) * Double(preconditioned[position][index])
                        }
                    }
                }
            }
            first += part.count
        }
        let forms = layers.map { layer -> QueryForm in
            guard let values = folded[layer] else { preconditionFailure("layer \(layer) is in no curvature group") }
            return .full(values)
        }
        return (forms, squared.map { $0.squareRoot() })
    }

    /// Gradients of some scored vectors at one layer, as full matrices.
    private func full(_ queries: QueryGradients, layer: Int, vectors: Range<Int>) throws -> [Float] {
        guard let folding else { return try queries.readFull(layer: layer, queries: vectors) }
        return try vectors.flatMap { vector in
            let members = folding.groups.members[vector]
            return try queries.readSum(
                layer: layer, queries: members,
                weights: members.map { _ in folding.isMean ? 1 / Double(members.count) : 1 }, atMost: queriesAtOnce)
        }
    }

    /// Gradients as given, times the layers' weights; those that are summed are divided by their norms first where the method does.
    private func direct(
        _ queries: QueryGradients, _ range: Range<Int>, weights: [Double]
    ) throws -> (forms: [QueryForm], norms: [Double]) {
        guard let folding else {
            let forms = try zip(layers, weights).map { layer, weight in
                try queries.readForm(layer: layer, queries: range, weight: weight)
            }
            return (forms, method.needsQueryNorms ? try norms(queries, range, weights: weights) : [])
        }
        let members = folding.groups.members[range]
        let shares = try members.map { members -> [Double] in
            let divisor = folding.isMean ? Double(members.count) : 1
            guard method.needsQueryNorms else { return members.map { _ in 1 / divisor } }
            return try members.map { query in
                let norm = try norms(queries, query..<query + 1, weights: weights)[0]
                return norm > 0 ? 1 / (norm * divisor) : 0
            }
        }
        let forms = try zip(layers, weights).map { layer, weight -> QueryForm in
            let sums = try zip(members, shares).flatMap { members, shares in
                try queries.readSum(
                    layer: layer, queries: members, weights: shares.map { $0 * weight }, atMost: queriesAtOnce)
            }
            return .full(sums)
        }
        return (forms, method.needsQueryNorms ? [Double](repeating: 1, count: range.count) : [])
    }

    /// ‖g_q‖ in the weighted inner product.
    private func norms(_ queries: QueryGradients, _ range: Range<Int>, weights: [Double]) throws -> [Double] {
        var squared = [Double](repeating: 0, count: range.count)
        for (layer, weight) in zip(layers, weights) {
            for (query, value) in try queries.squaredNorms(layer: layer, queries: range).enumerated() {
                squared[query] += weight * value
            }
        }
        return squared.map { $0.squareRoot() }
    }
}
