import Schema

/// What the planner knows about the rows.
struct ScanStatistics: Sendable {
    let schema: StoreSchema
    let rowCount: Int
    let largestBlockRowCount: Int
    /// Stored bytes of the vectors of the largest block: what pages that are kept for refinement may take.
    var largestWindowByteCount = 0
    /// Stored bytes of each layer's pages, by store position.
    let layerByteCounts: [Int]
    /// The same over the segments without coordinates.
    let uncoveredLayerByteCounts: [Int]
    /// Rows with coordinates, and what the files take.
    var coordinatesRowCount = 0
    var coordinatesByteCount = 0
    var coordinatesEncoding: Encoding?
    /// By position in the store.
    var segments: [SegmentPlace] = []
    /// Bytes of memory that the page cache may grow into; nil if the system cannot say.
    var availableMemoryByteCount: Int?

    /// How much of a segment is where.
    struct SegmentPlace: Sendable {
        let byteCount: Int
        /// In the page cache; nil if the system cannot say.
        let residentByteCount: Int?

        /// What would have to come from disk.
        var diskByteCount: Int { residentByteCount.map { max(0, byteCount - $0) } ?? 0 }
    }
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
    /// Rows that are ranked for each query.
    let rankedCount: Int
    /// The kernel that was asked for.
    var kernel: Plan.Kernel?
    /// How to read what is not in memory.
    var readPath = ReadPath.automatic
}
