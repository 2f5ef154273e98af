import Schema
import Testing

@testable import Engine

/// What the planner chooses, by a model of round numbers: every rule by itself.
@Suite struct PlannerTests {
    private static let gibibyte = 1 << 30

    /// A store of 16 layers of 64×64, all in memory unless said.
    private func statistics(
        rank: Int? = 1, encoding: Encoding = .int8, rowCount: Int = 100_000, residentShare: Double? = 1,
        segmentCount: Int = 4, availableMemory: Int = 16 << 30
    ) -> ScanStatistics {
        let layers = (0..<16).map {
            LayerSchema(
                name: "layer.\($0)", inputDimension: 64, outputDimension: 64,
                form: rank.map { .factors(rank: $0) } ?? .dense)
        }
        let bytesPerLayer = layers[0].storedNumberCount * encoding.bitsPerNumber / 8 * rowCount
        let segmentBytes = 16 * bytesPerLayer / segmentCount
        return ScanStatistics(
            schema: StoreSchema(layers: layers, encoding: encoding), rowCount: rowCount, largestBlockRowCount: 1024,
            largestWindowByteCount: 2 << 20, layerByteCounts: Array(repeating: bytesPerLayer, count: 16),
            uncoveredLayerByteCounts: Array(repeating: bytesPerLayer, count: 16),
            segments: (0..<segmentCount).map { _ in
                ScanStatistics.SegmentPlace(
                    byteCount: segmentBytes, residentByteCount: residentShare.map { Int(Double(segmentBytes) * $0) })
            }, availableMemoryByteCount: availableMemory)
    }

    private func demand(
        method: Method = .dot, queryCount: Int = 1, queryRank: Int? = 1, wantsAllScores: Bool = false,
        isOneScan: Bool = false, allowsMeasuredErrors: Bool = false, kernel: Plan.Kernel? = nil,
        readPath: ReadPath = .automatic
    ) -> ScanDemand {
        ScanDemand(
            method: method, layers: Array(0..<16), queryCount: queryCount, dampingCount: 1, queryRank: queryRank,
            basisRanks: [:], wantsAllScores: wantsAllScores, isOneScan: isOneScan,
            allowsMeasuredErrors: allowsMeasuredErrors, rankedCount: 10, kernel: kernel, readPath: readPath)
    }

    /// Every kind of work costs a nanosecond a unit and query, but for those named.
    private func machine(
        cached: Double = 1e9, direct: Double = 1e9, _ exceptions: [Work: [MachineModel.Point]] = [:]
    ) -> MachineModel {
        var works: [Work] = [
            .pairProducts, .contractionProducts, .reconstructionProducts, .denseProducts, .furtherComponents,
            .singularPairs, .refinement, .ranking, .mapping,
        ]
        for encoding in Encoding.allCases {
            works += [
                .pairs(encoding), .pairRows(encoding), .leadingPairs(encoding), .leadingPairRows(encoding),
                .contraction(encoding), .dense(encoding), .decoding(encoding), .pairTables(encoding),
                .contractionTables(encoding), .denseTables(encoding),
            ]
        }
        var costs = Dictionary(uniqueKeysWithValues: works.map { ($0.name, [MachineModel.Point(1, 1), .init(2, 2)]) })
        for (work, points) in exceptions { costs[work.name] = points }
        return MachineModel(
            machine: nil, memoryBytesPerSecond: 10e9, cachedDiskBytesPerSecond: cached,
            directDiskBytesPerSecond: direct, productFlopsPerSecond: 100e9, costs: costs)
    }

    private func plan(
        _ demand: ScanDemand, _ statistics: ScanStatistics, machine: MachineModel? = nil, workers: Int? = nil,
        memory: Int = gibibyte
    ) throws -> Plan {
        try Planner(
            demand: demand, statistics: statistics, machine: machine ?? self.machine(), processorCount: 2,
            workers: workers, memoryBytes: memory
        ).plan()
    }

    @Test func predictsTheSumOfItsWork() throws {
        let plan = try plan(demand(), statistics())
        #expect(plan.kernel == .pages)
        #expect(plan.byteCount == 16 * 128 * 100_000)
        #expect(plan.flopCount == 100_000 * 16 * 2 * (64 + 64 + 1))
        // 128 numbers and one component of a row and layer, one score a row and its bytes, on two processors; a millisecond to start.
        let units = 100_000 * (16 * (128 + 1) + 1) + plan.byteCount
        #expect(abs(plan.scanSeconds - 1e-3 - Double(units) * 1e-9 / 2) < 1e-9)
        #expect(plan.preparationSeconds == 0)
        #expect(plan.workers == 2 && plan.residency == .memory && plan.diskByteCount == 0)
        #expect(!plan.limits.isMeasured)
    }

