public import Checksum
import Files
import Glibc
import Schema

/// Finished groups of a fit under way, kept in tmp/ so that a fit that was interrupted goes on where it was.
///
/// A part is a curvature file of one group under a name made of the row digest and of a key that the fit chooses: the content
/// address of everything that the group's eigenpairs depend on. A writer's sweep keeps the parts of the rows that are live and
/// removes all others. Only the holder of the writer's lock may use them; different parts from different threads.
public struct FitParts: Sendable {
    let directory: StoreDirectory
    let schema: StoreSchema
    let rowDigest: Digest

    private static let suffix = ".curvature"

    private static func prefix(_ rowDigest: Digest) -> String { "fit-\(rowDigest)-" }

    /// Whether a file in tmp/ is a part of a fit on these rows.
    static func isPart(_ name: String, of rowDigest: Digest) -> Bool {
        name.hasPrefix(prefix(rowDigest)) && name.hasSuffix(suffix)
    }

    private func path(_ key: Digest) -> String {
        directory.temporaryPath + "/" + Self.prefix(rowDigest) + key.description + Self.suffix
    }

    /// The group that was kept under a key; nil if there is none or it is damaged.
    public func read(_ key: Digest) -> CurvatureGroupData? {
        let path = path(key)
        guard access(path, F_OK) == 0 else { return nil }
        do throws(StoreError) {
            let record = try CurvatureFile.record(ofFile: path)
            let groups = try CurvatureFile(path: path, record: record, schema: schema).readGroups()
            if groups.count == 1, record.description.fittedRowDigest == rowDigest { return groups[0] }
        } catch {
            // It is only saved work: it is done again.
        }
        unlink(path)
        return nil
    }

    /// Keeps a group, durably.
    public func write(_ group: CurvatureGroupData, key: Digest, scope: String) throws(StoreError) {
        let path = path(key)
        unlink(path)
        let description = CurvatureDescription(
            scope: scope, algorithm: group.details.algorithm, rank: group.eigenvalues.count, capturedEnergy: 0,
            fittedGeneration: 0, fittedRowCount: 0, fittedRowDigest: rowDigest)
        _ = try CurvatureFile.write(
            [group], description: description, schema: schema, temporaryPath: path + ".new", sealedPath: path)
    }

    /// Removes parts that are not needed any more; what cannot be removed now is swept when the rows have changed.
    public func remove(_ keys: [Digest]) {
        for key in keys { unlink(path(key)) }
    }
}

extension StoreWriter {
    /// Parts of fits on the rows of the last commit.
    public var fitParts: FitParts {
        FitParts(directory: directory, schema: schema, rowDigest: contents.rowDigest)
    }
}
