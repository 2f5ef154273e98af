import Schema

@testable import Curvature

/// Deterministic test numbers in (−1, 1).
struct TestNumbers {
    private var state: UInt64

    init(seed: UInt64) { state = seed &* 2_862_933_555_777_941_757 &+ 3_037_000_493 }

    mutating func next() -> Float {
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return Float(Int32(truncatingIfNeeded: state >> 32)) / Float(1 << 31)
    }

    mutating func many(_ count: Int, scale: Float = 1) -> [Float] { (0..<count).map { _ in next() * scale } }
}

/// Gradients whose rows are known in Double, and the same as tiles.
struct TestRows {
    let layers: [LayerSchema]
    /// [layer][component-major]; left is empty for dense layers and right holds the rows.
    var left: [[Float]]
    var right: [[Float]]
    let rowCount: Int

    init(layers: [LayerSchema], rowCount: Int, seed: UInt64 = 1, scale: Float = 1) {
        var numbers = TestNumbers(seed: seed)
        self.layers = layers
        self.rowCount = rowCount
        left = []
        right = []
        for layer in layers {
            if let rank = layer.rank {
                left.append(numbers.many(rank * rowCount * layer.inputDimension, scale: scale))
                right.append(numbers.many(rank * rowCount * layer.outputDimension))
            } else {
                left.append([])
                right.append(numbers.many(rowCount * layer.gradientLength, scale: scale))
            }
        }
    }

    /// Row i of layer l becomes row `origin(i)` of it.
    mutating func rearrange(_ origin: (Int) -> Int) {
        for (index, layer) in layers.enumerated() {
            let components = layer.rank ?? 1
            func moved(_ values: [Float], _ length: Int) -> [Float] {
                (0..<components).flatMap { component in
                    (0..<rowCount).flatMap { row in
                        let start = (component * rowCount + origin(row)) * length
                        return values[start..<(start + length)]
                    }
                }
            }
            if layer.rank != nil { left[index] = moved(left[index], layer.inputDimension) }
            right[index] = moved(right[index], layer.rank == nil ? layer.gradientLength : layer.outputDimension)
        }
    }

    func tile(_ rows: Range<Int>, layer index: Int) -> LayerTile {
        let layer = layers[index]
        func cut(_ values: [Float], _ length: Int, _ components: Int) -> [Float] {
            (0..<components).flatMap { component in
                values[
                    ((component * rowCount + rows.lowerBound) * length)..<((component * rowCount + rows.upperBound)
                        * length)]
            }
        }
        guard let rank = layer.rank else {
            return LayerTile(layer: layer, rowCount: rows.count, dense: cut(right[index], layer.gradientLength, 1))
        }
        return LayerTile(
            layer: layer, rowCount: rows.count, left: cut(left[index], layer.inputDimension, rank),
            right: cut(right[index], layer.outputDimension, rank))
    }

    func source(tileRowCounts: [Int]) -> RowSource {
        precondition(tileRowCounts.reduce(0, +) == rowCount)
        var first = 0
        var tiles: [[LayerTile]] = []
        for count in tileRowCounts {
            tiles.append(layers.indices.map { tile(first..<(first + count), layer: $0) })
            first += count
        }
        return RowSource(layers: layers, tiles: tiles)
    }

    func source() -> RowSource { source(tileRowCounts: [rowCount]) }

    /// Row-major rows × Σ D_l over some layers, by the definition G = Σ_k u_k v_kᵀ.
    func gradients(_ members: [Int]) -> [[Double]] {
        (0..<rowCount).map { row in
            members.flatMap { index -> [Double] in
                let layer = layers[index]
                guard let rank = layer.rank else {
                    let start = row * layer.gradientLength
                    return right[index][start..<(start + layer.gradientLength)].map { Double($0) }
                }
                let (d1, d2) = (layer.inputDimension, layer.outputDimension)
                return (0..<(d1 * d2)).map { position in
                    (0..<rank).reduce(0.0) { sum, k in
                        sum + Double(left[index][(k * rowCount + row) * d1 + position / d2])
                            * Double(right[index][(k * rowCount + row) * d2 + position % d2])
                    }
                }
            }
        }
    }
}

/// Naive dense mathematics in Double: nothing here is shared with the product.
enum Oracle {
    /// Σ g gᵀ.
    static func secondMoment(_ rows: [[Double]], length: Int) -> [[Double]] {
        var matrix = [[Double]](repeating: [Double](repeating: 0, count: length), count: length)
        for row in rows {
            for a in 0..<length { for b in 0..<length { matrix[a][b] += row[a] * row[b] } }
        }
        return matrix
    }

    /// (H + λI)⁻¹ q by Gaussian elimination with partial pivoting.
    static func solve(_ matrix: [[Double]], damping: Double, _ q: [Double]) -> [Double] {
        let n = q.count
        var a = matrix
        var x = q
        for i in 0..<n { a[i][i] += damping }
        for column in 0..<n {
            let pivot = (column..<n).max { abs(a[$0][column]) < abs(a[$1][column]) } ?? column
            a.swapAt(column, pivot)
            x.swapAt(column, pivot)
            for row in (column + 1)..<max(n, column + 1) {
                let factor = a[row][column] / a[column][column]
                for k in column..<n { a[row][k] -= factor * a[column][k] }
                x[row] -= factor * x[column]
            }
        }
        for row in stride(from: n - 1, through: 0, by: -1) {
            for k in (row + 1)..<max(n, row + 1) { x[row] -= a[row][k] * x[k] }
            x[row] /= a[row][row]
        }
        return x
    }

