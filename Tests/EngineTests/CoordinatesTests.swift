import Checksum
import Curvature
import Engine
import Foundation
import Schema
import Store
import Testing

/// Coordinates of stored rows: what is answered with them, and what becomes of them.
@Suite struct CoordinatesTests {
    static let shapes: [(name: String, d1: Int, d2: Int, rank: Int?)] = [
        ("a", 6, 5, 3), ("b", 4, 7, 2), ("c", 3, 4, nil),
    ]
    let folder: TemporaryFolder
    var store: String { folder("store") }

    init() throws { folder = try TemporaryFolder() }

    @discardableResult private func add(_ rowCount: Int, prefix: String) throws -> TestBatch {
        var generator = SeededGenerator(seed: UInt64(rowCount))
        let batch = TestBatch.random(Self.shapes, rowCount: rowCount, prefix: prefix, using: &generator)
        try batch.write(to: folder("\(prefix).safetensors"))
        _ = try Database(at: store).ingest([folder("\(prefix).safetensors")], options: IngestOptions(encoding: .f32))
        return batch
    }

    private func request(_ method: Engine.Method, dampings: [Damping] = [.relative(1)]) -> QueryRequest {
        var request = QueryRequest(method: method)
        request.queriesPath = method.needsQueries ? folder("a.safetensors") : nil
        request.dampings = dampings
        request.topCount = 1000
        return request
    }

    private typealias Scores = [String: Float]

    /// Scores by damping, query and example.
    private func scores(_ result: QueryResult) -> Scores {
        var scores: Scores = [:]
        for answer in result.answers {
            for match in answer.top {
                scores["\(answer.dampingIndex) \(answer.identifier) \(match.identifier)"] = match.score
            }
        }
        return scores
    }

    private func scores(_ method: Engine.Method = .selfInfluence) throws -> Scores {
        scores(try Database(at: store).answer(request(method)))
    }

    private func expectClose(_ found: Scores, _ expected: Scores, _ tolerance: Float) {
        #expect(found.count == expected.count && !found.isEmpty)
        let largest = expected.values.map(abs).max() ?? 0
        for (key, value) in expected {
            let error = abs((found[key] ?? .infinity) - value)
            #expect(error <= tolerance * largest, "\(key): found \(found[key] ?? .nan), expected \(value)")
        }
    }

    private var coordinateFiles: [String] {
        ((try? FileManager.default.contentsOfDirectory(atPath: store + "/coordinates")) ?? []).sorted()
            .map { store + "/coordinates/" + $0 }
    }

    private func damage(_ path: String, at offset: Int) throws {
        var bytes = try Data(contentsOf: URL(fileURLWithPath: path))
        bytes[offset] ^= 0x40
        try FileManager.default.removeItem(atPath: path)
        try bytes.write(to: URL(fileURLWithPath: path))
    }

    // MARK: - Answers

