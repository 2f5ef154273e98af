import Kernels
import Schema
import Testing

/// Numbers that stress a kernel: Gaussians of many magnitudes, zeros, subnormals, ties.
private func difficultNumbers(_ count: Int, seed: UInt64) -> [Float] {
    var generator = SplitMix(seed: seed)
    return (0..<count).map { index in
        switch index % 7 {
        case 0: Float(generator.gaussian())
        case 1: Float(generator.gaussian() * 1e-3)
        case 2: index % 2 == 0 ? 0 : -0.0
        case 3: Float(Int.random(in: -40...40, using: &generator)) / 2
        case 4: Float(generator.gaussian() * 1e-40)
        case 5: Float(generator.gaussian() * 50_000)
        default: Float(bitPattern: UInt32.random(in: 0..<0x7F80_0000, using: &generator)) * 1e-3
        }
    }
}

/// Lengths around every lane boundary.
private let lengths = Array(0...9) + [15, 16, 17, 23, 24, 25, 31, 32, 33, 40, 63, 64, 65, 129]

/// Every tier gives the same bits as the portable one, at every alignment.
@Suite struct TierTests {
    let portable = KernelTier.available[0]
    let others = KernelTier.available.dropFirst()

    @Test func theFirstTierIsPortableAndTheLastIsChosen() {
        #expect(portable.name == "portable")
        #expect(KernelTier.chosen.name == KernelTier.available[KernelTier.available.count - 1].name)
    }

    @Test(arguments: Encoding.allCases)
    func payloadsAgree(encoding: Encoding) {
        for (index, length) in lengths.enumerated() {
            for rowCount in [1, 15, 16, 17, 32, 33] {
                let start = (index + rowCount) % 4
                let numbers = difficultNumbers(start + rowCount * length, seed: UInt64(length * 100 + rowCount))
                let values = numbers.span.extracting(start..<numbers.count)
                let expected = encodeVectors(
                    values, rowCount: rowCount, length: length, encoding: encoding, tier: portable)
                for tier in others {
                    let payload = encodeVectors(
                        values, rowCount: rowCount, length: length, encoding: encoding, tier: tier)
                    #expect(payload == expected, "\(tier.name) encodes \(rowCount) × \(length)")
                }
                // The payload one byte off any alignment, and arbitrary code bytes in place of those of the encoder.
                var shifted = [UInt8](repeating: 0xA5, count: start + 1) + expected
                var reference = [UInt32]()
                for scrambled in [false, true] {
                    if scrambled, encoding != .f32, encoding != .bf16 {
                        var generator = SplitMix(seed: 5)
                        let codes = expected.count - (encoding.hasScale ? 2 * rowCount : 0)
                        for byte in 0..<codes {
                            shifted[start + 1 + byte] = UInt8.random(in: 0...99, using: &generator)
                        }
                    }
                    for tier in KernelTier.available {
                        var decoded = [Float](repeating: .nan, count: start + rowCount * length)
                        decoded.withUnsafeMutableBufferPointer { buffer in
                            var out = unsafe buffer.extracting(start..<buffer.count).mutableSpan
                            decodeVectors(
                                shifted.span.bytes.extracting(start + 1..<shifted.count), rowCount: rowCount,
                                length: length, encoding: encoding, into: &out, tier: tier)
                        }
                        let bits = decoded.dropFirst(start).map(\.bitPattern)
                        if tier.name == "portable" { reference = bits }
                        #expect(bits == reference, "\(tier.name) decodes \(rowCount) × \(length)")
                        #expect(decoded.prefix(start).allSatisfy { $0.isNaN }, "\(tier.name) writes before its output")
                    }
                }
            }
        }
    }

