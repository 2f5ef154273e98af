import Checksum
public import Schema
public import Store

/// How much of a store's live rows a curvature was fitted on.
public struct CurvatureCoverage: Sendable, Hashable {
    /// Rows that it was fitted on.
    public let fittedRowCount: Int
    /// Rows that are live now.
    public let liveRowCount: Int
    /// Live rows that the fit saw; at least so many, if the rows were compacted since.
    public let seenRowCount: Int
    /// Whether exactly the rows that it was fitted on are live.
    public let isCurrent: Bool

    /// Rows of the fit that have been deleted since; at most so many, if the rows were compacted since.
    public var deletedRowCount: Int { max(0, fittedRowCount - seenRowCount) }

    /// The share of the live rows that the fit saw, 0 to 1.
    public var seenShare: Double { liveRowCount > 0 ? Double(seenRowCount) / Double(liveRowCount) : 1 }

    /// A sentence about a curvature that is not current; nil for one that is.
    public var warning: String? {
        guard !isCurrent else { return nil }
        let percent = Int((100 * seenShare).rounded(.down))
        return "the curvature was fitted on \(fittedRowCount) rows, the store has \(liveRowCount) now: it has seen "
            + "\(percent) % of them, and \(deletedRowCount) of its rows are gone; 'lorif fit' brings it up to date"
    }
}

/// A fitted curvature of a store, as a list shows it.
public struct CurvatureVersion: Sendable {
    /// How and on what it was fitted; the digest is its id.
    public let record: CurvatureRecord
    /// Whether queries use it unless told otherwise.
    public let isActive: Bool
    /// How much of the live rows it has seen.
    public let coverage: CurvatureCoverage
}

extension Snapshot {
    /// How much of the live rows a curvature has seen. By generations: rows that a compaction moved after the fit count as unseen,
    /// unless nothing else has changed.
    public func coverage(of record: CurvatureRecord) -> CurvatureCoverage {
        let fitted = record.description
        let isCurrent = fitted.fittedRowDigest == rowDigest
        let seen = segments.indices.reduce(0) { sum, index in
            segments[index].addedGeneration <= fitted.fittedGeneration ? sum + liveRowCount(segment: index) : sum
        }
        return CurvatureCoverage(
            fittedRowCount: fitted.fittedRowCount, liveRowCount: rowCount, seenRowCount: isCurrent ? rowCount : seen,
            isCurrent: isCurrent)
    }

    /// All fitted curvatures, the oldest fit first.
    public var curvatureVersions: [CurvatureVersion] {
        curvatures.sorted { ($0.addedGeneration, $0.digest) < ($1.addedGeneration, $1.digest) }
            .map { CurvatureVersion(record: $0, isActive: $0.digest == activeCurvature, coverage: coverage(of: $0)) }
    }

    /// The one curvature whose id begins with `prefix`.
    ///
    /// Throws `EngineError.curvatureUnknown` or `.curvatureAmbiguous`.
    public func curvature(startingWith prefix: String) throws(EngineError) -> CurvatureRecord {
        let matches = curvatures.filter { $0.digest.description.hasPrefix(prefix.lowercased()) }
        guard !prefix.isEmpty, let match = matches.first else {
            throw .curvatureUnknown(id: prefix, known: curvatures.map { $0.digest.description })
        }
        guard matches.count == 1 else {
            throw .curvatureAmbiguous(id: prefix, matches: matches.map { $0.digest.description })
        }
        return match
    }
}

extension Database {
    /// Makes a curvature the one that queries use unless told otherwise.
    public func useCurvature(startingWith prefix: String) throws -> CurvatureVersion {
        try StoreWriter.open(at: path).use(prefix)
    }

    /// Makes a curvature the one that queries use, and writes the coordinates of all rows in it where they are missing.
    ///
    /// `memoryBytes` and `workers` bound the latter. Throws ``CoordinatesUnfinished`` when only that failed.
    public func useCurvature(
        startingWith prefix: String, coordinates encoding: Encoding, memoryBytes: Int, workers: Int,
        control: OperationControl = OperationControl()
    ) throws -> (version: CurvatureVersion, coordinates: CoordinatesReport) {
        let writer = try StoreWriter.open(at: path)
        let snapshot = writer.snapshot()
        guard snapshot.rowCount > 0 else { throw EngineError.storeEmpty(path: path) }
        let record = try snapshot.curvature(startingWith: prefix)
        let groups = try snapshot.readCurvature(record.digest).map {
            CoordinatesPlan.Group(layers: $0.layers, gradientLength: $0.gradientLength, rank: $0.eigenvalues.count)
        }
        let plan = try CoordinatesPlan(groups, of: snapshot, memoryBytes: memoryBytes, workers: workers)
        let version = try writer.use(prefix)
        let report = try writer.writeCoordinates(
            of: record, encoding: encoding, workers: plan.workers, control: control)
        return (version, report)
    }

    /// Removes a curvature; the active one may go too, then no curvature is active.
    public func dropCurvature(startingWith prefix: String) throws -> CurvatureVersion {
        let writer = try StoreWriter.open(at: path)
        let snapshot = writer.snapshot()
        let record = try snapshot.curvature(startingWith: prefix)
        let version = CurvatureVersion(
            record: record, isActive: record.digest == snapshot.activeCurvature, coverage: snapshot.coverage(of: record)
        )
        try writer.removeCurvature(record.digest)
        return version
    }
}

extension StoreWriter {
    /// Makes a curvature the active one.
    fileprivate func use(_ prefix: String) throws -> CurvatureVersion {
        let record = try snapshot().curvature(startingWith: prefix)
        try activateCurvature(record.digest)
        return CurvatureVersion(record: record, isActive: true, coverage: snapshot().coverage(of: record))
    }
}
