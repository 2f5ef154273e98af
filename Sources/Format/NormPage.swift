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
        try bits(bytes, layerCount: layerCount, rowCount: rowCount).map { layer in
            layer.map { Float(bitPattern: UInt32($0) << 16) }
        }
    }

    /// The bfloat16 bits in an untrusted page, [layer][row], by the rules of `decode`.
    public static func bits(_ bytes: [UInt8], layerCount: Int, rowCount: Int) throws(FormatError) -> [[UInt16]] {
        var norms: [[UInt16]] = []
        norms.reserveCapacity(layerCount)
        try forEachLayer(of: bytes, layerCount: layerCount, rowCount: rowCount) { norms.append($0) }
        return norms
    }

    /// The norm of each row over all layers in an untrusted page, by the rules of `decode`: √Σ norm², summed in Double, layer after
    /// layer. O(bytes), without making the norms of the layers.
    public static func rowNorms(_ bytes: [UInt8], layerCount: Int, rowCount: Int) throws(FormatError) -> [Double] {
        var sums = [Double](repeating: 0, count: rowCount)
        try forEachLayer(of: bytes, layerCount: layerCount, rowCount: rowCount) { addSquares($0, to: &sums) }
        return sums.map { $0.squareRoot() }
    }

    /// The same of valid bits, [layer][row].
    public static func rowNorms(_ norms: [[UInt16]]) -> [Double] {
        var sums = [Double](repeating: 0, count: norms.first?.count ?? 0)
        for layer in norms { addSquares(layer, to: &sums) }
        return sums.map { $0.squareRoot() }
    }

    private static func addSquares(_ bits: [UInt16], to sums: inout [Double]) {
        precondition(bits.count == sums.count)
        unsafe sums.withUnsafeMutableBufferPointer { sums in
            unsafe bits.withUnsafeBufferPointer { bits in
                for row in 0..<bits.count {
                    let norm = unsafe Double(Float(bitPattern: UInt32(bits[row]) << 16))
                    unsafe sums[row] += norm * norm
                }
            }
        }
    }

    private static func forEachLayer(
        of bytes: [UInt8], layerCount: Int, rowCount: Int, _ body: ([UInt16]) -> Void
    ) throws(FormatError) {
        guard bytes.count == 2 * layerCount * rowCount else {
            throw .partSize(part: .normPage, expected: 2 * layerCount * rowCount, found: bytes.count)
        }
        var reader = PartReader(bytes, part: .normPage)
        for layer in 0..<layerCount {
            let bits = try reader.read(UInt16.self, count: rowCount)
            // 0x7F80 is +infinity: the bound of a norm beyond bfloat16's range.
            if maximum(bits) > 0x7F80, let row = bits.firstIndex(where: { $0 > 0x7F80 }) {
                throw .normNotANorm(layer: layer, row: row, found: bits[row])
            }
            body(bits)
        }
    }

    private static func maximum(_ bits: [UInt16]) -> UInt16 {
        unsafe bits.withUnsafeBufferPointer { bits in
            var maximum: UInt16 = 0
            for index in 0..<bits.count { maximum = unsafe max(maximum, bits[index]) }
            return maximum
        }
    }
}
