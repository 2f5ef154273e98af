import Checksum
public import Curvature
import LinearAlgebra
public import Schema
public import Store
import Synchronization

/// Eigenvectors kept per group unless the caller says otherwise.
public let defaultCurvatureRank = 256

/// What a fit did.
public struct FitReport: Sendable {
    /// The stored curvature; its digest is its id.
    public let record: CurvatureRecord
    /// The fitted groups: one per layer, or one for all.
    public let groups: [FittedGroup]
    /// Rows it was fitted on.
    public let rowCount: Int
    /// Whether the very same fit was in the store before, so that nothing was computed.
    public let existed: Bool
    /// Groups taken over from an interrupted fit.
    public let resumedGroupCount: Int
    /// What was planned; nil if the fit existed.
    public let outlook: FitOutlook?
    /// Stored bytes that were read.
    public let byteCount: Int
    /// Time and operations of all groups: elapsed seconds of each, divided by how many were fitted at a time.
    public let effort: FitEffort
    /// What of that went into reading and products, which grow with the number of rows; the rest is the eigenproblem.
    public let passEffort: FitEffort
    /// Processor time of the process so far.
    public let processorSeconds: Double
    /// Largest resident memory of the process so far, if the system tells.
    public let peakMemoryBytes: Int?
    /// What the reader of the report should know.
    public let warnings: [String]
    /// What was done about coordinates, if they were asked for.
    public fileprivate(set) var coordinates: CoordinatesReport?
}

extension Database {
    /// Fits curvature on all live rows of a store and makes it the active one.
    ///
    /// A fit of the same rows with the same options is not repeated. Finished groups are kept in the store's tmp/ until the curvature
    /// is whole, so that the same fit, started again after an interruption, computes the missing ones only.
    /// Holds the store's writer lock for the duration; an interrupted fit leaves the store as it was, but for those parts.
    ///
    /// With `coordinates` a last pass keeps every row's coordinates in that encoding; also for a fit that the store has already, then
    /// only where they are missing, damaged or kept in another encoding.
    public func fit(
        options: FitOptions, coordinates: Encoding? = nil,
        control: OperationControl = OperationControl()
    ) throws -> FitReport {
        let writer = try StoreWriter.open(at: path)
        let session = try FitSession(
            writer.snapshot(), storePath: path, options: options, coordinates: coordinates)
        var report = try runFit(writer, session: session, control: control)
        if let coordinates, let plan = session.outlook.coordinates {
            report.coordinates = try writer.writeCoordinates(
                of: report.record, encoding: coordinates, workers: plan.workers, control: control)
        }
        return report
    }
}

private func runFit(_ writer: StoreWriter, session: FitSession, control: OperationControl) throws -> FitReport {
    if let record = session.existing {
        if writer.snapshot().activeCurvature != record.digest { try writer.activateCurvature(record.digest) }
        let groups = try writer.snapshot().readCurvature(record.digest)
        return session.report(record, groups: groups, existed: true)
    }
    let parts = writer.fitParts
    let keys = session.keys
    let fitted = try session.fitGroups(keys: keys, parts: parts, control: control)
    try control.cancellation.check()

    let groups = fitted.map(\.group)
    let trace = groups.reduce(0) { $0 + $1.trace }
    let captured = groups.reduce(0) { $0 + $1.eigenvalues.reduce(0, +) }
    let digest = try writer.writeCurvature(
        groups,
        description: CurvatureDescription(
            scope: session.options.scope.rawValue,
            algorithm: Set(groups.map(\.details.algorithm)).sorted().joined(separator: "+"),
            rank: groups.map(\.eigenvalues.count).max() ?? 0, capturedEnergy: trace > 0 ? min(1, captured / trace) : 1,
            fittedGeneration: session.snapshot.generation, fittedRowCount: session.rows.rowCount,
            fittedRowDigest: session.snapshot.rowDigest, provenance: session.provenance))
    parts.remove(keys)
    return session.report(
        try writer.snapshot().curvature(digest), groups: groups, existed: false,
        resumedCount: fitted.filter(\.isResumed).count,
        effort: fitted.reduce(FitEffort()) { $0 + $1.effort },
        passEffort: fitted.reduce(FitEffort()) { $0 + $1.passEffort })
}

