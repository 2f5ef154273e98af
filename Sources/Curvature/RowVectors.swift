import LinearAlgebra

/// A few long vectors as the rows of a matrix that is cut into blocks of columns: rows × Σ widths, in Double.
///
/// All products over the long dimension are sums over blocks in order, computed block by block in parallel, so they do not
/// depend on the number of workers.
struct RowVectors: Sendable {
    let widths: [Int]
    private(set) var rowCount: Int
    /// Block b: rowCount × widths[b], row-major.
    private(set) var blocks: [[Double]]

    init(widths: [Int]) {
        self.widths = widths
        rowCount = 0
        blocks = widths.map { _ in [] }
    }

    init(widths: [Int], rowCount: Int, blocks: [[Double]]) {
        precondition(zip(widths, blocks).allSatisfy { $0 * rowCount == $1.count }, "blocks of another shape")
        self.widths = widths
        self.rowCount = rowCount
        self.blocks = blocks
    }

    /// Uniform in (−1, 1), by a generator that depends on nothing but the seed.
    static func random(widths: [Int], rowCount: Int, seed: UInt64) -> RowVectors {
        var generator = SplitMix64(state: seed)
        return RowVectors(
            widths: widths, rowCount: rowCount,
            blocks: widths.map { width in (0..<(width * rowCount)).map { _ in generator.nextSigned() } })
    }

    var length: Int { widths.reduce(0, +) }

    mutating func append(_ other: RowVectors) {
        for index in blocks.indices { blocks[index] += other.blocks[index] }
        rowCount += other.rowCount
    }

    mutating func reserve(rowCount: Int) {
        for index in blocks.indices { blocks[index].reserveCapacity(rowCount * widths[index]) }
    }

    /// self · otherᵀ: rowCount × other.rowCount.
    func products(with other: RowVectors, workers: Int) -> [Double] {
        let (m, n) = (rowCount, other.rowCount)
        let partials = parallelMap(count: blocks.count, workers: workers) { index in
            var part = [Double](repeating: 0, count: m * n)
            let (mine, theirs) = (blocks[index], other.blocks[index])
            var target = part.mutableSpan
            multiply(mine.span, theirs.span, transposeB: true, into: &target, m: m, n: n, k: widths[index])
            return part
        }
        var sum = [Double](repeating: 0, count: m * n)
        for part in partials {
            for index in sum.indices { sum[index] += part[index] }
        }
        return sum
    }

    /// self ← self − coefficientsᵀ · basis; `coefficients` is basis.rowCount × rowCount.
    mutating func subtract(_ basis: RowVectors, coefficients: [Double], workers: Int) {
        let (m, n) = (rowCount, basis.rowCount)
        let widths = widths
        guard m > 0, n > 0 else { return }
        parallelUpdate(&blocks, workers: workers) { index, block in
            let other = basis.blocks[index]
            var target = block.mutableSpan
            multiply(
                coefficients.span, transposeA: true, other.span, into: &target, m: m, n: widths[index], k: n,
                alpha: -1, beta: 1)
        }
    }

    /// weights · self, `weights` count × rowCount.
    func combined(_ weights: [Double], count: Int, workers: Int) -> RowVectors {
        let rowCount = rowCount
        let combined = parallelMap(count: blocks.count, workers: workers) { index in
            var part = [Double](repeating: 0, count: count * widths[index])
            let mine = blocks[index]
            var target = part.mutableSpan
            multiply(weights.span, mine.span, into: &target, m: count, n: widths[index], k: rowCount)
            return part
        }
        return RowVectors(widths: widths, rowCount: count, blocks: combined)
    }

    /// self ← weights · self, block by block, so that only one block per worker exists twice; keeps room for `capacity` rows.
    mutating func rotate(_ weights: [Double], count: Int, capacity: Int, workers: Int) {
        let (old, widths) = (rowCount, widths)
        parallelUpdate(&blocks, workers: workers) { index, block in
            var rotated: [Double] = []
            rotated.reserveCapacity(max(count, capacity) * widths[index])
            rotated.append(contentsOf: repeatElement(0, count: count * widths[index]))
            var target = rotated.mutableSpan
            multiply(weights.span, block.span, into: &target, m: count, n: widths[index], k: old)
            block = rotated
        }
        rowCount = count
    }

    /// Norms of the rows of self − diag(values) · other.
    func distances(to other: RowVectors, scaledBy values: [Double]) -> [Double] {
        var squares = [Double](repeating: 0, count: rowCount)
        for (index, width) in widths.enumerated() {
            for row in 0..<rowCount {
                for position in (row * width)..<((row + 1) * width) {
                    let difference = blocks[index][position] - values[row] * other.blocks[index][position]
                    squares[row] += difference * difference
                }
            }
        }
        return squares.map { $0.squareRoot() }
    }

    /// An orthonormal basis of the rows' span, without directions smaller than `threshold` or than 1e-7 of the largest.
    ///
    /// By the eigenvectors of the rows' Gram matrix, twice: the first round leaves an error of the squared condition number
    /// (at most 1e14) times Double's precision, the second removes it.
    func orthonormalized(threshold: Double, workers: Int) throws(CurvatureError) -> RowVectors {
        var rows = self
        for round in 0..<2 where rows.rowCount > 0 {
            let gram = rows.products(with: rows, workers: workers)
            let order = rows.rowCount
            let pairs = try decompose { () throws(LinearAlgebraError) in try symmetricEigen(gram, order: order) }
            let largest = pairs.values.first ?? 0
            let least = round == 0 ? max(threshold * threshold, 1e-14 * largest) : 0.01
            let kept = pairs.values.firstIndex { $0 <= least } ?? order
            var weights = Array(pairs.vectors.prefix(kept * order))
            for k in 0..<kept {
                let scale = 1 / pairs.values[k].squareRoot()
                for column in 0..<order { weights[k * order + column] *= scale }
            }
            rows = rows.combined(weights, count: kept, workers: workers)
        }
        return rows
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, seedable, the same everywhere.
struct SplitMix64: Sendable {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var word = state
        word = (word ^ (word >> 30)) &* 0xBF58_476D_1CE4_E5B9
        word = (word ^ (word >> 27)) &* 0x94D0_49BB_1331_11EB
        return word ^ (word >> 31)
    }

    mutating func nextSigned() -> Double {
        (Double(next() >> 11) + 0.5) / Double(1 << 52) - 1
    }
}
