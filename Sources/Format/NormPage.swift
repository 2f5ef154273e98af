/// Norms of a block: bfloat16, layer after layer, within a layer row after row. Each is rounded up: an upper bound.
public enum NormPage {
    /// The page of bfloat16 bits, [layer][row].
    public static func encode(_ norms: [[UInt16]]) -> [UInt8] {
        var writer = ByteWriter()
        for layer in norms { writer.write(all: layer) }
        return writer.bytes
    }

    /// The norms in an untrusted page, [layer][row]: neither negative nor NaN.
    public static func decode(_ bytes: [UInt8], layerCount: Int, rowCount: Int) throws(FormatError) -> [[Float]] {
        guard bytes.count == 2 * layerCount * rowCount else {
            throw .partSize(part: .normPage, expected: 2 * layerCount * rowCount, found: bytes.count)
        }
        var reader = PartReader(bytes, part: .normPage)
        var norms: [[Float]] = []
        norms.reserveCapacity(layerCount)
        for layer in 0..<layerCount {
            let bits = try reader.read(UInt16.self, count: rowCount)
            // 0x7F80 is +infinity: the bound of a norm beyond bfloat16's range.
            if (bits.max() ?? 0) > 0x7F80, let row = bits.firstIndex(where: { $0 > 0x7F80 }) {
                throw .normNotANorm(layer: layer, row: row, found: bits[row])
            }
            norms.append(bits.map { Float(bitPattern: UInt32($0) << 16) })
        }
        return norms
    }
}
