public import Curvature
import Files
import Schema

/// How long a scan of an estimated store takes on a machine, by the model that queries are planned with.
public struct ScanEstimate: Sendable {
    /// Seconds to scan all rows, beside those of preparing.
    public let scanSeconds: Double
    /// Seconds to prepare the queries.
    public let preparationSeconds: Double
    /// Bytes for queries, scores and tiles.
    public let memoryBytes: Int
    /// Whether the store is too large to stay in memory, so that every scan reads the disk.
    public let isFromDisk: Bool
}

/// How long a fit of an estimated store takes on a machine.
public struct FitEstimate: Sendable {
    /// Algorithms, passes, operations, memory.
    public let plan: FitPlan
    /// Stored bytes that all passes read.
    public let byteCount: Int
    /// Seconds: of operations and of reading.
    public let seconds: Double
}

extension StorageEstimate {
    /// Influence scores of so many full-rank queries at once, ten examples of each ranked.
    ///
    /// Throws `.memoryTooSmall` where not even one fits into `memoryBytes`.
    public func scan(
        queryCount: Int, curvatureRank: Int, machine: MachineModel, memoryBytes: Int = 2 << 30,
        processorCount: Int = availableProcessorCount()
    ) throws -> ScanEstimate {
        let products = schema.layers.reduce(0.0) { $0 + Double($1.rank ?? 1) * Double($1.gradientLength) }
        try checkSize(products * Double(exampleCount) * Double(queryCount), "products of queries and examples")
        let rows = min(schema.rowsPerBlock, exampleCount)
        let layerBytes = layerBytesPerExample.map { Int($0 * Double(exampleCount)) }
        let vectorBytes = layerBytes.reduce(0, +)
        let available = availableMemoryByteCount()
        let isFromDisk = available.map { vectorBytes > $0 } ?? false
        let statistics = ScanStatistics(
            schema: schema, rowCount: exampleCount, largestBlockRowCount: rows,
            largestWindowByteCount: Int(layerBytesPerExample.reduce(0, +) * Double(rows)),
            layerByteCounts: layerBytes, uncoveredLayerByteCounts: layerBytes,
            segments: [
                ScanStatistics.SegmentPlace(
                    byteCount: vectorBytes, residentByteCount: isFromDisk ? 0 : vectorBytes)
            ], availableMemoryByteCount: available)
        let layers = Array(schema.layers.indices)
        let ranks = schema.layers.map { min(curvatureRank, $0.gradientLength, exampleCount) }
        let demand = ScanDemand(
            method: .influence, layers: layers, queryCount: queryCount, dampingCount: 1, queryRank: nil,
            basisRanks: Dictionary(uniqueKeysWithValues: zip(layers, ranks)), wantsAllScores: false, isOneScan: false,
            allowsMeasuredErrors: false, rankedCount: 10)
        let plan = try Planner(
            demand: demand, statistics: statistics, machine: machine, processorCount: processorCount, workers: nil,
            memoryBytes: memoryBytes
        ).plan()
        return ScanEstimate(
            scanSeconds: plan.scanSeconds, preparationSeconds: plan.preparationSeconds, memoryBytes: plan.memoryBytes,
            isFromDisk: isFromDisk)
    }

    /// Part of the rate of matrix products that fits reach, eigenproblems and reading included (Tools/bench/results/fit.md).
    private static let fitProductShare = 0.75

    /// A fit of all examples.
    ///
    /// Throws ``CurvatureError/insufficientMemory`` where no algorithm fits into the options' memory.
    public func fit(options: FitOptions, machine: MachineModel) throws(CurvatureError) -> FitEstimate {
        let plan = try planFit(
            layers: schema.layers, rowCount: exampleCount,
            largestTileRowCount: min(schema.rowsPerBlock, exampleCount), options: options)
        let layerBytes = layerBytesPerExample.map { $0 * Double(exampleCount) }
        let bytes = plan.groups.reduce(0.0) { sum, group in
            sum + group.layers.reduce(0.0) { $0 + layerBytes[$1] } * Double(group.passes)
        }
        let isFromDisk = availableMemoryByteCount().map { layerBytes.reduce(0, +) > Double($0) } ?? false
        let rate = isFromDisk ? machine.cachedDiskBytesPerSecond : machine.memoryBytesPerSecond
        return FitEstimate(
            plan: plan, byteCount: Int(bytes),
            seconds: plan.operationCount / (Self.fitProductShare * machine.productFlopsPerSecond) + bytes / rate)
    }
}
