import Kernels
import Testing

/// The value of a half, computed from its fields in Double.
private func halfValue(_ bits: UInt16) -> Double {
    let sign: Double = bits & 0x8000 != 0 ? -1 : 1
    let exponent = Int(bits >> 10 & 31)
    let mantissa = Double(bits & 0x3FF)
    if exponent == 31 { return mantissa == 0 ? sign * .infinity : .nan }
    func power(_ exponent: Int) -> Double { Double(sign: .plus, exponent: exponent, significand: 1) }
    return exponent == 0 ? sign * mantissa * power(-24) : sign * (1024 + mantissa) * power(exponent - 25)
}

private func bytes(_ words: [UInt16]) -> [UInt8] {
    words.flatMap { [UInt8(truncatingIfNeeded: $0), UInt8(truncatingIfNeeded: $0 >> 8)] }
}

private func words(_ bytes: [UInt8]) -> [UInt16] {
    stride(from: 0, to: bytes.count, by: 2).map { UInt16(bytes[$0]) | UInt16(bytes[$0 + 1]) << 8 }
}

private let allWords = (0...UInt16.max).map { $0 }

@Suite struct NumberFormatTests {
    @Test(arguments: KernelTier.available.indices)
    func everyHalfWidensToItsValueAndNarrowsBack(tierIndex: Int) {
        let tier = KernelTier.available[tierIndex]
        var values = [Float](repeating: 1, count: allWords.count)
        var span = values.mutableSpan
        widen(float16: bytes(allWords).span.bytes, into: &span, tier: tier)
        for (word, value) in zip(allWords, values) {
            let expected = halfValue(word)
            #expect(
                expected.isNaN ? value.isNaN : Double(value) == expected && (value.sign == .minus) == (word >> 15 == 1))
        }
        let narrowed = words(narrowToFloat16(values.span, tier: tier))
        let changed = zip(allWords, narrowed).filter { $0 != $1 && !halfValue($0).isNaN }
        #expect(changed.isEmpty)
    }

    @Test(arguments: KernelTier.available.indices)
    func everyBFloat16WidensToItsBitsAndNarrowsBack(tierIndex: Int) {
        let tier = KernelTier.available[tierIndex]
        var values = [Float](repeating: 1, count: allWords.count)
        var span = values.mutableSpan
        widen(bfloat16: bytes(allWords).span.bytes, into: &span, tier: tier)
        for (word, value) in zip(allWords, values) where !value.isNaN {
            #expect(value.bitPattern == UInt32(word) << 16)
        }
        #expect(values.filter { $0.isNaN }.count == 2 * 127)
        let narrowed = words(narrowToBFloat16(values.span, tier: tier))
        #expect(zip(allWords, narrowed).allSatisfy { $0 == $1 || float(bfloat16: $0).isNaN })
    }

    /// Around every boundary between neighbouring halves, the nearer one wins and a tie goes to the even one.
    @Test(arguments: KernelTier.available.indices)
    func narrowingToHalfRoundsToNearestEven(tierIndex: Int) {
        let tier = KernelTier.available[tierIndex]
        var inputs: [Float] = []
        var expected: [UInt16] = []
        for low in UInt16(0)..<0x7BFF {
            let middle = Float((halfValue(low) + halfValue(low + 1)) / 2)
            inputs += [middle.nextDown, middle, middle.nextUp, -middle]
            let even = low % 2 == 0 ? low : low + 1
            expected += [low, even, low + 1, even | 0x8000]
        }
        inputs += [Float(65520).nextDown, 65520, .greatestFiniteMagnitude, -65520, .leastNonzeroMagnitude]
        expected += [0x7BFF, 0x7C00, 0x7C00, 0xFC00, 0]
        #expect(words(narrowToFloat16(inputs.span, tier: tier)) == expected)
    }

    @Test(arguments: KernelTier.available.indices)
    func narrowingToBFloat16RoundsToNearestEven(tierIndex: Int) {
        let tier = KernelTier.available[tierIndex]
        var inputs: [Float] = []
        var expected: [UInt16] = []
        for low in UInt16(0)..<0x7F7F {
            let middle = Float(bitPattern: UInt32(low) << 16 | 0x8000)
            inputs += [middle.nextDown, middle, middle.nextUp, -middle]
            let even = low % 2 == 0 ? low : low + 1
            expected += [low, even, low + 1, even | 0x8000]
        }
        inputs += [.greatestFiniteMagnitude, -.greatestFiniteMagnitude]
        expected += [0x7F80, 0xFF80]
        #expect(words(narrowToBFloat16(inputs.span, tier: tier)) == expected)
    }

    @Test func boundsRoundUpToTheSmallestBFloat16NotBelow() {
        var generator = SplitMix(seed: 7)
        var inputs: [Double] = [
            0, 1, 1e-30, 1e30, 1e-45, .leastNonzeroMagnitude, 1e-60, 3.4e38, 3.39e38, 1 + 1e-12, 1 - 1e-12,
        ]
        for word in UInt16(0)..<0x7F80 where word % 37 == 0 {
            let value = Double(float(bfloat16: word))
            inputs += [value, value.nextUp, max(0, value.nextDown)]
        }
        for _ in 0..<1000 { inputs.append(Double.random(in: 0...1, using: &generator) * 1e-3) }
        for value in inputs {
            let bits = bfloat16RoundedUp(value)
            #expect(Double(float(bfloat16: bits)) >= value)
            #expect(bits == 0 || Double(float(bfloat16: bits - 1)) < value)
        }
        #expect(bfloat16RoundedUp(1e39) == 0x7F80)
    }
}
