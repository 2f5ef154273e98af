public import Schema
import Scoring

/// How a query will be answered: what is read, in which form, how often, by how many threads. A plain value; see `Planner`.
public struct Plan: Sendable, Hashable {
    /// How the score is computed from rows and queries.
    public enum Form: String, Sendable {
        /// Queries as given against rows: dot and cosine.
        case direct
        /// (H + λI)⁻¹ folded into full-rank queries, so that only factors are read.
        case folded
        /// Only the rows' own coordinates: self-influence.
        case coordinates
    }

    /// How rows meet queries.
    public enum Kernel: String, Sendable {
        /// Pages are decoded to tiles in f32, which go through matrix products.
        case tiles
        /// Rows are widened and multiplied in registers, where they lie.
        case pages
        /// Low-bit codes are looked up in tables of the queries; rows that the estimates leave open are scored again, exactly.
        case tables
        /// The queries' leading singular pairs alone; rows that could be among the best by the measured error of these
        /// estimates are scored again, exactly.
        case leadingPairs
    }

    /// Singular pairs of a query that `leadingPairs` takes in each layer.
    static let leadingPairCount = 8

    /// Where the rows' pages are before the scan.
    public enum Residency: String, Sendable {
        /// In the page cache, nearly all of them.
        case memory
        /// To be read from disk: more threads than processors keep it busy.
        case disk
    }

    /// How scores are computed.
    public let form: Form
    /// By which kernels.
    public let kernel: Kernel
    /// Where the pages are.
    public let residency: Residency
    /// Store positions of the layers read.
    public let layers: [Int]
    /// Queries in all, those of each damping counted.
    public let queryCount: Int
    /// Dampings that every query is scored with; 1 for methods without.
    public let dampingCount: Int
    /// Rows to score.
    public let rowCount: Int
    /// Queries scored in one scan of the rows, and how many scans that takes.
    public let queriesPerScan: Int
    /// Times that the rows are read.
    public let scanCount: Int
    /// Threads.
    public let workers: Int
    /// Stored bytes of the pages that the scans read.
    public let byteCount: Int
    /// Floating-point operations of the scans.
    public let flopCount: Int
    /// Peak memory of prepared queries, score blocks and tiles.
    public let memoryBytes: Int
    /// Rows whose self-influence comes from stored coordinates; it is computed from the factors of all others. 0 for methods that do
    /// not need it.
    public let coordinatesRowCount: Int
    /// How these are kept; nil if there are none.
    public let coordinatesEncoding: Encoding?
}

/// What the planner knows about the rows.
struct ScanStatistics: Sendable {
    let schema: StoreSchema
    let rowCount: Int
    let largestBlockRowCount: Int
    /// Stored bytes of each layer's pages, by store position.
    let layerByteCounts: [Int]
    /// The same over the segments without coordinates.
    let uncoveredLayerByteCounts: [Int]
    /// Rows with coordinates, and what the files take.
    var coordinatesRowCount = 0
    var coordinatesByteCount = 0
    var coordinatesEncoding: Encoding?
    /// Bytes of the segments, and of these in the page cache; nil if the system cannot say.
    var segmentByteCount = 0
    var residentByteCount: Int?
}

/// What a query asks of the scan.
struct ScanDemand: Sendable {
    let method: Method
    let layers: [Int]
    /// Scored vectors of each damping.
    let queryCount: Int
    let dampingCount: Int
    /// nil for full queries.
    let queryRank: Int?
    /// By layer, for self-influence.
    let basisRanks: [Int: Int]
    /// Whether every score is wanted and not only the best.
    let wantsAllScores: Bool
    /// Whether all queries must be scored in the same scan.
    let isOneScan: Bool
    /// Whether a row may be left out by the measured error of its estimate.
    let allowsMeasuredErrors: Bool
}

