import LinearAlgebra
import Schema
import Testing

@testable import Curvature

/// The Woodbury form in Double against a dense inverse. Bases are exact in f32 (Hadamard vectors) or kept in Double, so nothing but the
/// identity and Double's rounding is measured.
@Suite struct WoodburyTests {
    /// Truncated bases of gradients, as the fit finds them before they are rounded to f32.
    @Test(arguments: [1, 3, 10, 23], [1e-4, 1.0, 1e4])
    func truncatedBasesInDoubleAgreeWithTheDenseInverse(_ rank: Int, _ ratio: Double) throws {
        let rows = TestRows(layers: [factorLayer("a", 6, 4, rank: 2)], rowCount: 50, seed: 21)
        let progress = FitProgress(total: 1) { _ in }
        let gram = try gramMatrix(of: [0], source: rows.source(), arithmetic: .double, workers: 2, progress: progress)
        let order = gram.order
        let pairs = try symmetricEigen(gram.assembled(), order: order)
        let values = Array(pairs.values.prefix(rank))
        let vectors = (0..<rank).map { Array(pairs.vectors[($0 * order)..<(($0 + 1) * order)]) }
        let lambda = ratio * gram.trace / Double(order)
        var truncated = [[Double]](repeating: [Double](repeating: 0, count: order), count: order)
        for (value, vector) in zip(values, vectors) {
            for a in 0..<order { for b in 0..<order { truncated[a][b] += value * vector[a] * vector[b] } }
        }
        let queries = TestRows(layers: rows.layers, rowCount: 5, seed: 22).gradients([0])
        let coordinates = queries.flatMap { query in vectors.map { Oracle.dot($0, query) } }
        let found = dampedInverse(
            of: queries.flatMap { $0 }, rowCount: queries.count, coordinates: coordinates, eigenvalues: values,
            lambda: lambda, insideOnly: false
        ) { $0.flatMap { vectors[$0] } }
        for (index, query) in queries.enumerated() {
            let expected = Oracle.solve(truncated, damping: lambda, query)
            let largest = expected.map { abs($0) }.max() ?? 0
            let errors = (0..<order).map { abs(found[index * order + $0] - expected[$0]) }
            #expect((errors.max() ?? 1) <= 1e-9 * largest)
        }
    }

    /// Rows of the 16×16 Hadamard matrix divided by 4: orthonormal, every entry ±1/4.
    static let basis: [[Float]] = (0..<16).map { row in
        (0..<16).map { column in (row & column).nonzeroBitCount % 2 == 0 ? 0.25 : -0.25 }
    }

    @Test(arguments: [0, 1, 7, 15, 16], [1e-6, 1.0, 1e6])
    func agreesWithTheDenseInverse(_ rank: Int, _ ratio: Double) throws {
        let layer = denseLayer("a", 4, 4)
        let values: [Double] = (0..<rank).map { Double(sign: .plus, exponent: 10 - 2 * $0, significand: 1.25) }
        let trace = values.reduce(0, +) + 0.5
        let group = CurvatureGroup(
            layers: [0], layerLengths: [16], trace: trace, eigenvalues: values,
            basis: Self.basis.prefix(rank).flatMap { $0 }, algorithm: .gram, arithmetic: .double, solver: .lapackAll,
            rowCount: 16, passes: 1, orthogonalityError: 0, residual: 0, spansRows: false)
        let damped = try DampedCurvature(
            FittedCurvature(scope: .perLayer, groups: [group]), damping: .relative(ratio))
        let lambda = ratio * trace / 16
        #expect(abs(damped.lambdas[0] / lambda - 1) < 1e-14)
        var matrix = [[Double]](repeating: [Double](repeating: 0, count: 16), count: 16)
        for k in 0..<rank {
            let vector: [Double] = Self.basis[k].map { Double($0) }
            for a in 0..<16 {
                for b in 0..<16 { matrix[a][b] += values[k] * vector[a] * vector[b] }
            }
        }
        // Integers, so that sums and differences of rows are exact.
        var numbers = TestNumbers(seed: UInt64(rank) + 7)
        let rows: [[Float]] = (0..<5).map { _ in numbers.many(16, scale: 64).map { $0.rounded() } }
        func quadratic(_ row: [Float]) throws -> Double {
            try damped.selfInfluence(of: [LayerTile(layer: layer, rowCount: 1, dense: row)], workers: 1)[0]
        }
        for i in rows.indices {
            let solved = Oracle.solve(matrix, damping: lambda, rows[i].map { Double($0) })
            for j in rows.indices {
                // gᵀ M h = ((g + h)ᵀ M (g + h) − (g − h)ᵀ M (g − h)) / 4.
                let plus = try quadratic(zip(rows[i], rows[j]).map { $0 + $1 })
                let minus = try quadratic(zip(rows[i], rows[j]).map { $0 - $1 })
                let expected = Oracle.dot(solved, rows[j].map { Double($0) })
                #expect(abs((plus - minus) / 4 - expected) <= 1e-9 * max(plus, minus))
            }
        }
    }
}
