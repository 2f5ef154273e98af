import Checksum
import Format
import Schema
import Testing

/// A valid container footer of two columns and three pages, to be broken in one place.
private func makeFooter(_ change: (inout FileFooter) -> Void = { _ in }) -> FileFooter {
    func page(_ column: UInt32, _ block: UInt32, at offset: UInt64, stored: UInt32, raw: UInt32) -> PageEntry {
        PageEntry(
            column: column, block: block, offset: offset, storedLength: stored, rawLength: raw,
            codec: stored == raw ? .raw : .zstd, byteSplitStride: stored == raw ? 1 : 2, rowCount: 1, checksum: 7)
    }
    var footer = FileFooter(
        header: FileHeader(magic: .curvature, schemaDigest: Digest(high: 0, low: 0)), schema: [9], rowCount: 3,
        rowsPerBlock: 2, blockCount: 2, statistics: [],
        columns: [ColumnDescriptor(kind: 32), ColumnDescriptor(kind: 33, name: "x")],
        pages: [
            page(0, 0, at: 4096, stored: 100, raw: 100), page(1, 0, at: 8192, stored: 1_070_000, raw: 1_080_000),
            page(0, 1, at: 1_078_208, stored: 10, raw: 10),
        ], provenance: "{}")
    change(&footer)
    return footer
}

private func decode(_ footer: FileFooter, footerOffset: Int = 1_078_272) throws(FormatError) -> FileFooter {
    try FileFooter(decoding: footer.encoded(), footerOffset: footerOffset, magic: .curvature)
}

@Test func footersComeBack() throws {
    let footer = makeFooter()
    #expect(try decode(footer) == footer)
    let empty = makeFooter { footer in
        footer.pages = []
        footer.blockCount = 0
    }
    #expect(try decode(empty, footerOffset: 4096) == empty)
}

/// A change of the valid footer and the error that it must give.
struct BrokenRule: Sendable {
    let change: @Sendable (inout FileFooter) -> Void
    let error: FormatError

    init(_ change: @escaping @Sendable (inout FileFooter) -> Void, _ error: FormatError) {
        self.change = change
        self.error = error
    }
}

private let brokenRules: [BrokenRule] = [
    BrokenRule({ $0.pages[1].column = 2 }, FormatError.pageColumn(page: 1, found: 2, columnCount: 2)),
    BrokenRule({ $0.pages[1].block = 2 }, .pageBlock(page: 1, found: 2, blockCount: 2)),
    BrokenRule({ $0.pages[2].block = 0 }, .duplicatePage(page: 2, column: 0, block: 0)),
    BrokenRule({ $0.pages[0].byteSplitStride = 2 }, .byteSplitStride(page: 0, found: 2, rawLength: 100)),
    BrokenRule({ $0.pages[1].byteSplitStride = 3 }, .byteSplitStride(page: 1, found: 3, rawLength: 1_080_000)),
    BrokenRule({ $0.pages[1].byteSplitStride = 0 }, .byteSplitStride(page: 1, found: 0, rawLength: 1_080_000)),
    BrokenRule({ $0.pages[1].rawLength = 1_080_001 }, .byteSplitStride(page: 1, found: 2, rawLength: 1_080_001)),
    BrokenRule(
        { $0.pages[1].rawLength = 1_070_000 }, .pageLength(page: 1, storedLength: 1_070_000, rawLength: 1_070_000)),
    BrokenRule(
        { $0.pages[1].rawLength = 1 << 28 + 2 }, .pageLength(page: 1, storedLength: 1_070_000, rawLength: 1 << 28 + 2)),
    BrokenRule({ $0.pages[0].rawLength = 101 }, .pageLength(page: 0, storedLength: 100, rawLength: 101)),
    BrokenRule(
        {
            $0.pages[0].rawLength = 0
            $0.pages[0].storedLength = 0
        }, .pageLength(page: 0, storedLength: 0, rawLength: 0)
    ),
    BrokenRule({ $0.pages[0].offset = 4100 }, .pageMisaligned(page: 0, offset: 4100, alignment: 64)),
    BrokenRule({ $0.pages[1].offset = 4224 }, .pageMisaligned(page: 1, offset: 4224, alignment: 4096)),
    BrokenRule({ $0.pages[0].offset = 0 }, .pageOverlaps(page: 0, offset: 0, previousEnd: 4096)),
    BrokenRule({ $0.pages[2].offset = 1_077_824 }, .pageOverlaps(page: 2, offset: 1_077_824, previousEnd: 1_078_192)),
    BrokenRule({ $0.pages[0].offset = 4160 }, .pageGap(page: 0, expectedOffset: 4096, found: 4160)),
    BrokenRule(
        { $0.pages[2].offset = 1_078_272 }, .pageOutOfRange(page: 2, offset: 1_078_272, length: 10, limit: 1_078_272)),
    BrokenRule({ $0.pages[2].offset = .max }, .pageOutOfRange(page: 2, offset: .max, length: 10, limit: 1_078_272)),
    BrokenRule(
        { $0.pages[2].offset = UInt64(Int.max) },
        .pageOutOfRange(page: 2, offset: .max, length: 10, limit: 1_078_272)
    ),
    BrokenRule({ $0.pages.removeLast() }, .pageGap(page: 2, expectedOffset: 1_078_208, found: 1_078_272)),
    BrokenRule({ $0.pages.swapAt(0, 2) }, .pageGap(page: 0, expectedOffset: 4096, found: 1_078_208)),
    BrokenRule({ $0.header.incompatibleFlags = 1 }, .unknownIncompatibleFlags(1)),
    BrokenRule(
        { $0.header.magic = .segment },
        .wrongMagic(part: .footer, expected: "LORIFCRV", found: Array("LORIFSEG".utf8))
    ),
]

