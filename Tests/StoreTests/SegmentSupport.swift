import Files
import Foundation
import Schema
import Store

/// A directory of the test's own, removed when the value dies.
final class ScratchDirectory {
    let path: String
    private var nextNumber = 0

    init() throws {
        let url = FileManager.default.temporaryDirectory.appending(path: "lorif-store-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: url, withIntermediateDirectories: false)
        path = url.path
    }

    deinit {
        try? FileManager.default.removeItem(atPath: path)
    }

    /// A path at which nothing is yet.
    func fresh() -> String {
        nextNumber += 1
        return "\(path)/\(nextNumber)"
    }

    func write(_ bytes: [UInt8]) throws -> String {
        let path = fresh()
        try Data(bytes).write(to: URL(filePath: path))
        return path
    }
}

func bytes(at path: String) throws -> [UInt8] {
    [UInt8](try Data(contentsOf: URL(filePath: path)))
}

/// A fixed pseudo-random sequence (splitmix64).
struct Splitmix {
    private var state: UInt64

    init(_ seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var word = state
        word = (word ^ (word >> 30)) &* 0xBF58_476D_1CE4_E5B9
        word = (word ^ (word >> 27)) &* 0x94D0_49BB_1331_11EB
        return word ^ (word >> 31)
    }

    /// Roughly Gaussian: the sum of four uniform numbers, each a multiple of 2^-16.
    mutating func gaussian() -> Float {
        var sum: Float = 0
        for _ in 0..<4 { sum += Float(next() >> 48) / 65536 - 0.5 }
        return sum * 1.75
    }
}

/// Factors of rank 1 and 3 and a dense layer, dimensions that are no multiple of anything.
func mixedSchema(_ encoding: Encoding) -> StoreSchema {
    StoreSchema(
        layers: [
            LayerSchema(name: "block.0/attn", inputDimension: 5, outputDimension: 3, form: .factors(rank: 1)),
            LayerSchema(name: "head", inputDimension: 3, outputDimension: 3, form: .dense),
            LayerSchema(name: "block.0/mlp", inputDimension: 7, outputDimension: 2, form: .factors(rank: 3)),
        ], encoding: encoding)
}

/// A block of random rows; row 1 is all zeros, and rows differ in size by powers of ten.
func randomBlock(_ schema: StoreSchema, rows: Range<Int>, seed: UInt64, metadata: [MetadataRecord?] = []) -> RowBlock {
    var random = Splitmix(seed)
    func numbers(_ vectorCount: Int, _ length: Int) -> [Float] {
        var values: [Float] = []
        for vector in 0..<vectorCount {
            let row = vector % rows.count
            let size: Float = row == 1 ? 0 : [1, 1e-6, 300][row % 3]
            for _ in 0..<length { values.append(random.gaussian() * size) }
        }
        return values
    }
    let tiles = schema.layers.map { layer in
        if let rank = layer.rank {
            LayerTile(
                layer: layer, rowCount: rows.count, left: numbers(rank * rows.count, layer.inputDimension),
                right: numbers(rank * rows.count, layer.outputDimension))
        } else {
            LayerTile(layer: layer, rowCount: rows.count, dense: numbers(rows.count, layer.gradientLength))
        }
    }
    return RowBlock(identifiers: rows.map { "example-\($0)" }, tiles: tiles, metadata: metadata)
}

/// Writes blocks as a segment.
func writeSegment(
    _ schema: StoreSchema, _ blocks: [RowBlock], in directory: ScratchDirectory, provenance: String = "{}"
) throws -> (path: String, identity: SegmentIdentity) {
    var writer = try SegmentWriter(schema: schema, temporaryPath: directory.fresh(), provenance: provenance)
    for block in blocks { try writer.append(block) }
    let path = directory.fresh()
    return (path, try writer.seal(as: path))
}

extension LayerTile {
    /// G of one row, d1 × d2 row-major, multiplied out in Double.
    func gradient(row: Int) -> [Double] {
        guard let rank = layer.rank else {
            return dense[row * layer.gradientLength..<(row + 1) * layer.gradientLength].map(Double.init)
        }
        var matrix = [Double](repeating: 0, count: layer.gradientLength)
        for component in 0..<rank {
            let vector = component * rowCount + row
            for a in 0..<layer.inputDimension {
                for b in 0..<layer.outputDimension {
                    matrix[a * layer.outputDimension + b] +=
                        Double(left[vector * layer.inputDimension + a])
                        * Double(right[vector * layer.outputDimension + b])
                }
            }
        }
        return matrix
    }
}

func norm(_ values: [Double]) -> Double { values.reduce(0) { $0 + $1 * $1 }.squareRoot() }
