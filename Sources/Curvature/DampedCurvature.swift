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
        let pieces = curvature.makePieces(isWanted: { lambdas[$0] > 0 }) { layer, length in
            require(gradients.indices.contains(layer), "gradients lack a layer of the curvature")
            require(gradients[layer].count == rowCount * length, "gradients are not rows × D_l")
        }
        let partials = parallelMap(count: pieces.count, workers: workers) { index in
            let piece = pieces[index]
            let block = columns(piece.columns, of: gradients[piece.layer], rowCount: rowCount, length: piece.length)
            return curvature.coordinates(of: block, rowCount: rowCount, in: piece)
        }
        let projections = curvature.groupSums(partials, pieces: pieces, rowCount: rowCount)
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
        Self.selfInfluences([self], of: tiles, forFittedRows: forFittedRows, workers: workers)[0]
    }

    /// The same for several dampings of one curvature, by one projection of the rows.
    public static func selfInfluences(
        _ damped: [DampedCurvature], of tiles: [LayerTile], forFittedRows: Bool = false, workers: Int
    ) -> [[Double]] {
        guard let curvature = damped.first?.curvature else { return [] }
        var totals = damped.map { _ in [Double](repeating: 0, count: tiles.first?.rowCount ?? 0) }
        let isWanted = { (group: Int) in damped.contains { $0.lambdas[group] > 0 } }
        curvature.forEachProjection(of: tiles, isWanted: isWanted, workers: workers) { rows, sums in
            for (index, group) in curvature.groups.enumerated() where isWanted(index) {
                let rank = group.rank
                let insideOnly = rank == group.gradientLength || (forFittedRows && group.spansRows)
                let coordinates = sums[index]
                for row in 0..<rows.count {
                    let first = row * rank
                    var energy = 0.0
                    for k in 0..<rank { energy += coordinates[first + k] * coordinates[first + k] }
                    let outside = insideOnly ? 0 : max(0, coordinates[rows.count * rank + row] - energy)
                    for (place, operation) in damped.enumerated() where operation.lambdas[index] > 0 {
                        let lambda = operation.lambdas[index]
                        var inside = 0.0
                        for k in 0..<rank {
                            let square = coordinates[first + k] * coordinates[first + k]
                            inside += square / (group.eigenvalues[k] + lambda)
                        }
                        totals[place][rows.lowerBound + row] += outside / lambda + inside
                    }
                }
            }
        }
        return totals
    }

    /// Self-influence of rows of one group from their stored coordinates c_k = p_k/√b_k, b_k = s²_k + tr(H)/D, and outside norms n:
    /// n²/λ + Σ_k c²_k · b_k/(s²_k + λ), for any λ and without their gradients. 2·rows·r operations, in Double.
    ///
    /// Coordinates that are off by at most δ change it by at most Σ_k (2|c_k|δ + δ²) · b_k/(s²_k + λ).
    public func selfInfluence(
        of rows: EigenCoordinates, group index: Int, forFittedRows: Bool = false
    ) -> [Double] {
        let group = curvature.groups[index]
        let lambda = lambdas[index]
        require(rows.rank == group.rank, "coordinates are of another rank than the curvature")
        guard lambda > 0 else { return [Double](repeating: 0, count: rows.rowCount) }
        let insideOnly = group.rank == group.gradientLength || (forFittedRows && group.spansRows)
        let weights = zip(group.coordinateWeights, group.eigenvalues).map { $0 / ($1 + lambda) }
        return (0..<rows.rowCount).map { row in
            let outside = insideOnly ? 0 : Double(rows.outsideNorms[row])
            var sum = outside * outside / lambda
            for k in 0..<group.rank {
                let value = Double(rows.values[row * group.rank + k])
                sum += value * value * weights[k]
            }
            return sum
        }
    }

    /// The piece's share of (1/λ) (q − Σ_k w_k p_k v_k): rowCount × width.
    private func preconditioned(
        _ block: [Double], coordinates: [Double], rowCount: Int, piece: CurvaturePiece, forFittedRows: Bool
    ) -> [Double] {
        let group = curvature.groups[piece.group]
        return dampedInverse(
            of: block, rowCount: rowCount, coordinates: coordinates, eigenvalues: group.eigenvalues,
            lambda: lambdas[piece.group],
            insideOnly: group.rank == group.gradientLength || (forFittedRows && group.spansRows)
        ) { curvature.basisRows($0, of: piece) }
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
}

/// The Woodbury form (1/λ) (q − Σ_k s²_k/(s²_k + λ) p_k v_k) of (H + λI)⁻¹ q, in Double, for rows q of any columns of the gradient.
///
/// `block` is rowCount × width, `coordinates` rowCount × r with p = V q over all columns, and `basisRows` gives some rows of V in these
/// columns. With `insideOnly`, which leaves out the part of q outside the basis, Σ_k p_k/(s²_k + λ) v_k, the same without cancellation.
/// 2·rowCount·r·width operations.
func dampedInverse(
    of block: [Double], rowCount: Int, coordinates: [Double], eigenvalues: [Double], lambda: Double, insideOnly: Bool,
    basisRows: (Range<Int>) -> [Double]
) -> [Double] {
    let rank = eigenvalues.count
    let width = rowCount > 0 ? block.count / rowCount : 0
    var result = insideOnly ? [Double](repeating: 0, count: block.count) : block
    for start in stride(from: 0, to: rank, by: FittedCurvature.basisRowsAtOnce) {
        let rows = start..<min(start + FittedCurvature.basisRowsAtOnce, rank)
        let basis = basisRows(rows)
        var weighted = [Double](repeating: 0, count: rowCount * rows.count)
        for row in 0..<rowCount {
            for (slot, k) in rows.enumerated() {
                let square = eigenvalues[k]
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

/// `precondition`, whose name the type above uses for mathematics.
func require(_ condition: Bool, _ message: @autoclosure () -> String) {
    Swift.precondition(condition, message())
}
