import Benchmark
import Engine
import Foundation
import Schema

/// What a program that embeds lorif calls, on real factors: 8 layers of the demo set, in q4.
let benchmarks: @Sendable () -> Void = {
    Benchmark.defaultConfiguration = .init(
        metrics: [.wallClock, .throughput], warmupIterations: 2, maxDuration: .seconds(2), maxIterations: 10_000)
    Benchmark("open") { benchmark in
        let demo = DemoStore.shared
        benchmark.startMeasurement()
        for _ in benchmark.scaledIterations {
            blackHole(try OpenDatabase(at: demo.path))
        }
    }
    for method in [Method.dot, .influence] {
        Benchmark("plan, \(method.rawValue)") { benchmark in
            let (opened, request) = (try OpenDatabase(at: DemoStore.shared.path), DemoStore.shared.request(method))
            benchmark.startMeasurement()
            for _ in benchmark.scaledIterations {
                blackHole(try opened.plan(request))
            }
        }
        Benchmark("answer 24 queries, \(method.rawValue)") { benchmark in
            let (opened, request) = (try OpenDatabase(at: DemoStore.shared.path), DemoStore.shared.request(method))
            benchmark.startMeasurement()
            for _ in benchmark.scaledIterations {
                blackHole(try opened.answer(request))
            }
        }
    }
    Benchmark("ingest 510 examples", configuration: .init(maxIterations: 50)) { benchmark in
        let demo = DemoStore.shared
        benchmark.startMeasurement()
        for _ in benchmark.scaledIterations {
            // Each a store of its own; they go with the folder.
            let path = demo.folder.appending(path: UUID().uuidString).path
            blackHole(try Database(at: path).ingest([DemoStore.batch("train")], options: demo.options))
        }
    }
    Benchmark("verify") { benchmark in
        let demo = DemoStore.shared
        benchmark.startMeasurement()
        for _ in benchmark.scaledIterations {
            blackHole(try Database(at: demo.path).verify())
        }
    }
}
