import Curvature
import Engine
import Foundation
import Schema
import Testing

/// Every method against the naive oracle, over awkward shapes.
@Suite struct QueryOracleTests {
    struct Case: CustomTestStringConvertible, Sendable {
        let name: String
        let shapes: [(name: String, d1: Int, d2: Int, rank: Int?)]
        let rowCount: Int
        let queryCount: Int
        /// Layers of the queries; full rank.
        let queryLayers: [Int]
        let queryRank: Int?
        var testDescription: String { name }
    }

    static let cases = [
        Case(
            name: "unequal layers and ranks", shapes: [("a.0", 5, 3, 2), ("a.1", 2, 7, 1), ("b/c", 4, 4, 4)],
            rowCount: 37, queryCount: 3, queryLayers: [0, 1, 2], queryRank: nil),
        Case(
            name: "one row", shapes: [("only", 3, 4, 1)], rowCount: 1, queryCount: 2, queryLayers: [0], queryRank: nil),
        Case(
            name: "queries with fewer layers", shapes: [("x", 3, 5, 2), ("y", 6, 2, 2), ("z", 1, 4, 1)], rowCount: 65,
            queryCount: 5, queryLayers: [0, 2], queryRank: nil),
        Case(
            name: "factored queries", shapes: [("x", 6, 5, 3), ("y", 3, 8, 2)], rowCount: 50, queryCount: 4,
            queryLayers: [0, 1], queryRank: 2),
        Case(
            name: "dense beside factors", shapes: [("x", 4, 3, nil), ("y", 5, 2, 1)], rowCount: 33, queryCount: 3,
            queryLayers: [0, 1], queryRank: nil),
        Case(
            name: "vectors, as TRAK has them", shapes: [("v", 12, 1, nil)], rowCount: 40, queryCount: 2,
            queryLayers: [0], queryRank: nil),
    ]

    @Test(arguments: cases) func dotAndCosine(_ test: Case) throws {
        let setting = try Setting(test, seed: 1)
        let dot = try setting.scores(.dot)
        let cosine = try setting.scores(.cosine)
        for q in 0..<test.queryCount {
            let query = setting.queryGradient(q)
            let expected = (0..<test.rowCount).map { NaiveOracle.dot(query, setting.rowGradient($0)) }
            expectClose(dot[q], expected, "dot")
            let norm = NaiveOracle.dot(query, query).squareRoot()
            expectClose(
                cosine[q],
                (0..<test.rowCount).map { row in
                    let g = setting.rowGradient(row)
                    return expected[row] / (norm * NaiveOracle.dot(g, g).squareRoot())
                }, "cosine")
        }
    }

    @Test(arguments: cases) func exactInfluencePerLayer(_ test: Case) throws {
        let setting = try Setting(test, seed: 2)
        try setting.fit(FitOptions(scope: .perLayer, rank: nil, exact: true, workers: 2))
        for ratio in [0.1, 3] {
            let influence = try setting.scores(.influence, damping: .relative(ratio))
            let relatif = try setting.scores(.relatif, damping: .relative(ratio))
            let selfInfluence = try setting.scores(.selfInfluence, damping: .relative(ratio))[0]
            // Self-influence without queries sums over all layers of the store; RelatIF over the queries' layers.
            let own = setting.perLayerSelf(layers: Array(test.shapes.indices), ratio: ratio)
            let ownSelected = setting.perLayerSelf(layers: test.queryLayers, ratio: ratio)
            expectClose(selfInfluence, own, "self-influence")
            for q in 0..<test.queryCount {
                var expected = [Double](repeating: 0, count: test.rowCount)
                for layer in test.queryLayers {
                    let rows = setting.rows(layer: layer)
                    let solved = NaiveOracle.solve(
                        NaiveOracle.secondMoment(rows), damping: ratio * NaiveOracle.meanEigenvalue(rows),
                        setting.queries.layers[test.queryLayers.firstIndex(of: layer)!].gradient(row: q))
                    for row in rows.indices { expected[row] += NaiveOracle.dot(solved, rows[row]) }
                }
                expectClose(influence[q], expected, "influence, ρ = \(ratio)")
                expectClose(
                    relatif[q], expected.indices.map { expected[$0] / ownSelected[$0].squareRoot() },
                    "relatif, ρ = \(ratio)")
            }
        }
    }

