import LinearAlgebra
public import Schema

/// Fitted curvature with a damping: (H + λI)⁻¹ as an operator.
///
/// Per group, with eigenpairs (s²_k, v_k) of H, the Woodbury identity gives
/// (H + λI)⁻¹ = (1/λ) (I − Σ_k s²_k/(s²_k + λ) v_k v_kᵀ); directions outside the basis get 1/λ.
public struct DampedCurvature: Sendable {
    /// The eigenpairs of H.
    public let curvature: FittedCurvature
    /// The damping that λ was made from.
    public let damping: Damping
    /// λ of each group; 0 for a group that takes no part (see ``Damping``).
    public let lambdas: [Double]

    /// Throws ``CurvatureError/invalidDamping(damping:value:)`` unless every λ is positive and finite.
    public init(_ curvature: FittedCurvature, damping: Damping) throws(CurvatureError) {
        self.curvature = curvature
        self.damping = damping
        var lambdas: [Double] = []
        for group in curvature.groups {
            lambdas.append(try damping.lambda(trace: group.trace, gradientLength: group.gradientLength))
        }
        self.lambdas = lambdas
    }

    /// Preconditioned gradients P = (H + λI)⁻¹ q, computed in Double and rounded to f32.
    ///
    /// `gradients[layer]` is `rowCount` × D_l, row-major, for every layer of the store; the result has the same shape. Layers in
    /// no group, and groups without any gradient under relative damping, give zeros. 4·rowCount·r·D operations.
    ///
    /// `forFittedRows` promises that the result meets only rows that the curvature was fitted on. Where the basis spans those (exact
    /// curvature), the part (1/λ) q⊥ outside it, orthogonal to all of them, is then left out: exact scores keep two more digits in f32,
    /// in which that part would otherwise be large noise.
    /// Throws ``CurvatureError/overflow(layer:)`` if a result does not fit into f32.
    public func precondition(
        _ gradients: [[Float]], rowCount: Int, forFittedRows: Bool = false, workers: Int
    ) throws(CurvatureError) -> [[Float]] {
        let pieces = makePieces { layer, length in
            require(gradients.indices.contains(layer), "gradients lack a layer of the curvature")
            require(gradients[layer].count == rowCount * length, "gradients are not rows × D_l")
        }
        let partials = parallelMap(count: pieces.count, workers: workers) { index in
            let piece = pieces[index]
            let block = columns(piece.columns, of: gradients[piece.layer], rowCount: rowCount, length: piece.length)
            return coordinates(of: block, rowCount: rowCount, in: piece)
        }
        let projections = groupSums(partials, pieces: pieces, rowCount: rowCount)
        let results = parallelMap(count: pieces.count, workers: workers) { index in
            let piece = pieces[index]
            let block = columns(piece.columns, of: gradients[piece.layer], rowCount: rowCount, length: piece.length)
            return preconditioned(
                block, coordinates: projections[piece.group], rowCount: rowCount, piece: piece,
                forFittedRows: forFittedRows)
        }
        var output = gradients.map { [Float](repeating: 0, count: $0.count) }
        for (piece, result) in zip(pieces, results) {
            for row in 0..<rowCount {
                let target = row * piece.length + piece.columns.lowerBound
                for index in 0..<piece.columns.count {
                    let value = Float(result[row * piece.columns.count + index])
                    guard value.isFinite else { throw .overflow(layer: piece.layer) }
                    output[piece.layer][target + index] = value
                }
            }
        }
        return output
    }

    /// Self-influence gᵀ(H + λI)⁻¹g of every row of a tile (one `LayerTile` per layer of the store), summed over groups.
    ///
    /// Per group (1/λ)·max(0, ‖g‖² − Σ p²) + Σ p²/(s² + λ) with the coordinates p = V g; the first term is zero when the basis is
    /// complete (r = D). In Double. 2·rows·r·D operations.
    ///
    /// `forFittedRows` promises that the rows are among those that the curvature was fitted on. Where the basis spans those, the first
    /// term is zero, and what rounding makes of it, large beside the second when λ is small, is left out.
    public func selfInfluence(
        of tiles: [LayerTile], forFittedRows: Bool = false, workers: Int
    ) throws(CurvatureError) -> [Double] {
        let rowCount = tiles.first?.rowCount ?? 0
        let pieces = makePieces { layer, length in
            require(tiles.indices.contains(layer), "tiles lack a layer of the curvature")
            require(
                tiles[layer].layer.gradientLength == length && tiles[layer].rowCount == rowCount,
                "tile has another shape than the curvature")
        }
        var total = [Double](repeating: 0, count: rowCount)
        // Rows in chunks, so that reconstructed gradients stay small.
        let widest = pieces.map(\.columns.count).max() ?? 1
        let chunk = max(16, min(1024, (16 << 20) / (8 * widest)))
        for start in stride(from: 0, to: rowCount, by: chunk) {
            let rows = start..<min(start + chunk, rowCount)
            let partials = parallelMap(count: pieces.count, workers: workers) { index in
                let piece = pieces[index]
                var block = [Double](repeating: 0, count: rows.count * piece.columns.count)
                var span = block.mutableSpan
                reconstruct(tiles[piece.layer], rows: rows, columns: piece.columns, into: &span)
                // The squared norm rides along as one more coordinate.
                return coordinates(of: block, rowCount: rows.count, in: piece)
                    + squaredNorms(block, rowCount: rows.count)
            }
            let sums = groupSums(partials, pieces: pieces, rowCount: rows.count, extraPerRow: 1)
            for (index, group) in curvature.groups.enumerated() where lambdas[index] > 0 {
                let lambda = lambdas[index]
                let rank = group.rank
                for row in 0..<rows.count {
                    var inside = 0.0
                    var energy = 0.0
                    for k in 0..<rank {
                        let square = sums[index][row * rank + k] * sums[index][row * rank + k]
                        energy += square
                        inside += square / (group.eigenvalues[k] + lambda)
                    }
                    let insideOnly = rank == group.gradientLength || (forFittedRows && group.spansRows)
                    let outside = insideOnly ? 0 : max(0, sums[index][rows.count * rank + row] - energy)
                    total[rows.lowerBound + row] += outside / lambda + inside
                }
            }
        }
        return total
    }

