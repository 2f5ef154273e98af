import Kernels
import Schema
import Scoring
import Store
import Synchronization

/// What becomes of the scores of a scan.
struct ScanOutput: Sendable {
    /// Score rows that come out, and how they are made of the scanned queries' scores; nil: as they are.
    let aggregation: (groups: QueryGroups, kind: QueryAggregation)?
    /// Position of the scan's first score row among all.
    let firstQuery: Int
    let topCount: Int
    let bottomCount: Int
    /// By score row of the scan: the limits of its ranked lists.
    let leastScores: [Float?]
    let greatestScores: [Float?]
    let sink: ScoreSink?
    let rowGroups: RowGroups?
    /// Whether every score is to be counted in a histogram.
    let wantsDistribution: Bool
    /// When to stop with what there is.
    let deadline: ContinuousClock.Instant?
}

/// One scan of the live rows: every block scored on some worker, kept in ranked lists and, if asked for, written to a file.
struct RowScanner {
    let rows: LiveRows
    let prepared: PreparedScan
    let output: ScanOutput
    let workers: Int
    let examples: ExampleReader
    /// Stored coordinates, where the method can use them.
    let coordinates: StoredCoordinates?
    /// Segments that are read past the page cache.
    let directSegments: Set<Int>

    /// What a scan found.
    struct Findings {
        /// Ranked lists by score row.
        var top: [[TopK.Entry]]
        var bottom: [[TopK.Entry]]
        /// By score row; empty without row groups.
        var groups: [[GroupScore]]
        /// Σ |score| by score row; of estimates where rows were ranked by them.
        var magnitudes: [Double]
        /// By score row; empty unless asked for.
        var histograms: [ScoreHistogram]
        /// By score row: what became of rows that estimates left open.
        var refined: [RefinedRows]
        /// Rows that a deadline left unread.
        var unreadRowCount: Int
        var meter: ScanMeter
    }

    /// What one worker owns.
    private struct Worker {
        var workspace = ScoringWorkspace()
        var meter = ScanMeter()
        var top: [TopK]
        var bottom: [TopK]
        var histograms: [ScoreHistogram]
        var refined: [RefinedRows]
    }

    private var outputCount: Int {
        guard let groups = output.aggregation?.groups else { return prepared.queryCount }
        return prepared.queryCount / groups.queryCount * groups.names.count
    }

    /// Scores every block. The result is the same for any number of workers, unless a deadline stops them.
    func scan(completedRowCount: Int, totalRowCount: Int, control: OperationControl) throws -> Findings {
        let count = outputCount
        let owned = (0..<max(1, workers)).map { _ in
            Box(
                Worker(
                    top: (0..<count).map {
                        TopK(capacity: output.topCount, direction: .top, limit: output.leastScores[$0])
                    },
                    bottom: (0..<count).map {
                        TopK(capacity: output.bottomCount, direction: .bottom, limit: output.greatestScores[$0])
                    },
                    histograms: output.wantsDistribution ? Array(repeating: ScoreHistogram(), count: count) : [],
                    refined: Array(repeating: RefinedRows(), count: count)))
        }
        let started = ContinuousClock.now
        let pageScan = try prepared.pageScan?.measuringMargins(rows, workers: workers)
        let totals = BlockTotals(queryCount: count)
        let scannedRowCount = Atomic<Int>(completedRowCount)
        let unreadRowCount = Atomic<Int>(0)
        try forEachIndex(below: rows.blocks.count, workers: workers) { index, worker in
            try control.cancellation.check()
            if let deadline = output.deadline, ContinuousClock.now >= deadline {
                unreadRowCount.add(rows.blocks[index].rowCount, ordering: .relaxed)
                totals.add(BlockTotals.Sums(), block: index)
                return
            }
            try owned[worker].state.withLock {
                try scan(
                    block: index, with: &$0, pageScan: pageScan, totals: totals, cancellation: control.cancellation)
            }
            let done = scannedRowCount.add(rows.blocks[index].rowCount, ordering: .relaxed).newValue
            control.report(
                ProgressUpdate(stage: "query", completedCount: done, totalCount: totalRowCount, byteCount: 0))
        }
        return try owned[0].state.withLock { first in
            for other in owned.dropFirst() {
                other.state.withLock { other in
                    first.meter.add(other.meter)
                    for query in 0..<count {
                        first.top[query].merge(other.top[query])
                        first.bottom[query].merge(other.bottom[query])
                        first.refined[query].add(other.refined[query])
                    }
                    for query in first.histograms.indices {
                        first.histograms[query].merge(other.histograms[query])
                    }
                }
            }
            first.meter.elapsedSeconds = (ContinuousClock.now - started) / .seconds(1)
            return Findings(
                top: try first.top.map { try $0.results(identifier: examples.identifier(ordinal:)) },
                bottom: try first.bottom.map { try $0.results(identifier: examples.identifier(ordinal:)) },
                groups: output.rowGroups.map { groups in totals.totals.groups.map { groups.scores($0) } } ?? [],
                magnitudes: totals.totals.magnitudes, histograms: first.histograms, refined: first.refined,
                unreadRowCount: unreadRowCount.load(ordering: .relaxed), meter: first.meter)
        }
    }