    @Test func conversionsAgreeWithNaNsAndInfinities() {
        var generator = SplitMix(seed: 11)
        for length in lengths + [1000] {
            for start in 0..<3 {
                let words = (0..<2 * (start + length)).map { _ in UInt8.random(in: 0...255, using: &generator) }
                let floats = (0..<start + length).map { index in
                    index % 3 == 0
                        ? Float(bitPattern: UInt32.random(in: 0...UInt32.max, using: &generator))
                        : Float(bitPattern: UInt32.random(in: 0x7F7F_0000...0x7FFF_FFFF, using: &generator))
                }
                let bytes = words.span.bytes.extracting(start..<start + 2 * length)
                let values = floats.span.extracting(start..<floats.count)
                func widened(_ body: (inout MutableSpan<Float>) -> Void) -> [UInt32] {
                    var result = [Float](repeating: 0, count: length)
                    var span = result.mutableSpan
                    body(&span)
                    return result.map(\.bitPattern)
                }
                let halves = widened { widen(float16: bytes, into: &$0, tier: portable) }
                let brains = widened { widen(bfloat16: bytes, into: &$0, tier: portable) }
                for tier in others {
                    let theirHalves = widened { widen(float16: bytes, into: &$0, tier: tier) }
                    let theirBrains = widened { widen(bfloat16: bytes, into: &$0, tier: tier) }
                    #expect(theirHalves == halves && theirBrains == brains)
                    #expect(narrowToFloat16(values, tier: tier) == narrowToFloat16(values, tier: portable))
                    #expect(narrowToBFloat16(values, tier: tier) == narrowToBFloat16(values, tier: portable))
                }
            }
        }
    }

    @Test(arguments: KernelTier.available.indices)
    func reductionsAgreeWithOracles(tierIndex: Int) {
        let tier = KernelTier.available[tierIndex]
        for length in lengths + [1000] {
            for start in 0..<3 {
                let numbers = difficultNumbers(start + length, seed: UInt64(length + 1))
                let values = numbers.span.extracting(start..<numbers.count)
                let largest = numbers.dropFirst(start).map { abs($0) }.max() ?? 0
                #expect(largestMagnitude(values, tier: tier) == largest)
                let sum = sumOfSquares(values, tier: tier)
                let expected = numbers.dropFirst(start).reduce(0.0) { $0 + Double($1) * Double($1) }
                #expect(abs(sum - expected) <= 1e-13 * expected)
                #expect(sum.bitPattern == sumOfSquares(values, tier: portable).bitPattern)
                #expect(firstNonFiniteIndex(values, tier: tier) == nil)
                for bad in [Float.nan, .infinity, -.infinity, Float(bitPattern: 0xFFFF_FFFF)] {
                    for place in 0..<length where place < 8 || place % 13 == 0 || place == length - 1 {
                        var damaged = numbers
                        damaged[start + place] = bad
                        if place + 2 < length { damaged[start + place + 2] = .nan }
                        let damagedSpan = damaged.span.extracting(start..<damaged.count)
                        #expect(firstNonFiniteIndex(damagedSpan, tier: tier) == place)
                    }
                }
            }
        }
    }

    @Test func bilinearFormsAgreeAndAreRight() {
        var generator = SplitMix(seed: 11)
        for (rows, columns) in [(1, 1), (3, 7), (2, 8), (5, 9), (64, 64), (1, 33), (16, 129)] {
            for componentCount in [1, 2, 3, 4, 5, 9] {
                let matrix = generator.gaussians(rows * columns)
                let left = generator.gaussians(componentCount * rows)
                let right = generator.gaussians(componentCount * columns).map(Double.init)
                var (expected, magnitude) = (0.0, 0.0)
                for c in 0..<componentCount {
                    for i in 0..<rows {
                        for j in 0..<columns {
                            let term =
                                Double(left[c * rows + i]) * Double(matrix[i * columns + j]) * right[c * columns + j]
                            expected += term
                            magnitude += abs(term)
                        }
                    }
                }
                let values = KernelTier.available.map {
                    bilinearForm(
                        matrix.span, left: left.span, right: right.span, componentCount: componentCount, tier: $0)
                }
                #expect(abs(values[0] - expected) <= magnitude * 0x1p-44)
                #expect(values.allSatisfy { $0 == values[0] }, "\(rows) × \(columns), \(componentCount) components")
            }
        }
    }
}
