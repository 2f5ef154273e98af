import Schema
import Store

/// tr(H_l) of every layer as `whitened-dot` takes it: Σ over the live rows of a snapshot of the square of the stored norm.
///
/// Stored norms are bounds, up to 1 % above the value (Formats/segment.md), alike for all layers; for 2 bytes of reading per row
/// and layer the scales are the same for every selection of rows, whether a curvature has been fitted or not.
func layerScales(of rows: LiveRows, workers: Int) throws -> [Double] {
    let layerCount = rows.snapshot.schema.layers.count
    let parts = try mapConcurrently(below: rows.blocks.count, workers: workers) { index in
        let block = rows.blocks[index]
        let norms = try rows.snapshot.segmentReader(block.segment).readNorms(block: block.block)
        return norms.map { layer in
            var sum = 0.0
            if let selection = block.selection {
                for row in selection { sum += Double(layer[row]) * Double(layer[row]) }
            } else {
                for norm in layer { sum += Double(norm) * Double(norm) }
            }
            return sum
        }
    }
    var scales = [Double](repeating: 0, count: layerCount)
    for part in parts {
        for layer in scales.indices { scales[layer] += part[layer] }
    }
    return scales
}
