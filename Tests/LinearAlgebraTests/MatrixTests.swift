import LinearAlgebra
import Testing

/// Deterministic test numbers in (−1, 1).
func testNumbers(_ count: Int, seed: UInt64) -> [Double] {
    var state = seed &* 2_862_933_555_777_941_757 &+ 3_037_000_493
    return (0..<count).map { _ in
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return Double(Int32(truncatingIfNeeded: state >> 32)) / Double(1 << 31)
    }
}

@Suite struct MatrixTests {
    /// op(A) op(B) by the definition, with strides and an offset.
    @Test(arguments: [false, true], [false, true])
    func productsAgreeWithTheDefinition(_ transposeA: Bool, _ transposeB: Bool) {
        let (m, n, k) = (5, 7, 3)
        let (strideA, strideB, strideC, offset) = (9, 11, 10, 4)
        let a = testNumbers(9 * 9, seed: 1)
        let b = testNumbers(11 * 11, seed: 2)
        let start = testNumbers(offset + 5 * 10, seed: 3)
        var c = start
        var target = c.mutableSpan
        multiply(
            a.span, strideA: strideA, transposeA: transposeA, b.span, strideB: strideB, transposeB: transposeB,
            into: &target, offsetC: offset, strideC: strideC, m: m, n: n, k: k, alpha: 2, beta: -0.5)
        for row in 0..<m {
            for column in 0..<n {
                var expected = -0.5 * start[offset + row * strideC + column]
                for i in 0..<k {
                    expected +=
                        2 * (transposeA ? a[i * strideA + row] : a[row * strideA + i])
                        * (transposeB ? b[column * strideB + i] : b[i * strideB + column])
                }
                #expect(abs(c[offset + row * strideC + column] - expected) < 1e-12)
            }
            for gap in n..<strideC where row < m - 1 {
                #expect(c[offset + row * strideC + gap] == start[offset + row * strideC + gap])
            }
        }
        #expect(Array(c.prefix(offset)) == Array(start.prefix(offset)))
    }

    @Test(arguments: [false, true])
    func selfProductsFillTheLowerTriangle(_ transpose: Bool) {
        let (n, k) = (70, 9)
        let a = testNumbers(n * k, seed: 4)
        var c = [Double](repeating: 7, count: n * n)
        var target = c.mutableSpan
        multiplyBySelf(a.span, transpose: transpose, into: &target, n: n, k: k)
        func entry(_ row: Int, _ i: Int) -> Double { transpose ? a[i * n + row] : a[row * k + i] }
        for row in 0..<n {
            for column in 0..<n {
                let expected = column > row ? 7 : (0..<k).reduce(0.0) { $0 + entry(row, $1) * entry(column, $1) }
                #expect(abs(c[row * n + column] - expected) < 1e-12)
            }
        }
        target = c.mutableSpan
        symmetrizeFromLower(&target, n: n)
        for row in 0..<n {
            for column in 0..<row { #expect(c[row * n + column] == c[column * n + row]) }
        }
    }

    /// A symmetric matrix made from known eigenpairs: Householder reflection of a diagonal.
    @Test func eigenpairsComeBack() throws {
        let n = 30
        let axis = testNumbers(n, seed: 5)
        let square = axis.reduce(0) { $0 + $1 * $1 }
        func reflector(_ i: Int, _ j: Int) -> Double { (i == j ? 1 : 0) - 2 * axis[i] * axis[j] / square }
        let expected = (0..<n).map { Double(n - $0) - 10.5 }
        var matrix = [Double](repeating: 0, count: n * n)
        for i in 0..<n {
            // The upper triangle must not be read.
            for j in 0..<n {
                matrix[i * n + j] =
                    j > i ? .nan : (0..<n).reduce(0.0) { $0 + reflector(i, $1) * expected[$1] * reflector(j, $1) }
            }
        }
        for pairs in [try symmetricEigen(matrix, order: n), try largestEigenpairs(matrix, order: n, count: 4)] {
            #expect([4, n].contains(pairs.values.count))
            for (k, value) in pairs.values.enumerated() {
                #expect(abs(value - expected[k]) < 1e-12)
                let overlap = (0..<n).reduce(0.0) { $0 + pairs.vectors[k * n + $1] * reflector($1, k) }
                #expect(abs(abs(overlap) - 1) < 1e-12)
            }
        }
        let single = try symmetricEigen(matrix.map { Float($0) }, order: n)
        #expect(zip(single.values, expected).allSatisfy { abs(Double($0) - $1) < 1e-4 })
    }

    @Test func nonNumbersAreRefused() {
        #expect(throws: LinearAlgebraError.self) { try symmetricEigen([Double.nan], order: 1) }
        #expect(throws: LinearAlgebraError.notPositiveDefinite(order: 2, column: 1)) {
            try choleskyFactor([1, 0, 2, 1] as [Double], order: 2)
        }
    }

