import Schema
import Scoring

/// Chooses the plan of a query; a pure function of its arguments.
struct Planner {
    let demand: ScanDemand
    let statistics: ScanStatistics
    let machine: MachineModel
    let processorCount: Int
    /// Threads that were asked for; nil leaves the number to the plan.
    let workers: Int?
    /// Bytes for queries, scores and tiles.
    let memoryBytes: Int

    /// Scored vectors, those of each damping counted.
    private var queryCount: Int { max(1, demand.queryCount) * demand.dampingCount }

    private var form: Plan.Form {
        !demand.method.needsQueries ? .coordinates : (demand.method.needsCurvature ? .folded : .direct)
    }

    /// nil for full queries, which folded ones are.
    private var queryRank: Int? { form == .direct ? demand.queryRank : nil }

    private var schema: StoreSchema { statistics.schema }

    /// The plan; throws if not even one query fits the memory.
    func plan() throws(EngineError) -> Plan {
        let kernel = try kernel()
        let directSegments = directSegments()
        let diskBytes = statistics.segments.reduce(0) { $0 + $1.diskByteCount }
        let segmentBytes = max(1, statistics.segments.reduce(0) { $0 + $1.byteCount })
        let residency: Plan.Residency = diskBytes > segmentBytes / 10 ? .disk : .memory
        // Threads that wait for the disk leave the processors to others.
        let workers = workers ?? (residency == .disk && kernel != .tiles ? 4 * processorCount : processorCount)
        let memory = memory(kernel: kernel, workers: workers, reads: !directSegments.isEmpty)
        let affordable = (memoryBytes - memory.fixed) / max(1, memory.perQuery)
        let queriesPerScan = demand.isOneScan ? queryCount : max(1, min(queryCount, affordable))
        guard affordable >= (demand.isOneScan ? queryCount : 1) else {
            throw .memoryTooSmall(needed: memory.fixed + queriesPerScan * memory.perQuery, given: memoryBytes)
        }
        let scanCount = (queryCount + queriesPerScan - 1) / queriesPerScan

        let vectorBytes = vectorByteCount
        let share = Double(vectorBytes) / Double(segmentBytes)
        let directBytes = directSegments.reduce(0) { $0 + statistics.segments[$1].byteCount }
        // What was read past the page cache must be read again by the next scan.
        let otherDiskBytes = statistics.segments.indices.reduce(0) {
            $0 + (directSegments.contains($1) ? 0 : statistics.segments[$1].diskByteCount)
        }
        let diskRate = directSegments.isEmpty ? machine.cachedDiskBytesPerSecond : machine.directDiskBytesPerSecond
        let cost = cost(kernel: kernel, queryCount: queriesPerScan, workers: min(workers, processorCount))
        let diskSeconds = (Double(directBytes * scanCount + otherDiskBytes) * share) / max(1, diskRate)
        return Plan(
            form: form, kernel: kernel, residency: residency, directSegments: directSegments, layers: demand.layers,
            queryCount: queryCount, dampingCount: demand.dampingCount, rowCount: statistics.rowCount,
            queriesPerScan: queriesPerScan, scanCount: scanCount, workers: workers,
            byteCount: (vectorBytes + statistics.coordinatesByteCount) * scanCount,
            diskByteCount: Int((Double(directBytes * scanCount + otherDiskBytes) * share).rounded()),
            directByteCount: Int((Double(directBytes * scanCount) * share).rounded()),
            flopCount: flopCount(scanCount: scanCount), memoryBytes: memory.fixed + queriesPerScan * memory.perQuery,
            preparationSeconds: cost.preparationSeconds * Double(scanCount),
            scanSeconds: max(cost.scanSeconds * Double(scanCount), diskSeconds),
            limits: Plan.Limits(
                memoryBytesPerSecond: machine.memoryBytesPerSecond, diskBytesPerSecond: diskRate,
                flopsPerSecond: machine.productFlopsPerSecond, isMeasured: machine.machine != nil),
            coordinatesRowCount: statistics.coordinatesRowCount, coordinatesEncoding: statistics.coordinatesEncoding)
    }

    // MARK: Reading

    /// Stored bytes of factors that one scan reads.
    private var vectorByteCount: Int {
        // Self-influence by itself reads no factors of rows that have coordinates.
        let counts = demand.method.needsQueries ? statistics.layerByteCounts : statistics.uncoveredLayerByteCounts
        return demand.layers.reduce(0) { $0 + counts[$1] }
    }

    /// Share of a segment in memory from which on it is read where it is mapped.
    private static let residentShare = 0.5

    /// The segments that are better read past the page cache.
    private func directSegments() -> Set<Int> {
        let segments = statistics.segments
        let cold = segments.indices.filter { index in
            guard let resident = segments[index].residentByteCount else { return false }
            return Double(resident) < Self.residentShare * Double(segments[index].byteCount)
        }
        guard machine.directDiskBytesPerSecond > 0 else { return [] }
        switch demand.readPath {
        case .cache: return []
        case .direct: return Set(cold)
        case .automatic:
            // What the page cache can keep, the next query finds there: worth more than a little speed now.
            let coldBytes = cold.reduce(0) { $0 + segments[$1].byteCount }
            let fits = statistics.availableMemoryByteCount.map { coldBytes < $0 / 2 } ?? true
            let isMuchFaster = machine.directDiskBytesPerSecond > 2 * machine.cachedDiskBytesPerSecond
            return fits && !isMuchFaster ? [] : Set(cold)
        }
    }

