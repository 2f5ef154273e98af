import LinearAlgebra
import Testing

@testable import Curvature

/// Symmetric matrices in panels, and their largest eigenpairs, against matrices whose eigenpairs are known.
@Suite struct PanelMatrixTests {
    /// A matrix with known eigenpairs: Q diag(values) Qᵀ for the reflection Q = I − 2 w wᵀ.
    private func reflected(_ values: [Double], seed: UInt64) -> (matrix: PanelMatrix, vectors: [[Double]]) {
        let order = values.count
        var numbers = TestNumbers(seed: seed)
        var w = (0..<order).map { _ in Double(numbers.next()) }
        let norm = w.reduce(0) { $0 + $1 * $1 }.squareRoot()
        for index in w.indices { w[index] /= norm }
        // (Q D Qᵀ)_ab = d_a δ_ab − 2 w_a w_b (d_a + d_b) + 4 w_a w_b Σ d w².
        let middle = zip(values, w).reduce(0) { $0 + $1.0 * $1.1 * $1.1 }
        var matrix = PanelMatrix(order: order)
        for panel in matrix.panels.indices {
            let start = panel * FitGrain.panelWidth
            let end = min(start + FitGrain.panelWidth, order)
            for row in start..<end {
                for column in 0..<end {
                    let coupling: Double = 4 * middle - 2 * (values[row] + values[column])
                    let diagonal: Double = row == column ? values[row] : 0
                    matrix.panels[panel][(row - start) * end + column] = diagonal + w[row] * w[column] * coupling
                }
            }
        }
        var vectors = [[Double]](repeating: [Double](repeating: 0, count: order), count: order)
        for k in 0..<order {
            for row in 0..<order { vectors[k][row] = -2 * w[row] * w[k] }
            vectors[k][k] += 1
        }
        return (matrix, vectors)
    }

    @Test(arguments: [1, 2, 511, 512, 513, 1100])
    func productsAgreeWithTheWholeMatrix(_ order: Int) {
        let (matrix, _) = reflected((0..<order).map { 1 / Double($0 + 1) }, seed: 5)
        let whole = matrix.assembled()
        let isSymmetric = (0..<order).allSatisfy { row in
            (0..<row).allSatisfy { whole[row * order + $0] == whole[$0 * order + row] }
        }
        #expect(isSymmetric)
        #expect(abs(matrix.trace - (0..<order).reduce(0) { $0 + 1 / Double($1 + 1) }) < 1e-10)
        let vectors = RowVectors.random(widths: matrix.widths, rowCount: 3, seed: 8)
        let x = vectors.whole
        let found = matrix.product(vectors, workers: 2).whole
        #expect(found == matrix.product(vectors, workers: 1).whole)
        for k in 0..<3 {
            for column in stride(from: 0, to: order, by: max(1, order / 37)) {
                var expected = 0.0
                for row in 0..<order { expected += x[k * order + row] * whole[row * order + column] }
                #expect(abs(found[k * order + column] - expected) < 1e-10)
            }
        }
    }

    struct Spectrum: Sendable, CustomTestStringConvertible {
        let testDescription: String
        let values: [Double]
    }

    static let spectra: [Spectrum] = [
        Spectrum(
            testDescription: "slow decay", values: (0..<640).map { (k: Int) -> Double in 1 / (1 + 0.02 * Double(k)) }),
        Spectrum(
            testDescription: "fast decay",
            values: (0..<640).map { (k: Int) -> Double in
                let mantissa = 1 - Double(k % 8) / 16
                return Double(sign: .plus, exponent: -(k / 8), significand: mantissa)
            }),
        // More copies of one eigenvalue than a Krylov block has rows.
        Spectrum(
            testDescription: "repeated",
            values: (0..<640).map { (k: Int) -> Double in
                if k < 3 { return 5 }
                return k < 150 ? 2 : 0.5 / Double(k)
            }),
    ]

