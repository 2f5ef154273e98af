public import Schema

/// ‖G_i‖² of every row of a tile, in Double: tr((UᵀU)(VᵀV)) for factors, Σ x² for dense rows.
///
/// c·(c + 1)·(d1 + d2) operations per row of factors. Not below zero.
public func squaredNorms(of tile: LayerTile) -> [Double] {
    guard let rank = tile.layer.rank else {
        return innerProducts(tile.dense, 0, 0, rowCount: tile.rowCount, length: tile.layer.gradientLength)
    }
    var norms = [Double](repeating: 0, count: tile.rowCount)
    for first in 0..<rank {
        for second in first..<rank {
            let lefts = innerProducts(
                tile.left, first, second, rowCount: tile.rowCount, length: tile.layer.inputDimension)
            let rights = innerProducts(
                tile.right, first, second, rowCount: tile.rowCount, length: tile.layer.outputDimension)
            let weight: Double = first == second ? 1 : 2
            for row in 0..<tile.rowCount { norms[row] += weight * lefts[row] * rights[row] }
        }
    }
    return norms.map { max(0, $0) }
}

/// ⟨component `first` of row i, component `second` of row i⟩ for every row, in Double.
private func innerProducts(_ vectors: [Float], _ first: Int, _ second: Int, rowCount: Int, length: Int) -> [Double] {
    precondition(vectors.count >= (max(first, second) + 1) * rowCount * length)
    return vectors.withUnsafeBufferPointer { vectors in
        (0..<rowCount).map { row in
            guard let base = vectors.baseAddress else { return 0 }
            let a = unsafe base + (first * rowCount + row) * length
            let b = unsafe base + (second * rowCount + row) * length
            var lanes = SIMD8<Double>(repeating: 0)
            var index = 0
            while index + 8 <= length {
                lanes += unsafe SIMD8<Double>(eight(a + index)) * SIMD8<Double>(eight(b + index))
                index += 8
            }
            var sum = lanes.sum()
            while index < length {
                unsafe sum += Double(a[index]) * Double(b[index])
                index += 1
            }
            return sum
        }
    }
}

private func eight(_ numbers: UnsafePointer<Float>) -> SIMD8<Float> {
    unsafe UnsafeRawPointer(numbers).loadUnaligned(as: SIMD8<Float>.self)
}
