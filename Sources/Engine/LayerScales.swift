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

/// Scales that are given by layer name, for stores that have a part of the rows; 1 for layers that are not scored.
func layerScales(_ given: [String: Double], schema: StoreSchema, layers: [Int]) throws(EngineError) -> [Double] {
    let known = Set(schema.layers.map(\.name))
    if let name = given.keys.filter({ !known.contains($0) }).min() {
        throw .invalidRequest("layer scales: '\(name)' is no layer of the store")
    }
    var scales = [Double](repeating: 1, count: schema.layers.count)
    for layer in layers {
        let name = schema.layers[layer].name
        guard let scale = given[name] else {
            throw .invalidRequest("layer scales: expected one for '\(name)', found none")
        }
        guard scale >= 0, scale.isFinite else {
            throw .invalidRequest("layer scales: '\(name)': expected a number of at least 0, found \(scale)")
        }
        scales[layer] = scale
    }
    return scales
}
