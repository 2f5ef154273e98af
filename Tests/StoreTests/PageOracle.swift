import Schema

/// Decodes vector pages word by word as Formats/page.md tells it, slowly and in Double.
struct PageOracle {
    let bytes: [UInt8]
    let rowCount: Int
    let length: Int
    let encoding: Encoding

    private static let positiveLevels: [Int: [Double]] = [
        1: [0.79788456080287],
        2: [0.45278003463649, 1.5104176084991],
        3: [0.24509417894422, 0.75600528120588, 1.343909278505, 2.151945704537],
        4: [
            0.12839502985115, 0.38804829949029, 0.65675911853246, 0.94234045648696, 1.2562311973472, 1.6180463860219,
            2.0690172265314, 2.7325895709952,
        ],
    ]

    /// Level of an index, rounded to f32 as the page says.
    static func level(_ index: Int, bits: Int) -> Double {
        let positive = positiveLevels[bits] ?? []
        let half = positive.count
        return index < half ? -Double(Float(positive[half - 1 - index])) : Double(Float(positive[index - half]))
    }

    private func word(_ offset: Int, _ size: Int) -> UInt32 {
        (0..<size).reduce(0) { $0 | UInt32(bytes[offset + $1]) << UInt32(8 * $1) }
    }

    private func nibbles(bits: Int) -> Int { (length * bits + 3) / 4 }

    private func planeByteCount(bits: Int) -> Int { (rowCount + 31) / 32 * nibbles(bits: bits) * 16 }

    private var codeByteCount: Int {
        switch encoding {
        case .f32: 4 * rowCount * length
        case .f16, .bf16: 2 * rowCount * length
        case .int8: rowCount * length
        case .q3: planeByteCount(bits: 2) + planeByteCount(bits: 1)
        case .q4, .q2, .q1: planeByteCount(bits: encoding.bitsPerNumber)
        }
    }

    /// What the page's length must be.
    var expectedByteCount: Int { (codeByteCount + 7) / 8 * 8 + (encoding.hasScale ? 2 * rowCount : 0) }

    private func code(row: Int, coordinate: Int, bits: Int, planeOffset: Int = 0) -> Int {
        let nibble = coordinate * bits / 4
        let offset = planeOffset + (row / 32 * nibbles(bits: bits) + nibble) * 16 + row % 16
        let half = row % 32 < 16 ? bytes[offset] & 15 : bytes[offset] >> 4
        return Int(half) >> (coordinate * bits % 4) & (1 << bits - 1)
    }

    /// The scale of a row; 1 without scales.
    func scale(row: Int) -> Double {
        guard encoding.hasScale else { return 1 }
        return Double(Float(bitPattern: word((codeByteCount + 7) / 8 * 8 + 2 * row, 2) << 16))
    }

    /// The value of a coordinate of a row.
    func value(row: Int, coordinate: Int) -> Double {
        let place = row * length + coordinate
        let code: Double
        switch encoding {
        case .f32: code = Double(Float(bitPattern: word(4 * place, 4)))
        case .bf16: code = Double(Float(bitPattern: word(2 * place, 2) << 16))
        case .f16: code = Self.half(word(2 * place, 2))
        case .int8: code = Double(Int8(bitPattern: bytes[place]))
        case .q4, .q2, .q1:
            let bits = encoding.bitsPerNumber
            code = Self.level(self.code(row: row, coordinate: coordinate, bits: bits), bits: bits)
        case .q3:
            let high = self.code(row: row, coordinate: coordinate, bits: 2)
            let low = self.code(row: row, coordinate: coordinate, bits: 1, planeOffset: planeByteCount(bits: 2))
            code = Self.level(2 * high + low, bits: 3)
        }
        return scale(row: row) == 0 ? 0 : scale(row: row) * code
    }

    /// IEEE half precision by its definition.
    private static func half(_ bits: UInt32) -> Double {
        let sign: Double = bits >> 15 == 0 ? 1 : -1
        let exponent = Int(bits >> 10 & 31)
        let fraction = Double(bits & 1023)
        return exponent == 0
            ? sign * fraction * 0x1p-24
            : sign * (1024 + fraction) * Double(sign: .plus, exponent: exponent - 25, significand: 1)
    }
}
