import CKernels

/// Query vectors in whole numbers, for int8 codes (`lorif_words`).
struct WordVectors: Sendable {
    private let length: Int
    /// The alignment of a cache line keeps the loads of a loop from straddling two.
    private let halves: [SIMD32<Int16>]
    private let factors: [Float]

    /// Rounds count × length numbers. O(their number).
    init(_ values: Span<Float>, count: Int, length: Int) {
        precondition(values.count == count * length, "values do not match the shape")
        self.length = length
        let width = lorif_word_count(length)
        var halves = [SIMD32<Int16>](repeating: .zero, count: count * width / SIMD32<Int16>.scalarCount)
        var factors = [Float](repeating: 0, count: count)
        unsafe halves.withUnsafeMutableBytes { halves in
            unsafe factors.withUnsafeMutableBufferPointer { factors in
                unsafe values.withUnsafeBufferPointer { values in
                    guard let from = values.baseAddress, let factor = factors.baseAddress,
                        let to = halves.assumingMemoryBound(to: Int16.self).baseAddress
                    else { return }
                    for vector in 0..<count {
                        unsafe lorif_prepare_words(
                            from + vector * length, length, to + vector * width, factor + vector)
                    }
                }
            }
        }
        self.halves = halves
        self.factors = factors
    }

    /// The vectors as the C loops take them; valid inside `body`.
    func withWords(_ body: (UnsafePointer<lorif_words>) -> Void) {
        unsafe halves.withUnsafeBytes { halves in
            unsafe factors.withUnsafeBufferPointer { factors in
                var words = unsafe lorif_words(
                    length: length, halves: halves.assumingMemoryBound(to: Int16.self).baseAddress,
                    factors: factors.baseAddress)
                unsafe withUnsafePointer(to: &words) { unsafe body($0) }
            }
        }
    }
}
