import LinearAlgebra
import Schema
import Testing

@Suite struct TruncatedFactorsTests {
    struct Shape: Sendable, CustomTestStringConvertible {
        let d1: Int
        let d2: Int
        let rank: Int
        /// Ratio of consecutive singular values, roughly.
        let decay: Double
        var testDescription: String { "\(d1)×\(d2) rank \(rank) decay \(decay)" }
    }

    static let shapes = [
        Shape(d1: 12, d2: 12, rank: 1, decay: 0.5), Shape(d1: 20, d2: 9, rank: 2, decay: 0.7),
        Shape(d1: 9, d2: 20, rank: 3, decay: 0.7), Shape(d1: 32, d2: 32, rank: 4, decay: 0.9),
        Shape(d1: 24, d2: 24, rank: 1, decay: 0.999), Shape(d1: 6, d2: 4, rank: 4, decay: 0.8),
        Shape(d1: 1, d2: 7, rank: 1, decay: 1), Shape(d1: 7, d2: 1, rank: 1, decay: 1),
    ]

    /// Σ of the `rank` largest squared singular values, by one-sided Jacobi on the smaller side in Double.
    static func bestEnergy(_ matrix: [Double], d1: Int, d2: Int, rank: Int) -> Double {
        // Rows of whichever orientation has fewer of them.
        let count = min(d1, d2)
        let length = max(d1, d2)
        var rows = (0..<count).map { a in (0..<length).map { b in d1 <= d2 ? matrix[a * d2 + b] : matrix[b * d2 + a] } }
        for _ in 0..<40 {
            for p in 0..<count {
                for q in (p + 1)..<max(count, p + 1) {
                    let alpha = rows[p].reduce(0) { $0 + $1 * $1 }
                    let beta = rows[q].reduce(0) { $0 + $1 * $1 }
                    let gamma = zip(rows[p], rows[q]).reduce(0) { $0 + $1.0 * $1.1 }
                    guard abs(gamma) > 1e-15 * (alpha * beta).squareRoot(), gamma != 0 else { continue }
                    let zeta = (beta - alpha) / (2 * gamma)
                    let t = (zeta < 0 ? -1 : 1) / (abs(zeta) + (1 + zeta * zeta).squareRoot())
                    let c = 1 / (1 + t * t).squareRoot()
                    let s = c * t
                    for i in 0..<length {
                        (rows[p][i], rows[q][i]) = (c * rows[p][i] - s * rows[q][i], s * rows[p][i] + c * rows[q][i])
                    }
                }
            }
        }
        return rows.map { $0.reduce(0) { $0 + $1 * $1 } }.sorted(by: >).prefix(rank).reduce(0, +)
    }

    static func matrices(_ shape: Shape, count: Int) -> [Double] {
        let side = min(shape.d1, shape.d2)
        return (0..<count).flatMap { index -> [Double] in
            var matrix = [Double](repeating: 0, count: shape.d1 * shape.d2)
            var weight = 1.0
            for k in 0..<side {
                let u = testNumbers(shape.d1, seed: UInt64(index * 1000 + k * 2))
                let v = testNumbers(shape.d2, seed: UInt64(index * 1000 + k * 2 + 1))
                for a in 0..<shape.d1 { for b in 0..<shape.d2 { matrix[a * shape.d2 + b] += weight * u[a] * v[b] } }
                weight *= shape.decay
            }
            return matrix
        }
    }

    @Test(arguments: shapes, [false, true])
    func energyIsWithinATenThousandthOfTheBest(_ shape: Shape, isEstimate: Bool) throws {
        let count = 5
        let values = Self.matrices(shape, count: count).map { Float($0) }
        let found = try truncatedFactors(
            of: values.span, count: count, d1: shape.d1, d2: shape.d2, rank: shape.rank, isEstimate: isEstimate,
            workers: 2)
        let size = shape.d1 * shape.d2
        for index in 0..<count {
            let matrix = values[(index * size)..<((index + 1) * size)].map { Double($0) }
            var rest = matrix
            var energies: [Double] = []
            for k in 0..<shape.rank {
                let u = (0..<shape.d1).map { Double(found.left[(k * count + index) * shape.d1 + $0]) }
                let v = (0..<shape.d2).map { Double(found.right[(k * count + index) * shape.d2 + $0]) }
                for a in 0..<shape.d1 { for b in 0..<shape.d2 { rest[a * shape.d2 + b] -= u[a] * v[b] } }
                let (left, right) = (u.reduce(0) { $0 + $1 * $1 }, v.reduce(0) { $0 + $1 * $1 })
                // √σ on both sides, sign fixed.
                #expect(abs(left - right) <= (isEstimate ? 1e-2 : 1e-4) * (left + right))
                let peak = u.max { abs($0) < abs($1) } ?? 0
                #expect(peak >= 0)
                energies.append(left * right)
            }
            #expect(energies == energies.sorted(by: >))
            let total = matrix.reduce(0) { $0 + $1 * $1 }
            let left = rest.reduce(0) { $0 + $1 * $1 }
            let best = Self.bestEnergy(matrix, d1: shape.d1, d2: shape.d2, rank: shape.rank)
            // Estimates promise nothing, but are of no use far from the best.
            #expect(total - left >= best * (1 - (isEstimate ? 5e-2 : 1e-4)))
            #expect(abs(Double(found.residualNorms[index]) - left.squareRoot()) <= 1e-5 * total.squareRoot())
        }
    }

