import CKernels
public import Schema

/// Bytes of a vector page's payload: codes, zero padding to a multiple of 8, then one bfloat16 scale per row if the encoding
/// has them.
///
/// `rowCount` · `length` numbers of a few bytes each must fit in Int, as they do in memory.
public func vectorPayloadByteCount(rowCount: Int, length: Int, encoding: Encoding) -> Int {
    precondition(rowCount >= 0 && length >= 0, "negative shape")
    // 32 · 8 covers the padding of rows to a group and of coordinates to a nibble group.
    let (numbers, overflow) = max(rowCount, 32).multipliedReportingOverflow(by: max(length, 8))
    precondition(!overflow && numbers <= Int.max / 16, "shape too large")
    return lorif_codes_size(Int32(encoding.rawValue), rowCount, length) + (encoding.hasScale ? 2 * rowCount : 0)
}

/// Encodes `rowCount` vectors of `length` numbers as one page's payload.
///
/// - `f32`: as is. `bf16`: to nearest even, relative error ≤ 2^-8 (what would round to infinity becomes the largest bfloat16).
/// - `f16`: scaled by the power of two that puts the largest magnitude in the top binade of a half. A number x of a vector
///   whose largest magnitude is M comes back within max(2^-11·|x|, 2^-40·M); half-precision input comes back bit for bit, zeros with
///   their signs.
/// - `int8`: scale s = M/127 rounded up; error ≤ s·(1/2 + 2^-17), never clipped.
/// - `q4`, `q3`, `q2`, `q1`: nearest level of the Gaussian Lloyd-Max codebook after division by the root mean square; the scale is then the
///   least-squares optimum for those codes, as nearest bfloat16. Codes ascend with the value; a zero vector has
///   scale 0.
///
/// `values` is rowCount × length, row-major, all finite. Zero rows or length 0 give empty codes.
public func encodeVectors(_ values: Span<Float>, rowCount: Int, length: Int, encoding: Encoding) -> [UInt8] {
    encodeVectors(values, rowCount: rowCount, length: length, encoding: encoding, tier: .chosen)
}

package func encodeVectors(
    _ values: Span<Float>, rowCount: Int, length: Int, encoding: Encoding, tier: KernelTier
) -> [UInt8] {
    let byteCount = vectorPayloadByteCount(rowCount: rowCount, length: length, encoding: encoding)
    precondition(values.count == rowCount * length, "values do not match the shape")
    var payload = [UInt8](repeating: 0, count: byteCount)
    payload.withUnsafeMutableBufferPointer { payload in
        unsafe values.withUnsafeBufferPointer { values in
            guard let source = values.baseAddress, let target = payload.baseAddress else { return }
            unsafe lorif_encode(tier.table, Int32(encoding.rawValue), source, rowCount, length, target)
        }
    }
    return payload
}

/// Decodes a page's payload into rowCount × length numbers, row-major.
///
/// The byte count of `payload` must be exact and `values` must have rowCount · length elements.
public func decodeVectors(
    _ payload: RawSpan, rowCount: Int, length: Int, encoding: Encoding, into values: inout MutableSpan<Float>
) {
    decodeVectors(payload, rowCount: rowCount, length: length, encoding: encoding, into: &values, tier: .chosen)
}

package func decodeVectors(
    _ payload: RawSpan, rowCount: Int, length: Int, encoding: Encoding, into values: inout MutableSpan<Float>,
    tier: KernelTier
) {
    let byteCount = vectorPayloadByteCount(rowCount: rowCount, length: length, encoding: encoding)
    precondition(payload.byteCount == byteCount, "payload of \(payload.byteCount) bytes, expected \(byteCount)")
    precondition(values.count == rowCount * length, "values do not match the shape")
    unsafe payload.withUnsafeBytes { payload in
        unsafe values.withUnsafeMutableBufferPointer { values in
            guard let source = payload.baseAddress, let target = values.baseAddress else { return }
            unsafe lorif_decode(
                tier.table, Int32(encoding.rawValue), source.assumingMemoryBound(to: UInt8.self), rowCount, length,
                target)
        }
    }
}

/// Decodes one row of a page's payload; touches only that row's codes.
public func decodeVector(_ payload: RawSpan, row: Int, rowCount: Int, length: Int, encoding: Encoding) -> [Float] {
    let byteCount = vectorPayloadByteCount(rowCount: rowCount, length: length, encoding: encoding)
    precondition(payload.byteCount == byteCount, "payload of \(payload.byteCount) bytes, expected \(byteCount)")
    precondition((0..<rowCount).contains(row), "row out of range")
    return [Float](unsafeUninitializedCapacity: length) { values, count in
        count = length
        unsafe payload.withUnsafeBytes { payload in
            guard length > 0, let source = payload.baseAddress, let target = values.baseAddress else { return }
            unsafe lorif_decode_row(
                KernelTier.chosen.table, Int32(encoding.rawValue), source.assumingMemoryBound(to: UInt8.self), row,
                rowCount, length, target)
        }
    }
}

/// The levels of the Lloyd-Max quantiser of the standard normal density with 2^bits levels (bits 1 to 4), by code, ascending.
public func gaussianCodebook(bits: Int) -> [Float] {
    precondition((1...4).contains(bits), "no codebook of \(bits) bits")
    return (0..<(1 << bits)).map { unsafe lorif_codebook(Int32(bits))[$0] }
}
