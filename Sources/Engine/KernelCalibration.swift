import Checksum
import Foundation
import Kernels
import LinearAlgebra
import Schema
import Scoring
import Synchronization

/// Times kernels on random pages of 1,024 rows by 64 numbers, more of them than the processor's caches hold.
struct KernelCalibration {
    let workers: Int
    private let rowCount = 1024
    private let matrixRows = 32
    private let length = 64
    private let layer = LayerSchema(name: "", inputDimension: 64, outputDimension: 64, form: .factors(rank: 1))
    private let denseLayer = LayerSchema(name: "", inputDimension: 64, outputDimension: 64, form: .dense)
    /// Bytes of pages of each thread.
    private let pageSetByteCount = 24 << 20
    private let secondsPerPoint = 0.012

    init(workers: Int) { self.workers = workers }

    /// Standard normal numbers, the same every time.
    private func numbers(_ count: Int, seed: UInt64) -> [Float] {
        var state = seed
        func uniform() -> Float {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Float(state >> 40) * 0x1p-24 + 0x1p-26
        }
        return (0..<count).map { _ in (-2 * log(uniform())).squareRoot() * cos(2 * .pi * uniform()) }
    }

    /// Seconds that one thread takes for a pass while all do the same: the median over some passes.
    private func secondsPerPass(_ pass: @Sendable (_ worker: Int, _ index: Int) -> Void) -> Double {
        let found = Mutex<[Double]>([])
        try? forEachIndex(below: workers, workers: workers) { worker, _ in
            var times: [Double] = []
            let started = ContinuousClock.now
            var last = started
            pass(worker, 0)
            last = .now
            while times.count < 3 || (last - started) / .seconds(1) < secondsPerPoint {
                pass(worker, times.count + 1)
                let now = ContinuousClock.now
                times.append((now - last) / .seconds(1))
                last = now
            }
            let median = times.sorted()[times.count / 2]
            found.withLock { $0.append(median) }
        }
        return found.withLock { $0.reduce(0, +) / Double($0.count) }
    }

    /// Copies of one page, for each thread its own.
    private func pages(_ page: [UInt8]) -> [[[UInt8]]] {
        let count = max(1, pageSetByteCount / page.count)
        return (0..<workers).map { _ in
            (0..<count).map { _ in page.withUnsafeBytes { unsafe [UInt8](unsafe $0) } }
        }
    }

    /// What pages in one encoding cost: decoded, and by the kernels that work on codes.
    func costs(of encoding: Encoding) -> [String: [MachineModel.Point]] {
        let numbersPerSide = numbers(rowCount * length, seed: 1)
        let factors = pages(
            encodeVectors(numbersPerSide.span, rowCount: rowCount, length: length, encoding: encoding))
        let matrices = pages(
            encodeVectors(
                numbers(matrixRows * length * length, seed: 5).span, rowCount: matrixRows, length: length * length,
                encoding: encoding))
        var costs: [String: [MachineModel.Point]] = [:]

        let decoding = secondsPerPass { worker, index in
            let set = factors[worker]
            let page = set[index % set.count]
            _ = xxh3(page.span.bytes)
            var values = [Float](repeating: 0, count: rowCount * length)
            var span = values.mutableSpan
            decodeVectors(page.span.bytes, rowCount: rowCount, length: length, encoding: encoding, into: &span)
        }
        costs[Work.decoding(encoding).name] = [.init(1, decoding * 1e9 / Double(rowCount * length))]

        /// One point of a kernel, and what preparing it takes.
        func add(_ work: Work, count: Int, dense: Bool = false, units: Int, prepare: () -> PageScorer) -> Double {
            let started = ContinuousClock.now
            let scorer = prepare()
            let prepared = (ContinuousClock.now - started) / .seconds(1)
            let rows = dense ? matrixRows : rowCount
            let pass = secondsPerPass { worker, index in
                var scores = [Float](repeating: 0, count: scorer.queryCount * rows)
                var bounds = [Float](repeating: 0, count: scorer.hasBounds ? scores.count : 0)
                var scoreSpan = scores.mutableSpan
                var boundSpan = bounds.mutableSpan
                let set = dense ? matrices[worker] : factors[worker]
                if dense {
                    let page = set[index % set.count]
                    _ = xxh3(page.span.bytes)
                    scorer.accumulate(
                        dense: page.span.bytes, rows: 0..<rows, rowCount: rows, into: &scoreSpan, bounds: &boundSpan)
                } else {
                    let (left, right) = (set[2 * index % set.count], set[(2 * index + 1) % set.count])
                    _ = xxh3(left.span.bytes)
                    _ = xxh3(right.span.bytes)
                    scorer.accumulate(
                        left: left.span.bytes, right: right.span.bytes, rows: 0..<rows, rowCount: rows,
                        into: &scoreSpan, bounds: &boundSpan)
                }
            }
            costs[work.name, default: []].append(.init(count, pass * 1e9 / Double(rows * units)))
            return prepared
        }
        let vectors = numbers(256 * length * length, seed: 2)
        func factorForm(_ count: Int) -> QueryForm {
            .factors(rank: 1, left: Array(vectors.prefix(count * length)), right: Array(vectors.suffix(count * length)))
        }
        func fullForm(_ count: Int) -> QueryForm { .full(Array(vectors.prefix(count * length * length))) }

        for count in [1, 2, 4, 16, 64, 256] {
            let seconds = add(.pairs(encoding), count: count, units: 2 * length) {
                PageScorer(layer: layer, encoding: encoding, queryCount: count, form: factorForm(count))
            }
            costs[Work.pairTables(encoding).name] = [.init(1, seconds * 1e9 / Double(count * 2 * length))]
        }
        let contracts = PageScorer.canScore(layer: layer, encoding: encoding, queryRank: nil, allowsEstimates: true)
        for count in [1, 4, 16, 64] where contracts {
            let seconds = add(.contraction(encoding), count: count, units: length * length) {
                PageScorer(layer: layer, encoding: encoding, queryCount: count, form: fullForm(count))
            }
            costs[Work.contractionTables(encoding).name] = [
                .init(1, seconds * 1e9 / Double(count * length * length))
            ]
        }
        for count in [1, 8, 64] {
            let seconds = add(.dense(encoding), count: count, dense: true, units: length * length) {
                PageScorer(layer: denseLayer, encoding: encoding, queryCount: count, form: fullForm(count))
            }
            costs[Work.denseTables(encoding).name] = [.init(1, seconds * 1e9 / Double(count * length * length))]
        }
        for count in [1, 8, 32] {
            let pairCount = Plan.leadingPairCount
            _ = add(.leadingPairs(encoding), count: count * pairCount, units: 2 * length) {
                PageScorer(
                    layer: layer, encoding: encoding, queryCount: count, pairCount: pairCount,
                    left: Array(vectors.prefix(count * pairCount * length)),
                    right: Array(vectors.suffix(count * pairCount * length)))
            }
        }
        return costs
    }

