import Schema
import Testing

@testable import Curvature

/// What must not change the result, what must be refused, and what a plan promises.
@Suite struct InvarianceTests {
    static let layers = mixedLayers + [factorLayer("wide", 40, 30, rank: 1)]

    @Test(arguments: FitAlgorithm.allCases, Scope.allCases)
    func workersChangeNothing(_ algorithm: FitAlgorithm, _ scope: Scope) throws {
        let rows = TestRows(layers: Self.layers, rowCount: 700, seed: 4)
        func fitted(_ workers: Int) throws -> FittedCurvature {
            try fit(
                rows.source(tileRowCounts: [300, 1, 399]),
                options: FitOptions(scope: scope, rank: 8, passes: 4, workers: workers, algorithm: algorithm))
        }
        let (one, many) = (try fitted(1), try fitted(5))
        for (a, b) in zip(one.groups, many.groups) {
            #expect(a.eigenvalues == b.eigenvalues && a.basis == b.basis && a.trace == b.trace)
        }
        let tiles = rows.layers.indices.map { rows.tile(0..<50, layer: $0) }
        let damped = try DampedCurvature(one, damping: .relative(0.1))
        let influences = [1, 5].map { workers in try? damped.selfInfluence(of: tiles, workers: workers) }
        #expect(influences[0] != nil && influences[0] == influences[1])
    }

    @Test(arguments: FitAlgorithm.allCases, Scope.allCases)
    func tileLayoutAndRowOrderChangeRoundingOnly(_ algorithm: FitAlgorithm, _ scope: Scope) throws {
        let rows = TestRows(layers: mixedLayers, rowCount: 60, seed: 6)
        let queries = TestRows(layers: mixedLayers, rowCount: 3, seed: 7)
        var reversed = rows
        reversed.rearrange { 59 - $0 }
        let options = FitOptions(scope: scope, rank: 5, passes: 60, workers: 2, algorithm: algorithm)
        let tolerance = algorithm == .krylov ? 1e-3 : 1e-6
        let whole = try fit(rows.source(), options: options)
        let cut = try fit(rows.source(tileRowCounts: [1, 30, 0, 29]), options: options)
        let turned = try fit(reversed.source(), options: options)
        func scores(_ fitted: FittedCurvature) throws -> [[Double]] {
            try productScores(rows, queries: queries, fitted: fitted, damping: .relative(0.1))
        }
        #expect(disagreement(try scores(cut), try scores(whole)) < tolerance)
        #expect(disagreement(try scores(turned), try scores(whole)) < tolerance)
    }

    @Test func seedsGiveTheSameConvergedSubspace() throws {
        let rows = TestRows(layers: mixedLayers, rowCount: 60, seed: 6)
        let queries = TestRows(layers: mixedLayers, rowCount: 3, seed: 7)
        let scores = try [UInt64(0), 12345].map { seed in
            let fitted = try fit(
                rows.source(),
                options: FitOptions(scope: .global, rank: 5, passes: 50, seed: seed, workers: 1, algorithm: .krylov))
            return try productScores(rows, queries: queries, fitted: fitted, damping: .relative(0.1))
        }
        #expect(disagreement(scores[0], scores[1]) < 1e-3)
    }