/// Chooses the plan of a query; a pure function of its arguments.
enum Planner {
    /// `workers` nil leaves the number of threads to the plan, which knows of `processorCount` processors.
    static func plan(
        _ demand: ScanDemand, statistics: ScanStatistics, workers: Int?, processorCount: Int, memoryBytes: Int
    ) -> Plan {
        let (method, layers, queryRank) = (demand.method, demand.layers, demand.queryRank)
        let schema = statistics.schema
        let queryCount = max(1, demand.queryCount) * demand.dampingCount
        let form: Plan.Form = !method.needsQueries ? .coordinates : (method.needsCurvature ? .folded : .direct)
        let residency: Plan.Residency =
            statistics.residentByteCount.map { $0 < statistics.segmentByteCount / 10 * 9 } ?? false ? .disk : .memory
        let gradientLength = layers.reduce(0) { $0 + schema.layers[$1].gradientLength }

        // Per worker: one layer's decoded tile; shared: the prepared queries and one score block a worker.
        let tileNumbers = layers.map { schema.layers[$0].storedNumberCount }.max() ?? 0
        let queryNumbers =
            form == .direct
            ? layers.reduce(0) { sum, layer in
                let shape = schema.layers[layer]
                return sum
                    + (queryRank.map { $0 * (shape.inputDimension + shape.outputDimension) } ?? shape.gradientLength)
            } : gradientLength
        // Tables have 32 bytes for every four bits of codes.
        let tableBytes = schema.encoding.interleavedRowCount > 1 ? 8 * schema.encoding.bitsPerNumber * queryNumbers : 0
        func kernel(queryCount: Int) -> Plan.Kernel {
            let isInnerProduct = !method.needsRowNorms && !method.needsSelfInfluence
            let isLowBit = schema.encoding.interleavedRowCount > 1
            let isOfFullRank = form == .folded || (queryRank ?? Int.max) > 2 * Plan.leadingPairCount
            if isInnerProduct, demand.allowsMeasuredErrors, !demand.wantsAllScores, isOfFullRank,
                isLowBit || queryCount * Plan.leadingPairCount <= PageScorer.largestPairCount,
                layers.allSatisfy({ schema.layers[$0].rank != nil })
            {
                return .leadingPairs
            }
            let isUseful = layers.allSatisfy {
                PageScorer.isUseful(
                    layer: schema.layers[$0], encoding: schema.encoding, queryCount: queryCount,
                    queryRank: form == .direct ? queryRank : nil, allowsEstimates: !demand.wantsAllScores)
            }
            guard isInnerProduct, isUseful else { return .tiles }
            return isLowBit ? .tables : .pages
        }
        func plan(_ kernel: Plan.Kernel) -> (workers: Int, tileBytes: Int, bytesPerQuery: Int, queriesPerScan: Int) {
            // Threads that wait for the disk leave the processors to others.
            let workers = workers ?? (kernel != .tiles && residency == .disk ? 4 * processorCount : processorCount)
            let tileBytes = kernel == .tiles ? 2 * 4 * tileNumbers * statistics.largestBlockRowCount * workers : 0
            // Folding holds the queries twice more in Double for a moment.
            let bytesPerQuery =
                (form == .folded ? 20 : 4) * queryNumbers
                + (kernel == .tables || kernel == .leadingPairs ? tableBytes : 0)
                + (kernel == .tables ? 8 : 4) * statistics.largestBlockRowCount * workers
            let most = max(1, min(queryCount, (memoryBytes - tileBytes) / max(1, bytesPerQuery)))
            return (workers, tileBytes, bytesPerQuery, demand.isOneScan ? queryCount : most)
        }
        let kernelUsed = kernel(queryCount: queryCount)
        let (workers, tileBytes, bytesPerQuery, queriesPerScan) = plan(kernelUsed)
        let scanCount = (queryCount + queriesPerScan - 1) / queriesPerScan

        var flopsPerRow = 0
        var projectionFlopsPerRow = 0
        for layer in layers {
            let shape = schema.layers[layer]
            if form != .coordinates {
                flopsPerRow += LayerScorer.flopsPerRow(
                    layer: shape, queryCount: queryCount, queryRank: form == .direct ? queryRank : nil)
            }
            if method.needsSelfInfluence {
                projectionFlopsPerRow += 2 * (demand.basisRanks[layer] ?? 0) * shape.gradientLength * scanCount
            }
        }
        // Self-influence by itself reads no factors of rows that have coordinates.
        let layerByteCounts = method.needsQueries ? statistics.layerByteCounts : statistics.uncoveredLayerByteCounts
        return Plan(
            form: form, kernel: kernelUsed, residency: residency, layers: layers, queryCount: queryCount,
            dampingCount: demand.dampingCount, rowCount: statistics.rowCount,
            queriesPerScan: queriesPerScan, scanCount: scanCount, workers: workers,
            byteCount: (layers.reduce(0) { $0 + layerByteCounts[$1] } + statistics.coordinatesByteCount) * scanCount,
            flopCount: flopsPerRow * statistics.rowCount
                + projectionFlopsPerRow * (statistics.rowCount - statistics.coordinatesRowCount),
            memoryBytes: tileBytes + queriesPerScan * bytesPerQuery,
            coordinatesRowCount: statistics.coordinatesRowCount, coordinatesEncoding: statistics.coordinatesEncoding)
    }
}