    @Test(arguments: cases) func exactInfluenceGlobal(_ test: Case) throws {
        let setting = try Setting(test, seed: 3)
        try setting.fit(FitOptions(scope: .global, rank: nil, exact: true, workers: 2))
        let rows = (0..<test.rowCount).map { setting.fullRowGradient($0) }
        let h = NaiveOracle.secondMoment(rows)
        let lambda = 0.5
        let influence = try setting.scores(.influence, damping: .absolute(lambda))
        for q in 0..<test.queryCount {
            // Layers that the queries lack count as zero.
            let solved = NaiveOracle.solve(h, damping: lambda, setting.fullQueryGradient(q))
            expectClose(influence[q], rows.map { NaiveOracle.dot(solved, $0) }, "global influence")
        }
    }

    private func expectClose(_ found: [Float], _ expected: [Double], _ what: String) {
        let scale = expected.map(abs).max() ?? 0
        #expect(found.count == expected.count)
        for index in expected.indices {
            let error = abs(Double(found[index]) - expected[index])
            #expect(error <= 1e-5 * scale, "\(what), row \(index): found \(found[index]), expected \(expected[index])")
        }
    }
}

/// A store made of two ingested batches, and queries against it.
private final class Setting {
    let test: QueryOracleTests.Case
    let folder: TemporaryFolder
    let train: TestBatch
    let queries: TestBatch

    init(_ test: QueryOracleTests.Case, seed: UInt64) throws {
        self.test = test
        var generator = SeededGenerator(seed: seed)
        folder = try TemporaryFolder()
        train = TestBatch.random(test.shapes, rowCount: test.rowCount, prefix: "row", using: &generator)
        queries = TestBatch.random(
            test.queryLayers.map {
                let shape = test.shapes[$0]
                return (shape.name, shape.d1, shape.d2, test.queryRank)
            }, rowCount: test.queryCount, prefix: "query", using: &generator)
        try train.write(to: folder("train.safetensors"))
        try queries.write(to: folder("queries.safetensors"))
        _ = try Database(at: folder("store")).ingest(
            [folder("train.safetensors")], options: IngestOptions(encoding: .f32))
    }

    func fit(_ options: FitOptions) throws {
        _ = try Database(at: folder("store")).fit(options: options)
    }

    /// The score matrix, read back from the file that the query wrote.
    func scores(_ method: Method, damping: Damping? = nil) throws -> [[Float]] {
        var request = QueryRequest(method: method)
        request.queriesPath = method.needsQueries ? folder("queries.safetensors") : nil
        request.dampings = damping.map { [$0] } ?? []
        request.topCount = 0
        request.scoresPath = folder("scores.npy")
        let result = try Database(at: folder("store")).answer(request)
        let data = try Data(contentsOf: URL(fileURLWithPath: folder("scores.npy")))
        let count = result.plan.queryCount * result.rowCount
        let bytes = [UInt8](data.suffix(4 * count))
        let values = (0..<count).map { index in
            Float(bitPattern: (0..<4).reduce(UInt32(0)) { $0 | UInt32(bytes[4 * index + $1]) << (8 * UInt32($1)) })
        }
        return (0..<result.plan.queryCount).map { Array(values[$0 * result.rowCount..<($0 + 1) * result.rowCount]) }
    }

    func rows(layer: Int) -> [[Double]] { (0..<test.rowCount).map { train.layers[layer].gradient(row: $0) } }
    func queryGradient(_ q: Int) -> [Double] { queries.layers.flatMap { $0.gradient(row: q) } }
    func rowGradient(_ row: Int) -> [Double] { test.queryLayers.flatMap { train.layers[$0].gradient(row: row) } }
    func fullRowGradient(_ row: Int) -> [Double] { train.layers.flatMap { $0.gradient(row: row) } }

    func fullQueryGradient(_ q: Int) -> [Double] {
        test.shapes.indices.flatMap { layer in
            test.queryLayers.firstIndex(of: layer).map { queries.layers[$0].gradient(row: q) }
                ?? [Double](repeating: 0, count: test.shapes[layer].d1 * test.shapes[layer].d2)
        }
    }

    func perLayerSelf(layers: [Int], ratio: Double) -> [Double] {
        var result = [Double](repeating: 0, count: test.rowCount)
        for layer in layers {
            let rows = rows(layer: layer)
            let h = NaiveOracle.secondMoment(rows)
            let lambda = ratio * NaiveOracle.meanEigenvalue(rows)
            for row in rows.indices {
                result[row] += NaiveOracle.dot(rows[row], NaiveOracle.solve(h, damping: lambda, rows[row]))
            }
        }
        return result
    }
}
