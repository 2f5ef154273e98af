import Files
import Schema
import Store

/// The live rows of a snapshot (or of a selection) as a sequence of blocks, in ingest order.
///
/// The position of a row in this sequence is its *ordinal*: the column of a score matrix.
struct LiveRows: Sendable {
    /// One row block of one segment.
    struct Block: Sendable {
        let segment: Int
        let block: Int
        /// The ordinal of the block's first live row.
        let firstOrdinal: Int
        /// Rows of the block that are live, ascending, relative to the block; nil when all are.
        let selection: [Int]?
        /// Live rows in the block.
        let rowCount: Int
    }

    let snapshot: Snapshot
    let blocks: [Block]
    let rowCount: Int

    init(snapshot: Snapshot, blocks: [Block], rowCount: Int) {
        self.snapshot = snapshot
        self.blocks = blocks
        self.rowCount = rowCount
    }

    /// Segments from which on their footers are read by several threads.
    private static let manySegments = 32

    /// Lists the blocks of every segment; opens each segment's footer.
    init(_ snapshot: Snapshot) throws {
        if snapshot.segments.count >= Self.manySegments {
            try forEachIndex(below: snapshot.segments.count, workers: availableProcessorCount()) { segment, _ in
                _ = try snapshot.segmentReader(segment)
            }
        }
        var blocks: [Block] = []
        var ordinal = 0
        for segment in snapshot.segments.indices {
            let reader = try snapshot.segmentReader(segment)
            for block in 0..<reader.blockCount {
                let rows = reader.rows(ofBlock: block)
                let selection = snapshot.liveMask(segment: segment, rows: rows).map { mask in
                    mask.indices.filter { mask[$0] }
                }
                let count = selection?.count ?? rows.count
                guard count > 0 else { continue }
                blocks.append(
                    Block(
                        segment: segment, block: block, firstOrdinal: ordinal, selection: selection, rowCount: count))
                ordinal += count
            }
        }
        self.snapshot = snapshot
        self.blocks = blocks
        rowCount = ordinal
    }

    /// The decoded live rows of one layer of a block.
    func readTile(block index: Int, layer: Int) throws -> LayerTile {
        let block = blocks[index]
        let tile = try snapshot.segmentReader(block.segment).readTile(block: block.block, layer: layer)
        guard let selection = block.selection else { return tile }
        return tile.selecting(selection)
    }

    /// The decoded live rows of one layer of all blocks: for selections of few rows.
    func readTile(layer: Int) throws -> LayerTile {
        LayerTile(joining: try blocks.indices.map { try readTile(block: $0, layer: layer) })
    }

    /// The ids of a block's live rows.
    func readIdentifiers(block index: Int) throws -> [String] {
        let block = blocks[index]
        let identifiers = try snapshot.segmentReader(block.segment).readIdentifiers(block: block.block)
        guard let selection = block.selection else { return identifiers }
        return selection.map { identifiers[$0] }
    }

    /// The user metadata of a block's live rows.
    func readMetadata(block index: Int) throws -> [MetadataRecord?] {
        let block = blocks[index]
        let records = try snapshot.segmentReader(block.segment).readMetadata(block: block.block)
        guard let selection = block.selection else { return records }
        return selection.map { records[$0] }
    }

    /// The ids of all live rows, by ordinal.
    func readAllIdentifiers() throws -> [String] {
        var identifiers: [String] = []
        identifiers.reserveCapacity(rowCount)
        for block in blocks.indices { identifiers += try readIdentifiers(block: block) }
        return identifiers
    }

    /// What the planner needs to know.
    func statistics(coordinates: StoredCoordinates? = nil) throws -> ScanStatistics {
        let schema = snapshot.schema
        var segments: [ScanStatistics.SegmentPlace] = []
        var layerByteCounts = Array(repeating: 0, count: schema.layers.count)
        var uncovered = layerByteCounts
        var largestWindowByteCount = 0
        for segment in snapshot.segments.indices {
            let reader = try snapshot.segmentReader(segment)
            segments.append(
                ScanStatistics.SegmentPlace(
                    byteCount: reader.identity.fileLength, residentByteCount: reader.residentByteCount))
            let isCovered = coordinates?.covers(segment: segment) ?? false
            let counts = reader.storedLayerByteCounts
            for (layer, count) in counts.enumerated() {
                layerByteCounts[layer] += count
                if !isCovered { uncovered[layer] += count }
            }
            let bytesPerRow = counts.reduce(0, +) / max(1, reader.rowCount) + 1
            largestWindowByteCount = max(
                largestWindowByteCount, bytesPerRow * min(reader.rowCount, reader.rowsPerBlock))
        }
        return ScanStatistics(
            schema: schema, rowCount: rowCount, largestBlockRowCount: blocks.map(\.rowCount).max() ?? 0,
            largestWindowByteCount: largestWindowByteCount, layerByteCounts: layerByteCounts,
            uncoveredLayerByteCounts: uncovered, coordinatesRowCount: coordinates?.coveredRowCount ?? 0,
            coordinatesByteCount: coordinates?.byteCount ?? 0, coordinatesEncoding: coordinates?.encoding,
            segments: segments, availableMemoryByteCount: availableMemoryByteCount())
    }

    /// The index of the block that holds an ordinal. O(log blocks).
    func blockIndex(ofOrdinal ordinal: Int) -> Int {
        precondition(ordinal >= 0 && ordinal < rowCount)
        var low = 0
        var high = blocks.count
        while high - low > 1 {
            let middle = (low + high) / 2
            if blocks[middle].firstOrdinal <= ordinal { low = middle } else { high = middle }
        }
        return low
    }
}

extension LayerTile {
    /// The rows of several tiles of the same layer, one after another.
    init(joining tiles: [LayerTile]) {
        let layer = tiles[0].layer
        let rowCount = tiles.reduce(0) { $0 + $1.rowCount }
        func joined(_ values: (LayerTile) -> [Float], length: Int) -> [Float] {
            (0..<(layer.rank ?? 1)).flatMap { component in
                tiles.flatMap { tile in
                    values(tile)[component * tile.rowCount * length..<(component + 1) * tile.rowCount * length]
                }
            }
        }
        guard layer.rank != nil else {
            self.init(layer: layer, rowCount: rowCount, dense: joined(\.dense, length: layer.gradientLength))
            return
        }
        self.init(
            layer: layer, rowCount: rowCount, left: joined(\.left, length: layer.inputDimension),
            right: joined(\.right, length: layer.outputDimension))
    }

    /// The given rows, in the given order.
    func selecting(_ rows: [Int]) -> LayerTile {
        func gather(_ values: [Float], length: Int, componentCount: Int) -> [Float] {
            var result: [Float] = []
            result.reserveCapacity(componentCount * rows.count * length)
            for component in 0..<componentCount {
                for row in rows {
                    let start = (component * rowCount + row) * length
                    result.append(contentsOf: values[start..<start + length])
                }
            }
            return result
        }
        guard let rank = layer.rank else {
            return LayerTile(
                layer: layer, rowCount: rows.count,
                dense: gather(dense, length: layer.gradientLength, componentCount: 1))
        }
        return LayerTile(
            layer: layer, rowCount: rows.count,
            left: gather(left, length: layer.inputDimension, componentCount: rank),
            right: gather(right, length: layer.outputDimension, componentCount: rank))
    }
}
