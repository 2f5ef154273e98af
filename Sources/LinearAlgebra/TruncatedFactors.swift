/// Best rank-c factors of many matrices: G_i ≈ U_i V_iᵀ by truncated singular value decomposition, √σ in both sides.
public struct TruncatedFactors: Sendable {
    /// Component-major, as in a `LayerTile`: element a of component k of matrix i at ((k · count) + i) · d1 + a.
    public var left: [Float]
    /// Component-major: element b of component k of matrix i at ((k · count) + i) · d2 + b.
    public var right: [Float]
    /// ‖G_i − U_i V_iᵀ‖_F of every matrix, measured on the factors returned.
    public var residualNorms: [Float]
    /// How many matrices the iteration left to LAPACK.
    public var fallbackCount: Int
}

/// Factors `count` matrices of d1×d2 (row-major, one after another, finite) to rank `rank` ≤ min(d1, d2).
///
/// Components descend by σ; the sign is fixed by making the entry of largest magnitude of each left vector positive (the first of
/// equals). The energy kept, Σ σ², is within 10⁻⁴ of the optimum: small ranks go through block power iteration on the smaller
/// Gram matrix with Rayleigh–Ritz and an a posteriori error bound, and through LAPACK's `gesdd` if the bound is not met
/// in a few rounds, or the rank is a large part of min(d1, d2). `isEstimate` drops the bound: two rounds, several times quicker, for
/// callers that measure what the factors leave out. Matrices are independent, so results do not depend on `workers`.
public func truncatedFactors(
    of matrices: Span<Float>, count: Int, d1: Int, d2: Int, rank: Int, isEstimate: Bool = false, workers: Int
) throws(LinearAlgebraError) -> TruncatedFactors {
    precondition(count >= 0 && d1 > 0 && d2 > 0, "empty matrices")
    precondition(rank > 0 && rank <= min(d1, d2), "rank outside 1...min(d1, d2)")
    precondition(matrices.count == count * d1 * d2, "matrices are not count × d1 × d2")
    // Spans cannot cross threads, arrays can.
    let values = unsafe matrices.withUnsafeBufferPointer { unsafe Array($0) }
    let chunk = max(1, min(64, (1 << 20) / (d1 * d2)))
    let parts = try parallelMap(count: (count + chunk - 1) / chunk, workers: workers) {
        index throws(LinearAlgebraError) in
        var factorizer = Factorizer(d1: d1, d2: d2, rank: rank, isEstimate: isEstimate)
        return try factorizer.run(values, matrices: (index * chunk)..<min((index + 1) * chunk, count))
    }
    var result = TruncatedFactors(
        left: [Float](repeating: 0, count: rank * count * d1), right: [Float](repeating: 0, count: rank * count * d2),
        residualNorms: [], fallbackCount: 0)
    result.residualNorms.reserveCapacity(count)
    for (index, part) in parts.enumerated() {
        let start = index * chunk
        let size = part.residualNorms.count
        for component in 0..<rank {
            let leftTarget = (component * count + start) * d1
            let rightTarget = (component * count + start) * d2
            for offset in 0..<(size * d1) {
                result.left[leftTarget + offset] = part.left[component * size * d1 + offset]
            }
            for offset in 0..<(size * d2) {
                result.right[rightTarget + offset] = part.right[component * size * d2 + offset]
            }
        }
        result.residualNorms += part.residualNorms
        result.fallbackCount += part.fallbackCount
    }
    return result
}

/// Factors one matrix after another; owns the buffers of one worker.
private struct Factorizer {
    let d1: Int
    let d2: Int
    let rank: Int
    /// Whether the first vectors found are good enough.
    let isEstimate: Bool
    /// The smaller dimension: the order of the Gram matrix M.
    let side: Int
    /// Rows of the iterated block.
    let block: Int
    /// M is squared this many times before it is applied, so that one application is 2^squarings steps.
    let squarings: Int
    private let start: [Float]
    private var matrix: [Float]
    private var gram: [Float]
    private var power: [Float]
    private var scratch: [Float]
    private var rows: [Float]
    private var images: [Float]
    private var small: [Float]

    /// Share of the energy that the error bound may reach; the promise is five times that.
    static let tolerance: Float = 2e-5
    static let roundLimit = 6

    init(d1: Int, d2: Int, rank: Int, isEstimate: Bool) {
        self.d1 = d1
        self.d2 = d2
        self.rank = rank
        self.isEstimate = isEstimate
        side = min(d1, d2)
        block = min(side, rank + max(5, rank / 2))
        // f32 keeps seven digits: a high power keeps few directions, which is right for few components only.
        squarings = rank == 1 ? 3 : 1
        var generator: UInt64 = 0x9E37_79B9_7F4A_7C15
        start = (0..<(block * side)).map { _ in
            generator = generator &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Float(Int32(truncatingIfNeeded: generator >> 32)) / Float(1 << 31)
        }
        matrix = [Float](repeating: 0, count: d1 * d2)
        gram = [Float](repeating: 0, count: side * side)
        power = gram
        scratch = gram
        rows = start
        images = start
        small = [Float](repeating: 0, count: block * block)
    }

