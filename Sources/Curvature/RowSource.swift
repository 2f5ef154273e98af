public import Schema

/// Gradient rows by tile and layer: how curvature sees a store.
///
/// Tiles partition the rows; every tile can be read at any time, from any thread, any number of times. One walk over all tiles
/// of the layers concerned is a *pass*. A fit is cancelled by throwing from `read`.
public struct RowSource: Sendable {
    /// The layers, in vectorisation order.
    public let layers: [LayerSchema]
    /// Rows of each tile.
    public let tileRowCounts: [Int]
    /// Decoded rows of one tile and layer. Finite numbers only.
    public let read: @Sendable (_ tile: Int, _ layer: Int) throws -> LayerTile

    /// A source that reads through a closure.
    public init(
        layers: [LayerSchema], tileRowCounts: [Int],
        read: @escaping @Sendable (_ tile: Int, _ layer: Int) throws -> LayerTile
    ) {
        precondition(tileRowCounts.allSatisfy { $0 >= 0 }, "negative row count")
        self.layers = layers
        self.tileRowCounts = tileRowCounts
        self.read = read
    }

    /// A source over tiles that are already in memory: `tiles[tile][layer]`.
    public init(layers: [LayerSchema], tiles: [[LayerTile]]) {
        precondition(tiles.allSatisfy { $0.count == layers.count }, "a tile lacks layers")
        self.init(layers: layers, tileRowCounts: tiles.map { $0.first?.rowCount ?? 0 }) { tiles[$0][$1] }
    }

    /// Rows of all tiles.
    public var rowCount: Int { tileRowCounts.reduce(0, +) }

    /// One tile, with its shape checked and errors typed.
    func tile(_ tile: Int, layer: Int) throws(CurvatureError) -> LayerTile {
        let found: LayerTile
        do { found = try read(tile, layer) } catch {
            throw .unreadable(tile: tile, layer: layers[layer].name, underlying: error)
        }
        let expected = layers[layer]
        guard found.rowCount == tileRowCounts[tile], found.layer.form == expected.form,
            found.layer.inputDimension == expected.inputDimension,
            found.layer.outputDimension == expected.outputDimension
        else {
            throw .unexpectedTile(
                tile: tile, layer: expected.name, expectedRows: tileRowCounts[tile], foundRows: found.rowCount)
        }
        return found
    }
}

/// A contiguous range of columns of one layer: the unit in which long gradients are cut up.
struct ColumnBlock: Sendable {
    let layer: Int
    /// Columns inside the layer's vectorised gradient.
    let columns: Range<Int>
    /// Where the block starts in the group's concatenated gradient.
    let groupOffset: Int

    var width: Int { columns.count }

    /// Cuts the layers of a group into blocks of at most `width` columns, in order.
    static func partition(_ layers: [Int], of source: RowSource, width: Int) -> [ColumnBlock] {
        var blocks: [ColumnBlock] = []
        var offset = 0
        for layer in layers {
            let length = source.layers[layer].gradientLength
            for start in stride(from: 0, to: length, by: width) {
                let columns = start..<min(start + width, length)
                blocks.append(ColumnBlock(layer: layer, columns: columns, groupOffset: offset + start))
            }
            offset += length
        }
        return blocks
    }
}
