public import Curvature
import Files
import Foundation
import Interchange
import Schema
import Scoring
import Store

/// A way to score examples for queries: one store, or the weighted mean of several (an ensemble of checkpoints, TRAK's or TracIn's).
public struct ScoringRun: Sendable {
    /// One store of a run with its queries.
    public struct Member: Sendable {
        /// The store.
        public var store: String
        /// The file of query gradients.
        public var queriesPath: String
        /// Relative to those of the other members.
        public var weight: Double
        /// nil: the store's active one.
        public var curvature: String?

        /// A store and its queries.
        public init(store: String, queriesPath: String, weight: Double = 1, curvature: String? = nil) {
            self.store = store
            self.queriesPath = queriesPath
            self.weight = weight
            self.curvature = curvature
        }
    }

    /// What it is called in reports.
    public var name: String
    /// At least one.
    public var members: [Member]
    /// How every member scores.
    public var method: Method
    /// nil: the method's default.
    public var damping: Damping?

    /// A run.
    public init(name: String, members: [Member], method: Method = .influence, damping: Damping? = nil) {
        self.name = name
        self.members = members
        self.method = method
        self.damping = damping
    }
}

/// All scores of a run, kept in temporary files until this dies: 4 bytes for each score of each member.
final class RunScores {
    /// Scores of one member, and where it has the rows of the run.
    private struct Member {
        let matrix: ScoreMatrixReader
        let weight: Double
        /// Row of this member for each query of the run.
        let queryRows: [Int]
        /// Column of this member for each example of the run; nil when they are the same.
        let columns: [Int]?
    }

    let run: ScoringRun
    /// Those that every member has, in the first one's order.
    let queryIdentifiers: [String]
    let exampleIdentifiers: [String]
    /// Of all members' scans.
    let seconds: Double
    /// Bytes of all members' segments by all their live rows' number: what storing an example costs.
    let bytesPerExample: Double
    /// The result of each member, without ranked examples.
    let results: [QueryResult]
    private let members: [Member]
    private let folder: TemporaryFolder

    /// Scores everything. Ids that not every member has are left out; throws `.nothingInCommon` when that leaves none.
    init(_ run: ScoringRun, request: QueryRequest, control: OperationControl) throws {
        precondition(!run.members.isEmpty, "a run without members")
        let folder = try TemporaryFolder()
        var results: [QueryResult] = []
        var examples: [[String]] = []
        var bytes = 0.0
        let started = ContinuousClock.now
        for (index, member) in run.members.enumerated() {
            var request = request
            request.method = run.method
            request.queriesPath = member.queriesPath
            request.dampings = run.damping.map { [$0] } ?? []
            request.curvature = member.curvature
            request.topCount = 0
            request.bottomCount = 0
            request.scoresPath = folder.path(ofMember: index)
            results.append(try Database(at: member.store).answer(request, control: control))
        }
        seconds = (ContinuousClock.now - started) / .seconds(1)
        for (member, result) in zip(run.members, results) {
            let snapshot = try Snapshot.open(at: member.store, named: request.snapshotName)
            guard snapshot.generation == result.generation else {
                throw EngineError.changedMeanwhile(path: member.store)
            }
            examples.append(
                try LiveRows(snapshot).selecting(request.rows, workers: request.workers).readAllIdentifiers())
            bytes += Double(snapshot.segments.reduce(0) { $0 + $1.identity.fileLength }) / Double(snapshot.rowCount)
        }
        let queries = results.map { $0.answers.map(\.identifier) }
        let sharedQueries = common(queries)
        let sharedExamples = common(examples)
        for (shared, what) in [(sharedQueries, "query"), (sharedExamples, "example")] where shared.isEmpty {
            throw EngineError.nothingInCommon(what: what, run: run.name)
        }
        let totalWeight = run.members.reduce(0) { $0 + $1.weight }
        var members: [Member] = []
        for index in run.members.indices {
            let rows = places(of: sharedQueries, in: queries[index])
            let columns = places(of: sharedExamples, in: examples[index])
            members.append(
                Member(
                    matrix: try ScoreMatrixReader(
                        path: folder.path(ofMember: index), exampleCount: examples[index].count),
                    weight: run.members[index].weight / totalWeight, queryRows: rows,
                    columns: columns == Array(examples[index].indices) ? nil : columns))
        }
        self.run = run
        self.results = results
        self.members = members
        self.folder = folder
        queryIdentifiers = sharedQueries
        exampleIdentifiers = sharedExamples
        bytesPerExample = bytes
    }

    /// The scores of one query for all examples: the weighted mean, summed in Double.
    func scores(query: Int) throws -> [Float] {
        if members.count == 1 { return try memberScores(members[0], query: query) }
        var sums = [Double](repeating: 0, count: exampleIdentifiers.count)
        for member in members {
            for (index, score) in try memberScores(member, query: query).enumerated() {
                sums[index] += member.weight * Double(score)
            }
        }
        return sums.map { Float($0) }
    }

    private func memberScores(_ member: Member, query: Int) throws -> [Float] {
        let scores = try member.matrix.scores(query: member.queryRows[query])
        guard let columns = member.columns else { return scores }
        return columns.map { scores[$0] }
    }
}

/// The names that all lists have, in the first one's order.
func common(_ lists: [[String]]) -> [String] {
    var shared = lists[0]
    for list in lists.dropFirst() where list != shared {
        let names = Set(list)
        shared = shared.filter { names.contains($0) }
    }
    return shared
}

/// Where each name is in a list that has them all.
func places(of names: [String], in list: [String]) -> [Int] {
    if names == list { return Array(list.indices) }
    let places = Dictionary(list.enumerated().map { ($1, $0) }, uniquingKeysWith: { first, _ in first })
    return names.map { name in
        guard let place = places[name] else { preconditionFailure("every list has the common names") }
        return place
    }
}

/// A directory in TMPDIR that is removed with everything in it.
private final class TemporaryFolder {
    private let url: URL

    init() throws {
        url = FileManager.default.temporaryDirectory.appending(path: "lorif-scores-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: url, withIntermediateDirectories: false)
    }

    deinit { try? FileManager.default.removeItem(at: url) }

    func path(ofMember index: Int) -> String { url.appending(path: "\(index).npy").path }
}