    private func scan(
        block index: Int, with worker: inout Worker, pageScan: PageScan?, totals: BlockTotals,
        cancellation: Cancellation
    ) throws {
        let block = rows.blocks[index]
        let pages = BlockPages(
            reader: try rows.snapshot.segmentReader(block.segment), block: block,
            direct: directSegments.contains(block.segment) ? prepared.layers : nil)
        defer { worker.meter.directByteCount += pages.window?.byteCount ?? 0 }
        let check = { try cancellation.check() }
        var scores: [Float]
        if let pageScan {
            let found = try pageScan.scores(of: pages, meter: &worker.meter, check: check)
            if pageScan.refiner != nil {
                try rank(found, by: pageScan, pages, with: &worker)
                // An estimate that is not finite tells nothing, and its row is scored again.
                let magnitudes = (0..<outputCount).map { query in
                    sumOfMagnitudes(found.scores.span.extracting(query * block.rowCount..<(query + 1) * block.rowCount))
                }
                totals.add(BlockTotals.Sums(magnitudes: magnitudes.map { $0.isFinite ? $0 : 0 }), block: index)
                return
            }
            scores = found.scores
        } else {
            let read = worker.meter.timing(\.readSeconds) { coordinates?.read(block) }
            scores = try prepared.scores(
                of: pages, coordinates: read, workspace: &worker.workspace, meter: &worker.meter, check: check)
        }
        if let position = firstNonFiniteIndex(scores.span) {
            throw EngineError.scoreOverflow(
                example: try examples.identifier(ordinal: block.firstOrdinal + position % block.rowCount))
        }
        let started = ContinuousClock.now
        if let (groups, kind) = output.aggregation {
            scores = groups.reduceEach(scores, rowCount: block.rowCount, by: kind)
        }
        var sums = BlockTotals.Sums()
        for query in 0..<outputCount {
            let row = scores.span.extracting(query * block.rowCount..<(query + 1) * block.rowCount)
            try output.sink?.write(query: output.firstQuery + query, firstExample: block.firstOrdinal, scores: row)
            worker.top[query].insert(row, firstOrdinal: block.firstOrdinal)
            worker.bottom[query].insert(row, firstOrdinal: block.firstOrdinal)
            try prune(&worker.top[query])
            try prune(&worker.bottom[query])
            sums.magnitudes.append(sumOfMagnitudes(row))
            if !worker.histograms.isEmpty { worker.histograms[query].add(row) }
            if let groups = output.rowGroups { sums.groups.append(groups.tallies(block: index, scores: row)) }
        }
        totals.add(sums, block: index)
        worker.meter.mergeSeconds += (ContinuousClock.now - started) / .seconds(1)
    }

    /// Ranks a block's rows by estimates and, where these leave it open, by exact scores.
    private func rank(
        _ found: PageScan.Scores, by scan: PageScan, _ pages: BlockPages, with worker: inout Worker
    ) throws {
        let started = ContinuousClock.now
        for query in 0..<scan.queryCount {
            do {
                let refined = try scan.rank(
                    found, query: query, pages: pages, top: &worker.top[query], bottom: &worker.bottom[query])
                worker.meter.refinedRowCount += refined.count
                worker.refined[query].add(refined)
            } catch let error as ScoreNotFinite {
                throw EngineError.scoreOverflow(
                    example: try examples.identifier(ordinal: pages.block.firstOrdinal + error.row))
            }
            try prune(&worker.top[query])
            try prune(&worker.bottom[query])
        }
        worker.meter.mergeSeconds += (ContinuousClock.now - started) / .seconds(1)
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
