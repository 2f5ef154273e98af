import Schema
import Testing

@testable import Curvature

/// Stores that make naive curvature divide by zero, overflow or invent directions.
@Suite struct DegenerateTests {
    static let algorithms: [FitAlgorithm] = [.gram, .kernel, .krylov]
    let queries = TestRows(layers: mixedLayers, rowCount: 2, seed: 31)

    private func options(_ algorithm: FitAlgorithm, scope: Scope = .perLayer, rank: Int = 6) -> FitOptions {
        FitOptions(scope: scope, rank: rank, passes: 30, workers: 2, algorithm: algorithm)
    }

    @Test(arguments: algorithms)
    func equalRowsSpanOneDirection(_ algorithm: FitAlgorithm) throws {
        var rows = TestRows(layers: mixedLayers, rowCount: 30)
        rows.rearrange { _ in 0 }
        let fitted = try fit(rows.source(), options: options(algorithm))
        #expect(fitted.groups.allSatisfy { $0.rank == 1 && $0.spansRows })
        let expected = oracleScores(rows, queries: queries, groups: [[0], [1], [2], [3]], rank: nil) {
            0.1 * $0 / Double($1)
        }
        let found = try productScores(rows, queries: queries, fitted: fitted, damping: .relative(0.1))
        #expect(disagreement(found, expected) < 1e-4)
    }

