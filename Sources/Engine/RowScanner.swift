import Kernels
import Schema
import Scoring
import Synchronization

/// One scan of the live rows: every block scored on some worker, kept in ranked lists and, if asked for, written to a file.
struct RowScanner {
    let rows: LiveRows
    let prepared: PreparedScan
    /// Position of the scan's first query among all queries.
    let firstQuery: Int
    let topCount: Int
    let bottomCount: Int
    let workers: Int
    let examples: ExampleReader
    let sink: ScoreSink?
    /// Stored coordinates, where the method can use them.
    let coordinates: StoredCoordinates?

    /// Ranked lists by query of the scan.
    typealias Lists = (top: [[TopK.Entry]], bottom: [[TopK.Entry]])

    /// What one worker owns.
    private struct Worker {
        var workspace = ScoringWorkspace()
        var top: [TopK]
        var bottom: [TopK]
    }

    /// Scores every block. The result is the same for any number of workers.
    func scan(completedRowCount: Int, totalRowCount: Int, control: OperationControl) throws -> Lists {
        let queryCount = prepared.queryCount
        let owned = (0..<max(1, workers)).map { _ in
            Box(
                Worker(
                    top: (0..<queryCount).map { _ in TopK(capacity: topCount, direction: .top) },
                    bottom: (0..<queryCount).map { _ in TopK(capacity: bottomCount, direction: .bottom) }))
        }
        let scannedRowCount = Atomic<Int>(completedRowCount)
        try forEachIndex(below: rows.blocks.count, workers: workers) { index, worker in
            try control.cancellation.check()
            try owned[worker].state.withLock { try scan(block: index, with: &$0) }
            let done = scannedRowCount.add(rows.blocks[index].rowCount, ordering: .relaxed).newValue
            control.report(
                ProgressUpdate(stage: "query", completedCount: done, totalCount: totalRowCount, byteCount: 0))
        }
        return try owned[0].state.withLock { first in
            for other in owned.dropFirst() {
                other.state.withLock { other in
                    for query in 0..<queryCount {
                        first.top[query].merge(other.top[query])
                        first.bottom[query].merge(other.bottom[query])
                    }
                }
            }
            return (
                try first.top.map { try $0.results(identifier: examples.identifier(ordinal:)) },
                try first.bottom.map { try $0.results(identifier: examples.identifier(ordinal:)) }
            )
        }
    }

    private func scan(block index: Int, with worker: inout Worker) throws {
        let block = rows.blocks[index]
        let scores = try prepared.scores(
            rowCount: block.rowCount, coordinates: coordinates?.read(block),
            readTile: { try rows.readTile(block: index, layer: $0) },
            workspace: &worker.workspace)
        if let position = firstNonFiniteIndex(scores.span) {
            throw EngineError.scoreOverflow(
                example: try examples.identifier(ordinal: block.firstOrdinal + position % block.rowCount))
        }
        for query in 0..<prepared.queryCount {
            let row = scores.span.extracting(query * block.rowCount..<(query + 1) * block.rowCount)
            try sink?.write(query: firstQuery + query, firstExample: block.firstOrdinal, scores: row)
            worker.top[query].insert(row, firstOrdinal: block.firstOrdinal)
            worker.bottom[query].insert(row, firstOrdinal: block.firstOrdinal)
            try prune(&worker.top[query])
            try prune(&worker.bottom[query])
        }
    }

    /// Where very many rows tie (gradients of zero), ids decide early, so that lists stay short.
    private func prune(_ list: inout TopK) throws {
        if list.tiedCount > max(4 * list.capacity, 4096) {
            try list.prune(identifier: examples.identifier(ordinal:))
        }
    }

    private final class Box: Sendable {
        let state: Mutex<Worker>
        init(_ worker: sending Worker) { state = Mutex(worker) }
    }
}
