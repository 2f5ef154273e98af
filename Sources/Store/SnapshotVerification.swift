import Files
import Schema

/// How thorough a verification is; each level includes those before.
public enum VerificationLevel: Sendable, CaseIterable {
    /// The catalog, and each file's length, footer and digest: as much as opening reads.
    case quick
    /// Every byte of every file; ids, index and norms decoded and compared with each other.
    case full
    /// Every row decoded, norms recomputed, ids unique in the whole store, eigenvectors and coordinates sampled.
    case deep
}

/// What a verification of a whole store found.
public struct VerificationReport: Sendable {
    /// Everything that is not as it was written, file by file.
    public let damages: [StoreError]
    /// Files that the catalog does not name: left by a crash, or being written just now. The next writer removes them.
    public let orphans: [String]
    /// What lies in the store's directory without being part of any store. Nobody removes it.
    public let strays: [String]
    /// Bytes read.
    public let byteCount: Int

    /// Whether nothing is damaged; orphans do no harm.
    public var isSound: Bool { damages.isEmpty }
}

extension Snapshot {
    /// Bytes that `verify` reads at this level: for a progress bar.
    public func verifiedByteCount(level: VerificationLevel) -> Int {
        let once = views.reduce(0) { sum, view in
            sum + view.segments.reduce(0) { $0 + $1.identity.fileLength }
                + view.curvatures.reduce(0) { $0 + $1.identity.fileLength }
        }
        let coordinates = coordinatesByteCount
        guard level == .deep else { return once + coordinates }
        return once + coordinates + segments.reduce(0) { $0 + $1.identity.fileLength }
            + curvatures.reduce(0) { $0 + $1.identity.fileLength }
    }

    /// Checks the basis and every segment, curvature and coordinates file, also those of named snapshots (the catalog was checked when the snapshot
    /// was opened).
    ///
    /// `progress` gets the bytes read since the last call; false stops. Goes on after a damage; the report has them all.
    public func verify(
        level: VerificationLevel = .full, progress: (Int) -> Bool = { _ in true }
    ) -> VerificationReport {
        var byteCount = 0
        var goesOn = true
        func advance(_ count: Int) -> Bool {
            byteCount += count
            goesOn = goesOn && progress(count)
            return goesOn
        }
        var damages = basisDamages(progress: advance)
        for view in views {
            for index in view.segments.indices where goesOn {
                // A reader of its own: an open one has read its footer before.
                switch Result(catching: { () throws(StoreError) in try view.newReader(index) }) {
                case .failure(let error): damages.append(error)
                case .success(let reader) where level == .quick:
                    do throws(StoreError) { try reader.file.verifyEnds() } catch { damages.append(error) }
                    _ = advance(reader.identity.fileLength)
                case .success(let reader): damages += reader.damages(progress: advance)
                }
            }
            for record in view.curvatures where goesOn {
                let path = directory.curvaturePath(record.digest)
                let file = Result { () throws(StoreError) in
                    try CurvatureFile(path: path, record: record, schema: view.schema)
                }
                switch file {
                case .failure(let error): damages.append(error)
                case .success where level == .quick: _ = advance(record.identity.fileLength)
                case .success(let file): damages += file.damages(progress: advance)
                }
            }
        }
        if goesOn { damages += coordinatesDamages(level: level, progress: advance) }
        if level == .deep, damages.isEmpty, goesOn { damages = deepDamages(progress: advance) }
        var orphans: [String] = []
        var strays: [String] = []
        do {
            orphans = try Recovery.orphans(in: directory, contents: contents)
            strays = try wrapping { () throws(FileError) in try directory.strays() }
        } catch {
            damages.append(error)
        }
        return VerificationReport(damages: damages, orphans: orphans, strays: strays, byteCount: byteCount)
    }

    /// This snapshot's files, then what named ones have besides; each file once.
    private var views: [VerifiedFiles] {
        var segmentNumbers = Set(segments.map(\.number))
        var digests = Set(curvatures.map(\.digest))
        var views = [
            VerifiedFiles(
                directory: directory, schema: schema, segments: segments, curvatures: curvatures, open: segmentSet)
        ]
        for record in namedSnapshots {
            views.append(
                VerifiedFiles(
                    directory: directory, schema: record.schema,
                    segments: record.segments.filter { segmentNumbers.insert($0.number).inserted },
                    curvatures: (record.curvature.map { [$0] } ?? []).filter { digests.insert($0.digest).inserted },
                    open: nil))
        }
        return views
    }
}

/// Files of one schema.
private struct VerifiedFiles {
    let directory: StoreDirectory
    let schema: StoreSchema
    let segments: [SegmentInfo]
    let curvatures: [CurvatureRecord]
    /// Has the segments open already; they may have lost their names.
    let open: SegmentSet?

    func newReader(_ index: Int) throws(StoreError) -> SegmentReader {
        let set = open ?? SegmentSet(directory: directory, schema: schema, segments: segments)
        return try set.newReader(index)
    }
}
