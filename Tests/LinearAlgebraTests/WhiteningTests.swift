import LinearAlgebra
import Schema
import Testing

@Suite struct WhiteningTests {
    /// n matrices with unequal directions, times a scale.
    private static func gradients(_ count: Int, d1: Int, d2: Int, scale: Double) -> [Float] {
        (0..<count).flatMap { index -> [Float] in
            let numbers = testNumbers(d1 * d2, seed: UInt64(index + 1))
            return (0..<d1 * d2).map { Float(numbers[$0] * Double(1 + $0 % d2) / Double(1 + $0 / d2) * scale) }
        }
    }

    private static func product(_ a: [Double], _ b: [Double], _ m: Int, _ n: Int, _ k: Int) -> [Double] {
        var c = [Double](repeating: 0, count: m * n)
        for i in 0..<m { for j in 0..<n { for l in 0..<k { c[i * n + j] += a[i * k + l] * b[l * n + j] } } }
        return c
    }

    @Test(arguments: [(5, 3, 1.0), (3, 5, 1e-20), (4, 4, 1e20), (1, 6, 1), (6, 1, 1)])
    func momentsAreMeans(d1: Int, d2: Int, scale: Double) {
        let values = Self.gradients(7, d1: d1, d2: d2, scale: scale)
        var moments = SecondMoments(inputDimension: d1, outputDimension: d2)
        moments.add(Array(values.prefix(3 * d1 * d2)), count: 3)
        moments.add(Array(values.suffix(4 * d1 * d2)), count: 4)
        var left = [Double](repeating: 0, count: d1 * d1)
        var right = [Double](repeating: 0, count: d2 * d2)
        for index in 0..<7 {
            func g(_ a: Int, _ b: Int) -> Double { Double(values[(index * d1 + a) * d2 + b]) / 7 }
            for a in 0..<d1 { for c in 0..<d1 { for b in 0..<d2 { left[a * d1 + c] += g(a, b) * g(c, b) * 7 } } }
            for b in 0..<d2 { for c in 0..<d2 { for a in 0..<d1 { right[b * d2 + c] += g(a, b) * g(a, c) * 7 } } }
        }
        let size = scale * scale
        #expect(zip(moments.means.left, left).allSatisfy { abs($0 - $1) <= 1e-13 * size * Double(d2 * d2) })
        #expect(zip(moments.means.right, right).allSatisfy { abs($0 - $1) <= 1e-13 * size * Double(d2 * d2) })
    }

    /// W (C + δI) W is a multiple of the identity: W is the inverse square root, whatever the scale.
    @Test(arguments: [1e-30, 1e-20, 1, 1e20, 1e30])
    func mapsAreInverseRoots(scale: Double) throws {
        let (d1, d2, epsilon) = (6, 4, 0.1)
        var moments = SecondMoments(inputDimension: d1, outputDimension: d2)
        moments.add(Self.gradients(9, d1: d1, d2: d2, scale: scale), count: 9)
        let means = moments.means
        let map = try LayerWhitening(
            name: "a", inputDimension: d1, outputDimension: d2, leftMoment: means.left, rightMoment: means.right,
            epsilon: epsilon)
        let trace = (0..<d1).reduce(0.0) { $0 + means.left[$1 * d1 + $1] }
        for (side, moment, order, unit) in [(map.left, means.left, d1, trace), (map.right, means.right, d2, 1.0)] {
            var damped = moment
            for index in 0..<order { damped[index * order + index] += epsilon * trace / Double(order) }
            let w = side.map { Double($0) }
            let result = Self.product(
                Self.product(w, damped, order, order, order), w, order, order, order)
            for a in 0..<order {
                for b in 0..<order {
                    #expect(abs(result[a * order + b] / unit - (a == b ? 1 : 0)) <= 1e-5)
                    #expect(side[a * order + b] == side[b * order + a])
                }
            }
        }
        #expect(abs(map.leftEigenvalues.reduce(0, +) / trace - 1) <= 1e-12)
        #expect(abs(map.rightEigenvalues.reduce(0, +) / trace - 1) <= 1e-12)
    }

