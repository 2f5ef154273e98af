import Dispatch
import Format
import Kernels
import Schema
import Synchronization
import Zstd

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

    func readNorms() throws(StoreError) -> [[Float]] {
        if let norms = substitutes?.norms { return norms }
        return try reader.readNorms(block: block)
    }

    func readResidualNorms() throws(StoreError) -> [[Float]] {
        if let norms = substitutes?.residualNorms { return norms }
        return try reader.readResidualNorms(block: block)
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

    /// The pages of every layer with every code, scale and norm as it was, on all cores.
    func encodedLayers(layout: SegmentLayout, block: Int) throws(StoreError) -> [EncodedLayer] {
        let norms = try gather { (part) throws(StoreError) in try part.readNorms() }
        let lost = try gather { (part) throws(StoreError) in try part.readResidualNorms() }
        return try everyLayer { (layer) throws(StoreError) in
            EncodedLayer(
                pages: try encodedPages(layer, layout: layout, block: block),
                // Stored norms are bfloat16: the upper halves of what was read.
                norms: norms[layer].map { UInt16($0.bitPattern >> 16) },
                residualNorms: lost[layer].map { UInt16($0.bitPattern >> 16) })
        }
    }

    private func everyLayer<Value: Sendable>(
        _ body: @Sendable (Int) throws(StoreError) -> Value
    ) throws(StoreError) -> [Value] {
        guard let schema = parts.first?.reader.schema else { preconditionFailure("a block has rows") }
        let results = Mutex([Result<Value, StoreError>?](repeating: nil, count: schema.layers.count))
        DispatchQueue.concurrentPerform(iterations: schema.layers.count) { layer in
            let result = Result { () throws(StoreError) in try body(layer) }
            results.withLock { $0[layer] = result }
        }
        var values: [Value] = []
        for result in results.withLock({ $0 }) {
            guard let result else { preconditionFailure("every iteration stores a result") }
            values.append(try result.get())
        }
        return values
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
        let encoding = parts[0].reader.schema.encoding
        do {
            var compressor = try ZstdCompressor()
            return try EncodedPage(
                try payload(column, length: length), column: column, block: block, rowCount: rowCount,
                compression: PageCompression.ofVectors(encoding), compressor: &compressor)
        } catch let error as StoreError {
            throw error
        } catch let error as ZstdError {
            throw .compression(error)
        } catch {
            preconditionFailure("no other error is thrown here")
        }
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

    /// Ids and metadata, without tiles.
    func readTexts() throws(StoreError) -> RowBlock {
        var block = RowBlock(identifiers: [], tiles: [])
        var hasMetadata = false
        for part in parts {
            let identifiers = try part.reader.readIdentifiers(block: part.block)
            block.identifiers += part.rows.map { identifiers[$0] }
            let records = try part.readMetadata()
            let taken = part.rows.map { records[$0] }
            hasMetadata = hasMetadata || taken.contains { $0 != nil }
            block.metadata += taken
        }
        if !hasMetadata { block.metadata = [] }
        return block
    }

    /// Everything, decoded; residual norms are those stored.
    func readBlock() throws(StoreError) -> RowBlock {
        var block = try readTexts()
        block.tiles = try everyLayer { (layer) throws(StoreError) in try readTile(layer) }
        block.residualNorms = try gather { (part) throws(StoreError) in try part.readResidualNorms() }
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
        _ read: (BlockPart) throws(StoreError) -> [[Float]]
    ) throws(StoreError) -> [[Float]] {
        var columns: [[Float]] = []
        for part in parts {
            let norms = try read(part)
            if columns.isEmpty { columns = [[Float]](repeating: [], count: norms.count) }
            for layer in columns.indices { columns[layer] += part.rows.map { norms[layer][$0] } }
        }
        return columns
    }
}
