import Benchmark
import Engine
import Foundation
import Schema

/// What a program that embeds lorif calls, on real factors: 8 layers of the demo set, in q4.
let benchmarks: @Sendable () -> Void = {
    Benchmark.defaultConfiguration = .init(
        metrics: [.wallClock, .throughput], warmupIterations: 2, maxDuration: .seconds(2), maxIterations: 10_000)
    let demo = DemoStore.shared

    Benchmark("open") { benchmark in
        for _ in benchmark.scaledIterations {
            blackHole(try OpenDatabase(at: demo.path))
        }
    }
    for method in [Method.dot, .influence] {
        let request = demo.request(method)
        Benchmark("plan, \(method.rawValue)") { benchmark in
            let opened = try OpenDatabase(at: demo.path)
            benchmark.startMeasurement()
            for _ in benchmark.scaledIterations {
                blackHole(try opened.plan(request))
            }
        }
        Benchmark("answer 24 queries, \(method.rawValue)") { benchmark in
            let opened = try OpenDatabase(at: demo.path)
            benchmark.startMeasurement()
            for _ in benchmark.scaledIterations {
                blackHole(try opened.answer(request))
            }
        }
    }
    Benchmark("ingest 510 examples") { benchmark in
        for _ in benchmark.scaledIterations {
            let path = demo.folder.appending(path: "ingested.lorif").path
            _ = try Database(at: path).ingest([DemoStore.batch("train")], options: demo.options)
            benchmark.stopMeasurement()
            try FileManager.default.removeItem(atPath: path)
            benchmark.startMeasurement()
        }
    }
    Benchmark("verify") { benchmark in
        for _ in benchmark.scaledIterations {
            blackHole(try Database(at: demo.path).verify())
        }
    }
}
