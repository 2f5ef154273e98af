import Testing
import Zstd

/// A fixed pseudo-random sequence (splitmix64).
private func randomBytes(count: Int, seed: UInt64, mask: UInt8 = 0xFF) -> [UInt8] {
    var state = seed
    return (0..<count).map { _ in
        state &+= 0x9E37_79B9_7F4A_7C15
        var word = state
        word = (word ^ (word >> 30)) &* 0xBF58_476D_1CE4_E5B9
        word = (word ^ (word >> 27)) &* 0x94D0_49BB_1331_11EB
        return UInt8(truncatingIfNeeded: word ^ (word >> 31)) & mask
    }
}

@Test(arguments: [0, 1, 7, 4096, 300_000])
func whatIsCompressedComesBack(count: Int) throws {
    let bytes = randomBytes(count: count, seed: 1, mask: 0x0F)
    var compressor = try ZstdCompressor()
    var decompressor = try ZstdDecompressor()
    let frame = try compressor.compress(bytes.span.bytes)
    #expect(try decompressor.decompress(frame.span.bytes, expectedByteCount: count) == bytes)
}

@Test func compressionSavesAndDependsOnTheBytesAlone() throws {
    let bytes = randomBytes(count: 200_000, seed: 2, mask: 0x03)
    let other = randomBytes(count: 150_000, seed: 3, mask: 0x3F)
    var used = try ZstdCompressor()
    _ = try used.compress(other.span.bytes)
    var fresh = try ZstdCompressor()
    let frame = try used.compress(bytes.span.bytes)
    #expect(try fresh.compress(bytes.span.bytes) == frame)
    // Two random bits of eight: a quarter of the size plus a little.
    #expect(frame.count < 65_000)
}

@Test func aFrameAboveTheLimitIsNil() throws {
    let noise = randomBytes(count: 10_000, seed: 4)
    var compressor = try ZstdCompressor()
    #expect(try compressor.compress(noise.span.bytes, atMost: 9_000) == nil)
    #expect(try compressor.compress(noise.span.bytes, atMost: 20_000) != nil)
    #expect(try compressor.compress([UInt8](repeating: 7, count: 10_000).span.bytes, atMost: 100) != nil)
}

@Test func anotherSizeThanExpectedIsRefused() throws {
    let bytes = randomBytes(count: 1000, seed: 5, mask: 0x0F)
    var compressor = try ZstdCompressor()
    let frame = try compressor.compress(bytes.span.bytes)
    var decompressor = try ZstdDecompressor()
    #expect(throws: ZstdError.wrongSize(expected: 1001, found: 1000)) {
        try decompressor.decompress(frame.span.bytes, expectedByteCount: 1001)
    }
    #expect(throws: ZstdError.self) { try decompressor.decompress(frame.span.bytes, expectedByteCount: 999) }
    // The context is as good as new after an error.
    #expect(try decompressor.decompress(frame.span.bytes, expectedByteCount: 1000) == bytes)
}

@Test func nothingButOneWholeFrameIsAccepted() throws {
    let bytes = randomBytes(count: 500, seed: 6, mask: 0x07)
    var compressor = try ZstdCompressor()
    let frame = try compressor.compress(bytes.span.bytes)
    var decompressor = try ZstdDecompressor()
    for length in 0..<frame.count {
        #expect(throws: ZstdError.self) {
            try decompressor.decompress(Array(frame.prefix(length)).span.bytes, expectedByteCount: 500)
        }
    }
    let extended = frame + [0]
    #expect(throws: ZstdError.notAFrame(byteCount: extended.count)) {
        try decompressor.decompress(extended.span.bytes, expectedByteCount: 500)
    }
    let twice = frame + frame
    #expect(throws: ZstdError.notAFrame(byteCount: twice.count)) {
        try decompressor.decompress(twice.span.bytes, expectedByteCount: 1000)
    }
    let skippable: [UInt8] = [0x50, 0x2A, 0x4D, 0x18, 0, 0, 0, 0]
    #expect(throws: ZstdError.notAFrame(byteCount: 8)) {
        try decompressor.decompress(skippable.span.bytes, expectedByteCount: 0)
    }
}

