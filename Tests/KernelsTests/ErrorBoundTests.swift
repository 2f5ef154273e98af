import Foundation
import Kernels
import Schema
import Testing

private func roundTrip(_ values: [Float], rowCount: Int, length: Int, encoding: Encoding) -> (
    decoded: [Float], oracle: PayloadOracle
) {
    let payload = encodeVectors(values.span, rowCount: rowCount, length: length, encoding: encoding)
    var decoded = [Float](repeating: .nan, count: rowCount * length)
    var span = decoded.mutableSpan
    decodeVectors(payload.span.bytes, rowCount: rowCount, length: length, encoding: encoding, into: &span)
    return (decoded, PayloadOracle(payload: payload, rowCount: rowCount, length: length, encoding: encoding))
}

/// Vectors of extreme magnitude, one per row, each of the given length.
private func extremeVectors(length: Int) -> [[Float]] {
    var generator = SplitMix(seed: UInt64(length))
    let top = Float.greatestFiniteMagnitude
    func scaled(_ magnitude: Float) -> [Float] {
        (0..<length).map { _ in Float.random(in: -1...1, using: &generator) * magnitude }
    }
    func spike(_ magnitude: Float) -> [Float] { (0..<length).map { $0 == length / 2 ? magnitude : 0 } }
    return [
        scaled(1), scaled(1e-30), scaled(1e30), scaled(top), scaled(1e-38), scaled(0x1p-133), scaled(65504),
        scaled(0x1p-148),
        spike(top), spike(-top), spike(.leastNonzeroMagnitude), spike(.leastNormalMagnitude), spike(1),
        [Float](repeating: top, count: length), [Float](repeating: -.leastNonzeroMagnitude, count: length),
        (0..<length).map { $0 % 2 == 0 ? top : .leastNonzeroMagnitude },
        (0..<length).map { Float(sign: .minus, exponent: 120 - $0 % 240, significand: 1.2345678) },
        (0..<length).map { _ in Float(generator.gaussian()) },
        (0..<length).map { _ in Float(pow(generator.gaussian(), 9)) },
    ]
}

@Suite struct ErrorBoundTests {
    static let lengths = [1, 2, 7, 8, 9, 33, 64, 100]

    @Test(arguments: lengths)
    func everyEncodingOfExtremesIsFinite(length: Int) {
        let rows = extremeVectors(length: length)
        for encoding in Encoding.allCases {
            let (decoded, _) = roundTrip(rows.flatMap { $0 }, rowCount: rows.count, length: length, encoding: encoding)
            #expect(decoded.allSatisfy { $0.isFinite }, "\(encoding)")
            for (row, values) in rows.enumerated() {
                // Signs survive: no code crosses zero.
                for (x, y) in zip(values, decoded[row * length..<(row + 1) * length]) where x != 0 && y != 0 {
                    #expect((x < 0) == (y < 0), "\(encoding), row \(row)")
                }
            }
        }
    }

    @Test(arguments: lengths)
    func int8IsWithinHalfAScale(length: Int) {
        let rows = extremeVectors(length: length)
        let (decoded, oracle) = roundTrip(rows.flatMap { $0 }, rowCount: rows.count, length: length, encoding: .int8)
        for (row, values) in rows.enumerated() {
            let scale = oracle.scale(row: row)
            let largest = Double(values.map(abs).max() ?? 0)
            // Not larger than needed either: one bfloat16 step (2^-7 of it, or 2^-133).
            #expect(scale * 127 >= largest && scale <= largest / 127 * (1 + 0x1p-7) + 0x1p-133)
            for (x, y) in zip(values, decoded[row * length..<(row + 1) * length]) {
                #expect(abs(Double(x) - Double(y)) <= scale * (0.5 + 0x1p-17))
                #expect(scale == 0 || abs(Double(y) / scale) <= 127)
            }
        }
    }

