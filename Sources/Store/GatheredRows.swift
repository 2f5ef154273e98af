import Format
import Kernels
import Schema

/// Some rows of a block of a segment.
struct BlockPart: Sendable {
    let reader: SegmentReader
    let block: Int
    /// Ascending, relative to the block.
    var rows: [Int]
    /// For pages that are damaged; nil in a sound segment.
    var substitutes: BlockSubstitutes?

    /// Some rows of a sound block.
    init(reader: SegmentReader, block: Int, rows: [Int], substitutes: BlockSubstitutes? = nil) {
        self.reader = reader
        self.block = block
        self.rows = rows
        self.substitutes = substitutes
    }

    /// The bfloat16 bits of the norms, [layer][row].
    func normBits() throws(StoreError) -> [[UInt16]] {
        if let norms = substitutes?.norms { return Self.bits(norms) }
        return try reader.readNormBits(column: reader.footer.layout.normColumn, block: block)
    }

    func residualNormBits() throws(StoreError) -> [[UInt16]] {
        if let norms = substitutes?.residualNorms { return Self.bits(norms) }
        return try reader.readNormBits(column: reader.footer.layout.residualNormColumn, block: block)
    }

    /// Norms are bfloat16 whatever they are kept in: the upper halves.
    private static func bits(_ norms: [[Float]]) -> [[UInt16]] {
        norms.map { layer in layer.map { UInt16($0.bitPattern >> 16) } }
    }

    func readMetadata() throws(StoreError) -> [MetadataRecord?] {
        try reader.readMetadata(block: block, except: substitutes?.lostFields ?? [])
    }

    /// Whether these are all rows of the block.
    var isWhole: Bool { rows.count == reader.rows(ofBlock: block).count }
}

/// Rows of several segments of one schema, on their way into another segment without being decoded.
struct GatheredRows: Sendable {
    private(set) var parts: [BlockPart] = []
    private(set) var rowCount = 0

    mutating func append(_ part: BlockPart) {
        guard !part.rows.isEmpty else { return }
        parts.append(part)
        rowCount += part.rows.count
    }

    /// Takes the first `count` rows away, in order.
    mutating func take(_ count: Int) -> GatheredRows {
        precondition(count >= 1 && count <= rowCount)
        var taken = GatheredRows()
        var partCount = 0
        while taken.rowCount < count {
            let part = parts[partCount]
            let missing = count - taken.rowCount
            if part.rows.count > missing {
                var first = part
                first.rows = Array(part.rows[..<missing])
                taken.append(first)
                parts[partCount].rows = Array(part.rows[missing...])
            } else {
                taken.append(part)
                partCount += 1
            }
        }
        parts.removeFirst(partCount)
        rowCount -= count
        return taken
    }

    // MARK: - Moving

    /// Everything as it was, code by code, on all cores.
    func encoded(layout: SegmentLayout, block: Int) throws(StoreError) -> EncodedBlock {
        let layerCount = layout.schema.layers.count
        // What takes longest comes first.
        let pieces = try concurrently(3 + layerCount) { (step) throws(StoreError) -> GatheredPiece in
            switch step {
            case 0: return .texts(try identifiers(layout: layout, block: block), try readMetadata())
            case 1:
                let bits = try gather { (part) throws(StoreError) in try part.normBits() }
                return .norms(try EncodedNorms(bits, column: layout.normColumn, block: block))
            case 2:
                let bits = try gather { (part) throws(StoreError) in try part.residualNormBits() }
                return .norms(try EncodedNorms(bits, column: layout.residualNormColumn, block: block))
            default: return .layer(try encodedPages(step - 3, layout: layout, block: block))
            }
        }
        guard case .texts(let identifiers, let metadata) = pieces[0], case .norms(let norms) = pieces[1],
            case .norms(let residualNorms) = pieces[2]
        else { preconditionFailure("steps give what they are for") }
        var layers: [[EncodedPage]] = []
        for case .layer(let pages) in pieces { layers.append(pages) }
        return EncodedBlock(
            rowCount: rowCount, layers: layers, norms: norms, residualNorms: residualNorms, identifiers: identifiers,
            metadata: metadata)
    }

    private func identifiers(layout: SegmentLayout, block: Int) throws(StoreError) -> EncodedIdentifiers {
        var identifiers = IdentifierGatherer()
        for part in parts {
            let partRowCount = part.reader.rows(ofBlock: part.block).count
            try part.reader.read(column: part.reader.footer.layout.identifierColumn, block: part.block) {
                (bytes) throws(FormatError) in
                try identifiers.append(bytes, rowCount: partRowCount, rows: part.rows)
            }
        }
        return try EncodedIdentifiers(identifiers, column: layout.identifierColumn, block: block)
    }

