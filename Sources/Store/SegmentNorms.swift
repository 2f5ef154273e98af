import Kernels
import Schema

/// Upper bounds of the norms of one layer's rows: of what is stored, and of what storing lost.
struct LayerNorms {
    /// At least ‖Ĝ‖ for each row.
    var stored: [Double]
    /// At least ‖G − Ĝ‖ for each row.
    var lost: [Double]

    /// Of what is stored, without a word on what was lost.
    init(of tile: LayerTile) {
        self =
            tile.layer.rank == nil ? LayerNorms(givenDense: tile, stored: tile) : LayerNorms(given: tile, stored: tile)
    }

    /// Of factors, component-major as in a tile; Ĝ = Û V̂ᵀ is what decoding gives.
    ///
    /// With ΔU = U − Û and ΔV = V − V̂ the loss U Vᵀ − Û V̂ᵀ is [ΔU Û] [V ΔV]ᵀ: no difference of large numbers. The norm of
    /// A Bᵀ is √Σ (AᵀA)∘(BᵀB). O(rows · rank² · (d1 + d2)).
    init(given: LayerTile, stored tile: LayerTile) {
        let layer = given.layer
        let rank = layer.rank ?? 0
        let isExact = given.left == tile.left && given.right == tile.right
        var left = DoubleVectors(count: 2 * rank, length: layer.inputDimension)
        var right = DoubleVectors(count: 2 * rank, length: layer.outputDimension)
        stored = []
        lost = []
        stored.reserveCapacity(given.rowCount)
        lost.reserveCapacity(given.rowCount)
        for row in 0..<given.rowCount {
            for component in 0..<rank {
                let vector = component * given.rowCount + row
                left.set(component, tile.left.span, vector)
                right.set(component, tile.right.span, vector)
            }
            stored.append(normBound(left, right, count: rank))
            guard !isExact else {
                lost.append(0)
                continue
            }
            for component in 0..<rank {
                let vector = component * given.rowCount + row
                // Left: Û first, then ΔU; right: ΔV first, then V.
                left.setDifference(rank + component, given.left.span, tile.left.span, vector)
                right.setDifference(component, given.right.span, tile.right.span, vector)
                right.set(rank + component, given.right.span, vector)
            }
            lost.append(normBound(left, right, count: 2 * rank))
        }
    }

    /// Of dense rows. O(rows · d1 · d2).
    init(givenDense given: LayerTile, stored tile: LayerTile) {
        let length = given.layer.gradientLength
        stored = []
        lost = []
        // The rounding error of a sum of n squares is below n · 2^-53 of it, of its root half of that.
        let margin = 1 + Double(length + 4) * 0x1p-53
        for row in 0..<given.rowCount {
            let range = row * length..<(row + 1) * length
            stored.append(sumOfSquares(tile.dense.span.extracting(range)).squareRoot() * margin)
            var sum = 0.0
            let givenRow = given.dense.span.extracting(range)
            let storedRow = tile.dense.span.extracting(range)
            for index in 0..<length {
                let difference = Double(givenRow[index]) - Double(storedRow[index])
                sum += difference * difference
            }
            lost.append(sum.squareRoot() * margin)
        }
    }
}

/// An upper bound of ‖Σ_k a_k b_kᵀ‖ over the first `count` vectors of both, a hair above the value.
private func normBound(_ left: DoubleVectors, _ right: DoubleVectors, count: Int) -> Double {
    var sum = 0.0
    var magnitude = 0.0
    for i in 0..<count {
        let square = left.dot(i, i) * right.dot(i, i)
        sum += square
        magnitude += square.squareRoot()
        for j in 0..<i { sum += 2 * (left.dot(i, j) * right.dot(i, j)) }
    }
    // Each dot product of length d is off by at most d · 2^-53 · ‖a‖‖b‖, and so on up the sum.
    let roundings = Double(left.length + right.length + count * count + 8)
    let bound = max(0, sum) + roundings * 0x1p-53 * magnitude * magnitude
    return bound.squareRoot() * (1 + 0x1p-51)
}

/// A few vectors widened to Double, for dot products of one row: reused from row to row.
private struct DoubleVectors {
    let length: Int
    private var numbers: [Double]

    init(count: Int, length: Int) {
        self.length = length
        numbers = [Double](repeating: 0, count: count * length)
    }

    /// Vector `index` becomes vector `source` of `values`.
    mutating func set(_ index: Int, _ values: Span<Float>, _ source: Int) {
        let values = values.extracting(source * length..<(source + 1) * length)
        numbers.withUnsafeMutableBufferPointer { buffer in
            let target = unsafe UnsafeMutableBufferPointer(rebasing: buffer[index * length..<(index + 1) * length])
            for position in 0..<length { unsafe target[position] = Double(values[unchecked: position]) }
        }
    }

    /// Vector `index` becomes the difference of vector `source` of two arrays.
    mutating func setDifference(_ index: Int, _ values: Span<Float>, _ minus: Span<Float>, _ source: Int) {
        let values = values.extracting(source * length..<(source + 1) * length)
        let minus = minus.extracting(source * length..<(source + 1) * length)
        numbers.withUnsafeMutableBufferPointer { buffer in
            let target = unsafe UnsafeMutableBufferPointer(rebasing: buffer[index * length..<(index + 1) * length])
            for position in 0..<length {
                unsafe target[position] = Double(values[unchecked: position]) - Double(minus[unchecked: position])
            }
        }
    }

    /// The inner product of two of the vectors: eight interleaved sums, so the same bits everywhere.
    func dot(_ first: Int, _ second: Int) -> Double {
        numbers.withUnsafeBufferPointer { buffer in
            let a = unsafe UnsafeBufferPointer(rebasing: buffer[first * length..<(first + 1) * length])
            let b = unsafe UnsafeBufferPointer(rebasing: buffer[second * length..<(second + 1) * length])
            var sums = SIMD8<Double>(repeating: 0)
            var position = 0
            while position + 8 <= length {
                let x = unsafe UnsafeRawPointer(a.baseAddress! + position).loadUnaligned(as: SIMD8<Double>.self)
                let y = unsafe UnsafeRawPointer(b.baseAddress! + position).loadUnaligned(as: SIMD8<Double>.self)
                sums += x * y
                position += 8
            }
            var sum = sums.sum()
            while position < length {
                sum += unsafe a[position] * b[position]
                position += 1
            }
            return sum
        }
    }
}
