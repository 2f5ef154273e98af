import Kernels
import Schema
import Scoring
import Store

/// The pages of one block of a scan, read and checked when they are asked for.
struct BlockPages {
    let reader: SegmentReader
    let block: LiveRows.Block
    /// For reading past the page cache; nil where pages are used where they are mapped.
    let window: DirectWindow?

    /// `layers` are those that will be read, if they are to be read past the page cache.
    init(reader: SegmentReader, block: LiveRows.Block, direct layers: [Int]? = nil) {
        self.reader = reader
        self.block = block
        window = layers.flatMap { reader.directWindow(block: block.block, layers: $0) }
    }

    /// The payloads of one layer: each component's sides, or the matrices.
    enum LayerPayloads {
        case factors([(left: PageBytes, right: PageBytes)])
        case dense(PageBytes)
    }

    /// Rows of the block, deleted and unselected ones too.
    var storedRowCount: Int { reader.rows(ofBlock: block.block).count }

    /// The row of the block that has a place among the live ones.
    func storedRow(ofLive row: Int) -> Int { block.selection?[row] ?? row }

    /// The payloads of one layer, for all rows of the block.
    func payloads(layer index: Int, meter: inout ScanMeter) throws -> LayerPayloads {
        guard let rank = reader.schema.layers[index].rank else {
            return .dense(try payload(.dense, layer: index, component: 0, meter: &meter))
        }
        return .factors(
            try (0..<rank).map { component in
                (
                    left: try payload(.left, layer: index, component: component, meter: &meter),
                    right: try payload(.right, layer: index, component: component, meter: &meter)
                )
            })
    }

    /// The decoded live rows of one layer.
    func readTile(layer index: Int, meter: inout ScanMeter) throws -> LayerTile {
        let payloads = try payloads(layer: index, meter: &meter)
        let layer = reader.schema.layers[index]
        let tile = meter.timing(\.decodeSeconds) {
            switch payloads {
            case .dense(let page):
                LayerTile(
                    layer: layer, rowCount: storedRowCount, dense: decoded([page], length: layer.gradientLength))
            case .factors(let components):
                LayerTile(
                    layer: layer, rowCount: storedRowCount,
                    left: decoded(components.map(\.left), length: layer.inputDimension),
                    right: decoded(components.map(\.right), length: layer.outputDimension))
            }
        }
        try reader.checkMapping()
        guard let selection = block.selection else { return tile }
        return tile.selecting(selection)
    }

    /// One row of a layer, decoded.
    func row(_ row: Int, layer index: Int, of payloads: LayerPayloads) -> LayerTile {
        let layer = reader.schema.layers[index]
        func vector(_ page: PageBytes, length: Int) -> [Float] {
            decodeVector(
                page.span, row: row, rowCount: storedRowCount, length: length, encoding: reader.schema.encoding)
        }
        switch payloads {
        case .dense(let page):
            return LayerTile(layer: layer, rowCount: 1, dense: vector(page, length: layer.gradientLength))
        case .factors(let components):
            return LayerTile(
                layer: layer, rowCount: 1, left: components.flatMap { vector($0.left, length: layer.inputDimension) },
                right: components.flatMap { vector($0.right, length: layer.outputDimension) })
        }
    }

    private func decoded(_ pages: [PageBytes], length: Int) -> [Float] {
        let count = storedRowCount * length
        var values = [Float](repeating: 0, count: pages.count * count)
        for (component, page) in pages.enumerated() {
            var span = values.mutableSpan
            var part = span._mutatingExtracting(component * count..<(component + 1) * count)
            decodeVectors(
                page.span, rowCount: storedRowCount, length: length, encoding: reader.schema.encoding, into: &part)
        }
        return values
    }

    /// A page to be checked while it is used.
    func open(
        _ side: VectorSide, layer: Int, component: Int = 0, meter: inout ScanMeter
    ) throws -> OpenPage {
        meter.factorByteCount += reader.storedByteCount(side, block: block.block, layer: layer, component: component)
        meter.pageCount += 1
        // Where the page is mapped, it is read when it is checked.
        let started = ContinuousClock.now
        defer { meter.readSeconds += (ContinuousClock.now - started) / .seconds(1) }
        return try reader.openPage(side, block: block.block, layer: layer, component: component, window: window)
    }

    private func payload(
        _ side: VectorSide, layer: Int, component: Int, meter: inout ScanMeter
    ) throws -> PageBytes {
        meter.factorByteCount += reader.storedByteCount(side, block: block.block, layer: layer, component: component)
        meter.pageCount += 1
        return try meter.timing(\.readSeconds) {
            try reader.payload(side, block: block.block, layer: layer, component: component, window: window)
        }
    }
}