    @Test(arguments: [3 << 29, 4 << 30, 8 << 30])
    func plansStayWithinMemory(_ budget: Int) throws {
        let layers = (0..<16).map { factorLayer("l\($0)", 64, 64, rank: 1) }
        for scope in Scope.allCases {
            let plan = try planFit(
                layers: layers, rowCount: 20_000, largestTileRowCount: 4096,
                options: FitOptions(scope: scope, rank: 256, memoryBytes: budget, workers: 2))
            #expect(plan.memoryBytes <= budget)
            #expect(plan.groups.count == (scope == .global ? 1 : 16))
            #expect(plan.operationCount > 0 && plan.numbersRead >= 20_000 * 16 * 128)
            if scope == .global { #expect(plan.groups[0].algorithm != .gram) }
        }
    }

    @Test func hugeExactFitsAreRefusedWithWhatTheyNeed() throws {
        let layers = [denseLayer("big", 512, 512)]
        let needed: Int
        do throws(CurvatureError) {
            _ = try planFit(
                layers: layers, rowCount: 1 << 20, largestTileRowCount: 1 << 20,
                options: FitOptions(exact: true, memoryBytes: 8 << 30, workers: 2))
            Issue.record("a fit of 262,144 × 262,144 was not refused")
            return
        } catch {
            guard case .insufficientMemory(let names, let length, let rows, let bytes, let budget) = error else {
                Issue.record("unexpected \(error)")
                return
            }
            #expect(names == ["big"] && length == 1 << 18 && rows == 1 << 20 && budget == 8 << 30)
            #expect("\(error)".contains("\(bytes)"))
            needed = bytes
        }
        // At least H in Double; and what is said to be needed is enough.
        #expect(needed >= (1 << 36) * 8)
        let plan = try planFit(
            layers: layers, rowCount: 1 << 20, largestTileRowCount: 1 << 20,
            options: FitOptions(exact: true, memoryBytes: needed, workers: 2))
        #expect(plan.memoryBytes <= needed)
    }

    @Test func badOptionsAreRefused() {
        let rows = TestRows(layers: mixedLayers, rowCount: 3)
        let bad = [
            FitOptions(workers: 1), FitOptions(rank: 0, workers: 1), FitOptions(rank: 3, exact: true, workers: 1),
            FitOptions(rank: 3, workers: 0), FitOptions(rank: 3, passes: 1, workers: 1),
            FitOptions(rank: 3, memoryBytes: 0, workers: 1), FitOptions(rank: 3, oversampling: -1, workers: 1),
            FitOptions(exact: true, workers: 1, algorithm: .krylov),
        ]
        for options in bad {
            #expect(throws: CurvatureError.self) { try fit(rows.source(), options: options) }
        }
    }

    @Test(arguments: [
        Damping.relative(0), .relative(-1), .relative(.nan), .relative(.infinity), .absolute(0), .absolute(-3),
        .absolute(.nan), .absolute(.infinity), .absolute(.leastNormalMagnitude / 4096),
    ])
    func badDampingIsRefused(_ damping: Damping) throws {
        let rows = TestRows(layers: mixedLayers, rowCount: 3)
        let fitted = try fit(rows.source(), options: FitOptions(exact: true, workers: 1))
        #expect(throws: CurvatureError.self) { try DampedCurvature(fitted, damping: damping) }
    }

    struct Unreadable: Error {}

    @Test(arguments: FitAlgorithm.allCases)
    func readErrorsAndWrongShapesSurface(_ algorithm: FitAlgorithm) {
        let rows = TestRows(layers: mixedLayers, rowCount: 8)
        let options = FitOptions(rank: 2, workers: 2, algorithm: algorithm)
        let failing = RowSource(layers: mixedLayers, tileRowCounts: [4, 4]) { tile, layer in
            if tile == 1 && layer == 2 { throw Unreadable() }
            return rows.tile((tile * 4)..<(tile * 4 + 4), layer: layer)
        }
        do throws(CurvatureError) {
            _ = try fit(failing, options: options)
            Issue.record("the read error was swallowed")
        } catch {
            guard case .unreadable(1, "c", let underlying) = error, underlying is Unreadable else {
                Issue.record("unexpected \(error)")
                return
            }
        }
        let short = RowSource(layers: mixedLayers, tileRowCounts: [5]) { _, layer in rows.tile(0..<4, layer: layer) }
        #expect(throws: CurvatureError.self) { try fit(short, options: options) }
    }

    @Test func infiniteProductsAreRefused() {
        var rows = TestRows(layers: [factorLayer("a", 3, 3, rank: 1)], rowCount: 4)
        rows.left[0][0] = .infinity
        for algorithm in FitAlgorithm.allCases {
            #expect(throws: CurvatureError.self) {
                try fit(rows.source(), options: FitOptions(rank: 2, workers: 1, algorithm: algorithm))
            }
        }
    }

    @Test func preconditionedGradientsBeyondFloatAreRefused() throws {
        let rows = TestRows(layers: mixedLayers, rowCount: 4)
        let fitted = try fit(rows.source(), options: FitOptions(rank: 1, workers: 1))
        let damped = try DampedCurvature(fitted, damping: .absolute(1e-100))
        let dense = rows.layers.map { [Float](repeating: 1, count: $0.gradientLength) }
        #expect(throws: CurvatureError.self) { try damped.precondition(dense, rowCount: 1, workers: 1) }
    }

    @Test func progressRisesToOne() throws {
        let rows = TestRows(layers: mixedLayers, rowCount: 30)
        for algorithm in FitAlgorithm.allCases {
            let seen = Seen()
            _ = try fit(
                rows.source(), options: FitOptions(rank: 3, workers: 2, algorithm: algorithm),
                progress: { seen.add($0) })
            #expect(seen.values == seen.values.sorted())
            #expect(seen.values.last == 1)
        }
    }

    @Test func groupsCanBeFittedOneByOne() throws {
        let rows = TestRows(layers: mixedLayers, rowCount: 30)
        let options = FitOptions(rank: 3, workers: 2)
        let whole = try fit(rows.source(), options: options)
        let plan = try planFit(rows.source(), options: options)
        for (index, group) in plan.groups.enumerated() {
            let alone = try fitGroup(rows.source(), plan: group, options: options)
            #expect(alone.basis == whole.groups[index].basis && alone.eigenvalues == whole.groups[index].eigenvalues)
        }
    }
}

/// What a progress closure was told; calls are serialised by the product.
final class Seen: @unchecked Sendable {
    private(set) var values: [Double] = []
    func add(_ value: Double) { values.append(value) }
}