    /// A block of columns of one layer inside its group: the unit of parallel work, fixed by the curvature alone, so
    /// that sums over pieces do not depend on the number of workers.
    private struct Piece {
        let group: Int
        let layer: Int
        let length: Int
        let columns: Range<Int>
        let groupOffset: Int
    }

    private func makePieces(check: (_ layer: Int, _ length: Int) -> Void) -> [Piece] {
        var pieces: [Piece] = []
        for (index, group) in curvature.groups.enumerated() {
            var offset = 0
            for (layer, length) in zip(group.layers, group.layerLengths) {
                check(layer, length)
                if lambdas[index] > 0 {
                    for start in stride(from: 0, to: length, by: 2048) {
                        let columns = start..<min(start + 2048, length)
                        pieces.append(
                            Piece(
                                group: index, layer: layer, length: length, columns: columns,
                                groupOffset: offset + start))
                    }
                }
                offset += length
            }
        }
        return pieces
    }

    /// Rows of the basis, restricted to a piece's columns, in Double.
    private func basisRows(_ rows: Range<Int>, of piece: Piece) -> [Double] {
        let group = curvature.groups[piece.group]
        let length = group.gradientLength
        var block = [Double](repeating: 0, count: rows.count * piece.columns.count)
        for (slot, row) in rows.enumerated() {
            let source = row * length + piece.groupOffset
            let target = slot * piece.columns.count
            for index in 0..<piece.columns.count { block[target + index] = Double(group.basis[source + index]) }
        }
        return block
    }

    private static let basisRowsAtOnce = 256

    /// The piece's share of p = V g: rowCount × r.
    private func coordinates(of block: [Double], rowCount: Int, in piece: Piece) -> [Double] {
        let rank = curvature.groups[piece.group].rank
        let width = piece.columns.count
        var coordinates = [Double](repeating: 0, count: rowCount * rank)
        for start in stride(from: 0, to: rank, by: Self.basisRowsAtOnce) {
            let rows = start..<min(start + Self.basisRowsAtOnce, rank)
            let basis = basisRows(rows, of: piece)
            var target = coordinates.mutableSpan
            multiply(
                block.span, basis.span, transposeB: true, into: &target, offsetC: start, strideC: rank, m: rowCount,
                n: rows.count, k: width)
        }
        return coordinates
    }

    /// The piece's share of (1/λ) (q − Σ_k w_k p_k v_k): rowCount × width.
    private func preconditioned(
        _ block: [Double], coordinates: [Double], rowCount: Int, piece: Piece, forFittedRows: Bool
    ) -> [Double] {
        let group = curvature.groups[piece.group]
        let lambda = lambdas[piece.group]
        let rank = group.rank
        let width = piece.columns.count
        // Inside the basis Σ_k p_k/(s²_k + λ) v_k is the same without the cancellation.
        let insideOnly = rank == group.gradientLength || (forFittedRows && group.spansRows)
        var result = insideOnly ? [Double](repeating: 0, count: block.count) : block
        for start in stride(from: 0, to: rank, by: Self.basisRowsAtOnce) {
            let rows = start..<min(start + Self.basisRowsAtOnce, rank)
            let basis = basisRows(rows, of: piece)
            var weighted = [Double](repeating: 0, count: rowCount * rows.count)
            for row in 0..<rowCount {
                for (slot, k) in rows.enumerated() {
                    let square = group.eigenvalues[k]
                    weighted[row * rows.count + slot] =
                        (insideOnly ? lambda : -square) / (square + lambda) * coordinates[row * rank + k]
                }
            }
            var target = result.mutableSpan
            multiply(
                weighted.span, basis.span, into: &target, m: rowCount, n: width, k: rows.count, beta: 1)
        }
        for index in result.indices { result[index] /= lambda }
        return result
    }

    /// Sums partial results over the pieces of each group, in order.
    private func groupSums(
        _ partials: [[Double]], pieces: [Piece], rowCount: Int, extraPerRow: Int = 0
    ) -> [[Double]] {
        var sums = curvature.groups.map { [Double](repeating: 0, count: rowCount * ($0.rank + extraPerRow)) }
        for (piece, partial) in zip(pieces, partials) {
            for index in partial.indices { sums[piece.group][index] += partial[index] }
        }
        return sums
    }

    private func columns(_ columns: Range<Int>, of values: [Float], rowCount: Int, length: Int) -> [Double] {
        var block = [Double](repeating: 0, count: rowCount * columns.count)
        for row in 0..<rowCount {
            let source = row * length + columns.lowerBound
            let target = row * columns.count
            for index in 0..<columns.count { block[target + index] = Double(values[source + index]) }
        }
        return block
    }

    private func squaredNorms(_ block: [Double], rowCount: Int) -> [Double] {
        let width = rowCount > 0 ? block.count / rowCount : 0
        return (0..<rowCount).map { row in
            var sum = 0.0
            for index in (row * width)..<((row + 1) * width) { sum += block[index] * block[index] }
            return sum
        }
    }
}

/// `precondition`, whose name the type above uses for mathematics.
private func require(_ condition: Bool, _ message: @autoclosure () -> String) {
    Swift.precondition(condition, message())
}
