import Schema

/// What one scan costs by a machine's model: sums of units of work (see `Work`).
struct ScanCost {
    let machine: MachineModel
    let schema: StoreSchema
    let rowCount: Int
    let layers: [Int]
    let queryCount: Int
    /// nil for full queries.
    let queryRank: Int?
    let isFolded: Bool
    /// By layer: the rank of the basis that queries are folded with, or rows projected on.
    let basisRanks: [Int: Int]
    let rankedCount: Int
    /// Rows whose coordinates are computed from their factors.
    let projectedRowCount: Int
    /// Stored bytes that a scan reads.
    let byteCount: Int

    private struct Sum {
        var preparation = 0.0
        var scan = 0.0
    }

    /// Starting threads and meeting every page for the first time.
    private static let startSeconds = 1e-3
    /// Rows that are scored again for each ranked one: the first block's best, and those that later blocks leave open.
    private static let refinedRowsPerRanked = 9.0

    /// Seconds of preparing and of scanning from memory, with so many processors at work.
    func seconds(
        _ kernel: Plan.Kernel, workers: Int, readsQueries: Bool
    ) -> (preparationSeconds: Double, scanSeconds: Double) {
        var sum = Sum()
        var operations = 0.0
        for index in layers {
            let layer = schema.layers[index]
            let rank = Double(basisRanks[index] ?? 0)
            let length = Double(layer.gradientLength)
            if isFolded {
                // Coordinates and their return, on all threads; few queries wait for the basis to come from memory.
                sum.preparation +=
                    Double(workers)
                    * max(
                        4 * rank * length * Double(queryCount) / machine.productFlopsPerSecond,
                        8 * rank * length / machine.memoryBytesPerSecond)
            }
            if projectedRowCount > 0 { operations += 2 * rank * length * Double(projectedRowCount) }
            guard readsQueries else { continue }
            switch kernel {
            case .tiles: addTiles(layer, to: &sum)
            case .pages, .wholeNumbers, .tables: addPages(layer, to: &sum)
            case .leadingPairs: addLeadingPairs(layer, to: &sum)
            }
            if kernel != .tiles && kernel != .pages { addRefinement(layer, kernel, to: &sum) }
        }
        sum.scan += machine.seconds(.ranking, units: Double(rowCount * queryCount))
        sum.scan += machine.seconds(.mapping, units: Double(byteCount))
        let threads = Double(max(1, workers))
        return (
            sum.preparation / threads,
            Self.startSeconds + sum.scan / threads + operations / machine.productFlopsPerSecond
        )
    }

    private func numbers(_ layer: LayerSchema) -> Double {
        layer.rank.map { Double($0 * (layer.inputDimension + layer.outputDimension)) } ?? Double(layer.gradientLength)
    }

    /// c · d1 · d2.
    private func products(_ layer: LayerSchema) -> Double { Double((layer.rank ?? 1) * layer.gradientLength) }

    private func addTiles(_ layer: LayerSchema, to sum: inout Sum) {
        let rows = Double(rowCount)
        sum.scan += machine.seconds(.decoding(schema.encoding), units: rows * numbers(layer))
        guard layer.rank != nil else {
            sum.scan += machine.seconds(.denseProducts, units: rows * products(layer), count: queryCount)
            return
        }
        let contraction = machine.seconds(.contractionProducts, units: rows * products(layer), count: queryCount)
        let size = rows * Double(layer.gradientLength)
        let reconstruction =
            machine.seconds(.reconstructionProducts, units: size, count: queryCount)
            + machine.seconds(.furtherComponents, units: Double((layer.rank ?? 1) - 1) * size)
        let pairs = queryRank.map {
            machine.seconds(.pairProducts, units: rows * numbers(layer), count: queryCount * $0)
        }
        sum.scan += min(contraction, reconstruction, pairs ?? contraction)
    }

    private func addPages(_ layer: LayerSchema, to sum: inout Sum) {
        let rows = Double(rowCount)
        let encoding = schema.encoding
        let isLowBit = encoding.interleavedRowCount > 1
        guard layer.rank != nil else {
            sum.scan += machine.seconds(.dense(encoding), units: rows * products(layer), count: queryCount)
            let units = Double(queryCount * layer.gradientLength)
            if isLowBit { sum.preparation += machine.seconds(.denseTables(encoding), units: units) }
            return
        }
        if let queryRank, !isLowBit || 2 * queryRank < min(layer.inputDimension, layer.outputDimension) {
            let pairCount = queryCount * queryRank
            sum.scan +=
                machine.seconds(.pairs(encoding), units: rows * numbers(layer), count: pairCount)
                + machine.seconds(.pairRows(encoding), units: rows * Double(layer.rank ?? 1), count: pairCount)
            let units = Double(pairCount * (layer.inputDimension + layer.outputDimension))
            if isLowBit { sum.preparation += machine.seconds(.pairTables(encoding), units: units) }
            return
        }
        sum.scan += machine.seconds(.contraction(encoding), units: rows * products(layer), count: queryCount)
        sum.preparation += machine.seconds(
            .contractionTables(encoding), units: Double(queryCount * layer.gradientLength))
    }

    private func addLeadingPairs(_ layer: LayerSchema, to sum: inout Sum) {
        let pairCount = queryCount * Plan.leadingPairCount
        let rows = Double(rowCount)
        sum.scan +=
            machine.seconds(.leadingPairs(schema.encoding), units: rows * numbers(layer), count: pairCount)
            + machine.seconds(
                .leadingPairRows(schema.encoding), units: rows * Double(layer.rank ?? 1), count: pairCount)
        sum.preparation += machine.seconds(.singularPairs, units: Double(queryCount * layer.gradientLength))
        guard schema.encoding.interleavedRowCount > 1 else { return }
        sum.preparation += machine.seconds(
            .pairTables(schema.encoding), units: Double(pairCount * (layer.inputDimension + layer.outputDimension)))
    }

    private func addRefinement(_ layer: LayerSchema, _ kernel: Plan.Kernel, to sum: inout Sum) {
        let work = queryRank.map { Double($0) * numbers(layer) } ?? products(layer)
        let rows = Self.refinedRowsPerRanked * Double(rankedCount)
        sum.scan += machine.seconds(.refinement, units: min(rows, Double(rowCount)) * Double(queryCount) * work)
        guard kernel == .leadingPairs else { return }
        let sampled = min(PageScan.sampledScores(queryCount: queryCount), rowCount * queryCount)
        // Before the scan, one block a thread.
        sum.scan += machine.seconds(.refinement, units: Double(sampled) * work)
    }
}
