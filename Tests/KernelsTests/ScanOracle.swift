import Foundation
import Kernels
import Schema

/// A page of random vectors and its stored values in Double, read by the oracle of the layout.
struct RandomPage {
    let payload: [UInt8]
    let rowCount: Int
    let length: Int
    let encoding: Encoding
    let values: [Double]

    /// Rows of magnitude 10^±spread; every seventh row is zero.
    init(rowCount: Int, length: Int, encoding: Encoding, spread: Double, seed: UInt64) {
        var generator = SplitMix(seed: seed)
        var numbers: [Float] = []
        for row in 0..<rowCount {
            let magnitude = row % 7 == 6 ? 0 : pow(10, Double.random(in: -spread...spread, using: &generator))
            numbers += generator.gaussians(length, scale: magnitude)
        }
        let payload = encodeVectors(numbers.span, rowCount: rowCount, length: length, encoding: encoding)
        let oracle = PayloadOracle(payload: payload, rowCount: rowCount, length: length, encoding: encoding)
        // A bound needs the levels as they are stored, not to the decimals of a table.
        let levels = encoding.interleavedRowCount > 1 ? gaussianCodebook(bits: encoding.bitsPerNumber) : []
        values = (0..<rowCount * length).map { index in
            let (row, coordinate) = (index / length, index % length)
            guard !levels.isEmpty else { return oracle.value(row: row, coordinate: coordinate) }
            return oracle.scale(row: row) * Double(levels[oracle.code(row: row, coordinate: coordinate)])
        }
        self.payload = payload
        self.rowCount = rowCount
        self.length = length
        self.encoding = encoding
    }

    /// The inner product of a row with a query vector, and the sum of the magnitudes of its terms.
    func product(row: Int, _ query: ArraySlice<Float>) -> (value: Double, magnitude: Double) {
        var (value, magnitude) = (0.0, 0.0)
        for (stored, x) in zip(values[row * length..<(row + 1) * length], query) {
            value += stored * Double(x)
            magnitude += abs(stored * Double(x))
        }
        return (value, magnitude)
    }
}

/// Query vectors that stress a table: what is large in one place, small everywhere, or nothing.
enum QueryKind: CaseIterable {
    case gaussian, spike, zeros, tiny, huge, unit, manyMagnitudes, subnormal

    func vectors(count: Int, length: Int, seed: UInt64) -> [Float] {
        var generator = SplitMix(seed: seed)
        return (0..<count).flatMap { _ -> [Float] in
            var vector = generator.gaussians(length)
            let place = length == 0 ? 0 : Int.random(in: 0..<length, using: &generator)
            switch self {
            case .gaussian: break
            case .spike: if length > 0 { vector[place] = 1e6 }
            case .zeros: vector = vector.map { _ in 0 }
            case .tiny: vector = vector.map { $0 * 1e-20 }
            case .huge: vector = vector.map { $0 * 1e15 }
            case .unit: vector = vector.indices.map { $0 == place ? 1 : 0 }
            case .manyMagnitudes: vector = vector.map { $0 * Float(pow(10, generator.gaussian() * 5)) }
            case .subnormal: vector = vector.map { $0 * 0x1p-133 }
            }
            return vector
        }
    }
}

/// Zeroed scores of so many queries, filled by `body`.
func scored(_ count: Int, _ body: (inout MutableSpan<Float>) -> Void) -> [Float] {
    var scores = [Float](repeating: 0, count: count)
    var span = scores.mutableSpan
    body(&span)
    return scores
}

/// Zeroed scores and bounds.
func bounded(_ count: Int, _ body: (inout MutableSpan<Float>, inout MutableSpan<Float>) -> Void) -> (
    scores: [Float], bounds: [Float]
) {
    var scores = [Float](repeating: 0, count: count)
    var bounds = scores
    var scoreSpan = scores.mutableSpan
    var boundSpan = bounds.mutableSpan
    body(&scoreSpan, &boundSpan)
    return (scores, bounds)
}
