import CKernels

/// IEEE half precision (little-endian) to f32; exact. Infinities and NaNs stay what they are.
///
/// `bytes` holds two bytes per element of `values`.
public func widen(float16 bytes: RawSpan, into values: inout MutableSpan<Float>) {
    widen(float16: bytes, into: &values, tier: .chosen)
}

package func widen(float16 bytes: RawSpan, into values: inout MutableSpan<Float>, tier: KernelTier) {
    convert(bytes, into: &values) { unsafe tier.table.pointee.widen_f16($0, $1, $2) }
}

/// bfloat16 (little-endian) to f32; exact. Infinities and NaNs stay what they are.
///
/// `bytes` holds two bytes per element of `values`.
public func widen(bfloat16 bytes: RawSpan, into values: inout MutableSpan<Float>) {
    widen(bfloat16: bytes, into: &values, tier: .chosen)
}

package func widen(bfloat16 bytes: RawSpan, into values: inout MutableSpan<Float>, tier: KernelTier) {
    convert(bytes, into: &values) { unsafe tier.table.pointee.widen_bf16($0, $1, $2) }
}

/// f32 to IEEE half precision (little-endian), to nearest even; magnitudes from 65,520 become infinite.
public func narrowToFloat16(_ values: Span<Float>) -> [UInt8] {
    narrowToFloat16(values, tier: .chosen)
}

package func narrowToFloat16(_ values: Span<Float>, tier: KernelTier) -> [UInt8] {
    convert(values) { unsafe tier.table.pointee.narrow_f16($0, $1, $2) }
}

/// f32 to bfloat16 (little-endian), to nearest even; magnitudes past the middle of the largest bfloat16 and 2^128 become infinite.
public func narrowToBFloat16(_ values: Span<Float>) -> [UInt8] {
    narrowToBFloat16(values, tier: .chosen)
}

package func narrowToBFloat16(_ values: Span<Float>, tier: KernelTier) -> [UInt8] {
    convert(values) { unsafe tier.table.pointee.narrow_bf16($0, $1, $2) }
}

/// The smallest bfloat16 not below `value`, so that a stored bound stays a bound; infinity above the largest finite one.
///
/// `value` must be a number ≥ 0.
public func bfloat16RoundedUp(_ value: Double) -> UInt16 {
    precondition(value >= 0, "a bound is a number not below zero")
    return lorif_bf16_rounded_up(value)
}

/// The number that a bfloat16 stands for; exact.
public func float(bfloat16 bits: UInt16) -> Float {
    Float(bitPattern: UInt32(bits) << 16)
}

private func convert(
    _ bytes: RawSpan, into values: inout MutableSpan<Float>,
    by kernel: (UnsafePointer<UInt8>, Int, UnsafeMutablePointer<Float>) -> Void
) {
    precondition(bytes.byteCount == 2 * values.count, "two bytes per number")
    unsafe bytes.withUnsafeBytes { bytes in
        unsafe values.withUnsafeMutableBufferPointer { values in
            guard let source = bytes.baseAddress, let target = values.baseAddress else { return }
            unsafe kernel(source.assumingMemoryBound(to: UInt8.self), values.count, target)
        }
    }
}

private func convert(
    _ values: Span<Float>, by kernel: (UnsafePointer<Float>, Int, UnsafeMutablePointer<UInt8>) -> Void
) -> [UInt8] {
    [UInt8](unsafeUninitializedCapacity: 2 * values.count) { bytes, count in
        count = 2 * values.count
        unsafe values.withUnsafeBufferPointer { values in
            guard let source = values.baseAddress, let target = bytes.baseAddress else { return }
            unsafe kernel(source, values.count, target)
        }
    }
}