    @Test(arguments: lengths)
    func f16IsWithinHalfAPlaceOfElevenBits(length: Int) {
        let rows = extremeVectors(length: length)
        let (decoded, _) = roundTrip(rows.flatMap { $0 }, rowCount: rows.count, length: length, encoding: .f16)
        for (row, values) in rows.enumerated() {
            let largest = Double(values.map(abs).max() ?? 0)
            for (x, y) in zip(values, decoded[row * length..<(row + 1) * length]) {
                let bound = max(0x1p-11 * abs(Double(x)), 0x1p-40 * largest)
                #expect(abs(Double(x) - Double(y)) <= bound, "row \(row): \(x) became \(y)")
            }
        }
    }

    @Test(arguments: lengths)
    func bf16IsWithinHalfAPlaceOfEightBits(length: Int) {
        let rows = extremeVectors(length: length)
        let (decoded, _) = roundTrip(rows.flatMap { $0 }, rowCount: rows.count, length: length, encoding: .bf16)
        for (x, y) in zip(rows.flatMap { $0 }, decoded) {
            #expect(abs(Double(x) - Double(y)) <= max(0x1p-8 * abs(Double(x)), 0x1p-134))
        }
    }

    @Test(arguments: lengths)
    func f32IsExact(length: Int) {
        let rows = extremeVectors(length: length).flatMap { $0 }
        let (decoded, _) = roundTrip(rows, rowCount: rows.count / length, length: length, encoding: .f32)
        #expect(decoded.map { $0.bitPattern } == rows.map { $0.bitPattern })
    }

    /// No other scale is better for the codes chosen, up to the scale's own rounding, and each code is the nearest level of x / rms.
    @Test(arguments: [Encoding.q4, .q3, .q2, .q1])
    func lowBitScalesAreLeastSquares(encoding: Encoding) {
        var generator = SplitMix(seed: 23)
        let rowCount = 40
        let length = 50
        let values = (0..<rowCount * length).map { _ in Float(pow(generator.gaussian(), 3)) }
        let (_, oracle) = roundTrip(values, rowCount: rowCount, length: length, encoding: encoding)
        let levels = gaussianCodebook(bits: encoding.bitsPerNumber).map(Double.init)
        for row in 0..<rowCount {
            let vector = values[row * length..<(row + 1) * length].map(Double.init)
            let rms = (vector.reduce(0) { $0 + $1 * $1 } / Double(length)).squareRoot()
            var correlation = 0.0
            var energy = 0.0
            for (coordinate, x) in vector.enumerated() {
                let level = levels[oracle.code(row: row, coordinate: coordinate)]
                let nearest = levels.map { abs($0 - x / rms) }.min() ?? 0
                #expect(abs(level - x / rms) <= nearest + 1e-6)
                correlation += x * level
                energy += level * level
            }
            #expect(abs(oracle.scale(row: row) - correlation / energy) <= 0x1p-8 * correlation / energy)
        }
    }

    /// Every finite half and bfloat16, mixed in vectors, comes back bit for bit.
    @Test(arguments: [1, 3, 32, 62])
    func halfPrecisionInputIsLossless(length: Int) {
        var halves = (0...UInt16.max).filter { $0 >> 10 & 31 != 31 }
        var brains = (0...UInt16.max).filter { $0 >> 7 & 255 != 255 }
        var generator = SplitMix(seed: UInt64(length))
        for _ in 0..<2 {
            for (encoding, words) in [(Encoding.f16, halves), (.bf16, brains)] {
                let rowCount = words.count / length
                let bytes = words.prefix(rowCount * length).flatMap { [UInt8($0 & 255), UInt8($0 >> 8)] }
                var values = [Float](repeating: 0, count: rowCount * length)
                var span = values.mutableSpan
                if encoding == .f16 {
                    widen(float16: bytes.span.bytes, into: &span)
                } else {
                    widen(bfloat16: bytes.span.bytes, into: &span)
                }
                let (decoded, _) = roundTrip(values, rowCount: rowCount, length: length, encoding: encoding)
                #expect(decoded.map { $0.bitPattern } == values.map { $0.bitPattern })
                #expect((encoding == .f16 ? narrowToFloat16(decoded.span) : narrowToBFloat16(decoded.span)) == bytes)
            }
            halves.shuffle(using: &generator)
            brains.shuffle(using: &generator)
        }
    }
}
