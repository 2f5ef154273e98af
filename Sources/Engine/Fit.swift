public import Curvature
import Schema
public import Store

/// Eigenvectors kept per group unless the caller says otherwise.
public let defaultCurvatureRank = 256

/// What a fit did.
public struct FitReport: Sendable {
    /// The stored curvature; its digest is its id.
    public let record: CurvatureRecord
    /// The fitted groups: one per layer, or one for all.
    public let groups: [Group]
    /// Rows it was fitted on.
    public let rowCount: Int

    /// What one group's fit captured.
    public struct Group: Sendable {
        /// The layers of the group.
        public let layerNames: [String]
        /// D.
        public let gradientLength: Int
        /// Eigenpairs kept.
        public let rank: Int
        /// How they were found.
        public let algorithm: FitAlgorithm
        /// tr(H).
        public let trace: Double
        /// Σ of the kept eigenvalues / tr(H).
        public let capturedEnergy: Double
        /// tr(H) / s²_1.
        public let stableRank: Double
        /// s² of the first eigenvector kept.
        public let largestEigenvalue: Double
        /// s² of the last eigenvector kept.
        public let smallestEigenvalue: Double
        /// Passes over the group's rows.
        public let passCount: Int
        /// max |V Vᵀ − I|, and max ‖H v − s² v‖ / s²_1.
        public let orthogonalityError: Double
        /// max ‖H v − s² v‖ / s²_1.
        public let residual: Double

        init(_ group: CurvatureGroup, schema: StoreSchema) {
            layerNames = group.layers.map { schema.layers[$0].name }
            gradientLength = group.gradientLength
            rank = group.rank
            algorithm = group.algorithm
            trace = group.trace
            capturedEnergy = group.capturedEnergy
            stableRank = group.stableRank
            largestEigenvalue = group.eigenvalues.first ?? 0
            smallestEigenvalue = group.eigenvalues.last ?? 0
            passCount = group.passes
            orthogonalityError = group.orthogonalityError
            residual = group.residual
        }
    }
}

/// Fits curvature on all live rows of a store and makes it the active one.
///
/// Holds the store's writer lock for the duration; a killed fit leaves the store as it was.
public func fitCurvature(
    of storePath: String, options: FitOptions, control: OperationControl = OperationControl()
) throws -> FitReport {
    let writer = try StoreWriter.open(at: storePath)
    let snapshot = writer.snapshot()
    let rows = try LiveRows(snapshot)
    guard rows.rowCount > 0 else { throw EngineError.storeEmpty(path: storePath) }
    let schema = snapshot.schema
    let source = RowSource(
        layers: schema.layers, tileRowCounts: rows.blocks.map(\.rowCount),
        read: { tile, layer in
            try control.cancellation.check()
            return try rows.readTile(block: tile, layer: layer)
        })
    let fitted = try fitUnwrapped(source, options: options) { share in
        control.report(
            ProgressUpdate(
                stage: "fit", completedCount: Int(share * 1000), totalCount: 1000, byteCount: 0, unit: .share))
    }
    try control.cancellation.check()

    let trace = fitted.groups.reduce(0) { $0 + $1.trace }
    let captured = fitted.groups.reduce(0) { $0 + $1.eigenvalues.reduce(0, +) }
    let reports = fitted.groups.map { FitReport.Group($0, schema: schema) }
    let digest = try writer.writeCurvature(
        fitted.groups.map(CurvatureGroupData.init),
        description: CurvatureDescription(
            scope: options.scope.rawValue,
            algorithm: Set(reports.map(\.algorithm.rawValue)).sorted().joined(separator: "+"),
            rank: fitted.groups.map(\.rank).max() ?? 0, capturedEnergy: trace > 0 ? min(1, captured / trace) : 1,
            fittedGeneration: snapshot.generation, fittedRowCount: rows.rowCount, fittedRowDigest: snapshot.rowDigest,
            provenance: provenance(of: options)))
    let record = try writer.snapshot().curvature(digest)
    return FitReport(record: record, groups: reports, rowCount: rows.rowCount)
}

/// What explains a fit, as JSON text.
private func provenance(of options: FitOptions) -> String {
    "{\"exact\":\(options.exact),\"rank\":\(options.rank.map(String.init) ?? "null"),\"seed\":\(options.seed)}"
}

/// `fit`, but an error of the rows' source comes out as itself: it says more than that a tile could not be read.
private func fitUnwrapped(
    _ source: RowSource, options: FitOptions, progress: @escaping @Sendable (Double) -> Void
) throws -> FittedCurvature {
    let result = Result { () throws(CurvatureError) in try fit(source, options: options, progress: progress) }
    if case .failure(.unreadable(_, _, let underlying)) = result { throw underlying }
    return try result.get()
}