    /// Matrix products with decoded rows.
    func productCosts() -> [String: [MachineModel.Point]] {
        var costs: [String: [MachineModel.Point]] = [:]
        let vectors = numbers(256 * length * length, seed: 3)
        let side = numbers(rowCount * length, seed: 4)
        let tile = LayerTile(layer: layer, rowCount: rowCount, left: side, right: side)
        let denseTile = LayerTile(
            layer: denseLayer, rowCount: matrixRows, dense: Array(vectors.prefix(matrixRows * length * length)))
        func add(_ work: Work, _ count: Int, _ layer: LayerSchema, _ form: QueryForm, _ tile: LayerTile, units: Int) {
            let scorer = LayerScorer(layer: layer, queryCount: count, form: form)
            let workspaces = (0..<workers).map { _ in Workspace() }
            let pass = secondsPerPass { worker, _ in
                var scores = [Float](repeating: 0, count: count * tile.rowCount)
                var span = scores.mutableSpan
                workspaces[worker].state.withLock { scorer.accumulate(tile, into: &span, workspace: &$0) }
            }
            costs[work.name, default: []].append(.init(count, pass * 1e9 / Double(tile.rowCount * units)))
        }
        for count in [1, 4, 16, 64, 256] {
            let full = QueryForm.full(Array(vectors.prefix(count * length * length)))
            let factors = QueryForm.factors(
                rank: 1, left: Array(vectors.prefix(count * length)), right: Array(vectors.suffix(count * length)))
            add(.pairProducts, count, layer, factors, tile, units: 2 * length)
            add(.contractionProducts, count, layer, full, tile, units: length * length)
            add(.denseProducts, count, denseLayer, full, denseTile, units: length * length)
        }
        return costs
    }

    private final class Workspace: Sendable {
        let state = Mutex(ScoringWorkspace())
    }

    /// What is done to queries and to single rows.
    func queryCosts() throws -> [String: [MachineModel.Point]] {
        let matrices = numbers(16 * length * length, seed: 6)
        let started = ContinuousClock.now
        _ = try truncatedFactors(
            of: matrices.span, count: 16, d1: length, d2: length, rank: Plan.leadingPairCount, isEstimate: true,
            workers: 1)
        let pairSeconds = (ContinuousClock.now - started) / .seconds(1)

        let refiner = RowRefiner(layers: [layer], forms: [.full(matrices)])
        let row = LayerTile(
            layer: layer, rowCount: 1, left: Array(matrices.prefix(length)), right: Array(matrices.suffix(length)))
        let refinement = secondsPerPass { _, index in
            for query in 0..<16 { _ = refiner.product(query: query, layer: 0, row: row) }
        }
        let scores = numbers(1 << 16, seed: 7)
        let ranking = secondsPerPass { _, _ in
            var list = TopK(capacity: 10, direction: .top)
            list.insert(scores.span, firstOrdinal: 0)
            _ = firstNonFiniteIndex(scores.span)
        }
        return [
            Work.singularPairs.name: [.init(1, pairSeconds * 1e9 / Double(matrices.count))],
            Work.refinement.name: [.init(1, refinement * 1e9 / Double(16 * length * length))],
            Work.ranking.name: [.init(1, ranking * 1e9 / Double(scores.count))],
        ]
    }

    /// Bytes that all threads together can at most look at in a second.
    func memoryBytesPerSecond() -> Double {
        let count = 64 << 20
        let words = (0..<workers).map { _ in [UInt64](repeating: 1, count: count / 8) }
        let pass = secondsPerPass { worker, _ in
            var sum: UInt64 = 0
            for word in words[worker] { sum &+= word }
            precondition(sum == UInt64(count / 8), "a sum of ones")
        }
        return Double(count * workers) / pass
    }

    /// Operations of large matrix products that all threads together do in a second.
    func productFlopsPerSecond() -> Double {
        let size = 512
        let a = numbers(size * size, seed: 8)
        let pass = secondsPerPass { _, _ in
            var product = [Float](repeating: 0, count: size * size)
            var span = product.mutableSpan
            multiply(a.span, a.span, into: &span, m: size, n: size, k: size)
        }
        return Double(2 * size * size * size * workers) / pass
    }
}