    @Test func workersChangeNothing() throws {
        let shape = Shape(d1: 16, d2: 16, rank: 2, decay: 0.8)
        let values = Self.matrices(shape, count: 150).map { Float($0) }
        let one = try truncatedFactors(of: values.span, count: 150, d1: 16, d2: 16, rank: 2, workers: 1)
        let many = try truncatedFactors(of: values.span, count: 150, d1: 16, d2: 16, rank: 2, workers: 4)
        #expect(one.left == many.left && one.right == many.right && one.residualNorms == many.residualNorms)
    }

    @Test(arguments: [Float(1e-38), 1e-30, 1, 1e30])
    func scalesAndZeros(_ scale: Float) throws {
        let shape = Shape(d1: 16, d2: 12, rank: 2, decay: 0.5)
        var values = Self.matrices(shape, count: 3).map { Float($0) }
        for index in 0..<(16 * 12) { values[16 * 12 + index] = 0 }
        let plain = try truncatedFactors(of: values.span, count: 3, d1: 16, d2: 12, rank: 2, workers: 1)
        let scaledValues = values.map { $0 * scale }
        let scaled = try truncatedFactors(of: scaledValues.span, count: 3, d1: 16, d2: 12, rank: 2, workers: 1)
        #expect(plain.residualNorms[1] == 0)
        for component in 0..<2 {
            for a in 0..<16 { #expect(scaled.left[(component * 3 + 1) * 16 + a] == 0) }
            for matrix in [0, 2] {
                for a in 0..<16 {
                    let expected = plain.left[(component * 3 + matrix) * 16 + a] * scale.squareRoot()
                    #expect(abs(scaled.left[(component * 3 + matrix) * 16 + a] - expected) <= 1e-3 * scale.squareRoot())
                }
            }
        }
        #expect(abs(scaled.residualNorms[0] / scale - plain.residualNorms[0]) <= 1e-3 * plain.residualNorms[0])
    }

    @Test func tilesAreReconstructedInBlocks() {
        let layer = LayerSchema(name: "a", inputDimension: 3, outputDimension: 5, form: .factors(rank: 2))
        let left = testNumbers(2 * 4 * 3, seed: 1).map { Float($0) }
        let right = testNumbers(2 * 4 * 5, seed: 2).map { Float($0) }
        let tile = LayerTile(layer: layer, rowCount: 4, left: left, right: right)
        func entry(_ row: Int, _ position: Int) -> Double {
            var sum = 0.0
            for component in 0..<2 {
                let start = component * 4 + row
                sum += Double(left[start * 3 + position / 5]) * Double(right[start * 5 + position % 5])
            }
            return sum
        }
        for first in 0..<15 {
            for last in first...15 {
                var matrix = [Double](repeating: 0, count: 2 * (last - first))
                var target = matrix.mutableSpan
                reconstruct(tile, rows: 1..<3, columns: first..<last, leftScale: 4, rightScale: 0.5, into: &target)
                for slot in 0..<2 {
                    for position in first..<last {
                        let found = matrix[slot * (last - first) + position - first]
                        #expect(abs(found - 2 * entry(slot + 1, position)) < 1e-12)
                    }
                }
            }
        }
        let norms = squaredNorms(of: tile)
        for row in 0..<4 {
            let expected = (0..<15).reduce(0.0) { $0 + entry(row, $1) * entry(row, $1) }
            #expect(abs(norms[row] - expected) < 1e-12)
        }
    }
}