    @Test func orthonormalRowsKeepTheSpan() throws {
        let (k, n) = (4, 11)
        let rows = testNumbers(k * n, seed: 6)
        var basis = rows
        try orthonormalizeRows(&basis, rowCount: k, length: n)
        for a in 0..<k {
            for b in 0..<k {
                let product = (0..<n).reduce(0.0) { $0 + basis[a * n + $1] * basis[b * n + $1] }
                #expect(abs(product - (a == b ? 1 : 0)) < 1e-14)
            }
            // Every original row lies in the span.
            var rest = Array(rows[(a * n)..<((a + 1) * n)])
            for b in 0..<k {
                let part = (0..<n).reduce(0.0) { $0 + rows[a * n + $1] * basis[b * n + $1] }
                for i in 0..<n { rest[i] -= part * basis[b * n + i] }
            }
            #expect(rest.allSatisfy { abs($0) < 1e-13 })
        }
    }

    @Test func choleskyAndTriangularSolvesInvertEachOther() throws {
        let n = 6
        let a = testNumbers(n * n, seed: 7)
        var matrix = [Double](repeating: 0, count: n * n)
        for i in 0..<n {
            for j in 0..<n { matrix[i * n + j] = (0..<n).reduce(i == j ? 1 : 0) { $0 + a[i * n + $1] * a[j * n + $1] } }
        }
        let factor = try choleskyFactor(matrix, order: n)
        for i in 0..<n {
            for j in 0..<n {
                #expect(
                    abs((0..<n).reduce(0.0) { $0 + factor[i * n + $1] * factor[j * n + $1] } - matrix[i * n + j])
                        < 1e-13)
            }
        }
        var solution = matrix
        var target = solution.mutableSpan
        solveLowerTriangular(factor.span, order: n, into: &target, columns: n)
        // L⁻¹ A = Lᵀ.
        for i in 0..<n {
            for j in 0..<n { #expect(abs(solution[i * n + j] - factor[j * n + i]) < 1e-13) }
        }
    }

    struct Refused: Error, Equatable { let index: Int }

    @Test(arguments: [1, 2, 7])
    func parallelWorkIsOrderedExclusiveAndThrows(_ workers: Int) {
        #expect(parallelMap(count: 100, workers: workers) { $0 * $0 } == (0..<100).map { $0 * $0 })
        var buffers = [[Int]](repeating: [], count: 50)
        parallelUpdate(&buffers, workers: workers) { index, buffer in
            for value in 0..<index { buffer.append(value) }
        }
        #expect(buffers == (0..<50).map { Array(0..<$0) })
        #expect(throws: Refused(index: 3)) {
            try parallelMap(count: 10, workers: workers) { index throws(Refused) in
                if index == 3 { throw Refused(index: index) }
            }
        }
        #expect(throws: Refused(index: 3)) {
            try parallelUpdate(&buffers, workers: workers) { index, _ throws(Refused) in
                if index == 3 { throw Refused(index: index) }
            }
        }
    }
}