    // MARK: Arithmetic

    /// The kernel that was asked for, or else the one that takes the least time of those that can give what is asked.
    private func kernel() throws(EngineError) -> Plan.Kernel {
        let kernels = possibleKernels()
        if let wanted = demand.kernel {
            guard kernels.contains(wanted) else {
                throw .kernelImpossible(wanted.rawValue, possible: kernels.map(\.rawValue))
            }
            return wanted
        }
        let costs = kernels.map { kernel in
            let cost = cost(kernel: kernel, queryCount: queryCount, workers: 1)
            return (kernel: kernel, seconds: cost.preparationSeconds + cost.scanSeconds)
        }
        return costs.min { $0.seconds < $1.seconds }?.kernel ?? .tiles
    }

    private func possibleKernels() -> [Plan.Kernel] {
        let method = demand.method
        guard method.needsQueries, !method.needsRowNorms, !method.needsSelfInfluence else { return [.tiles] }
        var kernels: [Plan.Kernel] = [.tiles]
        let isLowBit = schema.encoding.interleavedRowCount > 1
        let givesEstimates = demand.layers.map {
            PageScorer.givesEstimates(layer: schema.layers[$0], encoding: schema.encoding, queryRank: queryRank)
        }
        // A float kernel of another layer would add errors that no bound covers.
        let isMixed = givesEstimates.contains(true) && givesEstimates.contains(false)
        let isScored = demand.layers.allSatisfy {
            PageScorer.canScore(
                layer: schema.layers[$0], encoding: schema.encoding, queryRank: queryRank,
                allowsEstimates: !demand.wantsAllScores && !isMixed)
        }
        if isScored {
            kernels.append(isLowBit ? .tables : givesEstimates.contains(true) ? .wholeNumbers : .pages)
        }
        let isOfFullRank = (queryRank ?? Int.max) > 2 * Plan.leadingPairCount
        if demand.allowsMeasuredErrors, !demand.wantsAllScores, isOfFullRank,
            demand.layers.allSatisfy({ schema.layers[$0].rank != nil })
        {
            kernels.append(.leadingPairs)
        }
        return kernels
    }

    private func flopCount(scanCount: Int) -> Int {
        var flopsPerRow = 0
        var projectionFlopsPerRow = 0
        for layer in demand.layers {
            let shape = schema.layers[layer]
            if form != .coordinates {
                flopsPerRow += LayerScorer.flopsPerRow(layer: shape, queryCount: queryCount, queryRank: queryRank)
            }
            if demand.method.needsSelfInfluence {
                projectionFlopsPerRow += 2 * (demand.basisRanks[layer] ?? 0) * shape.gradientLength * scanCount
            }
        }
        return flopsPerRow * statistics.rowCount
            + projectionFlopsPerRow * (statistics.rowCount - statistics.coordinatesRowCount)
    }

    /// Seconds of one scan.
    private func cost(
        kernel: Plan.Kernel, queryCount: Int, workers: Int
    ) -> (preparationSeconds: Double, scanSeconds: Double) {
        ScanCost(
            machine: machine, schema: schema, rowCount: statistics.rowCount, layers: demand.layers,
            queryCount: queryCount, queryRank: queryRank, isFolded: form == .folded, basisRanks: demand.basisRanks,
            rankedCount: demand.rankedCount, projectedRowCount: projectedRowCount,
            byteCount: vectorByteCount
        ).seconds(kernel, workers: workers, readsQueries: demand.method.needsQueries)
    }

    /// Rows whose coordinates have to be computed.
    private var projectedRowCount: Int {
        demand.method.needsSelfInfluence ? statistics.rowCount - statistics.coordinatesRowCount : 0
    }

    // MARK: Memory

    /// Bytes that a scan takes whatever the number of queries, and for each query.
    private func memory(kernel: Plan.Kernel, workers: Int, reads: Bool) -> (fixed: Int, perQuery: Int) {
        // Of each worker: one layer's decoded tile, and windows of direct reads: the current one, and one that pages of the one before
        // keep alive.
        let tileNumbers = demand.layers.map { schema.layers[$0].storedNumberCount }.max() ?? 0
        let tileBytes = kernel == .tiles ? 2 * 4 * tileNumbers * statistics.largestBlockRowCount * workers : 0
        let windowBytes = reads ? 2 * statistics.largestWindowByteCount * workers : 0
        let queryNumbers = demand.layers.reduce(0) { sum, layer in
            let shape = schema.layers[layer]
            return sum
                + (queryRank.map { $0 * (shape.inputDimension + shape.outputDimension) } ?? shape.gradientLength)
        }
        // Tables have 32 bytes for every four bits of codes; whole numbers two, with room for filling up columns.
        let tableBytes =
            switch kernel {
            case .tables, .leadingPairs: 8 * schema.encoding.bitsPerNumber * queryNumbers
            case .wholeNumbers: 4 * queryNumbers
            case .tiles, .pages: 0
            }
        // Folding holds the queries twice more in Double for a moment.
        let perQuery =
            (form == .folded ? 20 : 4) * queryNumbers + tableBytes
            + (kernel == .tables || kernel == .wholeNumbers ? 8 : 4) * statistics.largestBlockRowCount * workers
        return (tileBytes + windowBytes, perQuery)
    }
}
