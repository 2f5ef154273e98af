import Format
import Kernels
import Schema
import Zstd

/// A block ready to be written.
struct EncodedBlock: Sendable {
    let rowCount: Int
    /// Of each layer: left and right of component 0, of component 1, …; or the one dense page.
    let layers: [[EncodedPage]]
    let norms: EncodedNorms
    let residualNorms: EncodedNorms
    let identifiers: EncodedIdentifiers
    let metadata: [MetadataRecord?]
}

/// A norm page, and the norms of rows over all layers.
struct EncodedNorms: Sendable {
    let page: EncodedPage
    let rowNorms: [Double]

    /// Of bfloat16 bits, rounded up, [layer][row].
    init(_ bits: [[UInt16]], column: Int, block: Int) throws(StoreError) {
        page = try EncodedPage(
            NormPage.encode(bits), column: column, block: block, rowCount: bits[0].count,
            compression: .zstd(byteSplitStride: 2))
        rowNorms = NormPage.rowNorms(bits)
    }
}

/// The page of a block's ids, and the hash of each.
struct EncodedIdentifiers: Sendable {
    let page: EncodedPage
    let hashes: [UInt64]

    init(_ identifiers: IdentifierGatherer, column: Int, block: Int) throws(StoreError) {
        hashes = identifiers.hashes
        page = try EncodedPage(
            identifiers.page, column: column, block: block, rowCount: hashes.count,
            compression: .zstd(byteSplitStride: 1))
    }
}

/// One layer of a block, encoded: its pages in component order and the norms of its rows.
private struct EncodedLayer: Sendable {
    let pages: [EncodedPage]
    /// bfloat16, rounded up.
    let norms: [UInt16]
    let residualNorms: [UInt16]
}

/// What is encoded beside the layers.
private enum BlockTexts: Sendable {
    case norms(EncodedNorms)
    case identifiers(EncodedIdentifiers)
}

extension RowBlock {
    /// Encodes everything on all cores; the result depends on the block alone. The block must be valid.
    func encoded(layout: SegmentLayout, block: Int) throws(StoreError) -> EncodedBlock {
        let layers = try concurrently(tiles.count) { (layer) throws(StoreError) in
            try encodedLayer(layer, layout: layout, block: block)
        }
        let others = try concurrently(3) { (step) throws(StoreError) -> BlockTexts in
            switch step {
            case 0:
                var ids = IdentifierGatherer()
                for identifier in identifiers { ids.append(identifier) }
                return .identifiers(
                    try EncodedIdentifiers(ids, column: layout.identifierColumn, block: block))
            case 1: return .norms(try EncodedNorms(layers.map(\.norms), column: layout.normColumn, block: block))
            default:
                return .norms(
                    try EncodedNorms(layers.map(\.residualNorms), column: layout.residualNormColumn, block: block))
            }
        }
        guard case .identifiers(let identifiers) = others[0], case .norms(let norms) = others[1],
            case .norms(let residualNorms) = others[2]
        else { preconditionFailure("steps give what they are for") }
        return EncodedBlock(
            rowCount: rowCount, layers: layers.map(\.pages), norms: norms, residualNorms: residualNorms,
            identifiers: identifiers, metadata: metadata)
    }

    private func encodedLayer(_ index: Int, layout: SegmentLayout, block: Int) throws(StoreError) -> EncodedLayer {
        let encoding = layout.schema.encoding
        var tile = tiles[index]
        try expectFinite(tile)
        if encoding.interleavedRowCount > 1, let rank = tile.layer.rank, rank > 1 { tile.sortComponents() }
        var encoder: VectorPageEncoder
        do {
            encoder = VectorPageEncoder(
                encoding: encoding, block: block, rowCount: rowCount, compressor: try ZstdCompressor())
        } catch {
            throw .compression(error)
        }
        let norms: LayerNorms
        if let rank = tile.layer.rank {
            var left: [Float] = []
            var right: [Float] = []
            for component in 0..<rank {
                left += try encoder.encode(
                    tile.left, vectorsFrom: component * rowCount, length: tile.layer.inputDimension,
                    column: layout.leftColumn(layer: index, component: component))
                right += try encoder.encode(
                    tile.right, vectorsFrom: component * rowCount, length: tile.layer.outputDimension,
                    column: layout.rightColumn(layer: index, component: component))
            }
            let stored = LayerTile(layer: tile.layer, rowCount: rowCount, left: left, right: right)
            norms = LayerNorms(given: tile, stored: stored)
        } else {
            let dense = try encoder.encode(
                tile.dense, vectorsFrom: 0, length: tile.layer.gradientLength, column: layout.denseColumn(layer: index))
            norms = LayerNorms(
                givenDense: tile, stored: LayerTile(layer: tile.layer, rowCount: rowCount, dense: dense))
        }
        let lostBefore = residualNorms?[index]
        return EncodedLayer(
            pages: encoder.pages, norms: norms.stored.map { bfloat16RoundedUp($0) },
            residualNorms: norms.lost.enumerated().map { row, lost in
                // The triangle inequality; 2^-50 covers the rounding of the sum.
                let before = lostBefore.map { Double($0[row]) } ?? 0
                return bfloat16RoundedUp(before == 0 ? lost : (lost + before) * (1 + 0x1p-50))
            })
    }