    /// Eigenpairs by classical Jacobi rotations, descending.
    static func eigen(_ matrix: [[Double]]) -> (values: [Double], vectors: [[Double]]) {
        let n = matrix.count
        var a = matrix
        var v = (0..<n).map { i in (0..<n).map { $0 == i ? 1.0 : 0.0 } }
        for _ in 0..<60 {
            for p in 0..<n {
                for q in (p + 1)..<max(n, p + 1) where a[p][q] != 0 {
                    let theta = (a[q][q] - a[p][p]) / (2 * a[p][q])
                    let t = (theta < 0 ? -1 : 1) / (abs(theta) + (theta * theta + 1).squareRoot())
                    let c = 1 / (t * t + 1).squareRoot()
                    let s = t * c
                    for k in 0..<n {
                        (a[k][p], a[k][q]) = (c * a[k][p] - s * a[k][q], s * a[k][p] + c * a[k][q])
                    }
                    for k in 0..<n {
                        (a[p][k], a[q][k]) = (c * a[p][k] - s * a[q][k], s * a[p][k] + c * a[q][k])
                        (v[p][k], v[q][k]) = (c * v[p][k] - s * v[q][k], s * v[p][k] + c * v[q][k])
                    }
                }
            }
        }
        let order = (0..<n).sorted { a[$0][$0] > a[$1][$1] }
        return (order.map { a[$0][$0] }, order.map { v[$0] })
    }

    static func dot(_ a: [Double], _ b: [Double]) -> Double { zip(a, b).reduce(0) { $0 + $1.0 * $1.1 } }

    /// (H_r + λI)⁻¹ with H_r the best rank-r part of H: dense, by elimination again.
    static func truncated(_ matrix: [[Double]], rank: Int) -> [[Double]] {
        let n = matrix.count
        let pairs = eigen(matrix)
        return (0..<n).map { a in
            (0..<n).map { b in
                (0..<min(rank, n)).reduce(0.0) { $0 + pairs.values[$1] * pairs.vectors[$1][a] * pairs.vectors[$1][b] }
            }
        }
    }
}

/// Scores of queries against all rows: by the oracle's dense solve, and by the product.
func oracleScores(
    _ rows: TestRows, queries: TestRows, groups: [[Int]], rank: Int?, lambda: (_ trace: Double, _ length: Int) -> Double
) -> [[Double]] {
    var scores = [[Double]](repeating: [Double](repeating: 0, count: rows.rowCount), count: queries.rowCount)
    for members in groups {
        let gradients = rows.gradients(members)
        let length = members.map { rows.layers[$0].gradientLength }.reduce(0, +)
        var matrix = Oracle.secondMoment(gradients, length: length)
        let trace = (0..<length).reduce(0.0) { $0 + matrix[$1][$1] }
        let damping = lambda(trace, length)
        guard damping > 0 else { continue }
        if let rank { matrix = Oracle.truncated(matrix, rank: rank) }
        for (index, q) in queries.gradients(members).enumerated() {
            let solved = Oracle.solve(matrix, damping: damping, q)
            for (row, g) in gradients.enumerated() { scores[index][row] += Oracle.dot(solved, g) }
        }
    }
    return scores
}

func productScores(
    _ rows: TestRows, queries: TestRows, fitted: FittedCurvature, damping: Damping, forFittedRows: Bool = false
) throws -> [[Double]] {
    let damped = try DampedCurvature(fitted, damping: damping)
    let dense = rows.layers.indices.map { layer in queries.gradients([layer]).flatMap { $0.map { Float($0) } } }
    let preconditioned = try damped.precondition(
        dense, rowCount: queries.rowCount, forFittedRows: forFittedRows, workers: 2)
    var scores = [[Double]](repeating: [Double](repeating: 0, count: rows.rowCount), count: queries.rowCount)
    for layer in rows.layers.indices {
        let length = rows.layers[layer].gradientLength
        let gradients = rows.gradients([layer])
        for query in 0..<queries.rowCount {
            let p = preconditioned[layer][(query * length)..<((query + 1) * length)].map { Double($0) }
            for row in 0..<rows.rowCount { scores[query][row] += Oracle.dot(p, gradients[row]) }
        }
    }
    return scores
}

/// The largest difference, relative to each row's largest magnitude.
func disagreement(_ found: [[Double]], _ expected: [[Double]]) -> Double {
    zip(found, expected).map { found, expected in
        let size = expected.map { abs($0) }.max() ?? 0
        let difference = zip(found, expected).map { abs($0 - $1) }.max() ?? 0
        return size > 0 ? difference / size : difference
    }.max() ?? 0
}

func factorLayer(_ name: String, _ d1: Int, _ d2: Int, rank: Int) -> LayerSchema {
    LayerSchema(name: name, inputDimension: d1, outputDimension: d2, form: .factors(rank: rank))
}

func denseLayer(_ name: String, _ d1: Int, _ d2: Int) -> LayerSchema {
    LayerSchema(name: name, inputDimension: d1, outputDimension: d2, form: .dense)
}

/// One layer of every kind: rank 1, rank min(d1, d2), a dense matrix, a dense vector.
let mixedLayers = [
    factorLayer("a", 3, 4, rank: 1), factorLayer("b", 4, 2, rank: 2), denseLayer("c", 3, 2), denseLayer("d", 5, 1),
]
