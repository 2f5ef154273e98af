import Foundation

/// A layer of random gradients for tests: factors (n × d1 × c, n × d2 × c) or full matrices (n × d1 × d2), in Float.
struct TestLayer {
    let name: String
    let d1: Int
    let d2: Int
    /// nil: full matrices.
    let rank: Int?
    var left: [Float] = []
    var right: [Float] = []
    var full: [Float] = []

    /// Element (a, b) of row's gradient, in Double.
    func gradient(row: Int) -> [Double] {
        guard let rank else { return full[row * d1 * d2..<(row + 1) * d1 * d2].map(Double.init) }
        var result = [Double](repeating: 0, count: d1 * d2)
        for a in 0..<d1 {
            for b in 0..<d2 {
                for k in 0..<rank {
                    result[a * d2 + b] +=
                        Double(left[(row * d1 + a) * rank + k]) * Double(right[(row * d2 + b) * rank + k])
                }
            }
        }
        return result
    }
}

/// A factor batch for tests, written by hand so that no code under test makes its own input.
struct TestBatch {
    var layers: [TestLayer]
    var rowCount: Int
    var identifiers: [String]?

    /// Random layers; the generator makes the batch reproducible.
    static func random(
        _ shapes: [(name: String, d1: Int, d2: Int, rank: Int?)], rowCount: Int, prefix: String?,
        using generator: inout SeededGenerator
    ) -> TestBatch {
        func numbers(_ count: Int, scale: Float) -> [Float] {
            (0..<count).map { _ in generator.nextGaussian() * scale }
        }
        var layers: [TestLayer] = []
        for (index, shape) in shapes.enumerated() {
            // Layers differ in scale, as real ones do.
            let scale = Float(1 + 3 * index)
            var layer = TestLayer(name: shape.name, d1: shape.d1, d2: shape.d2, rank: shape.rank)
            if let rank = shape.rank {
                layer.left = numbers(rowCount * shape.d1 * rank, scale: scale)
                layer.right = numbers(rowCount * shape.d2 * rank, scale: 1)
            } else {
                layer.full = numbers(rowCount * shape.d1 * shape.d2, scale: scale)
            }
            layers.append(layer)
        }
        return TestBatch(
            layers: layers, rowCount: rowCount,
            identifiers: prefix.map { prefix in (0..<rowCount).map { "\(prefix)-\($0)" } })
    }

    /// Writes the file in safetensors layout: length, JSON header, little-endian data.
    func write(to path: String) throws {
        var header: [String: Any] = [:]
        var metadata: [String: String] = ["lorif.batch": "1", "layers": try json(layers.map(\.name))]
        if let identifiers { metadata["ids"] = try json(identifiers) }
        header["__metadata__"] = metadata
        var data = Data()
        func add(_ name: String, _ shape: [Int], _ values: [Float]) {
            let start = data.count
            for value in values { withUnsafeBytes(of: value.bitPattern.littleEndian) { data.append(contentsOf: $0) } }
            header[name] = ["dtype": "F32", "shape": shape, "data_offsets": [start, data.count]] as [String: Any]
        }
        for layer in layers {
            if let rank = layer.rank {
                add("\(layer.name)/left", [rowCount, layer.d1, rank], layer.left)
                add("\(layer.name)/right", [rowCount, layer.d2, rank], layer.right)
            } else {
                add("\(layer.name)/full", [rowCount, layer.d1, layer.d2], layer.full)
            }
        }
        let text = try JSONSerialization.data(withJSONObject: header)
        var file = Data()
        withUnsafeBytes(of: UInt64(text.count).littleEndian) { file.append(contentsOf: $0) }
        try (file + text + data).write(to: URL(fileURLWithPath: path))
    }

    private func json(_ strings: [String]) throws -> String {
        String(decoding: try JSONSerialization.data(withJSONObject: strings), as: UTF8.self)
    }
}

/// SplitMix64: small, reproducible, and not the system's.
struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }

    /// A standard normal number (Box–Muller).
    mutating func nextGaussian() -> Float {
        let u = Double.random(in: Double.leastNonzeroMagnitude..<1, using: &self)
        let v = Double.random(in: 0..<1, using: &self)
        return Float((-2 * log(u)).squareRoot() * cos(2 * .pi * v))
    }
}

/// A folder that is removed when the test ends.
final class TemporaryFolder: Sendable {
    let path: String

    init() throws {
        path = FileManager.default.temporaryDirectory.appendingPathComponent("lorif-\(UUID().uuidString)").path
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    /// A path inside.
    func callAsFunction(_ name: String) -> String { path + "/" + name }
}