extension Database {
    /// What a fit would do, without doing it.
    public func planFit(
        options: FitOptions, coordinates: Encoding? = nil
    ) throws -> FitOutlook {
        let session = try FitSession(
            try Snapshot.open(at: path), storePath: path, options: options, coordinates: coordinates)
        return session.outlook
    }
}

/// One fit of one snapshot: planned, keyed by content.
private struct FitSession: Sendable {
    let snapshot: Snapshot
    let rows: LiveRows
    let options: FitOptions
    let outlook: FitOutlook
    /// Stored bytes of each layer's pages.
    let layerByteCounts: [Int]

    var plan: FitPlan { outlook.plan }
    var existing: CurvatureRecord? { outlook.existing }

    /// A group as the store keeps it.
    struct Part: Sendable {
        let group: CurvatureGroupData
        let isResumed: Bool
        var effort = FitEffort()
        var passEffort = FitEffort()
    }

    init(_ snapshot: Snapshot, storePath: String, options: FitOptions, coordinates: Encoding?) throws {
        let rows = try LiveRows(snapshot)
        guard rows.rowCount > 0 else { throw EngineError.storeEmpty(path: storePath) }
        let plan = try planFit(
            layers: snapshot.schema.layers, rowCount: rows.rowCount,
            largestTileRowCount: rows.blocks.map(\.rowCount).max() ?? 0, options: options)
        let provenance = Self.provenance(of: options, plan: plan)
        let byteCounts = try rows.statistics().layerByteCounts
        self.snapshot = snapshot
        self.rows = rows
        self.options = options
        layerByteCounts = byteCounts
        outlook = FitOutlook(
            plan: plan, rowCount: rows.rowCount,
            groups: plan.groups.map { group in
                FitOutlook.Group(
                    layerNames: group.layers.map { snapshot.schema.layers[$0].name }, plan: group,
                    byteCount: group.layers.reduce(0) { $0 + byteCounts[$1] } * group.passes)
            },
            existing: snapshot.curvatures.first {
                $0.description.fittedRowDigest == snapshot.rowDigest && $0.description.provenance == provenance
                    && $0.description.scope == options.scope.rawValue
            },
            coordinates: try coordinates.map { _ in
                let groups = plan.groups.map {
                    CoordinatesPlan.Group(layers: $0.layers, gradientLength: $0.gradientLength, rank: $0.rank)
                }
                return try CoordinatesPlan(
                    groups, of: snapshot, memoryBytes: options.memoryBytes, workers: options.workers)
            })
    }

    var provenance: String { Self.provenance(of: options, plan: plan) }

    /// What explains a fit, and what a fit depends on besides the rows and the scope, as JSON text.
    private static func provenance(of options: FitOptions, plan: FitPlan) -> String {
        let algorithms = Set(plan.groups.map { "\"\($0.algorithm.rawValue)/\($0.arithmetic.rawValue)\"" }).sorted()
        var text = "{\"algorithms\":[\(algorithms.joined(separator: ","))],\"exact\":\(options.exact)"
        if plan.groups.contains(where: { $0.algorithm == .krylov }) { text += ",\"passes\":\(options.passes)" }
        return text + ",\"rank\":\(options.rank.map(String.init) ?? "null"),\"seed\":\(options.seed)}"
    }

    /// The content address of each group's fit: everything that its eigenpairs depend on besides the rows.
    var keys: [Digest] {
        plan.groups.map { group in
            let words: [String] = [
                "1", "\(group.layers)", "\(group.rank)", "\(options.exact)", "\(options.seed)",
                group.algorithm.rawValue, group.arithmetic.rawValue, group.solver.rawValue, "\(group.blockRows)",
                "\(group.basisRows)", "\(group.algorithm == .krylov ? group.passes : 0)",
            ]
            return Digest(of: Array(words.joined(separator: "|").utf8))
        }
    }

