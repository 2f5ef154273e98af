import Schema

// The loops between matrix products: the only place of this module with pointers, because bounds checks keep the compiler from
// vectorising. Every function checks its extents first. The order of additions is part of the result, so it never
// depends on anything but the shapes.

let laneCount = 8

@inline(__always)
func load(_ pointer: UnsafePointer<Float>) -> SIMD8<Float> {
    unsafe UnsafeRawPointer(pointer).loadUnaligned(as: SIMD8<Float>.self)
}

/// Σ a·b over `count` numbers: eight interleaved sums, then the tail.
@inline(__always)
private func dot(_ a: UnsafePointer<Float>, _ b: UnsafePointer<Float>, _ count: Int) -> Float {
    var lanes = SIMD8<Float>(repeating: 0)
    var index = 0
    while index + laneCount <= count {
        unsafe lanes += load(a + index) * load(b + index)
        index += laneCount
    }
    var sum = lanes.sum()
    while index < count {
        unsafe sum += a[index] * b[index]
        index += 1
    }
    return sum
}

/// scores[q, i] += Σ_a left[q·c_q + a, i] · right[q·c_q + a, i] for one component; both are (queries·c_q) × rows.
func addProducts(
    _ left: Span<Float>, _ right: Span<Float>, queries: Range<Int>, queryRank: Int, rows: Range<Int>, rowCount: Int,
    to scores: inout MutableSpan<Float>
) {
    let width = rows.count
    precondition(left.count >= queries.count * queryRank * width && right.count >= queries.count * queryRank * width)
    precondition(scores.count >= queries.upperBound * rowCount && rows.upperBound <= rowCount)
    unsafe left.withUnsafeBufferPointer { left in
        unsafe right.withUnsafeBufferPointer { right in
            unsafe scores.withUnsafeMutableBufferPointer { scores in
                guard let left = left.baseAddress, let right = right.baseAddress, let scores = scores.baseAddress
                else { return }
                for query in queries {
                    let target = unsafe scores + query * rowCount + rows.lowerBound
                    for pair in 0..<queryRank {
                        let offset = ((query - queries.lowerBound) * queryRank + pair) * width
                        for index in 0..<width {
                            unsafe target[index] += left[offset + index] * right[offset + index]
                        }
                    }
                }
            }
        }
    }
}

/// scores[q, i] += ⟨contractions[i, q], vectors[i]⟩ for one component; contractions are rows × queries × length.
func addRowDots(
    _ contractions: Span<Float>, _ vectors: Span<Float>, length: Int, queries: Range<Int>, rows: Range<Int>,
    rowCount: Int, to scores: inout MutableSpan<Float>
) {
    precondition(contractions.count >= rows.count * queries.count * length && vectors.count >= rows.count * length)
    precondition(scores.count >= queries.upperBound * rowCount && rows.upperBound <= rowCount)
    unsafe contractions.withUnsafeBufferPointer { contractions in
        unsafe vectors.withUnsafeBufferPointer { vectors in
            unsafe scores.withUnsafeMutableBufferPointer { scores in
                guard let contractions = contractions.baseAddress, let vectors = vectors.baseAddress,
                    let scores = scores.baseAddress
                else { return }
                for row in 0..<rows.count {
                    let vector = unsafe vectors + row * length
                    var contraction = unsafe contractions + row * queries.count * length
                    for query in queries {
                        unsafe scores[query * rowCount + rows.lowerBound + row] += dot(contraction, vector, length)
                        unsafe contraction += length
                    }
                }
            }
        }
    }
}

/// scores[q, i] += block[q, i]; the block is queryCount × rows.
func addBlock(
    _ block: Span<Float>, queryCount: Int, rows: Range<Int>, rowCount: Int, to scores: inout MutableSpan<Float>
) {
    precondition(block.count >= queryCount * rows.count && scores.count >= queryCount * rowCount)
    precondition(rows.upperBound <= rowCount)
    unsafe block.withUnsafeBufferPointer { block in
        unsafe scores.withUnsafeMutableBufferPointer { scores in
            guard let block = block.baseAddress, let scores = scores.baseAddress else { return }
            for query in 0..<queryCount {
                let target = unsafe scores + query * rowCount + rows.lowerBound
                for index in 0..<rows.count { unsafe target[index] += block[query * rows.count + index] }
            }
        }
    }
}

