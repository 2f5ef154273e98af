import Checksum
import Format
import Testing

/// A header's bytes with some replaced and the checksum made to fit.
private func header(_ changes: [Int: UInt8], resealed: Bool = true) -> [UInt8] {
    var bytes = FileHeader(magic: .segment, schemaDigest: Digest(high: 1, low: 2)).encoded()
    for (offset, byte) in changes { bytes[offset] = byte }
    if resealed { bytes.replaceSubrange(4088..., with: littleEndian(xxh3(Array(bytes[..<4088])))) }
    return bytes
}

private func tail(_ changes: [Int: UInt8], resealed: Bool = true) -> [UInt8] {
    var bytes = FileTail(
        footerOffset: 4096, footerLength: 100, fileLength: 4096 + 128 + 64, footerDigest: Digest(high: 1, low: 2)
    ).encoded()
    for (offset, byte) in changes { bytes[offset] = byte }
    if resealed { bytes.replaceSubrange(56..., with: littleEndian(xxh3(Array(bytes[..<56])))) }
    return bytes
}

@Test func headersComeBack() throws {
    let header = FileHeader(
        magic: .curvature, schemaDigest: Digest(high: 5, low: 6), minor: 3, readOnlyCompatibleFlags: 9,
        compatibleFlags: 1 << 63)
    #expect(try FileHeader(decoding: header.encoded(), magic: .curvature) == header)
}

@Test(arguments: [
    ([0: 0x6C], FormatError.wrongMagic(part: .header, expected: "LORIFSEG", found: Array("lORIFSEG".utf8))),
    ([8: 2], .unsupportedVersion(major: 2, minor: 0)),
    ([8: 0], .unsupportedVersion(major: 0, minor: 0)),
    ([12: 1], .headerLength(expected: 4096, found: 4097)),
    ([16: 4], .unknownIncompatibleFlags(4)),
    ([23: 0x80], .unknownIncompatibleFlags(1 << 63)),
    ([56: 1], .reservedNotZero(part: .header, offset: 56, found: 1)),
    ([4087: 9], .reservedNotZero(part: .header, offset: 4087, found: 9)),
])
func headerRules(changes: [Int: UInt8], error: FormatError) {
    #expect(throws: error) { try FileHeader(decoding: header(changes), magic: .segment) }
    #expect(!error.description.isEmpty && !error.description.contains("\n"))
}

@Test func headerSizeAndKind() {
    #expect(throws: FormatError.partSize(part: .header, expected: 4096, found: 4095)) {
        try FileHeader(decoding: Array(header([:]).dropLast()), magic: .segment)
    }
    #expect(throws: FormatError.wrongMagic(part: .header, expected: "LORIFCRV", found: Array("LORIFSEG".utf8))) {
        try FileHeader(decoding: header([:]), magic: .curvature)
    }
}

@Test func everyFlippedBitOfAHeaderIsDetected() {
    for offset in 0..<4096 {
        let bytes = header([:])
        #expect(throws: FormatError.self, "byte \(offset)") {
            try FileHeader(
                decoding: header([offset: bytes[offset] ^ 1 << UInt8(offset % 8)], resealed: false), magic: .segment)
        }
    }
}

@Test(arguments: [
    ([0: 0], FormatError.wrongMagic(part: .tail, expected: "LORIFEND", found: [0] + Array("ORIFEND".utf8))),
    ([8: 1], .footerPosition(offset: 4097, length: 100, fileLength: 4288)),
    ([9: 0], .footerPosition(offset: 0, length: 100, fileLength: 4288)),
    ([15: 0xFF], .footerPosition(offset: Int.max, length: 100, fileLength: 4288)),
    ([16: 0], .footerPosition(offset: 4096, length: 0, fileLength: 4288)),
    ([16: 200], .footerPosition(offset: 4096, length: 200, fileLength: 4288)),
    ([23: 0x7F], .footerPosition(offset: 4096, length: 0x7F00_0000_0000_0064, fileLength: 4288)),
    ([24: 1], .fileLength(expected: 4289, found: 4288)),
    ([31: 0xFF], .fileLength(expected: Int.max, found: 4288)),
    ([50: 3], .reservedNotZero(part: .tail, offset: 50, found: 3)),
])
func tailRules(changes: [Int: UInt8], error: FormatError) {
    #expect(throws: error) {
        var bytes = tail(changes)
        // A tail that says 4289 where 4288 is true: the low byte was 0xC0.
        if changes[24] == 1 { bytes = tail([24: 0xC1]) }
        return try FileTail(decoding: bytes, fileLength: 4288)
    }
}

@Test func everyFlippedBitOfATailIsDetected() throws {
    #expect(try FileTail(decoding: tail([:]), fileLength: 4288).footerDigest == Digest(high: 1, low: 2))
    for bit in 0..<512 {
        let bytes = tail([:])
        #expect(throws: FormatError.self) {
            try FileTail(
                decoding: tail([bit / 8: bytes[bit / 8] ^ 1 << UInt8(bit % 8)], resealed: false), fileLength: 4288)
        }
    }
    #expect(throws: FormatError.partSize(part: .tail, expected: 64, found: 63)) {
        try FileTail(decoding: Array(tail([:]).dropLast()), fileLength: 4288)
    }
}
