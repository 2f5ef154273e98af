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
    /// For what a row costs besides its numbers.
    private let shortLength = 16
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
        func factors(_ length: Int) -> [[[UInt8]]] {
            pages(
                encodeVectors(
                    numbers(rowCount * length, seed: 1).span, rowCount: rowCount, length: length, encoding: encoding))
        }
        let long = factors(length)
        let short = factors(shortLength)
        let matrices = pages(
            encodeVectors(
                numbers(matrixRows * length * length, seed: 5).span, rowCount: matrixRows, length: length * length,
                encoding: encoding))
        var costs: [String: [MachineModel.Point]] = [:]
        func add(_ work: Work, _ count: Int, _ nanoseconds: Double) {
            costs[work.name, default: []].append(.init(count, nanoseconds))
        }

        let decoding = secondsPerPass { worker, index in
            let page = long[worker][index % long[worker].count]
            _ = xxh3(page.span.bytes)
            var values = [Float](repeating: 0, count: rowCount * length)
            var span = values.mutableSpan
            decodeVectors(page.span.bytes, rowCount: rowCount, length: length, encoding: encoding, into: &span)
        }
        add(.decoding(encoding), 1, decoding * 1e9 / Double(rowCount * length))

        let vectors = numbers(256 * length * length, seed: 2)
        /// Nanoseconds of a row for pairs of vectors of two lengths, as so much for a number and so much for the row.
        func addPairs(_ work: Work, _ rowWork: Work, _ count: Int, _ make: (LayerSchema, Int) -> PageScorer) -> Double {
            func layer(_ length: Int) -> LayerSchema {
                LayerSchema(name: "", inputDimension: length, outputDimension: length, form: .factors(rank: 1))
            }
            let started = ContinuousClock.now
            let scorer = make(layer(length), length)
            let prepared = (ContinuousClock.now - started) / .seconds(1)
            let whole = nanosecondsPerRow(scorer, factors: long)
            let part = nanosecondsPerRow(make(layer(shortLength), shortLength), factors: short)
            let slope = max(0, whole - part) / Double(2 * (length - shortLength))
            let perNumber = min(slope, whole / Double(2 * length))
            add(work, count, perNumber)
            add(rowWork, count, whole - perNumber * Double(2 * length))
            return prepared
        }
        for count in [1, 2, 4, 16, 64, 256] {
            let seconds = addPairs(.pairs(encoding), .pairRows(encoding), count) { layer, length in
                PageScorer(
                    layer: layer, encoding: encoding, queryCount: count,
                    form: .factors(
                        rank: 1, left: Array(vectors.prefix(count * length)),
                        right: Array(vectors.suffix(count * length))))
            }
            costs[Work.pairTables(encoding).name] = [.init(1, seconds * 1e9 / Double(count * 2 * length))]
        }
        for count in [1, 8, 32] {
            let pairCount = Plan.leadingPairCount
            _ = addPairs(.leadingPairs(encoding), .leadingPairRows(encoding), count * pairCount) { layer, length in
                PageScorer(
                    layer: layer, encoding: encoding, queryCount: count, pairCount: pairCount,
                    left: Array(vectors.prefix(count * pairCount * length)),
                    right: Array(vectors.suffix(count * pairCount * length)))
            }
        }
        let size = length * length
        func whole(_ work: Work, _ tables: Work, _ count: Int, _ layer: LayerSchema, _ pages: [[[UInt8]]]) {
            let started = ContinuousClock.now
            let scorer = PageScorer(
                layer: layer, encoding: encoding, queryCount: count, form: .full(Array(vectors.prefix(count * size))))
            let prepared = (ContinuousClock.now - started) / .seconds(1)
            let cost =
                layer.rank == nil
                ? nanosecondsPerRow(scorer, matrices: pages) : nanosecondsPerRow(scorer, factors: pages)
            add(work, count, cost / Double(size))
            costs[tables.name] = [.init(1, prepared * 1e9 / Double(count * size))]
        }
        let contracts = PageScorer.canScore(layer: layer, encoding: encoding, queryRank: nil, allowsEstimates: true)
        for count in [1, 4, 16, 64] where contracts {
            whole(.contraction(encoding), .contractionTables(encoding), count, layer, long)
        }
        for count in [1, 8, 64] { whole(.dense(encoding), .denseTables(encoding), count, denseLayer, matrices) }
        return costs
    }

    private func nanosecondsPerRow(_ scorer: PageScorer, factors: [[[UInt8]]]) -> Double {
        secondsPerPass { worker, index in
            let set = factors[worker]
            let (left, right) = (set[2 * index % set.count], set[(2 * index + 1) % set.count])
            _ = xxh3(left.span.bytes)
            _ = xxh3(right.span.bytes)
            accumulate(scorer, rowCount: rowCount) { scores, bounds in
                scorer.accumulate(
                    left: left.span.bytes, right: right.span.bytes, rows: 0..<rowCount, rowCount: rowCount,
                    into: &scores, bounds: &bounds)
            }
        } * 1e9 / Double(rowCount)
    }

    private func nanosecondsPerRow(_ scorer: PageScorer, matrices: [[[UInt8]]]) -> Double {
        secondsPerPass { worker, index in
            let page = matrices[worker][index % matrices[worker].count]
            _ = xxh3(page.span.bytes)
            accumulate(scorer, rowCount: matrixRows) { scores, bounds in
                scorer.accumulate(
                    dense: page.span.bytes, rows: 0..<matrixRows, rowCount: matrixRows, into: &scores,
                    bounds: &bounds)
            }
        } * 1e9 / Double(matrixRows)
    }

    /// Scores of one pass, which nobody wants.
    private func accumulate(
        _ scorer: PageScorer, rowCount: Int, _ body: (inout MutableSpan<Float>, inout MutableSpan<Float>) -> Void
    ) {
        var scores = [Float](repeating: 0, count: scorer.queryCount * rowCount)
        var bounds = [Float](repeating: 0, count: scorer.hasBounds ? scores.count : 0)
        var scoreSpan = scores.mutableSpan
        var boundSpan = bounds.mutableSpan
        body(&scoreSpan, &boundSpan)
    }

    /// Matrix products with decoded rows.
    func productCosts() -> [String: [MachineModel.Point]] {
        var costs: [String: [MachineModel.Point]] = [:]
        let vectors = numbers(256 * length * length, seed: 3)
        let side = numbers(rowCount * length, seed: 4)
        let tile = LayerTile(layer: layer, rowCount: rowCount, left: side, right: side)
        let denseTile = LayerTile(
            layer: denseLayer, rowCount: matrixRows, dense: Array(vectors.prefix(matrixRows * length * length)))
        func nanosecondsPerRow(
            _ count: Int, _ layer: LayerSchema, _ form: QueryForm, _ tile: LayerTile, _ strategy: ScoringStrategy
        ) -> Double {
            let scorer = LayerScorer(layer: layer, queryCount: count, form: form, strategy: strategy)
            let workspaces = (0..<workers).map { _ in Workspace() }
            let pass = secondsPerPass { worker, _ in
                var scores = [Float](repeating: 0, count: count * tile.rowCount)
                var span = scores.mutableSpan
                workspaces[worker].state.withLock { scorer.accumulate(tile, into: &span, workspace: &$0) }
            }
            return pass * 1e9 / Double(tile.rowCount)
        }
        func add(
            _ work: Work, _ count: Int, _ layer: LayerSchema, _ form: QueryForm, _ tile: LayerTile, units: Int,
            _ strategy: ScoringStrategy
        ) {
            let cost = nanosecondsPerRow(count, layer, form, tile, strategy)
            costs[work.name, default: []].append(.init(count, cost / Double(units)))
        }
        let size = length * length
        let one = QueryForm.full(Array(vectors.prefix(size)))
        let further = 4
        let fiveLayer = LayerSchema(
            name: "", inputDimension: length, outputDimension: length, form: .factors(rank: 1 + further))
        let sides = (0...further).flatMap { _ in side }
        let fiveTile = LayerTile(layer: fiveLayer, rowCount: rowCount, left: sides, right: sides)
        let added =
            nanosecondsPerRow(1, fiveLayer, one, fiveTile, .reconstruction)
            - nanosecondsPerRow(1, layer, one, tile, .reconstruction)
        costs[Work.furtherComponents.name] = [.init(1, max(0, added) / Double(further * size))]
        for count in [1, 4, 16, 64, 256] {
            let full = QueryForm.full(Array(vectors.prefix(count * length * length)))
            let factors = QueryForm.factors(
                rank: 1, left: Array(vectors.prefix(count * length)), right: Array(vectors.suffix(count * length)))
            add(.pairProducts, count, layer, factors, tile, units: 2 * length, .factorProducts)
            add(.contractionProducts, count, layer, full, tile, units: size, .contraction)
            add(.reconstructionProducts, count, layer, full, tile, units: size, .reconstruction)
            add(.denseProducts, count, denseLayer, full, denseTile, units: size, .denseProduct)
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
