import Kernels
import Schema
import Store

/// The pages of one block of a scan, read and checked when they are asked for.
struct BlockPages {
    let reader: SegmentReader
    let block: LiveRows.Block

    /// Rows of the block, deleted and unselected ones too.
    var storedRowCount: Int { reader.rows(ofBlock: block.block).count }

    /// The decoded live rows of one layer.
    func readTile(layer index: Int, meter: inout ScanMeter) throws -> LayerTile {
        let layer = reader.schema.layers[index]
        let rowCount = storedRowCount
        func vectors(_ side: VectorSide, length: Int) throws -> [Float] {
            let components = side == .dense ? 1 : layer.rank ?? 1
            var values = [Float](repeating: 0, count: components * rowCount * length)
            for component in 0..<components {
                let payload = try readPayload(side, layer: index, component: component, meter: &meter)
                meter.timing(\.decodeSeconds) {
                    var span = values.mutableSpan
                    var part = span._mutatingExtracting(component * rowCount * length..<(component + 1) * rowCount * length)
                    decodeVectors(
                        payload.span.bytes, rowCount: rowCount, length: length, encoding: reader.schema.encoding,
                        into: &part)
                }
            }
            return values
        }
        let tile =
            layer.rank == nil
            ? LayerTile(layer: layer, rowCount: rowCount, dense: try vectors(.dense, length: layer.gradientLength))
            : LayerTile(
                layer: layer, rowCount: rowCount, left: try vectors(.left, length: layer.inputDimension),
                right: try vectors(.right, length: layer.outputDimension))
        guard let selection = block.selection else { return tile }
        return tile.selecting(selection)
    }

    /// The codes of one side of a layer, for all rows of the block.
    func readPayload(_ side: VectorSide, layer: Int, component: Int = 0, meter: inout ScanMeter) throws -> [UInt8] {
        let (payload, byteCount) = try meter.timing(\.readSeconds) {
            (
                try reader.readPayload(side, block: block.block, layer: layer, component: component),
                reader.storedByteCount(side, block: block.block, layer: layer, component: component)
            )
        }
        meter.factorByteCount += byteCount
        meter.pageCount += 1
        return payload
    }
}