    /// Every row by a naive projection on the stored eigenvectors; the error of an encoding is the one that the documentation states.
    @Test(arguments: [Scope.perLayer, .global], [Schema.Encoding.f32, .f16, .int8])
    func selfInfluenceIsThatOfTheDefinition(_ scope: Scope, _ encoding: Schema.Encoding) throws {
        let batch = try add(50, prefix: "a")
        let report = try Database(at: store).fit(
            options: FitOptions(scope: scope, rank: 4, workers: 2), coordinates: encoding)
        #expect(report.coordinates?.writtenRowCount == 50 && report.coordinates?.coverage?.rowCount == 50)
        let ratios = [0.01, 1.0, 30]
        let result = try Database(at: store).answer(request(.selfInfluence, dampings: ratios.map { .relative($0) }))
        #expect(result.plan.coordinatesRowCount == 50 && result.plan.coordinatesEncoding == encoding)
        #expect(result.warnings.isEmpty && result.plan.scanCount == 1)
        let found = scores(result)
        let groups = try Snapshot.open(at: store).readCurvature(report.record.digest)
        for (place, ratio) in ratios.enumerated() {
            for row in 0..<50 {
                var (expected, bound) = (0.0, 0.0)
                for group in groups {
                    let gradient = group.layers.flatMap { batch.layers[$0].gradient(row: row) }
                    let mean = group.trace / Double(group.gradientLength)
                    let lambda = ratio * mean
                    var outside = NaiveOracle.dot(gradient, gradient)
                    var coordinates: [Double] = []
                    for (k, value) in group.eigenvalues.enumerated() {
                        let vector = group.basis[k * group.gradientLength..<(k + 1) * group.gradientLength]
                        let product = NaiveOracle.dot(vector.map { Double($0) }, gradient)
                        outside -= product * product
                        expected += product * product / (value + lambda)
                        coordinates.append(product / (value + mean).squareRoot())
                    }
                    expected += outside / lambda
                    let largest = coordinates.map(abs).max() ?? 0
                    for (k, value) in group.eigenvalues.enumerated() {
                        let error =
                            switch encoding {
                            case .int8: largest / 127 * (1 + 0x1p-7) * (0.5 + 0x1p-16)
                            case .f16: max(abs(coordinates[k]) * 0x1p-11, largest * 0x1p-40)
                            default: 0.0
                            }
                        bound += (2 * abs(coordinates[k]) * error + error * error) * (value + mean) / (value + lambda)
                    }
                }
                let value = Double(found["\(place) self-influence a-\(row)"] ?? .nan)
                #expect(
                    abs(value - expected) <= bound + 1e-5 * expected,
                    "row \(row), ρ = \(ratio): found \(value), expected \(expected) ± \(bound)")
            }
        }
    }

    /// Exact curvature against a dense solve, by both ways, and RelatIF with fewer layers in the queries than in the store.
    @Test func exactCurvatureAgreesWithADenseSolve() throws {
        let batch = try add(40, prefix: "a")
        _ = try Database(at: store).fit(options: FitOptions(exact: true, workers: 2), coordinates: .f32)
        let found = try scores()
        for row in 0..<40 {
            var expected = 0.0
            for layer in batch.layers {
                let rows = (0..<40).map { layer.gradient(row: $0) }
                let solved = NaiveOracle.solve(
                    NaiveOracle.secondMoment(rows), damping: NaiveOracle.meanEigenvalue(rows), rows[row])
                expected += NaiveOracle.dot(solved, rows[row])
            }
            let value = Double(found["0 self-influence a-\(row)"] ?? .nan)
            #expect(abs(value / expected - 1) <= 1e-5, "row \(row): found \(value), expected \(expected)")
        }
        var partial = TestBatch(
            layers: [batch.layers[2], batch.layers[0]], rowCount: 40, identifiers: batch.identifiers)
        partial.layers.reverse()
        try partial.write(to: folder("a.safetensors"))
        let withCoordinates = try scores(.relatif)
        try FileManager.default.removeItem(atPath: store + "/coordinates")
        expectClose(withCoordinates, try scores(.relatif), 1e-5)
        expectClose(found, try scores(), 1e-5)
    }

    @Test func methodsWithoutSelfInfluenceDoNotLookAtThem() throws {
        try add(30, prefix: "a")
        _ = try Database(at: store).fit(options: FitOptions(rank: 4, workers: 2), coordinates: .int8)
        try damage(coordinateFiles[0], at: 4096 + 70)
        let result = try Database(at: store).answer(request(.influence))
        #expect(result.warnings.isEmpty && result.plan.coordinatesEncoding == nil)
    }

    // MARK: - Coverage

    @Test func laterRowsGetTheirsAtOnce() throws {
        try add(30, prefix: "a")
        _ = try Database(at: store).fit(options: FitOptions(rank: 4, workers: 2), coordinates: .f32)
        try add(11, prefix: "b")
        let snapshot = try Snapshot.open(at: store)
        let active = try #require(snapshot.activeCurvature)
        #expect(snapshot.coordinatesCoverage(of: active)?.rowCount == 41)
        _ = try Database(at: store).delete(.identifiers(["a-3", "b-0"]))
        #expect(try Snapshot.open(at: store).coordinatesCoverage(of: active)?.rowCount == 39)
        let found = try Database(at: store).answer(request(.selfInfluence))
        #expect(found.plan.coordinatesRowCount == 39 && found.rowCount == 39)
        #expect(found.warnings.allSatisfy { !$0.contains("coordinates") })
        let withCoordinates = scores(found)
        try FileManager.default.removeItem(atPath: store + "/coordinates")
        expectClose(withCoordinates, try scores(), 1e-5)
        // Without any, rows added later get none either, and nothing is said about it.
        try add(5, prefix: "c")
        #expect(coordinateFiles.isEmpty)
        #expect(
            try Database(at: store).answer(request(.selfInfluence)).warnings.allSatisfy { !$0.contains("coordinates") })
    }

    @Test func aFitThatExistsGetsThemLaterAndInAnotherEncoding() throws {
        try add(30, prefix: "a")
        let options = FitOptions(rank: 4, workers: 2)
        let first = try Database(at: store).fit(options: options)
        #expect(first.coordinates == nil && coordinateFiles.isEmpty)
        let second = try Database(at: store).fit(options: options, coordinates: .f32)
        #expect(second.existed && second.coordinates?.writtenRowCount == 30)
        let third = try Database(at: store).fit(options: options, coordinates: .f32)
        #expect(third.coordinates?.writtenRowCount == 0 && third.coordinates?.coverage?.rowCount == 30)
        let fourth = try Database(at: store).fit(options: options, coordinates: .int8)
        #expect(fourth.coordinates?.writtenRowCount == 30 && fourth.coordinates?.coverage?.encoding == .int8)
        #expect(coordinateFiles.count == 1)
        #expect(try Snapshot.open(at: store).verify(level: .deep).isSound)
    }

    // MARK: - Damage

    /// A bit in every kind of place: header, description, pages, footer, tail; and files that belong to something else.
    @Test func whatCannotBeUsedIsComputedFromFactors() throws {
        try add(30, prefix: "a")
        try add(12, prefix: "b")
        _ = try Database(at: store).fit(options: FitOptions(rank: 4, workers: 2))
        let expected = try scores()
        let expectedRelatif = try scores(.relatif)
        _ = try Database(at: store).fit(options: FitOptions(rank: 4, workers: 2), coordinates: .f32)
        let files = coordinateFiles
        #expect(files.count == 2)
        let whole = try Data(contentsOf: URL(fileURLWithPath: files[0]))
        var kinds: [(String, () throws -> Void)] = [
            ("cut", { try whole.prefix(100).write(to: URL(fileURLWithPath: files[0])) }),
            (
                "foreign",
                { try Data(contentsOf: URL(fileURLWithPath: files[1])).write(to: URL(fileURLWithPath: files[0])) }
            ),
        ]
        for offset in [3, 4096 + 5, 4096 + 128, 4096 + 300, whole.count - 200, whole.count - 10] {
            kinds.append(("byte \(offset)", { try damage(files[0], at: offset) }))
        }
        for (name, spoil) in kinds {
            try FileManager.default.removeItem(atPath: files[0])
            try whole.write(to: URL(fileURLWithPath: files[0]))
            #expect(try Snapshot.open(at: store).verify().isSound)
            try spoil()
            let result = try Database(at: store).answer(request(.selfInfluence))
            #expect(result.warnings.contains { $0.contains("computed from their factors") }, "\(name)")
            #expect(result.warnings.contains { $0.contains(files[0]) }, "\(name)")
            expectClose(scores(result), expected, 1e-5)
            expectClose(try scores(.relatif), expectedRelatif, 1e-5)
            let report = try Snapshot.open(at: store).verify()
            #expect(report.damages.count >= 1 && report.damages.allSatisfy { "\($0)".contains(files[0]) }, "\(name)")
            // The same fit again makes it whole, byte for byte.
            let again = try Database(at: store).fit(options: FitOptions(rank: 4, workers: 1), coordinates: .f32)
            #expect((again.coordinates?.writtenRowCount ?? 0) < 42, "\(name)")
            #expect(try Data(contentsOf: URL(fileURLWithPath: files[0])) == whole, "\(name)")
        }
    }

    /// Checksums are right and the numbers are those of other rows.
    @Test(arguments: [Schema.Encoding.f32, .f16, .int8]) func deepVerificationComputesASample(
        _ encoding: Schema.Encoding
    ) throws {
        try add(30, prefix: "a")
        let report = try Database(at: store).fit(options: FitOptions(rank: 4, workers: 2), coordinates: encoding)
        let snapshot = try Snapshot.open(at: store)
        #expect(snapshot.verify(level: .deep).damages == [])
        let stored = try #require(try snapshot.coordinates(of: report.record.digest, segment: 0))
        func rewrite(_ change: (inout EigenCoordinates) -> Void) throws {
            let writer = try StoreWriter.open(at: store)
            var file = try writer.beginCoordinates(stored.description)
            for group in stored.description.ranks.indices {
                var rows = try stored.read(block: 0, group: group)
                if group == 1 { change(&rows) }
                try file.append(
                    try #require(EncodedCoordinates(rows, encoding: encoding)), block: 0, group: group)
            }
            _ = try file.seal()
        }
        try rewrite { $0 = $0.selecting(Array((0..<30).reversed())) }
        #expect(try Snapshot.open(at: store).verify().isSound)
        #expect(try !Snapshot.open(at: store).verify(level: .deep).isSound)
        try rewrite { rows in rows.outsideNorms = rows.outsideNorms.map { $0 * 1.01 + 0.01 } }
        #expect(try !Snapshot.open(at: store).verify(level: .deep).isSound)
    }

    // MARK: - Life

    @Test func theyGoWithTheirCurvatureAndTheirSegment() throws {
        try add(30, prefix: "a")
        try add(12, prefix: "b")
        let kept = try Database(at: store).fit(options: FitOptions(rank: 4, workers: 2), coordinates: .int8)
        let dropped = try Database(at: store).fit(options: FitOptions(rank: 3, workers: 2), coordinates: .f16)
        #expect(coordinateFiles.count == 4)
        _ = try Database(at: store).dropCurvature(startingWith: dropped.record.digest.description)
        #expect(coordinateFiles.count == 2)
        _ = try Database(at: store).useCurvature(startingWith: kept.record.digest.description)

        // What belongs to nothing is swept by the next writer and reported until then.
        let strays = ["0123.coordinates", "\(dropped.record.digest)-\(dropped.record.digest).coordinates", "x"]
        for name in strays { try Data([1]).write(to: URL(fileURLWithPath: store + "/coordinates/" + name)) }
        #expect(try Snapshot.open(at: store).verify().orphans.count == 3)
        #expect(try StoreWriter.open(at: store).recoveredPaths.count == 3)
        #expect(coordinateFiles.count == 2)

        // A copy shares them; both live on.
        _ = try Database(at: store).copy(to: folder("copy"))
        #expect(try Snapshot.open(at: folder("copy")).coordinatesCoverage(of: kept.record.digest)?.rowCount == 42)

        // A compaction writes new segments, whose rows have none.
        let report = try Database(at: store).compact()
        #expect(report.lostCoordinatesRowCount == 42 && !report.curvatureIsStale)
        #expect(coordinateFiles.isEmpty)
        #expect(try Snapshot.open(at: store).verify().orphans.isEmpty)
        #expect(try Snapshot.open(at: folder("copy")).verify(level: .deep).damages == [])
    }

    /// The old segments of a named snapshot keep theirs through a compaction.
    @Test func aNamedSnapshotKeepsThem() throws {
        try add(30, prefix: "a")
        try add(12, prefix: "b")
        _ = try Database(at: store).fit(options: FitOptions(rank: 4, workers: 2), coordinates: .f32)
        let expected = try scores()
        _ = try StoreWriter.open(at: store).nameSnapshot("before")
        _ = try Database(at: store).delete(.identifiers(["a-1"]))
        _ = try Database(at: store).compact()
        #expect(coordinateFiles.count == 2)
        var old = request(.selfInfluence)
        old.snapshotName = "before"
        let result = try Database(at: store).answer(old)
        #expect(result.plan.coordinatesRowCount == 42)
        expectClose(scores(result), expected, 1e-6)
    }
}