    private func expectFinite(_ tile: LayerTile) throws(StoreError) {
        let parts = [
            (tile.left, tile.layer.inputDimension), (tile.right, tile.layer.outputDimension),
            (tile.dense, tile.layer.gradientLength),
        ]
        for (values, length) in parts {
            guard let index = firstNonFiniteIndex(values.span) else { continue }
            throw .notFinite(layer: tile.layer.name, row: index / length % rowCount)
        }
    }
}

/// Encodes the vector pages of one layer of a block.
private struct VectorPageEncoder: ~Copyable {
    let encoding: Encoding
    let block: Int
    let rowCount: Int
    var compressor: ZstdCompressor
    var pages: [EncodedPage] = []

    init(encoding: Encoding, block: Int, rowCount: Int, compressor: consuming ZstdCompressor) {
        self.encoding = encoding
        self.block = block
        self.rowCount = rowCount
        self.compressor = compressor
    }

    /// Adds the page of `rowCount` vectors and gives back the values that decoding will give.
    mutating func encode(
        _ values: [Float], vectorsFrom first: Int, length: Int, column: Int
    ) throws(StoreError) -> [Float] {
        let range = first * length..<(first + rowCount) * length
        let payload = encodeVectors(
            values.span.extracting(range), rowCount: rowCount, length: length, encoding: encoding)
        let page = try EncodedPage(
            payload, column: column, block: block, rowCount: rowCount, compression: .ofVectors(encoding),
            compressor: &compressor)
        pages.append(page)
        if encoding == .f32 { return Array(values[range]) }
        var decoded = [Float](repeating: 0, count: rowCount * length)
        var span = decoded.mutableSpan
        decodeVectors(payload.span.bytes, rowCount: rowCount, length: length, encoding: encoding, into: &span)
        return decoded
    }
}

extension LayerTile {
    /// Sorts each row's components by ‖u_k‖·‖v_k‖, largest first, ties in the given order, so that a scan may read the leading ones.
    mutating func sortComponents() {
        guard let rank = layer.rank, rank > 1 else { return }
        func squares(_ values: [Float], _ length: Int) -> [Double] {
            (0..<rank * rowCount).map { sumOfSquares(values.span.extracting($0 * length..<($0 + 1) * length)) }
        }
        let leftSquares = squares(left, layer.inputDimension)
        let rightSquares = squares(right, layer.outputDimension)
        var sortedLeft = left
        var sortedRight = right
        for row in 0..<rowCount {
            let weights = (0..<rank).map { leftSquares[$0 * rowCount + row] * rightSquares[$0 * rowCount + row] }
            let order = (0..<rank).sorted { weights[$0] != weights[$1] ? weights[$0] > weights[$1] : $0 < $1 }
            for (target, source) in order.enumerated() where target != source {
                Self.copyVector(
                    from: left, source * rowCount + row, to: &sortedLeft, target * rowCount + row, layer.inputDimension)
                Self.copyVector(
                    from: right, source * rowCount + row, to: &sortedRight, target * rowCount + row,
                    layer.outputDimension)
            }
        }
        left = sortedLeft
        right = sortedRight
    }

    private static func copyVector(
        from source: [Float], _ sourceIndex: Int, to target: inout [Float], _ targetIndex: Int, _ length: Int
    ) {
        for offset in 0..<length { target[targetIndex * length + offset] = source[sourceIndex * length + offset] }
    }
}
