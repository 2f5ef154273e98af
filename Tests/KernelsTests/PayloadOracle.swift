import Schema

/// The payload as Formats/page.md describes it, read number by number in Double: an oracle that shares no code with the kernels.
struct PayloadOracle {
    let payload: [UInt8]
    let rowCount: Int
    let length: Int
    let encoding: Encoding

    private func roundedUp(_ value: Int, to unit: Int) -> Int { (value + unit - 1) / unit * unit }

    /// Bytes of a plane of `bits` bits: groups of 32 rows, nibble groups of 16 bytes.
    private func planeByteCount(bits: Int) -> Int {
        roundedUp(rowCount, to: 32) / 32 * (roundedUp(length, to: 4 / bits) * bits / 4) * 16
    }

    var codeByteCount: Int {
        let unpadded =
            switch encoding {
            case .f32: 4 * rowCount * length
            case .f16, .bf16: 2 * rowCount * length
            case .int8: rowCount * length
            case .q3: planeByteCount(bits: 2) + planeByteCount(bits: 1)
            case .q4, .q2, .q1: planeByteCount(bits: encoding.bitsPerNumber)
            }
        return roundedUp(unpadded, to: 8)
    }

    var byteCount: Int { codeByteCount + (encoding.hasScale ? 2 * rowCount : 0) }

    func word(_ offset: Int) -> UInt16 { UInt16(payload[offset]) | UInt16(payload[offset + 1]) << 8 }

    func scale(row: Int) -> Double {
        Double(Float(bitPattern: UInt32(word(codeByteCount + 2 * row)) << 16))
    }

    private func planeCode(at start: Int, bits: Int, row: Int, coordinate: Int) -> Int {
        let nibblesPerVector = roundedUp(length, to: 4 / bits) * bits / 4
        let nibble = coordinate * bits / 4
        let byte = payload[start + ((row / 32) * nibblesPerVector + nibble) * 16 + row % 16]
        let half = row % 32 < 16 ? Int(byte & 15) : Int(byte >> 4)
        return half >> (coordinate * bits % 4) & (1 << bits - 1)
    }

    /// The low-bit code of one number.
    func code(row: Int, coordinate: Int) -> Int {
        guard encoding == .q3 else {
            return planeCode(at: 0, bits: encoding.bitsPerNumber, row: row, coordinate: coordinate)
        }
        let high = planeCode(at: 0, bits: 2, row: row, coordinate: coordinate)
        return 2 * high + planeCode(at: planeByteCount(bits: 2), bits: 1, row: row, coordinate: coordinate)
    }

    /// The published levels of Max (1960), to the digits that he gives and a few more.
    static let levels: [Int: [Double]] = [
        1: [0.7978846],
        2: [0.4527800, 1.5104176],
        3: [0.2450942, 0.7560053, 1.3439093, 2.1519457],
        4: [0.1283950, 0.3880483, 0.6567591, 0.9423405, 1.2562312, 1.6180464, 2.0690172, 2.7325896],
    ]

    func value(row: Int, coordinate: Int) -> Double {
        let index = row * length + coordinate
        switch encoding {
        case .f32:
            return Double(Float(bitPattern: UInt32(word(4 * index)) | UInt32(word(4 * index + 2)) << 16))
        case .bf16:
            return Double(Float(bitPattern: UInt32(word(2 * index)) << 16))
        case .f16:
            let bits = word(2 * index)
            let exponent = Int(bits >> 10 & 31)
            let significand = Double(bits & 0x3FF) / 1024 + (exponent == 0 ? 0 : 1)
            let magnitude = Double(sign: .plus, exponent: max(exponent, 1) - 15, significand: 1) * significand
            return scale(row: row) * (bits >> 15 == 1 ? -magnitude : magnitude)
        case .int8:
            return scale(row: row) * Double(Int8(bitPattern: payload[index]))
        case .q4, .q3, .q2, .q1:
            let positive = Self.levels[encoding.bitsPerNumber] ?? []
            let levels = positive.reversed().map { -$0 } + positive
            return scale(row: row) * levels[code(row: row, coordinate: coordinate)]
        }
    }
}
