/// The definitions of the scores, computed the slow and obvious way in Double; shares nothing with the product.
enum NaiveOracle {
    typealias Matrix = [[Double]]

    static func dot(_ a: [Double], _ b: [Double]) -> Double {
        var sum = 0.0
        for index in a.indices { sum += a[index] * b[index] }
        return sum
    }

    /// H = Σ g gᵀ.
    static func secondMoment(_ rows: Matrix) -> Matrix {
        let length = rows[0].count
        var h = Matrix(repeating: [Double](repeating: 0, count: length), count: length)
        for g in rows { for a in 0..<length { for b in 0..<length { h[a][b] += g[a] * g[b] } } }
        return h
    }

    /// tr(H)/D.
    static func meanEigenvalue(_ rows: Matrix) -> Double {
        rows.reduce(0) { $0 + dot($1, $1) } / Double(rows[0].count)
    }

    /// (H + λI)⁻¹ b by Gaussian elimination with partial pivoting.
    static func solve(_ h: Matrix, damping: Double, _ right: [Double]) -> [Double] {
        var a = h
        var b = right
        let n = b.count
        for i in 0..<n { a[i][i] += damping }
        for column in 0..<n {
            let pivot = (column..<n).max { abs(a[$0][column]) < abs(a[$1][column]) }!
            a.swapAt(column, pivot)
            b.swapAt(column, pivot)
            for row in column + 1..<max(n, column + 1) {
                let factor = a[row][column] / a[column][column]
                if factor == 0 { continue }
                for k in column..<n { a[row][k] -= factor * a[column][k] }
                b[row] -= factor * b[column]
            }
        }
        for row in stride(from: n - 1, through: 0, by: -1) {
            for k in row + 1..<max(n, row + 1) { b[row] -= a[row][k] * b[k] }
            b[row] /= a[row][row]
        }
        return b
    }
}