    @Test func nothingGivesTheIdentity() throws {
        let map = try LayerWhitening(
            name: "a", inputDimension: 2, outputDimension: 1, leftMoment: [0, 0, 0, 0], rightMoment: [3], epsilon: 0.1)
        #expect(map.isIdentity && map.left == [1, 0, 0, 1] && map.right == [1])
        #expect(map.conditions(epsilon: 0.1) == (1, 1))
        let layer = LayerSchema(name: "a", inputDimension: 2, outputDimension: 1, form: .dense)
        let tile = LayerTile(layer: layer, rowCount: 2, dense: [1, -2, 3, 4])
        #expect(map.apply(to: tile).dense == tile.dense)
    }

    @Test func impossibleMomentsAreRefused() {
        func make(_ left: [Double], _ right: [Double]) throws(WhiteningFailure) -> LayerWhitening {
            try LayerWhitening(
                name: "a", inputDimension: 2, outputDimension: 1, leftMoment: left, rightMoment: right, epsilon: 0.1)
        }
        #expect(throws: WhiteningFailure.notFinite) { try make([1, 0, 0, .nan], [1]) }
        #expect(throws: WhiteningFailure.notFinite) { try make([1, 0, 0, 1], [.infinity]) }
        #expect(throws: WhiteningFailure.notSemidefinite(side: "left", eigenvalue: -1)) {
            try make([1, 0, 0, -1], [1])
        }
        #expect(throws: WhiteningFailure.outOfRange) { try make([1e-90, 0, 0, 1e-90], [1e-90]) }
    }

    /// Factors and their product go to the same place.
    @Test func factorsAndMatricesAgree() throws {
        let (d1, d2, rank, rows) = (5, 7, 2, 3)
        var moments = SecondMoments(inputDimension: d1, outputDimension: d2)
        moments.add(Self.gradients(9, d1: d1, d2: d2, scale: 1), count: 9)
        let map = try LayerWhitening(
            name: "a", inputDimension: d1, outputDimension: d2, leftMoment: moments.means.left,
            rightMoment: moments.means.right, epsilon: 0.01)
        let factored = LayerTile(
            layer: LayerSchema(name: "a", inputDimension: d1, outputDimension: d2, form: .factors(rank: rank)),
            rowCount: rows, left: testNumbers(rank * rows * d1, seed: 1).map(Float.init),
            right: testNumbers(rank * rows * d2, seed: 2).map(Float.init))
        func matrices(_ tile: LayerTile) -> [Float] {
            var result = [Float](repeating: 0, count: rows * d1 * d2)
            var span = result.mutableSpan
            reconstruct(tile, rows: 0..<rows, columns: 0..<d1 * d2, into: &span)
            return result
        }
        let dense = LayerTile(
            layer: LayerSchema(name: "a", inputDimension: d1, outputDimension: d2, form: .dense), rowCount: rows,
            dense: matrices(factored))
        let (first, second) = (matrices(map.apply(to: factored)), map.apply(to: dense).dense)
        let size = second.map(abs).max() ?? 0
        #expect(size > 0 && zip(first, second).allSatisfy { abs($0 - $1) <= 1e-5 * size })
    }

    @Test func energyChoosesTheSmallestRank() throws {
        // diag(3, 2, 1) and diag(1, 2, 0): squared values 9 + 4, 4 + 1, 1 + 0.
        let matrices: [Float] = [3, 0, 0, 0, 2, 0, 0, 0, 1, 1, 0, 0, 0, 2, 0, 0, 0, 0]
        let sums = try squaredSingularValueSums(of: matrices, count: 2, d1: 3, d2: 3)
        #expect(zip(sums, [13, 5, 1]).allSatisfy { abs($0 - $1) <= 1e-12 })
        #expect(rank(holding: 0.6, of: sums) == 1)
        #expect(rank(holding: 18.0 / 19, of: sums) == 2)
        #expect(rank(holding: 0.95, of: sums) == 3)
        #expect(rank(holding: 1, of: [2, 1, 0]) == 2)
        #expect(rank(holding: 0.5, of: [0, 0]) == 1)
    }
}
