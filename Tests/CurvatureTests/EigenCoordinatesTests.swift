import Schema
import Testing

@testable import Curvature

/// Self-influence in closed form from coordinates, against dense (H + λI)⁻¹ in Double.
@Suite struct EigenCoordinatesTests {
    /// Rank 0, less than D and D, for dampings over twelve orders of magnitude.
    @Test(arguments: [0, 1, 5, 15, 16], [1e-6, 1e-2, 1.0, 1e6])
    func closedFormAgreesWithTheDenseInverse(_ rank: Int, _ ratio: Double) throws {
        let layer = denseLayer("a", 4, 4)
        let values: [Double] = (0..<rank).map { Double(sign: .plus, exponent: 6 - $0, significand: 1.5) }
        let trace = values.reduce(0, +) + 0.25
        // Exact in f32, so that only rounding of the coordinates is measured.
        let group = CurvatureGroup(
            layers: [0], layerLengths: [16], trace: trace, eigenvalues: values,
            basis: WoodburyTests.basis.prefix(rank).flatMap { $0 }, algorithm: .gram, arithmetic: .double,
            solver: .lapackAll, rowCount: 16, passes: 1, orthogonalityError: 0, residual: 0, spansRows: false)
        let fitted = FittedCurvature(scope: .perLayer, groups: [group])
        let damped = try DampedCurvature(fitted, damping: .relative(ratio))
        let lambda = ratio * trace / 16
        var matrix = [[Double]](repeating: [Double](repeating: 0, count: 16), count: 16)
        for k in 0..<rank {
            let vector = WoodburyTests.basis[k].map { Double($0) }
            for a in 0..<16 { for b in 0..<16 { matrix[a][b] += values[k] * vector[a] * vector[b] } }
        }
        var numbers = TestNumbers(seed: UInt64(rank) + 3)
        let rows = numbers.many(7 * 16, scale: 8)
        let tile = LayerTile(layer: layer, rowCount: 7, dense: rows)
        let coordinates = fitted.eigenCoordinates(of: [tile], workers: 2)[0]
        #expect(coordinates.rank == rank && coordinates.rowCount == 7)
        let found = damped.selfInfluence(of: coordinates, group: 0)
        for row in 0..<7 {
            let gradient = rows[row * 16..<(row + 1) * 16].map { Double($0) }
            let expected = Oracle.dot(Oracle.solve(matrix, damping: lambda, gradient), gradient)
            #expect(abs(found[row] / expected - 1) <= 1e-6, "row \(row): found \(found[row]), expected \(expected)")
        }
        // A complete basis leaves nothing outside, whatever rounding says.
        if rank == 16 { #expect(coordinates.outsideNorms.allSatisfy { $0 < 1e-3 }) }
    }

    @Test func severalDampingsAreThoseOneByOne() throws {
        let rows = TestRows(
            layers: [factorLayer("a", 5, 6, rank: 2), factorLayer("b", 4, 3, rank: 1)], rowCount: 40, seed: 5)
        let fitted = try fit(rows.source(), options: FitOptions(scope: .perLayer, rank: 6, workers: 1))
        let tiles = rows.layers.indices.map { rows.tile(0..<40, layer: $0) }
        let damped = try [0.01, 1, 100].map { try DampedCurvature(fitted, damping: .relative($0)) }
        let together = DampedCurvature.selfInfluences(damped, of: tiles, workers: 2)
        for (place, one) in damped.enumerated() {
            let alone = try one.selfInfluence(of: tiles, workers: 1)
            #expect(together[place] == alone)
            let coordinates = fitted.eigenCoordinates(of: tiles, workers: 1)
            var sum = [Double](repeating: 0, count: 40)
            for (group, rows) in coordinates.enumerated() {
                for (row, value) in one.selfInfluence(of: rows, group: group).enumerated() { sum[row] += value }
            }
            for row in 0..<40 { #expect(abs(sum[row] / alone[row] - 1) <= 1e-5) }
        }
    }

    /// Gradients of 1e±18, whose squares do not fit into f32.
    @Test(arguments: [Float(1e-18), 1e18]) func scaleDoesNotMatter(_ scale: Float) throws {
        let rows = TestRows(layers: [factorLayer("a", 5, 6, rank: 1)], rowCount: 30, seed: 9, scale: scale)
        let fitted = try fit(rows.source(), options: FitOptions(scope: .perLayer, rank: 6, workers: 1))
        let tile = rows.tile(0..<30, layer: 0)
        let coordinates = fitted.eigenCoordinates(of: [tile], workers: 1)[0]
        #expect(coordinates.values.allSatisfy { $0.isFinite } && coordinates.values.contains { abs($0) > 1e-3 })
        let damped = try DampedCurvature(fitted, damping: .relative(1))
        let expected = try damped.selfInfluence(of: [tile], workers: 1)
        for (found, expected) in zip(damped.selfInfluence(of: coordinates, group: 0), expected) {
            #expect(abs(found / expected - 1) <= 1e-5)
        }
    }
}