/// matrices[i] = rows `matrixRows` of Σ_k u_k v_kᵀ, for the rows of a tile of factors; they are rows × (matrix rows · d2).
func reconstruct(_ tile: LayerTile, rows: Range<Int>, matrixRows: Range<Int>, into matrices: inout MutableSpan<Float>) {
    let d1 = tile.layer.inputDimension
    let d2 = tile.layer.outputDimension
    let rank = tile.layer.rank ?? 0
    precondition(matrices.count >= rows.count * matrixRows.count * d2 && rank > 0)
    precondition(rows.upperBound <= tile.rowCount && matrixRows.upperBound <= d1)
    precondition(tile.left.count == rank * tile.rowCount * d1 && tile.right.count == rank * tile.rowCount * d2)
    tile.left.withUnsafeBufferPointer { left in
        tile.right.withUnsafeBufferPointer { right in
            unsafe matrices.withUnsafeMutableBufferPointer { matrices in
                guard let left = left.baseAddress, let right = right.baseAddress, let matrices = matrices.baseAddress
                else { return }
                // Every number is summed over the components in a register and written once.
                for row in rows {
                    let matrix = unsafe matrices + (row - rows.lowerBound) * matrixRows.count * d2
                    let u = unsafe left + row * d1
                    let v = unsafe right + row * d2
                    let nextLeft = tile.rowCount * d1
                    let nextRight = tile.rowCount * d2
                    for a in matrixRows {
                        let target = unsafe matrix + (a - matrixRows.lowerBound) * d2
                        var b = 0
                        while b + laneCount <= d2 {
                            var lanes = unsafe u[a] * load(v + b)
                            for component in stride(from: 1, to: rank, by: 1) {
                                unsafe lanes += u[a + component * nextLeft] * load(v + b + component * nextRight)
                            }
                            unsafe UnsafeMutableRawPointer(target + b).storeBytes(of: lanes, as: SIMD8<Float>.self)
                            b += laneCount
                        }
                        while b < d2 {
                            var sum: Float = 0
                            for component in 0..<rank {
                                unsafe sum += u[a + component * nextLeft] * v[b + component * nextRight]
                            }
                            unsafe target[b] = sum
                            b += 1
                        }
                    }
                }
            }
        }
    }
}

/// Σ a[first + i] · b[i] in Double, four interleaved sums, then the tail.
func doubleDot(_ a: Span<Float>, from first: Int, _ b: Span<Float>) -> Double {
    precondition(first >= 0 && first + b.count <= a.count, "the vectors do not match")
    return unsafe a.withUnsafeBufferPointer { a in
        unsafe b.withUnsafeBufferPointer { b in
            guard let x = a.baseAddress, let y = b.baseAddress else { return 0 }
            var lanes = SIMD4<Double>(repeating: 0)
            var index = 0
            while index + 4 <= b.count {
                let left = unsafe UnsafeRawPointer(x + first + index).loadUnaligned(as: SIMD4<Float>.self)
                let right = unsafe UnsafeRawPointer(y + index).loadUnaligned(as: SIMD4<Float>.self)
                lanes += SIMD4<Double>(left) * SIMD4<Double>(right)
                index += 4
            }
            var sum = lanes.sum()
            while index < b.count {
                unsafe sum += Double(x[first + index]) * Double(y[index])
                index += 1
            }
            return sum
        }
    }
}

/// Σ |score| over all numbers, in Double: eight interleaved sums, then the tail.
package func sumOfMagnitudes(_ scores: Span<Float>) -> Double {
    unsafe scores.withUnsafeBufferPointer { scores in
        guard let start = scores.baseAddress else { return 0 }
        var lanes = SIMD8<Double>(repeating: 0)
        var index = 0
        while index + laneCount <= scores.count {
            // Both types are 32 bytes of plain numbers: a magnitude is a float without its sign bit, which only integers can clear.
            let bits = unsafe SIMD8<UInt32>(
                truncatingIfNeeded: unsafeBitCast(load(start + index), to: SIMD8<UInt32>.self) & 0x7FFF_FFFF)
            lanes += SIMD8<Double>(unsafe unsafeBitCast(bits, to: SIMD8<Float>.self))
            index += laneCount
        }
        var sum = lanes.sum()
        while index < scores.count {
            unsafe sum += Double(abs(scores[index]))
            index += 1
        }
        return sum
    }
}
