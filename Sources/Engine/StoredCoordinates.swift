import Schema
import Store
import Synchronization

/// The stored coordinates of the rows of a scan in one curvature, open for reading.
///
/// Whatever cannot be used (missing, foreign, damaged) leaves its rows to be computed from their factors, and a note says so.
final class StoredCoordinates: Sendable {
    /// How they are kept.
    let encoding: Encoding
    /// Rows of the scan in segments with coordinates.
    let coveredRowCount: Int
    /// Bytes of the files.
    let byteCount: Int
    private let readers: [Int: CoordinatesReader]
    /// Of the curvature, in the order of the groups that are used.
    private let groupNumbers: [Int]
    private let rowCount: Int
    private let problems: [String]
    private let failures = Mutex(Failures())

    /// Blocks that turned out to be damaged when they were read.
    private struct Failures {
        /// Rows by ordinal of the block's first row: a query may scan the rows several times.
        var rowCounts: [Int: Int] = [:]
        var texts: Set<String> = []
    }

    /// Opens what there is for the segments of `rows`; nil if the curvature has no coordinates at all.
    init?(rows: LiveRows, curvature: LoadedCurvature) {
        var readers: [Int: CoordinatesReader] = [:]
        var problems: [String] = []
        for segment in Set(rows.blocks.map(\.segment)).sorted() {
            do {
                let reader = try rows.snapshot.coordinates(of: curvature.record.digest, segment: segment)
                guard let reader else { continue }
                guard reader.description.ranks == curvature.ranks else {
                    throw StoreError.coordinatesDamaged(
                        path: reader.path, expected: "ranks \(curvature.ranks)", found: "\(reader.description.ranks)")
                }
                readers[segment] = reader
            } catch {
                problems.append("\(error)")
            }
        }
        guard !readers.isEmpty || !problems.isEmpty else { return nil }
        self.readers = readers
        self.problems = problems
        groupNumbers = curvature.groupNumbers
        encoding = readers.min { $0.key < $1.key }?.value.description.encoding ?? .int8
        rowCount = rows.rowCount
        coveredRowCount = rows.blocks.reduce(0) { readers[$1.segment] == nil ? $0 : $0 + $1.rowCount }
        byteCount = readers.values.reduce(0) { $0 + $1.byteCount }
    }

    /// Whether a segment has coordinates.
    func covers(segment: Int) -> Bool { readers[segment] != nil }

    /// The live rows of a block in every group that is used; nil if there are none, or damaged ones.
    func read(_ block: LiveRows.Block) -> [EigenCoordinates]? {
        guard let reader = readers[block.segment] else { return nil }
        do {
            return try groupNumbers.map { group in
                let rows = try reader.read(block: block.block, group: group)
                return block.selection.map { rows.selecting($0) } ?? rows
            }
        } catch {
            failures.withLock { failures in
                failures.rowCounts[block.firstOrdinal] = block.rowCount
                failures.texts.insert("\(error)")
            }
            return nil
        }
    }

    /// What the reader of the answer should know; final once the scan is over.
    var notes: [String] {
        let (failed, texts) = failures.withLock { ($0.rowCounts.values.reduce(0, +), $0.texts.sorted()) }
        let computed = rowCount - coveredRowCount + failed
        guard computed > 0 else { return problems + texts }
        return problems + texts + [
            "the self-influence of \(computed) of \(rowCount) rows was computed from their factors, since they have no coordinates "
                + "in this curvature"
        ]
    }
}
