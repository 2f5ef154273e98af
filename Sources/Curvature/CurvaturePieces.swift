import LinearAlgebra
public import Schema

/// A block of columns of one layer inside its group: the unit of parallel work, fixed by the curvature alone, so
/// that sums over pieces do not depend on the number of workers.
struct CurvaturePiece: Sendable {
    let group: Int
    let layer: Int
    let length: Int
    let columns: Range<Int>
    let groupOffset: Int
}

extension FittedCurvature {
    /// The pieces of the groups that are wanted; `check` sees every layer.
    func makePieces(
        isWanted: (Int) -> Bool, check: (_ layer: Int, _ length: Int) -> Void
    ) -> [CurvaturePiece] {
        var pieces: [CurvaturePiece] = []
        for (index, group) in groups.enumerated() {
            var offset = 0
            for (layer, length) in zip(group.layers, group.layerLengths) {
                check(layer, length)
                if isWanted(index) {
                    for start in stride(from: 0, to: length, by: Self.pieceWidth) {
                        let columns = start..<min(start + Self.pieceWidth, length)
                        pieces.append(
                            CurvaturePiece(
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
    func basisRows(_ rows: Range<Int>, of piece: CurvaturePiece) -> [Double] {
        let group = groups[piece.group]
        let length = group.gradientLength
        var block = [Double](repeating: 0, count: rows.count * piece.columns.count)
        for (slot, row) in rows.enumerated() {
            let source = row * length + piece.groupOffset
            let target = slot * piece.columns.count
            for index in 0..<piece.columns.count { block[target + index] = Double(group.basis[source + index]) }
        }
        return block
    }

    static let basisRowsAtOnce = 256
    static let pieceWidth = 2048

    /// Rows that are projected at a time.
    private static func chunkRowCount(widest: Int) -> Int { max(16, min(1024, (16 << 20) / (8 * widest))) }

    /// Memory that a projection of rows on one group's basis takes with one worker: a piece of reconstructed gradients and one of the
    /// basis, and every piece's share of the coordinates of some rows.
    public static func projectionBytes(lengths: [Int], rank: Int, rowCount: Int) -> Int {
        let widest = min(pieceWidth, lengths.max() ?? 1)
        let rows = min(rowCount, chunkRowCount(widest: widest))
        let pieceCount = lengths.reduce(0) { $0 + ($1 + pieceWidth - 1) / pieceWidth }
        return 8 * (rows * widest + basisRowsAtOnce * widest + (pieceCount + 2) * rows * (rank + 1))
    }

    /// The piece's share of p = V g: rowCount × r.
    func coordinates(of block: [Double], rowCount: Int, in piece: CurvaturePiece) -> [Double] {
        let rank = groups[piece.group].rank
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

    /// Sums partial results over the pieces of each group, in order.
    func groupSums(
        _ partials: [[Double]], pieces: [CurvaturePiece], rowCount: Int, extraPerRow: Int = 0
    ) -> [[Double]] {
        var sums = groups.map { [Double](repeating: 0, count: rowCount * ($0.rank + extraPerRow)) }
        for (piece, partial) in zip(pieces, partials) {
            for index in partial.indices { sums[piece.group][index] += partial[index] }
        }
        return sums
    }

    private func squaredNorms(_ block: [Double], rowCount: Int) -> [Double] {
        let width = rowCount > 0 ? block.count / rowCount : 0
        return (0..<rowCount).map { row in
            var sum = 0.0
            for index in (row * width)..<((row + 1) * width) { sum += block[index] * block[index] }
            return sum
        }
    }

    /// Projects the rows of a tile (one `LayerTile` per layer of the store) on the bases of the groups that are wanted, some rows at a time,
    /// so that reconstructed gradients stay small.
    ///
    /// `body` gets a range of rows and for each group p = V g, rows × r, followed by ‖g‖² of every row. In Double.
    func forEachProjection(
        of tiles: [LayerTile], isWanted: (Int) -> Bool, workers: Int, _ body: (Range<Int>, [[Double]]) -> Void
    ) {
        let rowCount = tiles.first?.rowCount ?? 0
        let pieces = makePieces(isWanted: isWanted) { layer, length in
            require(tiles.indices.contains(layer), "tiles lack a layer of the curvature")
            require(
                tiles[layer].layer.gradientLength == length && tiles[layer].rowCount == rowCount,
                "tile has another shape than the curvature")
        }
        let widest = pieces.map(\.columns.count).max() ?? 1
        let chunk = Self.chunkRowCount(widest: widest)
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
            body(rows, groupSums(partials, pieces: pieces, rowCount: rows.count, extraPerRow: 1))
        }
    }

    /// The rows of a tile as each group sees them: computed in Double, rounded to f32 at the end. 2·rows·r·D operations.
    ///
    /// A number is infinite where it does not fit into f32, which only rows very much larger than those of the fit can bring about.
    public func eigenCoordinates(of tiles: [LayerTile], workers: Int) -> [EigenCoordinates] {
        var values: [[Float]] = groups.map { _ in [] }
        var outsideNorms: [[Float]] = groups.map { _ in [] }
        let roots = groups.map { $0.coordinateWeights.map { $0.squareRoot() } }
        forEachProjection(of: tiles, isWanted: { _ in true }, workers: workers) { rows, sums in
            for (index, group) in groups.enumerated() {
                let rank = group.rank
                values[index].reserveCapacity((tiles.first?.rowCount ?? 0) * rank)
                for row in 0..<rows.count {
                    var energy = 0.0
                    for k in 0..<rank {
                        let coordinate = sums[index][row * rank + k]
                        energy += coordinate * coordinate
                        values[index].append(Float(coordinate / roots[index][k]))
                    }
                    let outside = max(0, sums[index][rows.count * rank + row] - energy)
                    outsideNorms[index].append(Float(outside.squareRoot()))
                }
            }
        }
        return groups.indices.map {
            EigenCoordinates(rank: groups[$0].rank, values: values[$0], outsideNorms: outsideNorms[$0])
        }
    }
}

extension CurvatureGroup {
    /// b_k = s²_k + tr(H)/D, what the squares of coordinates are divided by when they are stored.
    var coordinateWeights: [Double] {
        let mean = trace / Double(max(1, gradientLength))
        return eigenvalues.map { $0 + mean }
    }
}
