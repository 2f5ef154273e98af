import Schema
import Testing

@testable import Curvature

/// Every scope, form of curvature and algorithm against a dense solve in Double.
@Suite struct ScoreTests {
    struct Case: Sendable, CustomTestStringConvertible {
        let scope: Scope
        let rank: Int?
        let algorithm: FitAlgorithm?
        let rowCount: Int
        var testDescription: String {
            "\(scope.rawValue) rank \(rank.map(String.init) ?? "exact") \(algorithm?.rawValue ?? "auto") N \(rowCount)"
        }
    }

    static let cases: [Case] = [Scope.perLayer, .global].flatMap { scope in
        [nil, 3, 100].flatMap { rank -> [Case] in
            [nil, FitAlgorithm.gram, .kernel, .krylov].flatMap { algorithm -> [Case] in
                if rank == nil && algorithm == .krylov { return [] }
                return [1, 4, 17, 50].map { Case(scope: scope, rank: rank, algorithm: algorithm, rowCount: $0) }
            }
        }
    }

    @Test(arguments: cases)
    func agreesWithDenseSolve(_ test: Case) throws {
        let rows = TestRows(layers: mixedLayers, rowCount: test.rowCount, seed: UInt64(test.rowCount))
        let queries = TestRows(layers: mixedLayers, rowCount: 3, seed: 99)
        // Enough passes for the iteration to converge: what is tested here is exactness.
        let fitted = try fit(
            rows.source(),
            options: FitOptions(
                scope: test.scope, rank: test.rank, exact: test.rank == nil, passes: 40, workers: 2,
                algorithm: test.algorithm))
        let groups = test.scope == .global ? [[0, 1, 2, 3]] : [[0], [1], [2], [3]]
        if let algorithm = test.algorithm { #expect(fitted.groups.allSatisfy { $0.algorithm == algorithm }) }
        for ratio in [0.1, 10] {
            let expected = oracleScores(rows, queries: queries, groups: groups, rank: test.rank) {
                ratio * $0 / Double($1)
            }
            // One row leaves nearly all of a query outside the basis, where f32 rounds it at its own large size.
            let tolerance = test.algorithm == .krylov ? 1e-3 : test.rowCount == 1 ? 1e-4 : 1e-5
            let found = try productScores(rows, queries: queries, fitted: fitted, damping: .relative(ratio))
            #expect(disagreement(found, expected) < tolerance)
            if test.rank == nil {
                let inside = try productScores(
                    rows, queries: queries, fitted: fitted, damping: .relative(ratio), forFittedRows: true)
                #expect(disagreement(inside, expected) < 1e-6)
            }
        }
        let expected = oracleScores(rows, queries: queries, groups: groups, rank: test.rank) { _, _ in 0.05 }
        let found = try productScores(rows, queries: queries, fitted: fitted, damping: .absolute(0.05))
        #expect(disagreement(found, expected) < (test.algorithm == .krylov ? 1e-3 : test.rowCount == 1 ? 1e-4 : 1e-5))
    }

    @Test(arguments: cases)
    func reportsWhatItCaptured(_ test: Case) throws {
        let rows = TestRows(layers: mixedLayers, rowCount: test.rowCount, seed: 5)
        let fitted = try fit(
            rows.source(),
            options: FitOptions(
                scope: test.scope, rank: test.rank, exact: test.rank == nil, passes: 40, workers: 1,
                algorithm: test.algorithm))
        for group in fitted.groups {
            let length = group.gradientLength
            let pairs = Oracle.eigen(Oracle.secondMoment(rows.gradients(group.layers), length: length))
            let trace = pairs.values.reduce(0, +)
            let best = pairs.values.prefix(test.rank ?? length).reduce(0, +) / trace
            #expect(abs(group.trace / trace - 1) < 1e-6)
            #expect(abs(group.capturedEnergy - best) < (test.algorithm == .krylov ? 1e-3 : 1e-6))
            #expect(group.orthogonalityError < 1e-6)
            #expect(group.residual < (test.algorithm == .krylov ? 0.05 : 1e-6))
            #expect(group.rank <= min(length, test.rowCount, test.rank ?? length))
            #expect(group.eigenvalues == group.eigenvalues.sorted(by: >))
            #expect(group.eigenvalues.allSatisfy { $0 > 0 })
        }
    }

    @Test(arguments: [FitAlgorithm.gram, .kernel], [Scope.perLayer, .global])
    func selfInfluenceIsTheDiagonal(_ algorithm: FitAlgorithm, _ scope: Scope) throws {
        let rows = TestRows(layers: mixedLayers, rowCount: 23, seed: 8)
        let groups = scope == .global ? [[0, 1, 2, 3]] : [[0], [1], [2], [3]]
        for rank in [nil, 4] as [Int?] {
            let fitted = try fit(
                rows.source(),
                options: FitOptions(scope: scope, rank: rank, exact: rank == nil, workers: 2, algorithm: algorithm))
            let damped = try DampedCurvature(fitted, damping: .relative(0.3))
            let found = try damped.selfInfluence(
                of: rows.layers.indices.map { rows.tile(0..<23, layer: $0) }, workers: 2)
            let all = oracleScores(rows, queries: rows, groups: groups, rank: rank) { 0.3 * $0 / Double($1) }
            let expected = (0..<23).map { all[$0][$0] }
            #expect(disagreement([found], [expected]) < 1e-5)
        }
    }

    @Test func lambdasAreTheMeanEigenvalueTimesTheRatio() throws {
        let rows = TestRows(layers: mixedLayers, rowCount: 9)
        let fitted = try fit(rows.source(), options: FitOptions(exact: true, workers: 1))
        let damped = try DampedCurvature(fitted, damping: .relative(2))
        for (group, lambda) in zip(fitted.groups, damped.lambdas) {
            let trace = rows.gradients(group.layers).reduce(0.0) { $0 + Oracle.dot($1, $1) }
            #expect(abs(lambda / (2 * trace / Double(group.gradientLength)) - 1) < 1e-12)
        }
    }
}