    private func encodedPages(_ index: Int, layout: SegmentLayout, block: Int) throws(StoreError) -> [EncodedPage] {
        let layer = parts[0].reader.schema.layers[index]
        guard let rank = layer.rank else {
            return [try encodedPage(layout.denseColumn(layer: index), length: layer.gradientLength, block: block)]
        }
        var pages: [EncodedPage] = []
        for component in 0..<rank {
            pages.append(
                try encodedPage(
                    layout.leftColumn(layer: index, component: component), length: layer.inputDimension, block: block))
            pages.append(
                try encodedPage(
                    layout.rightColumn(layer: index, component: component), length: layer.outputDimension,
                    block: block))
        }
        return pages
    }

    private func encodedPage(_ column: Int, length: Int, block: Int) throws(StoreError) -> EncodedPage {
        // Segments of one schema number these columns alike.
        if parts.count == 1, parts[0].isWhole,
            let number = parts[0].reader.file.pageNumber(column: column, block: parts[0].block)
        {
            let file = parts[0].reader.file
            return EncodedPage(
                stored: try file.readStored(number), of: file.footer.pages[number], column: column, block: block)
        }
        return try EncodedPage(
            try payload(column, length: length), column: column, block: block, rowCount: rowCount,
            compression: PageCompression.ofVectors(parts[0].reader.schema.encoding))
    }

    private func payload(_ column: Int, length: Int) throws(StoreError) -> [UInt8] {
        var vectors: [VectorPart] = []
        for part in parts {
            vectors.append(
                VectorPart(
                    payload: try part.reader.file.readPage(column: column, block: part.block),
                    rowCount: part.reader.rows(ofBlock: part.block).count, rows: part.rows))
        }
        return gatherVectors(vectors, length: length, encoding: parts[0].reader.schema.encoding)
    }

    // MARK: - Reading

    /// The rows' metadata; empty if no row has any.
    private func readMetadata() throws(StoreError) -> [MetadataRecord?] {
        var metadata: [MetadataRecord?] = []
        for part in parts {
            let records = try part.readMetadata()
            metadata += part.rows.map { records[$0] }
        }
        return metadata.contains { $0 != nil } ? metadata : []
    }

    /// Everything, decoded; residual norms are those stored.
    func readBlock() throws(StoreError) -> RowBlock {
        guard let layerCount = parts.first?.reader.schema.layers.count else { preconditionFailure("a block has rows") }
        var block = RowBlock(identifiers: [], tiles: [])
        for part in parts {
            let identifiers = try part.reader.readIdentifiers(block: part.block)
            block.identifiers += part.rows.map { identifiers[$0] }
        }
        block.metadata = try readMetadata()
        block.tiles = try concurrently(layerCount) { (layer) throws(StoreError) in try readTile(layer) }
        block.residualNorms = try gather { (part) throws(StoreError) in try part.residualNormBits() }.map { layer in
            layer.map { float(bfloat16: $0) }
        }
        return block
    }

    private func readTile(_ index: Int) throws(StoreError) -> LayerTile {
        let schema = parts[0].reader.schema
        let layout = SegmentLayout(schema: schema)
        let layer = schema.layers[index]
        func decoded(_ column: Int, _ length: Int) throws(StoreError) -> [Float] {
            var values = [Float](repeating: 0, count: rowCount * length)
            let payload = try payload(column, length: length)
            var span = values.mutableSpan
            decodeVectors(
                payload.span.bytes, rowCount: rowCount, length: length, encoding: schema.encoding, into: &span)
            return values
        }
        guard let rank = layer.rank else {
            return LayerTile(
                layer: layer, rowCount: rowCount,
                dense: try decoded(layout.denseColumn(layer: index), layer.gradientLength))
        }
        var (left, right): ([Float], [Float]) = ([], [])
        for component in 0..<rank {
            left += try decoded(layout.leftColumn(layer: index, component: component), layer.inputDimension)
            right += try decoded(layout.rightColumn(layer: index, component: component), layer.outputDimension)
        }
        return LayerTile(layer: layer, rowCount: rowCount, left: left, right: right)
    }

    /// [layer][row] of a norm column.
    private func gather(
        _ read: (BlockPart) throws(StoreError) -> [[UInt16]]
    ) throws(StoreError) -> [[UInt16]] {
        var columns: [[UInt16]] = []
        for part in parts {
            let norms = try read(part)
            if columns.isEmpty { columns = [[UInt16]](repeating: [], count: norms.count) }
            for layer in columns.indices {
                let values = norms[layer]
                columns[layer] += part.rows.map { values[$0] }
            }
        }
        return columns
    }
}

/// A part of an `EncodedBlock`.
private enum GatheredPiece: Sendable {
    case texts(EncodedIdentifiers, [MetadataRecord?])
    case norms(EncodedNorms)
    case layer([EncodedPage])
}
