import Curvature
import Engine
import Schema
import Store
import Testing

@Suite struct CompactTests {
    let folder: TemporaryFolder
    init() throws { folder = try TemporaryFolder() }

    private func makeStore(_ encoding: Schema.Encoding = .f32) throws -> [TestBatch] {
        var generator = SeededGenerator(seed: 11)
        var batches: [TestBatch] = []
        for part in 0..<3 {
            let batch = TestBatch.random(
                [("a", 6, 5, 3), ("b", 4, 7, 2), ("c", 3, 4, nil)], rowCount: 20, prefix: "p\(part)",
                using: &generator)
            try batch.write(to: folder("\(part).safetensors"))
            batches.append(batch)
            _ = try Database(at: folder("store")).ingest(
                [folder("\(part).safetensors")],
                options: IngestOptions(encoding: encoding))
        }
        return batches
    }

    private func scores(of store: String, snapshot: String? = nil) throws -> [String: Float] {
        var request = QueryRequest(method: .influence, queriesPath: folder("0.safetensors"), topCount: 100)
        request.snapshotName = snapshot
        let result = try Database(at: store).answer(request)
        var scores: [String: Float] = [:]
        for answer in result.answers {
            for match in answer.top { scores[answer.identifier + " " + match.identifier] = match.score }
        }
        return scores
    }

    /// Equal but for the order of summation, which depends on how rows are cut into blocks.
    private func expectEqual(_ found: [String: Float], _ expected: [String: Float]) {
        #expect(found.count == expected.count)
        let largest = expected.values.map(abs).max() ?? 0
        for (key, score) in expected {
            #expect(abs((found[key] ?? .infinity) - score) <= 1e-5 * largest, "\(key)")
        }
    }

    @Test func curvatureAndAnswersSurviveWhenNoValueChanges() throws {
        _ = try makeStore(.q4)
        _ = try Database(at: folder("store")).delete(.identifiers(["p0-3", "p2-19"]))
        _ = try Database(at: folder("store")).fit(options: FitOptions(rank: 8, workers: 2))
        let before = try scores(of: folder("store"))
        #expect(before.count == 20 * 58)
        _ = try Database(at: folder("store")).nameSnapshot("fitted")
        let report = try Database(at: folder("store")).compact()
        #expect(report.summary.isChanged && report.summary.segmentCounts.after == 1 && !report.curvatureIsStale)
        expectEqual(try scores(of: folder("store")), before)
        _ = try Database(at: folder("store")).delete(.identifiers(["p1-0"]))
        let other = try Database(at: folder("store")).compact(encoding: .int8)
        #expect(other.valuesChanged && other.curvatureIsStale && other.schema.encoding == .int8)
        #expect(try scores(of: folder("store")).count == 20 * 57)
        // The named snapshot still answers with its own encoding, rows and curvature.
        expectEqual(try scores(of: folder("store"), snapshot: "fitted"), before)
        #expect(try Database(at: folder("store")).verify(level: .deep).isSound)
    }

    @Test func lowerRankKeepsTheBestAndBoundsTheLoss() throws {
        let batches = try makeStore()
        let report = try Database(at: folder("store")).compact(rank: 2)
        #expect(report.schema.layers.map(\.rank) == [2, 2, 2])
        let snapshot = try Snapshot.open(at: folder("store"))
        #expect(snapshot.verify(level: .deep).isSound && snapshot.rowCount == 60)
        let reader = try snapshot.segmentReader(0)
        for row in 0..<60 {
            let example = try reader.readRow(row)
            #expect(example.identifier == "p\(row / 20)-\(row % 20)")
            for (index, layer) in batches[row / 20].layers.enumerated() {
                let given = layer.gradient(row: row % 20)
                let tile = example.tiles[index]
                var lost = 0.0
                var energy = 0.0
                for a in 0..<layer.d1 {
                    for b in 0..<layer.d2 {
                        var value = 0.0
                        for k in 0..<2 {
                            value += Double(tile.left[k * layer.d1 + a]) * Double(tile.right[k * layer.d2 + b])
                        }
                        let difference = given[a * layer.d2 + b] - value
                        lost += difference * difference
                        energy += given[a * layer.d2 + b] * given[a * layer.d2 + b]
                    }
                }
                // Up to the precision of single-precision arithmetic.
                #expect(Double(example.residualNorms[index]) >= lost.squareRoot() - 1e-5 * energy.squareRoot())
                #expect(lost < energy / 2)
                if layer.rank == 2 { #expect(lost < 1e-9 * energy) }
            }
        }
        #expect(throws: EngineError.self) { _ = try Database(at: folder("store")).compact(rank: 3) }
        #expect(try !Database(at: folder("store")).compact(rank: 2).summary.isChanged)
    }
}
