import Foundation
import Kernels
import Schema
import Testing

/// The standard normal density and distribution.
private func density(_ x: Double) -> Double { exp(-x * x / 2) / (2 * Double.pi).squareRoot() }
private func distribution(_ x: Double) -> Double { erfc(-x / 2.0.squareRoot()) / 2 }

/// Lloyd's iteration from equally spaced levels: thresholds to midpoints, levels to the means of their cells.
private func lloydMax(levelCount: Int) -> (levels: [Double], distortion: Double) {
    var levels = (0..<levelCount).map { 6 * (Double($0) + 0.5) / Double(levelCount) - 3 }
    var probabilities = [Double](repeating: 0, count: levelCount)
    for _ in 0..<2000 {
        let inner = zip(levels, levels.dropFirst()).map { ($0 + $1) / 2 }
        let edges = [-Double.infinity] + inner + [Double.infinity]
        for cell in 0..<levelCount {
            let low = edges[cell]
            let high = edges[cell + 1]
            probabilities[cell] = distribution(high) - distribution(low)
            levels[cell] = (density(low) - density(high)) / probabilities[cell]
        }
    }
    // E (x − level)² = 1 − Σ p level², because every level is its cell's mean.
    return (levels, 1 - zip(levels, probabilities).reduce(0) { $0 + $1.1 * $1.0 * $1.0 })
}

@Suite struct CodebookTests {
    @Test(arguments: 1...4)
    func levelsAreTheLloydMaxQuantiserOfTheNormalDensity(bits: Int) {
        let derived = lloydMax(levelCount: 1 << bits).levels
        let stored = gaussianCodebook(bits: bits)
        #expect(stored.count == derived.count)
        for (a, b) in zip(stored, derived) { #expect(abs(Double(a) - b) < 1e-6) }
        #expect(stored.map { -$0 } == stored.reversed())
    }

    /// The mean squared error of Gaussian vectors is the quantiser's known distortion, for any scale of the input.
    @Test(arguments: zip([Encoding.q1, .q2, .q3, .q4], [0.3634, 0.1175, 0.03454, 0.009497]))
    func gaussianVectorsLoseTheKnownDistortion(encoding: Encoding, published: Double) {
        let expected = lloydMax(levelCount: 1 << encoding.bitsPerNumber).distortion
        #expect(abs(expected - published) < 5e-4 * published)
        var generator = SplitMix(seed: 17)
        let rowCount = 32
        let length = 4096
        let normal = generator.gaussians(rowCount * length)
        for magnitude in [Float(1), 1e-12, 1e12] {
            let values = normal.map { $0 * magnitude }
            let payload = encodeVectors(values.span, rowCount: rowCount, length: length, encoding: encoding)
            var decoded = [Float](repeating: 0, count: values.count)
            var span = decoded.mutableSpan
            decodeVectors(payload.span.bytes, rowCount: rowCount, length: length, encoding: encoding, into: &span)
            let error = zip(values, decoded).reduce(0.0) {
                let difference = Double($1.0) - Double($1.1)
                return $0 + difference * difference
            }
            let energy = values.reduce(0.0) { $0 + Double($1) * Double($1) }
            // 131,072 samples: the standard error of the ratio is below 0.4 % of it; bfloat16 scales add at most 2^-18 of the energy.
            #expect(abs(error / energy - expected) < 0.012 * expected + 4e-6)
        }
    }
}