    mutating func run(_ values: [Float], matrices: Range<Int>) throws(LinearAlgebraError) -> TruncatedFactors {
        let count = matrices.count
        var result = TruncatedFactors(
            left: [Float](repeating: 0, count: rank * count * d1),
            right: [Float](repeating: 0, count: rank * count * d2),
            residualNorms: [Float](repeating: 0, count: count), fallbackCount: 0)
        for (slot, index) in matrices.enumerated() {
            let offset = index * d1 * d2
            var largest: Float = 0
            for position in 0..<(d1 * d2) { largest = max(largest, abs(values[offset + position])) }
            guard largest > 0 else { continue }
            let exponent = Int(largest.exponent)
            // Two factors, because 2^149 is outside f32.
            let half = Float(sign: .plus, exponent: -exponent / 2, significand: 1)
            let rest = Float(sign: .plus, exponent: -exponent - (-exponent / 2), significand: 1)
            for position in 0..<(d1 * d2) { matrix[position] = values[offset + position] * half * rest }
            var found = rank * 3 <= side ? try iterate() : nil
            if found == nil {
                found = try decompose()
                result.fallbackCount += 1
            }
            if let found { store(found, slot: slot, count: count, exponent: exponent, into: &result) }
        }
        return result
    }

    /// `rank` orthonormal vectors on the smaller side, leading singular vectors up to the tolerance; nil if that fails.
    private mutating func iterate() throws(LinearAlgebraError) -> [Float]? {
        let leftIsSmaller = d1 <= d2
        product(
            matrix, transposeA: !leftIsSmaller, matrix, transposeB: leftIsSmaller, into: &gram, m: side,
            n: side, k: max(d1, d2))
        var trace: Float = 0
        for index in 0..<side { trace += gram[index * side + index] }
        power = gram
        for index in power.indices { power[index] /= trace }
        for _ in 0..<squarings {
            product(power, power, into: &scratch, m: side, n: side, k: side)
            swap(&power, &scratch)
        }
        rows = start
        for round in 0..<Self.roundLimit {
            product(rows, power, into: &images, m: block, n: side, k: side)
            swap(&rows, &images)
            orthonormalize(&rows, rowCount: block, length: side)
            if round == 0 { continue }
            if let vectors = try ritzVectors() { return vectors }
        }
        return nil
    }

    /// Rayleigh–Ritz on the block: the leading vectors if the bound Σ ρ²_k / gap on the energy missed is small enough.
    private mutating func ritzVectors() throws(LinearAlgebraError) -> [Float]? {
        product(rows, gram, into: &images, m: block, n: side, k: side)
        product(images, rows, transposeB: true, into: &small, m: block, n: block, k: side)
        let pairs = smallEigen(small, order: block)
        var vectors = [Float](repeating: 0, count: rank * side)
        product(pairs.vectors, rows, into: &vectors, m: rank, n: side, k: block)
        var mapped = [Float](repeating: 0, count: rank * side)
        product(pairs.vectors, images, into: &mapped, m: rank, n: side, k: block)
        var energy: Float = 0
        var missed: Float = 0
        let floor = pairs.values[block - 1]
        for k in 0..<rank {
            var square: Float = 0
            for index in 0..<side {
                let difference = mapped[k * side + index] - pairs.values[k] * vectors[k * side + index]
                square += difference * difference
            }
            energy += pairs.values[k]
            let gap = max(pairs.values[k] - max(0, floor), Float.leastNormalMagnitude)
            missed += min(square / gap, square.squareRoot())
        }
        // Rounding of M alone leaves residuals of about its precision.
        return isEstimate || missed <= Self.tolerance * energy ? vectors : nil
    }

    /// The same by LAPACK.
    private mutating func decompose() throws(LinearAlgebraError) -> [Float] {
        var work = matrix
        var values = [Float](repeating: 0, count: side)
        // LAPACK sees the transpose, d2×d1: its left vectors are rows on our right side.
        var u = [Float](repeating: 0, count: d2 * side)
        var vt = [Float](repeating: 0, count: side * d1)
        let (d1, d2, side) = (d1, d2, side)
        let info = unsafe work.withUnsafeMutableBufferPointer { a in
            unsafe values.withUnsafeMutableBufferPointer { s in
                unsafe u.withUnsafeMutableBufferPointer { u in
                    unsafe vt.withUnsafeMutableBufferPointer { vt in
                        unsafe Float._gesdd(d2, d1, a.baseAddress, s.baseAddress, u.baseAddress, vt.baseAddress)
                    }
                }
            }
        }
        try require(info, routine: "gesdd", order: max(d1, d2))
        if d1 <= d2 {
            // Column-major side × d1: vector k is strided.
            var vectors = [Float](repeating: 0, count: rank * d1)
            for k in 0..<rank {
                for index in 0..<d1 { vectors[k * d1 + index] = vt[index * side + k] }
            }
            return vectors
        }
        return Array(u.prefix(rank * d2))
    }