@Test func hostileHeadersAreRefusedBeforeAnythingIsAllocated() throws {
    var decompressor = try ZstdDecompressor()
    // Window descriptor 0x78: exponent 15, so 2^25 bytes.
    let wide: [UInt8] = [0x28, 0xB5, 0x2F, 0xFD, 0x00, 0x78, 0x01, 0x00, 0x00]
    #expect(throws: ZstdError.windowTooLarge(found: 1 << 25, limit: 1 << 24)) {
        try decompressor.decompress(wide.span.bytes, expectedByteCount: 0)
    }
    // A single segment that declares 2^40 bytes.
    let huge: [UInt8] = [0x28, 0xB5, 0x2F, 0xFD, 0xE0, 0, 0, 0, 0, 0, 1, 0, 0, 0x01, 0x00, 0x00]
    #expect(throws: ZstdError.windowTooLarge(found: 1 << 40, limit: 1 << 24)) {
        try decompressor.decompress(huge.span.bytes, expectedByteCount: 16)
    }
    let dictionary: [UInt8] = [0x28, 0xB5, 0x2F, 0xFD, 0x01, 0x00, 0x07, 0x01, 0x00, 0x00]
    #expect(throws: ZstdError.needsDictionary) {
        try decompressor.decompress(dictionary.span.bytes, expectedByteCount: 0)
    }
}

@Test func aSmallFrameIsRefusedForALargeSizeBeforeAnythingIsAllocated() throws {
    let large = (64 << 20) + 72
    var compressor = try ZstdCompressor()
    var decompressor = try ZstdDecompressor()
    // Written by the library: declares its 72 bytes.
    let honest = try compressor.compress([UInt8](repeating: 7, count: 72).span.bytes)
    // One block of one repeated byte; its header declares nothing, and a history of 1 KiB.
    let silent: [UInt8] = [0x28, 0xB5, 0x2F, 0xFD, 0x00, 0x00, 0x43, 0x02, 0x00, 0x07]
    // The same with a header that declares 64 MiB + 72 in four bytes.
    let boastful: [UInt8] = [0x28, 0xB5, 0x2F, 0xFD, 0x80, 0x00, 0x48, 0, 0, 4, 0x43, 0x02, 0x00, 0x07]
    // The last is more than a process can have: to allocate it would end this one.
    for expected in [large, 1 << 46, .max] {
        #expect(throws: ZstdError.wrongSize(expected: expected, found: 72)) {
            try decompressor.decompress(honest.span.bytes, expectedByteCount: expected)
        }
    }
    #expect(throws: ZstdError.undeclaredSize) {
        try decompressor.decompress(silent.span.bytes, expectedByteCount: 72)
    }
    #expect(throws: ZstdError.impossibleSize(declared: large, frameByteCount: 14)) {
        try decompressor.decompress(boastful.span.bytes, expectedByteCount: large)
    }
    #expect(try decompressor.decompress(honest.span.bytes, expectedByteCount: 72).count == 72)
}

@Test func whatALargeRepetitionCompressesToComesBack() throws {
    // The densest that the library writes: a block of 128 KiB in a few bytes.
    let bytes = [UInt8](repeating: 0, count: 4 << 20)
    var compressor = try ZstdCompressor()
    var decompressor = try ZstdDecompressor()
    let frame = try compressor.compress(bytes.span.bytes)
    #expect(frame.count < 4096)
    #expect(try decompressor.decompress(frame.span.bytes, expectedByteCount: bytes.count) == bytes)
}

@Test func errorsSayWhatWasFound() {
    #expect(ZstdError.wrongSize(expected: 3, found: 2).description == "zstd: frame holds 2 bytes, expected 3")
}