    func fitGroups(keys: [Digest], parts: FitParts, control: OperationControl) throws -> [Part] {
        let rows = rows
        let source = RowSource(
            layers: snapshot.schema.layers, tileRowCounts: rows.blocks.map(\.rowCount),
            read: { tile, layer in
                try control.cancellation.check()
                return try rows.readTile(block: tile, layer: layer)
            })
        let progress = SharedProgress(
            weights: plan.groups.map(\.operationCount), byteCount: outlook.byteCount, control: control)
        var groupOptions = options
        groupOptions.workers = plan.workersPerGroup
        let (plan, options) = (plan, groupOptions)
        return try parallelMap(count: plan.groups.count, workers: plan.concurrentGroups) { index in
            try control.cancellation.check()
            if let kept = parts.read(keys[index]) {
                progress.set(index, share: 1)
                return Part(group: kept, isResumed: true)
            }
            let group = try fitUnwrapped(source, plan: plan.groups[index], options: options) { share in
                progress.set(index, share: share)
            }
            let data = CurvatureGroupData(group)
            // A fit of one group has nothing to go on with: the next thing is the whole file.
            if plan.groups.count > 1 { try parts.write(data, key: keys[index], scope: options.scope.rawValue) }
            return Part(group: data, isResumed: false, effort: group.effort, passEffort: group.passEffort)
        }
    }

    func report(
        _ record: CurvatureRecord, groups: [CurvatureGroupData], existed: Bool, resumedCount: Int = 0,
        effort: FitEffort = FitEffort(), passEffort: FitEffort = FitEffort()
    ) -> FitReport {
        let fitted = groups.map { FittedGroup($0, schema: snapshot.schema) }
        let bytes = groups.reduce(0) { sum, group in
            sum + group.layers.reduce(0) { $0 + layerByteCounts[$1] } * group.details.passCount
        }
        return FitReport(
            record: record, groups: fitted, rowCount: rows.rowCount, existed: existed, resumedGroupCount: resumedCount,
            outlook: existed ? nil : outlook, byteCount: existed ? 0 : bytes,
            effort: effort.shared(among: plan.concurrentGroups),
            passEffort: passEffort.shared(among: plan.concurrentGroups),
            processorSeconds: processorSeconds(), peakMemoryBytes: peakResidentBytes(),
            warnings: fitWarnings(fitted, rowCount: rows.rowCount, exact: options.exact, rank: options.rank))
    }
}

/// The progress of several groups at a time as that of the whole.
private final class SharedProgress: Sendable {
    private let weights: [Double]
    /// To be read in all.
    private let byteCount: Int
    private let control: OperationControl
    private let shares: Mutex<[Double]>

    init(weights: [Double], byteCount: Int, control: OperationControl) {
        self.byteCount = byteCount
        self.weights = weights.map { max(1, $0) }
        self.control = control
        shares = Mutex([Double](repeating: 0, count: weights.count))
    }

    func set(_ index: Int, share: Double) {
        shares.withLock { shares in
            shares[index] = max(shares[index], share)
            let done = zip(shares, weights).reduce(0) { $0 + $1.0 * $1.1 } / weights.reduce(0, +)
            control.report(
                ProgressUpdate(
                    stage: "fit", completedCount: Int(done * 1000), totalCount: 1000,
                    byteCount: Int(done * Double(byteCount)), unit: .share))
        }
    }
}

/// `fitGroup`, but an error of the rows' source comes out as itself: it says more than that a tile could not be read.
private func fitUnwrapped(
    _ source: RowSource, plan: GroupPlan, options: FitOptions, progress: @escaping @Sendable (Double) -> Void
) throws -> CurvatureGroup {
    let result = Result { () throws(CurvatureError) in
        try fitGroup(source, plan: plan, options: options, progress: progress)
    }
    if case .failure(.unreadable(_, _, let underlying)) = result { throw underlying }
    return try result.get()
}
