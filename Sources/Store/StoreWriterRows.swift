import Schema

/// Rows on their way into a segment: pieces of any size go in, blocks of the size that is asked for come out.
struct RowAccumulator {
    private let schema: StoreSchema
    private var pieces: [RowBlock] = []
    /// Rows of the first piece that are gone already.
    private var firstRow = 0
    private(set) var rowCount = 0

    init(schema: StoreSchema) {
        self.schema = schema
    }

    mutating func append(_ block: RowBlock) {
        guard block.rowCount > 0 else { return }
        pieces.append(block)
        rowCount += block.rowCount
    }

    mutating func removeAll() {
        pieces = []
        firstRow = 0
        rowCount = 0
    }

    /// Takes the first `count` rows, in order.
    mutating func take(_ count: Int) -> RowBlock {
        precondition(count >= 1 && count <= rowCount)
        rowCount -= count
        if firstRow == 0, pieces[0].rowCount == count { return pieces.removeFirst() }
        var parts: [(piece: RowBlock, rows: Range<Int>)] = []
        var missing = count
        while missing > 0 {
            let rows = firstRow..<min(pieces[0].rowCount, firstRow + missing)
            parts.append((pieces[0], rows))
            missing -= rows.count
            firstRow = rows.upperBound
            if firstRow == pieces[0].rowCount {
                pieces.removeFirst()
                firstRow = 0
            }
        }
        return join(parts, count: count)
    }

    private func join(_ parts: [(piece: RowBlock, rows: Range<Int>)], count: Int) -> RowBlock {
        let tiles = schema.layers.indices.map { joinTiles(parts, layer: $0, count: count) }
        var residualNorms: [[Float]]?
        if parts.contains(where: { $0.piece.residualNorms != nil }) {
            // Nothing was lost from rows that do not say so.
            residualNorms = schema.layers.indices.map { layer in
                parts.flatMap { part in
                    part.piece.residualNorms.map { Array($0[layer][part.rows]) }
                        ?? [Float](repeating: 0, count: part.rows.count)
                }
            }
        }
        var metadata: [MetadataRecord?] = []
        if parts.contains(where: { !$0.piece.metadata.isEmpty }) {
            metadata = parts.flatMap { part in
                part.piece.metadata.isEmpty
                    ? [MetadataRecord?](repeating: nil, count: part.rows.count) : Array(part.piece.metadata[part.rows])
            }
        }
        return RowBlock(
            identifiers: parts.flatMap { $0.piece.identifiers[$0.rows] }, tiles: tiles, residualNorms: residualNorms,
            metadata: metadata)
    }

    private func joinTiles(_ parts: [(piece: RowBlock, rows: Range<Int>)], layer index: Int, count: Int) -> LayerTile {
        let layer = schema.layers[index]
        guard let rank = layer.rank else {
            let length = layer.gradientLength
            var dense: [Float] = []
            dense.reserveCapacity(count * length)
            for (piece, rows) in parts {
                dense += piece.tiles[index].dense[rows.lowerBound * length..<rows.upperBound * length]
            }
            return LayerTile(layer: layer, rowCount: count, dense: dense)
        }
        // Component-major: each component of the block is made of that component of every part.
        func joined(_ length: Int, _ side: (LayerTile) -> [Float]) -> [Float] {
            var numbers: [Float] = []
            numbers.reserveCapacity(rank * count * length)
            for component in 0..<rank {
                for (piece, rows) in parts {
                    let start = component * piece.rowCount
                    numbers +=
                        side(piece.tiles[index])[
                            (start + rows.lowerBound) * length..<(start + rows.upperBound) * length]
                }
            }
            return numbers
        }
        return LayerTile(
            layer: layer, rowCount: count, left: joined(layer.inputDimension) { $0.left },
            right: joined(layer.outputDimension) { $0.right })
    }
}
