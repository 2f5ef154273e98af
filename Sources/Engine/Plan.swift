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

    /// How scores are computed.
    public let form: Form
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
}

/// Chooses the plan of a query; a pure function of its arguments.
enum Planner {
    static func plan(
        method: Method, layers: [Int], queryCount: Int, dampingCount: Int = 1, queryRank: Int?, basisRanks: [Int: Int],
        statistics: ScanStatistics, workers: Int, memoryBytes: Int, isOneScan: Bool = false
    ) -> Plan {
        let schema = statistics.schema
        let queryCount = max(1, queryCount) * dampingCount
        let form: Plan.Form = !method.needsQueries ? .coordinates : (method.needsCurvature ? .folded : .direct)
        let gradientLength = layers.reduce(0) { $0 + schema.layers[$1].gradientLength }

        // Per worker: one layer's decoded tile; shared: the prepared queries and one score block a worker.
        let tileNumbers = layers.map { schema.layers[$0].storedNumberCount }.max() ?? 0
        let tileBytes = 2 * 4 * tileNumbers * statistics.largestBlockRowCount * workers
        let queryNumbers =
            form == .direct
            ? layers.reduce(0) { sum, layer in
                let shape = schema.layers[layer]
                return sum
                    + (queryRank.map { $0 * (shape.inputDimension + shape.outputDimension) } ?? shape.gradientLength)
            } : gradientLength
        // Folding holds the queries twice more in Double for a moment.
        let bytesPerQuery = (form == .folded ? 20 : 4) * queryNumbers + 4 * statistics.largestBlockRowCount * workers
        let available = memoryBytes - tileBytes
        let queriesPerScan =
            isOneScan ? queryCount : max(1, min(queryCount, available / max(1, bytesPerQuery)))
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
                projectionFlopsPerRow += 2 * (basisRanks[layer] ?? 0) * shape.gradientLength * scanCount
            }
        }
        // Self-influence by itself reads no factors of rows that have coordinates.
        let layerByteCounts = method.needsQueries ? statistics.layerByteCounts : statistics.uncoveredLayerByteCounts
        return Plan(
            form: form, layers: layers, queryCount: queryCount, dampingCount: dampingCount,
            rowCount: statistics.rowCount,
            queriesPerScan: queriesPerScan, scanCount: scanCount, workers: workers,
            byteCount: (layers.reduce(0) { $0 + layerByteCounts[$1] } + statistics.coordinatesByteCount) * scanCount,
            flopCount: flopsPerRow * statistics.rowCount
                + projectionFlopsPerRow * (statistics.rowCount - statistics.coordinatesRowCount),
            memoryBytes: tileBytes + queriesPerScan * bytesPerQuery,
            coordinatesRowCount: statistics.coordinatesRowCount, coordinatesEncoding: statistics.coordinatesEncoding)
    }
}
