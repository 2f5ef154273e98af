import Kernels
import Schema
import Testing

@Suite struct VectorPayloadTests {
    @Test(arguments: Encoding.allCases)
    func decodingOneRowEqualsDecodingAll(encoding: Encoding) {
        var generator = SplitMix(seed: 3)
        for (rowCount, length) in [(1, 1), (3, 5), (31, 7), (32, 64), (33, 9), (70, 17)] {
            let values = generator.gaussians(rowCount * length)
            let payload = encodeVectors(values.span, rowCount: rowCount, length: length, encoding: encoding)
            var decoded = [Float](repeating: .nan, count: values.count)
            var span = decoded.mutableSpan
            decodeVectors(payload.span.bytes, rowCount: rowCount, length: length, encoding: encoding, into: &span)
            for row in 0..<rowCount {
                let one = decodeVector(
                    payload.span.bytes, row: row, rowCount: rowCount, length: length, encoding: encoding)
                #expect(one == Array(decoded[row * length..<(row + 1) * length]))
            }
        }
    }
}