    @Test func takesTheCheapestKernel() throws {
        let q2 = statistics(rank: 4, encoding: .q2)
        let full = demand(queryRank: nil)
        // A nanosecond for each of 4 · 64 · 64 products either way; tiles are decoded as well.
        #expect(try plan(full, q2).kernel == .tables)
        let dearTables = machine([.contraction(.q2): [.init(1, 3)]])
        #expect(try plan(full, q2, machine: dearTables).kernel == .tiles)
        #expect(try plan(full, statistics()).kernel == .wholeNumbers)
        #expect(try plan(demand(queryRank: nil, wantsAllScores: true), statistics()).kernel == .tiles)
        // Estimates serve lists only, and only where they may err.
        #expect(try plan(demand(queryRank: nil, wantsAllScores: true), q2).kernel == .tiles)
        #expect(try plan(demand(queryRank: nil, allowsMeasuredErrors: true), q2).kernel == .leadingPairs)
        // Methods that divide by the rows' norms need the rows.
        #expect(try plan(demand(method: .cosine), statistics()).kernel == .tiles)
    }

    @Test func doesAsItIsTold() throws {
        #expect(try plan(demand(kernel: .tiles), statistics()).kernel == .tiles)
        #expect(throws: EngineError.self) { try plan(demand(kernel: .tables), statistics()) }
        #expect(throws: EngineError.self) {
            try plan(demand(kernel: .leadingPairs), statistics(rank: 4, encoding: .q2))
        }
        #expect(try plan(demand(), statistics(), workers: 7).workers == 7)
    }

    @Test func readsFromDiskWithMoreThreads() throws {
        let cold = try plan(
            demand(), statistics(residentShare: 0.25), machine: machine([.mapping: [.init(1, 0)]]))
        #expect(cold.residency == .disk && cold.workers == 8)
        #expect(cold.diskByteCount == 16 * 128 * 100_000 / 4 * 3 && cold.directByteCount == 0)
        #expect(abs(cold.scanSeconds - Double(cold.diskByteCount) / 1e9) < 1e-9)
        // A system that cannot say is taken to have everything in memory.
        #expect(try plan(demand(), statistics(residentShare: nil)).residency == .memory)
    }

    @Test func readsPastThePageCacheWhatItCouldNotKeep() throws {
        let cold = statistics(residentShare: 0)
        let bytes = 16 * 128 * 100_000
        #expect(try plan(demand(), cold).directSegments.isEmpty)
        #expect(try plan(demand(readPath: .direct), cold).directByteCount == bytes)
        let small = statistics(residentShare: 0, availableMemory: bytes)
        #expect(try plan(demand(), small).directSegments == [0, 1, 2, 3])
        #expect(try plan(demand(readPath: .cache), small).directSegments.isEmpty)
        // A disk that is much faster that way.
        #expect(try plan(demand(), cold, machine: machine(cached: 1e9, direct: 3e9)).directSegments.count == 4)
        // A machine without such reads.
        #expect(try plan(demand(readPath: .direct), cold, machine: machine(direct: 0)).directSegments.isEmpty)
        // What is in memory for the most part is read there.
        #expect(try plan(demand(readPath: .direct), statistics(residentShare: 0.6)).directSegments.isEmpty)
    }

    @Test func queriesThatDoNotFitTakeSeveralScans() throws {
        let statistics = statistics(rank: 4, encoding: .f32)
        let whole = try plan(demand(queryCount: 64, queryRank: nil), statistics)
        #expect(whole.scanCount == 1)
        let budget = whole.memoryBytes - 1
        let cut = try plan(demand(queryCount: 64, queryRank: nil), statistics, memory: budget)
        #expect(cut.scanCount == 2 && cut.memoryBytes <= budget)
        #expect(cut.byteCount == 2 * whole.byteCount)
        #expect(throws: EngineError.self) {
            try plan(demand(queryCount: 64, queryRank: nil, isOneScan: true), statistics, memory: budget)
        }
        #expect(throws: EngineError.self) { try plan(demand(queryRank: nil), statistics, memory: 1000) }
    }

    @Test func costsGoStraightBetweenPoints() {
        let model = machine([.pairs(.int8): [.init(1, 10), .init(5, 30), .init(9, 40)]])
        func cost(_ count: Int) -> Double { model.seconds(.pairs(.int8), units: 1e9, count: count).rounded() }
        #expect([1, 3, 5, 7, 9, 13].map(cost) == [10, 20, 30, 35, 40, 50])
    }

    @Test func theStandardModelKnowsAllWork() {
        for encoding in Encoding.allCases {
            #expect(MachineModel.standard.seconds(.decoding(encoding), units: 1) > 0)
            #expect(MachineModel.standard.seconds(.dense(encoding), units: 1) > 0)
            #expect(MachineModel.standard.seconds(.leadingPairs(encoding), units: 1, count: 8) > 0)
            let pairs = MachineModel.standard.seconds(.pairs(encoding), units: 1)
            #expect(pairs + MachineModel.standard.seconds(.pairRows(encoding), units: 1) > 0)
            guard encoding.interleavedRowCount > 1 || encoding == .int8 else { continue }
            #expect(MachineModel.standard.seconds(.contraction(encoding), units: 1) > 0)
        }
        let works: [Work] = [
            .pairProducts, .contractionProducts, .reconstructionProducts, .denseProducts, .furtherComponents,
            .singularPairs, .refinement, .ranking, .mapping,
        ]
        for work in works {
            #expect(MachineModel.standard.seconds(work, units: 1) > 0)
        }
    }
}