@Test(arguments: brokenRules)
func containerRules(rule: BrokenRule) {
    #expect(throws: rule.error) { try decode(makeFooter(rule.change)) }
    #expect(!rule.error.description.isEmpty && !rule.error.description.contains("\n"))
}

/// Bytes of the valid footer with some replaced. 40 header copy, 5 schema, 16 counts, 4 statistics, 4 column count: columns at 69.
@Test(
    arguments: [
        (72, [1], FormatError.reservedNotZero(part: .footer, offset: 72, found: 1)),
        (40, [0xFF, 0xFF, 0xFF, 0xFF], .truncated(part: .footer, offset: 44, needed: 0xFFFF_FFFF, available: 192)),
        (
            65, [0xFF, 0xFF, 0xFF, 0xFF],
            .truncated(part: .footer, offset: 69, needed: 16 * 0xFFFF_FFFF, available: 167)
        ),
        (102, [4], .truncated(part: .footer, offset: 110, needed: 160, available: 126)),
        (109, [0x80], .numberTooLarge(part: .footer, offset: 102, found: 1 << 63 + 3)),
        (109, [0x7F], .truncated(part: .footer, offset: 110, needed: .max, available: 126)),
        (134, [2], .unknownCodec(page: 0, found: 2)),
        (136, [1], .reservedNotZero(part: .footer, offset: 136, found: 1)),
        (234, [0xFF], .notUTF8(part: .footer, offset: 230)),
        (230, [3], .truncated(part: .footer, offset: 234, needed: 3, available: 2)),
        (230, [1], .trailingBytes(part: .footer, count: 1)),
    ] as [(Int, [UInt8], FormatError)])
func footerBytes(offset: Int, replacement: [UInt8], error: FormatError) {
    var bytes = makeFooter().encoded()
    #expect(bytes.count == 236)
    bytes.replaceSubrange(offset..<offset + replacement.count, with: replacement)
    #expect(throws: error) { try FileFooter(decoding: bytes, footerOffset: 1_078_272, magic: .curvature) }
}

@Test func everyTruncationOfAFooterIsAnError() {
    let bytes = makeFooter().encoded()
    for count in 0..<bytes.count {
        #expect(throws: FormatError.self) {
            try FileFooter(decoding: Array(bytes[..<count]), footerOffset: 1_078_272, magic: .curvature)
        }
    }
}
