import Kernels
import Schema
import Testing

private func decode(_ payload: [UInt8], rowCount: Int, length: Int, encoding: Encoding) -> [Float] {
    var decoded = [Float](repeating: .nan, count: rowCount * length)
    var span = decoded.mutableSpan
    decodeVectors(payload.span.bytes, rowCount: rowCount, length: length, encoding: encoding, into: &span)
    return decoded
}

private let shapes = [(1, 1), (1, 64), (3, 5), (31, 7), (32, 64), (33, 9), (64, 3), (70, 17), (2, 130), (0, 4), (4, 0)]

@Suite struct VectorPayloadTests {
    @Test(arguments: Encoding.allCases)
    func decodingFollowsTheLayout(encoding: Encoding) {
        var generator = SplitMix(seed: 1)
        for (rowCount, length) in shapes {
            let values = generator.gaussians(rowCount * length)
            let payload = encodeVectors(values.span, rowCount: rowCount, length: length, encoding: encoding)
            let oracle = PayloadOracle(payload: payload, rowCount: rowCount, length: length, encoding: encoding)
            #expect(payload.count == oracle.byteCount)
            #expect(
                payload.count == vectorPayloadByteCount(rowCount: rowCount, length: length, encoding: encoding))
            let decoded = decode(payload, rowCount: rowCount, length: length, encoding: encoding)
            var worst = 0.0
            for row in 0..<rowCount {
                for coordinate in 0..<length {
                    let expected = oracle.value(row: row, coordinate: coordinate)
                    let difference = abs(Double(decoded[row * length + coordinate]) - expected)
                    worst = max(worst, difference / max(1, abs(expected)))
                }
            }
            // The oracle's levels have seven decimals; everything else is exact.
            #expect(worst <= (encoding.interleavedRowCount > 1 ? 4e-7 : 0), "\(rowCount) × \(length)")
        }
    }

    @Test(arguments: Encoding.allCases)
    func decodingOneRowEqualsDecodingAll(encoding: Encoding) {
        var generator = SplitMix(seed: 3)
        for (rowCount, length) in shapes {
            let values = generator.gaussians(rowCount * length)
            let payload = encodeVectors(values.span, rowCount: rowCount, length: length, encoding: encoding)
            let decoded = decode(payload, rowCount: rowCount, length: length, encoding: encoding)
            for row in 0..<rowCount {
                let one = decodeVector(
                    payload.span.bytes, row: row, rowCount: rowCount, length: length, encoding: encoding)
                #expect(one == Array(decoded[row * length..<(row + 1) * length]))
            }
        }
    }

    /// Three rows of two numbers, by hand.
    @Test func bytesByHand() {
        let values: [Float] = [127, -1, 0, 0, 0.5, -0.25]
        // int8: M / 127 is 1, 0 and 0.5/127 = 2^-8 · 1.00787 -> 1.0078125 (0x3B81) is still below it, so 0x3B82.
        // -0.25 / (2^-8 · 1.015625) = -63.02.
        #expect(
            encodeVectors(values.span, rowCount: 3, length: 2, encoding: .int8) == [
                127, 0xFF, 0, 0, 126, 0xC1, 0, 0, 0x80, 0x3F, 0, 0, 0x82, 0x3B,
            ])
        // f16: 127 = 1.984375 · 2^6 -> scale 2^-9 (0x3B00), code exponent 30; 0.5 -> scale 2^-16 (0x3780).
        #expect(
            encodeVectors(values.span, rowCount: 3, length: 2, encoding: .f16) == [
                0xF0, 0x7B, 0x00, 0xE0, 0, 0, 0, 0, 0x00, 0x78, 0x00, 0xF4, 0, 0, 0, 0, 0x00, 0x3B, 0, 0, 0x80, 0x37,
            ])
        #expect(
            encodeVectors(values.span, rowCount: 3, length: 2, encoding: .bf16) == [
                0xFE, 0x42, 0x80, 0xBF, 0, 0, 0, 0, 0x00, 0x3F, 0x80, 0xBE, 0, 0, 0, 0,
            ])
        // q2, codes low to high: row 0 (3, 1): 127/89.8 = 1.41, -1/89.8; row 1 zeros: (2, 2); row 2: 0.5/0.395 = 1.26 -> 3,
        // -0.63 -> 1. Nibble = first | second << 2. Scales: row 0 (127·1.5104 + 0.4528)/(1.5104² + 0.4528²) = 77.34 (0x429B = 77.5);
        // row 2 (0.5·1.5104 + 0.25·0.4528)/2.4864 = 0.34926 (0x3EB3 = 0.349609).
        #expect(
            encodeVectors(values.span, rowCount: 3, length: 2, encoding: .q2) == [
                0x07, 0x0A, 0x07, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x9B, 0x42, 0, 0, 0xB3, 0x3E,
            ])
    }

    /// Rows 16-31 sit in the high nibbles; rows past the end and coordinates past the last are zero codes.
    @Test func paddingIsZeroCodes() {
        let values = [Float](repeating: 1, count: 18 * 3)
        let payload = encodeVectors(values.span, rowCount: 18, length: 3, encoding: .q1)
        // Code 1 for every number: three low bits set in the nibble of rows 0-15, and of rows 16 and 17.
        #expect(Array(payload.prefix(16)) == [0x77, 0x77] + [UInt8](repeating: 0x07, count: 14))
        #expect(payload.count == 16 + 36)
    }

    @Test func zeroVectorsHaveScaleZeroAndValueZero() {
        for encoding in Encoding.allCases {
            let values: [Float] = [0, 0, 0, 1, 2, 3, -0.0, 0, 0]
            let payload = encodeVectors(values.span, rowCount: 3, length: 3, encoding: encoding)
            let decoded = decode(payload, rowCount: 3, length: 3, encoding: encoding)
            #expect(decoded[0..<3].allSatisfy { $0 == 0 } && decoded[6..<9].allSatisfy { $0 == 0 })
            #expect(decoded[3..<6].allSatisfy { $0 > 0 })
            let oracle = PayloadOracle(payload: payload, rowCount: 3, length: 3, encoding: encoding)
            if encoding.hasScale { #expect(oracle.scale(row: 0) == 0 && oracle.scale(row: 2) == 0) }
        }
    }
}
