import Benchmark
import Kernels
import Schema
import Scoring

/// Every loop of a scan over pages of 1,024 rows by 64 numbers, one thread: decoding, and scoring by the kernels for codes.
///
/// Throughput is in pages a second; a page of factors is two sides. Pages are more than the processor's caches hold.
let benchmarks: @Sendable () -> Void = {
    Benchmark.defaultConfiguration = .init(
        metrics: [.wallClock, .throughput], warmupIterations: 3, maxDuration: .seconds(1), maxIterations: 100_000)

    for encoding in Encoding.allCases {
        let pages = Pages(encoding: encoding)
        Benchmark("decode \(encoding.name)") { benchmark in
            for index in benchmark.scaledIterations {
                blackHole(pages.decoded(index))
            }
        }
        for queryCount in [1, 16] {
            pairs(pages, queryCount: queryCount)
            whole(pages, queryCount: queryCount)
        }
    }
}

/// Queries of rank 1.
private func pairs(_ pages: Pages, queryCount: Int) {
    let sides = Pages.numbers(2 * queryCount * Pages.length, seed: 2)
    let form = QueryForm.factors(
        rank: 1, left: Array(sides.prefix(queryCount * Pages.length)),
        right: Array(sides.suffix(queryCount * Pages.length)))
    add("rank-1 queries", pages, queryCount: queryCount, queryRank: 1, form: form)
}

/// Full-rank queries: c · d1 · d2 products a row.
private func whole(_ pages: Pages, queryCount: Int) {
    let form = QueryForm.full(Pages.numbers(queryCount * Pages.length * Pages.length, seed: 3))
    add("full-rank queries", pages, queryCount: queryCount, queryRank: nil, form: form)
}

private func add(_ name: String, _ pages: Pages, queryCount: Int, queryRank: Int?, form: QueryForm) {
    guard
        PageScorer.canScore(
            layer: Pages.layer, encoding: pages.encoding, queryRank: queryRank, allowsEstimates: true)
    else { return }
    let scorer = PageScorer(layer: Pages.layer, encoding: pages.encoding, queryCount: queryCount, form: form)
    Benchmark("score \(pages.encoding.name), \(queryCount) \(name)") { benchmark in
        for index in benchmark.scaledIterations {
            blackHole(pages.scored(by: scorer, index))
        }
    }
}