    @Test(arguments: spectra)
    func largestPairsOfKnownMatrices(_ spectrum: Spectrum) throws {
        let count = 96
        let (matrix, vectors) = reflected(spectrum.values, seed: 2)
        let order = matrix.order
        let progress = FitProgress(total: 1) { _ in }
        let found = try denseKrylov(
            matrix, count: count, sizes: .dense(order: order, rank: count), tolerance: 1e-10, seed: 0, workers: 2,
            progress: progress)
        let pairs = try #require(found)
        let expected = spectrum.values.sorted(by: >)
        for k in 0..<count { #expect(abs(pairs.values[k] - expected[k]) < 1e-9 * expected[0], "\(k)") }
        #expect(matrix.residual(values: pairs.values, vectors: pairs.vectors, workers: 2) < 1e-9)
        // The subspace: what of each known eigenvector above the cut lies in it.
        for k in 0..<count where expected[k] > 1.0001 * expected[count] {
            var inside = 0.0
            for j in 0..<count {
                var p = 0.0
                for row in 0..<order { p += pairs.vectors[j * order + row] * vectors[k][row] }
                inside += p * p
            }
            #expect(abs(inside - 1) < 1e-6, "\(k)")
        }
        #expect(progress.operationCount > 0)
    }

    /// A basis too small for all passes is restarted with its best vectors, and still gets there.
    @Test func restartedIterationsReachTheSameEnergy() throws {
        let layers = [factorLayer("long", 48, 40, rank: 2)]
        let rows = TestRows(layers: layers, rowCount: 500, seed: 12)
        var options = FitOptions(rank: 40, passes: 30, workers: 2, algorithm: .krylov)
        let generous = try planFit(rows.source(), options: options).groups[0]
        do throws(CurvatureError) {
            options.memoryBytes = 1
            _ = try planFit(rows.source(), options: options)
            Issue.record("a byte was enough")
        } catch {
            guard case .insufficientMemory(_, _, _, let needed, _) = error else {
                Issue.record("unexpected \(error)")
                return
            }
            options.memoryBytes = needed
        }
        let plan = try planFit(rows.source(), options: options).groups[0]
        #expect(plan.basisRows == 2 * plan.blockRows && plan.basisRows < generous.basisRows)
        let exact = try fit(rows.source(), options: FitOptions(rank: 40, workers: 2, algorithm: .gram)).groups[0]
        let restarted = try fit(rows.source(), options: options).groups[0]
        #expect(restarted.solver == .krylov && restarted.passes < 30)
        #expect(abs(restarted.capturedEnergy / exact.capturedEnergy - 1) < 1e-3)
    }

    /// The truncated fit of a layer long enough for the iterative solver, against LAPACK's pairs of the same matrix.
    @Test func energyOfALongLayerIsOptimal() throws {
        let layers = [factorLayer("long", 48, 40, rank: 2)]
        let rows = TestRows(layers: layers, rowCount: 500, seed: 12)
        let options = FitOptions(rank: 40, workers: 2, algorithm: .gram)
        let plan = try planFit(rows.source(), options: options)
        #expect(plan.groups[0].solver == .krylov)
        let fitted = try fit(rows.source(), options: options).groups[0]
        let progress = FitProgress(total: 1) { _ in }
        let matrix = try gramMatrix(of: [0], source: rows.source(), arithmetic: .double, workers: 2, progress: progress)
        let exact = try symmetricEigen(matrix.assembled(), order: matrix.order).values
        let best = exact.prefix(40).reduce(0, +) / exact.reduce(0, +)
        #expect(abs(fitted.capturedEnergy / best - 1) < 1e-8)
        // Random numbers have a flat spectrum, the worst there is for an iteration: the passes it has by itself are enough, and
        // it says so when they are not.
        let source = rows.source(tileRowCounts: [300, 200])
        let streamed = try fit(source, options: FitOptions(rank: 40, workers: 2, algorithm: .krylov)).groups[0]
        #expect(streamed.solver == .krylov && streamed.passes <= 10)
        #expect(abs(streamed.capturedEnergy / best - 1) < 1e-3)
        #expect(abs(streamed.trace / fitted.trace - 1) < 1e-9)
        let stopped = try fit(source, options: FitOptions(rank: 40, passes: 4, workers: 2, algorithm: .krylov)).groups[
            0]
        #expect(stopped.solver == .krylovStopped && stopped.passes == 4)
        #expect(stopped.capturedEnergy < best * (1 - 1e-3))
        #expect(fitted.conditionNumber == fitted.eigenvalues[0] / fitted.eigenvalues[39])
    }
}
