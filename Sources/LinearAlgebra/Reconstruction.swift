public import Schema

/// Writes gradient rows of a tile, G_i = Σ_k u_ik v_ikᵀ flattened row-major, as a contiguous rows × columns matrix.
///
/// `columns` is a range of the layer's vectorised gradient (0 ..< d1·d2), so that wide layers can be taken in blocks.
/// `leftScale` and `rightScale` multiply the two sides before the product (a dense layer is multiplied by both), which keeps
/// products of very small or large factors inside the range of f32; powers of two lose nothing. In Double the products
/// are exact. 2·c operations per number written.
public func reconstruct<Scalar: BLASScalar>(
    _ tile: LayerTile, rows: Range<Int>, columns: Range<Int>, leftScale: Scalar = 1, rightScale: Scalar = 1,
    into matrix: inout MutableSpan<Scalar>
) {
    let layer = tile.layer
    precondition(rows.lowerBound >= 0 && rows.upperBound <= tile.rowCount, "rows outside the tile")
    precondition(columns.lowerBound >= 0 && columns.upperBound <= layer.gradientLength, "columns outside the layer")
    precondition(matrix.count >= rows.count * columns.count, "matrix too short")
    guard !rows.isEmpty, !columns.isEmpty else { return }
    unsafe matrix.withUnsafeMutableBufferPointer { target in
        guard let target = target.baseAddress else { return }
        if let rank = layer.rank {
            unsafe tile.left.withUnsafeBufferPointer { left in
                unsafe tile.right.withUnsafeBufferPointer { right in
                    guard let left = left.baseAddress, let right = right.baseAddress else { return }
                    unsafe addOuterProducts(
                        left: left, right: right, rank: rank, rowCount: tile.rowCount, d1: layer.inputDimension,
                        d2: layer.outputDimension, rows: rows, columns: columns, leftScale: leftScale,
                        rightScale: rightScale, into: target)
                }
            }
        } else {
            unsafe tile.dense.withUnsafeBufferPointer { dense in
                for (slot, row) in rows.enumerated() {
                    let source = row * layer.gradientLength + columns.lowerBound
                    let destination = slot * columns.count
                    for index in 0..<columns.count {
                        unsafe target[destination + index] = Scalar(dense[source + index]) * leftScale * rightScale
                    }
                }
            }
        }
    }
}

private func addOuterProducts<Scalar: BLASScalar>(
    left: UnsafePointer<Float>, right: UnsafePointer<Float>, rank: Int, rowCount: Int, d1: Int, d2: Int,
    rows: Range<Int>, columns: Range<Int>, leftScale: Scalar, rightScale: Scalar,
    into target: UnsafeMutablePointer<Scalar>
) {
    let firstLine = columns.lowerBound / d2
    let lastLine = (columns.upperBound - 1) / d2
    unsafe withUnsafeTemporaryAllocation(of: Scalar.self, capacity: d2) { scaledRight in
        guard let scaledRight = scaledRight.baseAddress else { return }
        for (slot, row) in rows.enumerated() {
            let rowTarget = unsafe target + slot * columns.count
            for component in 0..<rank {
                let leftRow = unsafe left + (component * rowCount + row) * d1
                let rightRow = unsafe right + (component * rowCount + row) * d2
                for index in 0..<d2 { unsafe scaledRight[index] = Scalar(rightRow[index]) * rightScale }
                for line in firstLine...lastLine {
                    let low = max(columns.lowerBound, line * d2)
                    let high = min(columns.upperBound, (line + 1) * d2)
                    let factor = unsafe Scalar(leftRow[line]) * leftScale
                    let source = unsafe scaledRight + (low - line * d2)
                    let destination = unsafe rowTarget + (low - columns.lowerBound)
                    if component == 0 {
                        for index in 0..<(high - low) { unsafe destination[index] = factor * source[index] }
                    } else {
                        for index in 0..<(high - low) { unsafe destination[index] += factor * source[index] }
                    }
                }
            }
        }
    }
}
