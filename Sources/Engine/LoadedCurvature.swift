import Checksum
import Curvature
import Schema
import Store

/// The curvature that a query uses, read from the store and cut to the layers it needs.
struct LoadedCurvature: Sendable {
    let record: CurvatureRecord
    /// Groups that hold a selected layer, in store order; all layers of a global group.
    let groups: [CurvatureGroupData]
    /// Their numbers in the curvature, and the ranks of all its groups.
    let groupNumbers: [Int]
    let ranks: [Int]

    var isGlobal: Bool { record.description.scope == Scope.global.rawValue }
    var scopeName: String { record.description.scope }
    /// Rows that it was fitted on.
    var rowCount: Int { record.description.fittedRowCount }

    /// Loads the curvature named by a prefix of its id, or the active one, by `read`.
    init(
        _ snapshot: Snapshot, identifier: String?, method: Method, layers: [Int],
        read: (Digest) throws -> [CurvatureGroupData]
    ) throws {
        let record: CurvatureRecord
        if let identifier {
            record = try snapshot.curvature(startingWith: identifier)
        } else {
            guard let active = snapshot.curvatures.first(where: { $0.digest == snapshot.activeCurvature }) else {
                throw EngineError.curvatureMissing(path: snapshot.path, method: method.rawValue)
            }
            record = active
        }
        self.record = record
        let wanted = Set(layers)
        let all = try read(record.digest)
        groupNumbers = all.indices.filter { !wanted.isDisjoint(with: all[$0].layers) }
        groups = groupNumbers.map { all[$0] }
        ranks = all.map(\.eigenvalues.count)
    }

    /// A warning when the rows have changed since the fit; nil when they have not.
    func staleness(of snapshot: Snapshot) -> String? { snapshot.coverage(of: record).warning }
}
