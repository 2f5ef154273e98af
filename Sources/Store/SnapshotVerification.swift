import Files

/// What a verification of a whole store found.
public struct VerificationReport: Sendable {
    /// Everything that is not as it was written, file by file.
    public let damages: [StoreError]
    /// Files that the catalog does not name: left by a crash, or being written just now. The next writer removes them.
    public let orphans: [String]
    /// Bytes read.
    public let byteCount: Int

    /// Whether nothing is damaged; orphans do no harm.
    public var isSound: Bool { damages.isEmpty }
}

extension Snapshot {
    /// Bytes of all files that `verify` reads: for a progress bar.
    public var verifiedByteCount: Int {
        segments.reduce(0) { $0 + $1.identity.fileLength } + curvatures.reduce(0) { $0 + $1.identity.fileLength }
    }

    /// Checks every byte of every segment and curvature (the catalog was checked when the snapshot was opened).
    ///
    /// `progress` gets the bytes read since the last call. Goes on after a damage; the report has them all.
    public func verify(progress: (Int) -> Void = { _ in }) -> VerificationReport {
        var damages: [StoreError] = []
        var byteCount = 0
        func advance(_ count: Int) {
            byteCount += count
            progress(count)
        }
        for (index, segment) in segments.enumerated() {
            do {
                // A reader of its own: an open one has read its footer before.
                let path = directory.segmentPath(segment.number)
                let reader = try SegmentSet.openReader(path, segments[index], schema: schema)
                damages += reader.damages(progress: advance)
            } catch {
                damages.append(error)
            }
        }
        for record in curvatures {
            do {
                let file = try CurvatureFile(
                    path: directory.curvaturePath(record.digest), record: record, schema: schema)
                damages += file.damages(progress: advance)
            } catch {
                damages.append(error)
            }
        }
        var orphans: [String] = []
        do {
            orphans = try Recovery.orphans(in: directory, segments: segments, curvatures: curvatures)
        } catch {
            damages.append(error)
        }
        return VerificationReport(damages: damages, orphans: orphans, byteCount: byteCount)
    }
}
