/// Σ over matrices of the squared singular values, by their place: element k is Σ_i σ²_ik, σ descending.
///
/// `matrices` are d1×d2, row-major, one after another, finite. In Double; O(min(d1, d2)²·max(d1, d2)) per matrix.
public func squaredSingularValueSums(
    of matrices: [Float], count: Int, d1: Int, d2: Int
) throws(LinearAlgebraError) -> [Double] {
    precondition(matrices.count == count * d1 * d2, "matrices are not count × d1 × d2")
    let side = min(d1, d2)
    var sums = [Double](repeating: 0, count: side)
    var matrix = [Double](repeating: 0, count: d1 * d2)
    for index in 0..<count {
        for position in matrix.indices { matrix[position] = Double(matrices[index * d1 * d2 + position]) }
        var gram = [Double](repeating: 0, count: side * side)
        var span = gram.mutableSpan
        // G Gᵀ where d1 is the smaller side, Gᵀ G otherwise.
        multiplyBySelf(matrix.span, transpose: d1 > d2, into: &span, n: side, k: max(d1, d2))
        let pairs = try symmetricEigen(gram, order: side)
        for (place, value) in pairs.values.enumerated() { sums[place] += max(0, value) }
    }
    return sums
}

/// The smallest rank whose leading squared singular values hold `share` of the sum of all; 1 when there is no energy.
public func rank(holding share: Double, of squaredValues: [Double]) -> Int {
    let total = squaredValues.reduce(0, +)
    guard total > 0 else { return 1 }
    var held = 0.0
    for (place, value) in squaredValues.enumerated() {
        held += value
        // Rounding must not ask for one component more at a share of 1.
        if held >= share * total * (1 - 1e-12) { return place + 1 }
    }
    return max(1, squaredValues.count)
}
