import Benchmark
import Kernels
import Schema
import Scoring

/// Every loop of a scan over pages of 1,024 rows by 64 numbers, one thread: decoding, and scoring by the kernels for codes.
///
/// Throughput is in pages a second; a page of factors is two sides. Pages are more than the processor's caches hold.
let benchmarks: @Sendable () -> Void = {
    Benchmark.defaultConfiguration = .init(
        metrics: [.wallClock, .throughput], warmupIterations: 1, scalingFactor: .kilo, maxDuration: .milliseconds(500))

    for encoding in Encoding.allCases {
        Benchmark("decode \(encoding.name)") { benchmark in
            let pages = Pages.of(encoding)
            benchmark.startMeasurement()
            for index in benchmark.scaledIterations {
                blackHole(pages.decoded(index))
            }
        }
        for queryCount in [1, 16] {
            add("rank-1 queries", encoding, queryCount: queryCount, queryRank: 1)
            add("full-rank queries", encoding, queryCount: queryCount, queryRank: nil)
        }
    }
}

/// A kernel, if there is one. Pages and queries are made when it is its turn: each benchmark has a process of its own.
private func add(_ name: String, _ encoding: Encoding, queryCount: Int, queryRank: Int?) {
    guard
        PageScorer.canScore(layer: Pages.layer, encoding: encoding, queryRank: queryRank, allowsEstimates: true)
    else { return }
    Benchmark("score \(encoding.name), \(queryCount) \(name)") { benchmark in
        let pages = Pages.of(encoding)
        let scorer = PageScorer(
            layer: Pages.layer, encoding: encoding, queryCount: queryCount,
            form: queries(queryCount, rank: queryRank))
        benchmark.startMeasurement()
        for index in benchmark.scaledIterations {
            blackHole(pages.scored(by: scorer, index))
        }
    }
}

private func queries(_ count: Int, rank: Int?) -> QueryForm {
    guard let rank else { return .full(Pages.numbers(count * Pages.length * Pages.length, seed: 3)) }
    let size = count * rank * Pages.length
    return .factors(rank: rank, left: Pages.numbers(size, seed: 2), right: Pages.numbers(size, seed: 4))
}
