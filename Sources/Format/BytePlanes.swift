/// Splits numbers of 2 or 4 bytes into planes: all first bytes, then all second bytes, …
///
/// The exponents of floating-point numbers then lie side by side, which is all that compression can gain from them.
public enum BytePlanes {
    /// The planes of `bytes`, whose count must be a multiple of `stride` (1, 2 or 4).
    public static func split(_ bytes: RawSpan, stride: Int) -> [UInt8] {
        precondition([1, 2, 4].contains(stride) && bytes.byteCount % stride == 0)
        let count = bytes.byteCount / stride
        return unsafe [UInt8](unsafeUninitializedCapacity: bytes.byteCount) { planes, initialized in
            unsafe bytes.withUnsafeBytes { source in
                if stride == 2 {
                    // Both planes in one pass: a loop that the compiler turns into vector instructions.
                    for index in 0..<count {
                        unsafe planes[index] = unsafe source[2 * index]
                        unsafe planes[count + index] = unsafe source[2 * index + 1]
                    }
                    return
                }
                for plane in 0..<stride {
                    for index in 0..<count {
                        unsafe planes[plane * count + index] = unsafe source[index * stride + plane]
                    }
                }
            }
            initialized = bytes.byteCount
        }
    }

    /// The numbers whose planes are `planes`: the inverse of `split`.
    public static func join(_ planes: RawSpan, stride: Int) -> [UInt8] {
        precondition([1, 2, 4].contains(stride) && planes.byteCount % stride == 0)
        let count = planes.byteCount / stride
        return unsafe [UInt8](unsafeUninitializedCapacity: planes.byteCount) { bytes, initialized in
            unsafe planes.withUnsafeBytes { source in
                if stride == 2 {
                    // Both planes in one pass: a loop that the compiler turns into vector instructions.
                    for index in 0..<count {
                        unsafe bytes[2 * index] = unsafe source[index]
                        unsafe bytes[2 * index + 1] = unsafe source[count + index]
                    }
                    return
                }
                for plane in 0..<stride {
                    for index in 0..<count {
                        unsafe bytes[index * stride + plane] = unsafe source[plane * count + index]
                    }
                }
            }
            initialized = planes.byteCount
        }
    }
}