    /// r above N, r above every D_l, and c = min(d1, d2): no more directions than there are, and the scores of the exact curvature.
    @Test(arguments: algorithms, [1, 2, 40])
    func moreDirectionsThanThereAre(_ algorithm: FitAlgorithm, _ rowCount: Int) throws {
        let layers = [factorLayer("full", 4, 3, rank: 3), factorLayer("one", 1, 5, rank: 1), denseLayer("dense", 3, 2)]
        let rows = TestRows(layers: layers, rowCount: rowCount, seed: 14)
        let asked = TestRows(layers: layers, rowCount: 2, seed: 15)
        for scope in Scope.allCases {
            let fitted = try fit(rows.source(), options: options(algorithm, scope: scope, rank: 500))
            for group in fitted.groups {
                #expect(group.rank == min(rowCount, group.gradientLength))
                // The iteration promises it only where it found null directions.
                if algorithm != .krylov { #expect(group.spansRows) }
            }
            let groups = scope == .perLayer ? [[0], [1], [2]] : [[0, 1, 2]]
            let expected = oracleScores(rows, queries: asked, groups: groups, rank: nil) { 0.1 * $0 / Double($1) }
            let found = try productScores(rows, queries: asked, fitted: fitted, damping: .relative(0.1))
            #expect(disagreement(found, expected) < 1e-4)
        }
    }

    @Test(arguments: algorithms)
    func duplicateRowsCountTwice(_ algorithm: FitAlgorithm) throws {
        var rows = TestRows(layers: mixedLayers, rowCount: 20)
        rows.rearrange { $0 / 2 }
        let fitted = try fit(rows.source(), options: options(algorithm, scope: .global, rank: 20))
        #expect(fitted.groups[0].rank == 10)
        let expected = oracleScores(rows, queries: queries, groups: [[0, 1, 2, 3]], rank: nil) { 0.1 * $0 / Double($1) }
        let found = try productScores(rows, queries: queries, fitted: fitted, damping: .relative(0.1))
        #expect(disagreement(found, expected) < 1e-4)
    }

    @Test(arguments: algorithms)
    func zeroLayerTakesNoPartUnderRelativeDamping(_ algorithm: FitAlgorithm) throws {
        var rows = TestRows(layers: mixedLayers, rowCount: 12)
        rows.right[1] = rows.right[1].map { _ in 0 }
        let fitted = try fit(rows.source(), options: options(algorithm))
        #expect(fitted.groups[1].rank == 0 && fitted.groups[1].trace == 0 && fitted.groups[1].capturedEnergy == 1)
        let damped = try DampedCurvature(fitted, damping: .relative(0.1))
        #expect(damped.lambdas[1] == 0)
        let dense = rows.layers.indices.map { layer in queries.gradients([layer]).flatMap { $0.map { Float($0) } } }
        let preconditioned = try damped.precondition(dense, rowCount: 2, workers: 1)
        #expect(preconditioned[1].allSatisfy { $0 == 0 })
        #expect(preconditioned[0].contains { $0 != 0 })
        let influence = try damped.selfInfluence(
            of: rows.layers.indices.map { rows.tile(0..<12, layer: $0) }, workers: 1)
        #expect(influence.allSatisfy { $0 > 0 && $0.isFinite })
        // An absolute λ says how to weigh it: (1/λ) q.
        let absolute = try DampedCurvature(fitted, damping: .absolute(0.5)).precondition(dense, rowCount: 2, workers: 1)
        #expect(absolute[1] == dense[1].map { $0 * 2 })
    }

    @Test(arguments: algorithms)
    func aStoreOfZerosScoresZero(_ algorithm: FitAlgorithm) throws {
        var rows = TestRows(layers: mixedLayers, rowCount: 5)
        rows.right = rows.right.map { $0.map { _ in 0 } }
        let fitted = try fit(rows.source(), options: options(algorithm, scope: .global))
        let scores = try productScores(rows, queries: queries, fitted: fitted, damping: .relative(1))
        #expect(scores.allSatisfy { $0.allSatisfy { $0 == 0 } })
    }

    @Test(arguments: algorithms, [Float(1e-15), 1e15])
    func extremeScales(_ algorithm: FitAlgorithm, _ scale: Float) throws {
        let rows = TestRows(layers: mixedLayers, rowCount: 40, seed: 3, scale: scale)
        let fitted = try fit(rows.source(), options: options(algorithm, scope: .global, rank: 31))
        let expected = oracleScores(rows, queries: queries, groups: [[0, 1, 2, 3]], rank: nil) { 0.1 * $0 / Double($1) }
        let found = try productScores(rows, queries: queries, fitted: fitted, damping: .relative(0.1))
        #expect(disagreement(found, expected) < 1e-4)
    }

    /// Rows and queries of the same tiny or enormous size, whose squares are far outside f32.
    @Test(arguments: algorithms, [Float(1e-20), 1e20])
    func rowsAndQueriesOfOneExtremeScale(_ algorithm: FitAlgorithm, _ scale: Float) throws {
        let rows = TestRows(layers: mixedLayers, rowCount: 40, seed: 3, scale: scale)
        let queries = TestRows(layers: mixedLayers, rowCount: 2, seed: 31, scale: scale)
        let fitted = try fit(rows.source(), options: options(algorithm, rank: 9))
        let expected = oracleScores(rows, queries: queries, groups: [[0], [1], [2], [3]], rank: 9) {
            0.1 * $0 / Double($1)
        }
        let found = try productScores(rows, queries: queries, fitted: fitted, damping: .relative(0.1))
        #expect(disagreement(found, expected) < (algorithm == .krylov ? 1e-3 : 1e-4))
    }

    /// Factors of 1e±20 on both sides: products beyond f32, but not beyond the scaled f32 arithmetic.
    @Test(arguments: [Float(1e-20), 1e20])
    func singlePrecisionProductsAreScaled(_ scale: Float) throws {
        let layers = [factorLayer("a", 6, 5, rank: 1), factorLayer("b", 3, 4, rank: 2)]
        var rows = TestRows(layers: layers, rowCount: 40, seed: 3, scale: scale)
        rows.right = rows.right.map { $0.map { $0 * scale } }
        let trace = rows.gradients([0]).reduce(0.0) { $0 + Oracle.dot($1, $1) }
        let source = rows.source(tileRowCounts: [13, 27])
        let progress = FitProgress(total: 1) { _ in }
        let gram = try gramMatrix(of: [0], source: source, arithmetic: .single, workers: 1, progress: progress)
        #expect(abs(gram.trace / trace - 1) < 1e-5)
        let double = try gramMatrix(of: [0, 1], source: source, arithmetic: .double, workers: 1, progress: progress)
            .assembled()
        let single = try gramMatrix(of: [0, 1], source: source, arithmetic: .single, workers: 2, progress: progress)
            .assembled()
        let largest = double.map { abs($0) }.max() ?? 0
        #expect(largest > 0 && zip(double, single).allSatisfy { abs($0 - $1) < 1e-5 * largest })
    }

    @Test(arguments: algorithms)
    func tilesWithoutRowsAndLeadingZeros(_ algorithm: FitAlgorithm) throws {
        var rows = TestRows(layers: mixedLayers, rowCount: 16, seed: 2)
        for layer in rows.layers.indices {
            let length =
                rows.layers[layer].rank == nil ? rows.layers[layer].gradientLength : rows.layers[layer].outputDimension
            for component in 0..<(rows.layers[layer].rank ?? 1) {
                for index in 0..<(4 * length) { rows.right[layer][component * 16 * length + index] = 0 }
            }
        }
        let fitted = try fit(rows.source(tileRowCounts: [0, 4, 0, 12, 0]), options: options(algorithm, rank: 12))
        let expected = oracleScores(rows, queries: queries, groups: [[0], [1], [2], [3]], rank: 12) {
            0.1 * $0 / Double($1)
        }
        let found = try productScores(rows, queries: queries, fitted: fitted, damping: .relative(0.1))
        #expect(disagreement(found, expected) < 1e-4)
    }

    @Test func aSourceWithoutRowsIsAllZero() throws {
        let rows = TestRows(layers: mixedLayers, rowCount: 0)
        for algorithm in Self.algorithms {
            let fitted = try fit(rows.source(), options: options(algorithm))
            #expect(fitted.groups.allSatisfy { $0.rank == 0 && $0.trace == 0 && $0.rowCount == 0 })
        }
    }

    @Test func repeatedEigenvaluesAreAllFound() throws {
        // 40 orthogonal rows of equal length: one eigenvalue, 40 times, and nothing else.
        let layers = [denseLayer("a", 60, 1)]
        var rows = TestRows(layers: layers, rowCount: 40)
        rows.right[0] = (0..<(40 * 60)).map { $0 / 60 == $0 % 60 ? 3 : 0 }
        for algorithm in Self.algorithms {
            let fitted = try fit(rows.source(), options: options(algorithm, rank: 25))
            #expect(fitted.groups[0].rank == 25)
            #expect(fitted.groups[0].eigenvalues.allSatisfy { abs($0 - 9) < 1e-9 })
            #expect(abs(fitted.groups[0].capturedEnergy - 25.0 / 40) < 1e-9)
        }
    }
}
