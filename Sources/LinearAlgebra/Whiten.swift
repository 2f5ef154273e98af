public import Schema

extension LayerWhitening {
    /// A tile of raw gradients in whitened coordinates: W1 G W2 of full matrices, W1 u and W2 v of factors.
    ///
    /// The tile's layer must have this one's dimensions. 2·d1·d2·(d1 + d2) operations per full matrix, 2·c·(d1² + d2²) per
    /// row of factors, in f32. Results that leave the range of f32 are infinite; the caller checks.
    public func apply(to tile: LayerTile) -> LayerTile {
        let (d1, d2) = (inputDimension, outputDimension)
        precondition(tile.layer.inputDimension == d1 && tile.layer.outputDimension == d2, "another layer's tile")
        if isIdentity { return tile }
        if let rank = tile.layer.rank {
            return LayerTile(
                layer: tile.layer, rowCount: tile.rowCount,
                left: rows(tile.left, times: left, count: rank * tile.rowCount, order: d1),
                right: rows(tile.right, times: right, count: rank * tile.rowCount, order: d2))
        }
        let halfway = rows(tile.dense, times: right, count: tile.rowCount * d1, order: d2)
        var result = [Float](repeating: 0, count: tile.dense.count)
        var span = result.mutableSpan
        for row in 0..<tile.rowCount {
            let offset = row * d1 * d2
            multiply(
                left.span, halfway.span.extracting(offset..<offset + d1 * d2), into: &span, offsetC: offset, m: d1,
                n: d2, k: d1)
        }
        return LayerTile(layer: tile.layer, rowCount: tile.rowCount, dense: result)
    }

    /// Rows times a symmetric matrix.
    private func rows(_ values: [Float], times matrix: [Float], count: Int, order: Int) -> [Float] {
        var result = [Float](repeating: 0, count: values.count)
        var span = result.mutableSpan
        multiply(values.span, matrix.span, into: &span, m: count, n: order, k: order)
        return result
    }
}
