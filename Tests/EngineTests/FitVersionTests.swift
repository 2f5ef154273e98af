import Checksum
import Curvature
import Engine
import Foundation
import Schema
import Store
import Synchronization
import Testing

/// Fits of a store: what is planned and reported, not repeated, resumed, listed, chosen and dropped.
@Suite struct FitVersionTests {
    let folder: TemporaryFolder
    var store: String { folder("store") }

    init() throws {
        folder = try TemporaryFolder()
        try add(30, prefix: "a")
    }

    private func add(_ rowCount: Int, prefix: String) throws {
        var generator = SeededGenerator(seed: UInt64(rowCount))
        let batch = TestBatch.random(
            [("a", 6, 5, 3), ("b", 4, 7, 2), ("c", 3, 4, nil), ("d", 5, 5, 1)], rowCount: rowCount, prefix: prefix,
            using: &generator)
        try batch.write(to: folder("\(prefix).safetensors"))
        _ = try Database(at: store).ingest([folder("\(prefix).safetensors")], options: IngestOptions(encoding: .f32))
    }

    private func files(_ name: String) throws -> [String] {
        try FileManager.default.contentsOfDirectory(atPath: store + "/" + name).sorted()
    }

    @Test func theSameFitIsNotRepeated() throws {
        let options = FitOptions(rank: 4, workers: 2)
        let first = try Database(at: store).fit(options: options)
        #expect(!first.existed && first.outlook != nil && first.effort.operationCount > 0 && first.byteCount > 0)
        let again = try Database(at: store).fit(options: options)
        #expect(again.existed && again.record.digest == first.record.digest)
        #expect(again.groups.map(\.capturedEnergy) == first.groups.map(\.capturedEnergy))
        #expect(try Database(at: store).planFit(options: options).existing?.digest == first.record.digest)
        // Another rank, scope or seed is another fit, and the newest is in use; asking for the first puts it back in use.
        let others = [
            FitOptions(rank: 5, workers: 2), FitOptions(scope: .global, rank: 4, workers: 2),
            FitOptions(rank: 4, seed: 9, workers: 2), FitOptions(exact: true, workers: 2),
        ]
        var digests = [first.record.digest]
        for other in others {
            let report = try Database(at: store).fit(options: other)
            #expect(!report.existed)
            digests.append(report.record.digest)
            #expect(try Snapshot.open(at: store).activeCurvature == report.record.digest)
        }
        #expect(Set(digests).count == 5)
        #expect(try Database(at: store).fit(options: options).existed)
        #expect(try Snapshot.open(at: store).activeCurvature == first.record.digest)
        // New rows make it another fit.
        try add(7, prefix: "b")
        #expect(try !Database(at: store).fit(options: options).existed)
        #expect(try Snapshot.open(at: store).curvatures.count == 6)
    }

    /// Cancels the fit as soon as two of its four groups are done.
    private func interruptedFit(_ options: FitOptions) {
        let cancellation = Cancellation()
        let temporary = store + "/tmp"
        let control = OperationControl(cancellation: cancellation) { _ in
            let parts = (try? FileManager.default.contentsOfDirectory(atPath: temporary)) ?? []
            if parts.filter({ $0.hasPrefix("fit-") && $0.hasSuffix(".curvature") }).count >= 2 { cancellation.cancel() }
        }
        #expect(throws: EngineError.cancelled) { _ = try Database(at: store).fit(options: options, control: control) }
    }

    @Test func anInterruptedFitGoesOn() throws {
        let options = FitOptions(rank: 4, workers: 1)
        interruptedFit(options)
        var snapshot = try Snapshot.open(at: store)
        #expect(snapshot.curvatures.isEmpty && snapshot.verify().isSound && snapshot.verify().orphans.isEmpty)
        let kept = try files("tmp")
        #expect(kept.count >= 2 && kept.count < 4)
        // Another fit does not take them.
        let other = try Database(at: store).fit(options: FitOptions(rank: 3, workers: 1))
        #expect(other.resumedGroupCount == 0)
        #expect(try files("tmp") == kept)
        // A damaged part is computed again.
        try Data([1, 2, 3]).write(to: URL(fileURLWithPath: store + "/tmp/" + kept[0]))
        let resumed = try Database(at: store).fit(options: options)
        #expect(resumed.resumedGroupCount == kept.count - 1)
        #expect(try files("tmp").isEmpty)
        // Bit by bit what a fit in one go gives.
        snapshot = try Snapshot.open(at: store)
        let found = try snapshot.readCurvature(resumed.record.digest)
        _ = try Database(at: store).dropCurvature(startingWith: resumed.record.digest.description)
        let whole = try Database(at: store).fit(options: options)
        #expect(whole.resumedGroupCount == 0)
        #expect(try Snapshot.open(at: store).readCurvature(whole.record.digest) == found)
    }

    @Test func partsOfRowsThatAreGoneAreSwept() throws {
        interruptedFit(FitOptions(rank: 4, workers: 1))
        let kept = try files("tmp")
        #expect(kept.count >= 2)
        try add(7, prefix: "b")
        _ = try StoreWriter.open(at: store)
        #expect(try files("tmp").isEmpty)
        #expect(try Database(at: store).fit(options: FitOptions(rank: 4, workers: 1)).resumedGroupCount == 0)
    }