    /// Completes the other side, orders, signs, scales, and measures what is left.
    private mutating func store(
        _ vectors: [Float], slot: Int, count: Int, exponent: Int, into result: inout TruncatedFactors
    ) {
        let leftIsSmaller = d1 <= d2
        let other = max(d1, d2)
        var images = [Float](repeating: 0, count: rank * other)
        product(
            vectors, matrix, transposeB: !leftIsSmaller, into: &images, m: rank, n: other, k: side)
        let norms = (0..<rank).map { k in norm(images, from: k * other, count: other) }
        let order = (0..<rank).sorted { norms[$0] != norms[$1] ? norms[$0] > norms[$1] : $0 < $1 }
        var leftRows = [Float](repeating: 0, count: rank * d1)
        var rightRows = [Float](repeating: 0, count: rank * d2)
        for (component, k) in order.enumerated() where norms[k] > 0 {
            let root = norms[k].squareRoot()
            for index in 0..<side {
                let value = vectors[k * side + index] * root
                if leftIsSmaller {
                    leftRows[component * d1 + index] = value
                } else {
                    rightRows[component * d2 + index] = value
                }
            }
            for index in 0..<other {
                let value = images[k * other + index] / root
                if leftIsSmaller {
                    rightRows[component * d2 + index] = value
                } else {
                    leftRows[component * d1 + index] = value
                }
            }
            var peak: Float = 0
            for index in 0..<d1 where abs(leftRows[component * d1 + index]) > abs(peak) {
                peak = leftRows[component * d1 + index]
            }
            guard peak < 0 else { continue }
            for index in 0..<d1 { leftRows[component * d1 + index].negate() }
            for index in 0..<d2 { rightRows[component * d2 + index].negate() }
        }
        product(
            leftRows, transposeA: true, rightRows, into: &matrix, m: d1, n: d2, k: rank, alpha: -1, beta: 1)
        let scale = Double(sign: .plus, exponent: exponent, significand: 1)
        result.residualNorms[slot] = Float(Double(norm(matrix, from: 0, count: d1 * d2)) * scale)
        let root = Float(scale.squareRoot())
        for component in 0..<rank {
            let leftTarget = (component * count + slot) * d1
            for index in 0..<d1 { result.left[leftTarget + index] = leftRows[component * d1 + index] * root }
            let rightTarget = (component * count + slot) * d2
            for index in 0..<d2 { result.right[rightTarget + index] = rightRows[component * d2 + index] * root }
        }
    }
}

/// All eigenpairs of a small symmetric matrix by cyclic Jacobi rotations, descending; vectors are rows.
///
/// For orders around ten it is several times quicker than a LAPACK call.
func smallEigen(_ matrix: [Float], order n: Int) -> (values: [Float], vectors: [Float]) {
    var a = matrix.map { Double($0) }
    var v = [Double](repeating: 0, count: n * n)
    for index in 0..<n { v[index * n + index] = 1 }
    var size = 0.0
    for value in a { size += value * value }
    for _ in 0..<30 {
        var outside = 0.0
        for p in 0..<n {
            for q in (p + 1)..<max(n, p + 1) { outside += a[p * n + q] * a[p * n + q] }
        }
        if outside <= 1e-18 * size { break }
        for p in 0..<n {
            for q in (p + 1)..<max(n, p + 1) {
                let apq = a[p * n + q]
                guard apq * apq > 1e-20 * size / Double(n * n) else { continue }
                let theta = (a[q * n + q] - a[p * n + p]) / (2 * apq)
                let t = (theta >= 0 ? 1.0 : -1.0) / (abs(theta) + (theta * theta + 1).squareRoot())
                let c = 1 / (t * t + 1).squareRoot()
                let s = t * c
                for k in 0..<n {
                    let (x, y) = (a[k * n + p], a[k * n + q])
                    a[k * n + p] = c * x - s * y
                    a[k * n + q] = s * x + c * y
                }
                for k in 0..<n {
                    let (x, y) = (a[p * n + k], a[q * n + k])
                    a[p * n + k] = c * x - s * y
                    a[q * n + k] = s * x + c * y
                    let (z, w) = (v[p * n + k], v[q * n + k])
                    v[p * n + k] = c * z - s * w
                    v[q * n + k] = s * z + c * w
                }
            }
        }
    }
    let order = (0..<n).sorted { a[$0 * n + $0] != a[$1 * n + $1] ? a[$0 * n + $0] > a[$1 * n + $1] : $0 < $1 }
    var vectors = [Float](repeating: 0, count: n * n)
    for (row, k) in order.enumerated() {
        for index in 0..<n { vectors[row * n + index] = Float(v[k * n + index]) }
    }
    return (order.map { Float(a[$0 * n + $0]) }, vectors)
}

/// `multiply` on whole arrays.
private func product(
    _ a: [Float], transposeA: Bool = false, _ b: [Float], transposeB: Bool = false, into c: inout [Float], m: Int,
    n: Int, k: Int, alpha: Float = 1, beta: Float = 0
) {
    var target = c.mutableSpan
    multiply(
        a.span, transposeA: transposeA, b.span, transposeB: transposeB, into: &target, m: m, n: n, k: k, alpha: alpha,
        beta: beta)
}
