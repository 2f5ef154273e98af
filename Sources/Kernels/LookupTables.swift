import CKernels
import Schema

/// How finely the entries of look-up tables are rounded.
public enum TablePrecision: Sendable, CaseIterable {
    /// 12 bits: errors of a few 10^-4 of a random score's standard deviation.
    case wide
    /// 6 bits: about twice as fast, errors of a few per cent.
    case narrow
}

/// The power of two above the largest finite magnitude; nil of zeros.
func exponent(of values: UnsafeBufferPointer<Float>) -> Int? {
    guard let base = values.baseAddress else { return nil }
    let exponent = unsafe lorif_exponent(base, values.count)
    return exponent == Int32.min ? nil : Int(exponent)
}

/// Look-up tables of vectors of one length, for the codes of one encoding.
///
/// A table holds, for each group of four bits of codes, each possible group's share of the inner product, as a whole number
/// of steps; a block of 256 groups has one step, so that a large number spoils only its block.
struct LookupTables: Sendable {
    let bits: Int
    let length: Int
    let precision: TablePrecision
    private var entries: [UInt8]
    private var steps: [Float]
    private var errors: [Float]

    init(count: Int, length: Int, encoding: Encoding, precision: TablePrecision) {
        precondition(!encoding.isRowMajor, "tables are for interleaved codes")
        bits = encoding.bitsPerNumber
        self.length = length
        self.precision = precision
        let wide: Int32 = precision == .wide ? 1 : 0
        entries = [UInt8](repeating: 0, count: count * lorif_table_bytes(Int32(bits), wide, length))
        steps = [Float](repeating: 0, count: count * lorif_block_count(Int32(bits), length))
        errors = [Float](repeating: 0, count: count)
    }

    /// Fills table `index` for the numbers values[i · stride] · 2^exponent, with room for `roundings` more in its error.
    mutating func prepare(
        _ index: Int, _ values: UnsafePointer<Float>, stride: Int, exponent: Int, roundings: Int
    ) {
        let wide: Int32 = precision == .wide ? 1 : 0
        let byteCount = lorif_table_bytes(Int32(bits), wide, length)
        let blockCount = lorif_block_count(Int32(bits), length)
        entries.withUnsafeMutableBufferPointer { entries in
            steps.withUnsafeMutableBufferPointer { steps in
                errors.withUnsafeMutableBufferPointer { errors in
                    guard let entry = entries.baseAddress, let step = steps.baseAddress, let error = errors.baseAddress
                    else { return }
                    unsafe lorif_prepare_table(
                        Int32(bits), wide, values, length, stride, Int32(exponent), roundings,
                        entry + index * byteCount, step + index * blockCount, error + index)
                }
            }
        }
    }

    /// The tables as the C loops take them; valid inside `body`.
    func withTables(_ body: (UnsafePointer<lorif_tables>) -> Void) {
        entries.withUnsafeBufferPointer { entries in
            steps.withUnsafeBufferPointer { steps in
                errors.withUnsafeBufferPointer { errors in
                    var tables = unsafe lorif_tables(
                        bits: Int32(bits), wide: precision == .wide ? 1 : 0, length: length,
                        entries: entries.baseAddress, steps: steps.baseAddress, errors: errors.baseAddress)
                    unsafe withUnsafePointer(to: &tables) { unsafe body($0) }
                }
            }
        }
    }
}