    @Test func versionsAreChosenByPrefixAndSayWhatTheySaw() throws {
        let first = try Database(at: store).fit(options: FitOptions(rank: 4, workers: 2)).record.digest.description
        let second = try Database(at: store).fit(options: FitOptions(rank: 5, workers: 2)).record.digest.description
        var versions = try Snapshot.open(at: store).curvatureVersions
        #expect(versions.map(\.record.digest.description) == [first, second])
        #expect(versions.map(\.isActive) == [false, true])
        #expect(versions.allSatisfy { $0.coverage.isCurrent && $0.coverage.seenShare == 1 })
        #expect(versions.allSatisfy { $0.coverage.warning == nil })
        let length = zip(first, second).prefix { $0 == $1 }.count + 1
        _ = try Database(at: store).useCurvature(startingWith: String(first.prefix(length)))
        #expect(try Snapshot.open(at: store).activeCurvature?.description == first)
        #expect(throws: EngineError.curvatureUnknown(id: "zz", known: [first, second].sorted())) {
            _ = try Database(at: store).useCurvature(startingWith: "zz")
        }
        #expect(throws: EngineError.self) { _ = try Database(at: store).dropCurvature(startingWith: "") }

        _ = try Database(at: store).delete(.identifiers(["a-0", "a-1", "a-2"]))
        try add(9, prefix: "b")
        let coverage = try Snapshot.open(at: store).curvatureVersions[0].coverage
        #expect(coverage.fittedRowCount == 30 && coverage.liveRowCount == 36 && coverage.seenRowCount == 27)
        #expect(!coverage.isCurrent)
        #expect(coverage.deletedRowCount == 3 && coverage.seenShare == 0.75)
        let result = try Database(at: store).answer(
            QueryRequest(queriesPath: folder("b.safetensors"), curvature: String(second.prefix(length))))
        #expect(result.curvature?.description == second)
        #expect(result.warnings.contains { $0.contains("75 %") && $0.contains("3 of its rows") })

        _ = try Database(at: store).dropCurvature(startingWith: first)
        versions = try Snapshot.open(at: store).curvatureVersions
        #expect(versions.map(\.record.digest.description) == [second] && versions.allSatisfy { !$0.isActive })
        #expect(throws: EngineError.self) {
            _ = try Database(at: store).answer(QueryRequest(queriesPath: folder("b.safetensors")))
        }
    }

    @Test func plansAndWarnsAboutWhatItCannotCapture() throws {
        let outlook = try Database(at: store).planFit(options: FitOptions(scope: .global, rank: 2, workers: 2))
        #expect(outlook.groups.count == 1 && outlook.groups[0].layerNames == ["a", "b", "c", "d"])
        #expect(outlook.byteCount > 0 && outlook.plan.memoryBytes > 0 && outlook.existing == nil)
        let few = try Database(at: store).fit(options: FitOptions(rank: 1, workers: 2))
        #expect(few.warnings.contains { $0.contains("captures only") })
        let many = try Database(at: store).fit(options: FitOptions(scope: .global, rank: 60, workers: 2))
        #expect(many.warnings.contains { $0.contains("too few data") })
        let exact = try Database(at: store).fit(options: FitOptions(scope: .global, exact: true, workers: 2))
        #expect(exact.warnings.contains { $0.contains("singular") })
        #expect(try Database(at: store).fit(options: FitOptions(exact: true, workers: 2)).warnings.isEmpty)
        #expect(throws: CurvatureError.self) {
            _ = try Database(at: store).fit(options: FitOptions(rank: 4, memoryBytes: 1 << 20, workers: 2))
        }
    }
}

/// Several dampings in one scan against one query for each.
@Suite struct DampingSweepTests {
    let folder: TemporaryFolder

    init() throws {
        folder = try TemporaryFolder()
        var generator = SeededGenerator(seed: 5)
        for (name, count) in [("train", 50), ("queries", 3)] {
            let batch = TestBatch.random(
                [("a", 6, 5, 2), ("b", 4, 7, nil)], rowCount: count, prefix: name, using: &generator)
            try batch.write(to: folder("\(name).safetensors"))
        }
        _ = try Database(at: folder("store")).ingest(
            [folder("train.safetensors")], options: IngestOptions(encoding: .f32))
    }

    @Test(arguments: [Method.influence, .relatif, .selfInfluence], [Scope.perLayer, .global])
    func equalsOneQueryForEachDamping(_ method: Method, _ scope: Scope) throws {
        _ = try Database(at: folder("store")).fit(options: FitOptions(scope: scope, rank: 6, workers: 2))
        let dampings: [Damping] = [.relative(0.1), .relative(1), .relative(10)]
        // Memory for one query at a time takes several scans, whose ranges cross from one damping to the next.
        for memory in [2 << 30, 24_000] {
            var request = QueryRequest(
                method: method, queriesPath: method.needsQueries ? folder("queries.safetensors") : nil,
                dampings: dampings, topCount: 50, memoryBytes: memory)
            let sweep = try Database(at: folder("store")).answer(request)
            #expect(sweep.plan.scanCount > 1 || memory > 24_000)
            #expect(sweep.dampings.map(\.value) == [0.1, 1, 10])
            let count = method.needsQueries ? 3 : 1
            #expect(sweep.answers.count == 3 * count)
            for (index, damping) in dampings.enumerated() {
                request.dampings = [damping]
                let single = try Database(at: folder("store")).answer(request)
                #expect(single.dampings[0].lambdas == sweep.dampings[index].lambdas)
                let part = sweep.answers.filter { $0.dampingIndex == index }
                #expect(part.map(\.identifier) == single.answers.map(\.identifier))
                for (found, expected) in zip(part, single.answers) {
                    #expect(found.top.map(\.identifier) == expected.top.map(\.identifier))
                    for (a, b) in zip(found.top, expected.top) {
                        #expect(abs(a.score - b.score) <= 1e-5 * max(abs(expected.top[0].score), abs(b.score)))
                    }
                }
            }
        }
        #expect(throws: EngineError.self) {
            _ = try Database(at: folder("store")).answer(
                QueryRequest(method: .dot, queriesPath: folder("queries.safetensors"), dampings: dampings))
        }
    }
}
