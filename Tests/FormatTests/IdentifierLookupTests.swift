import Checksum
import Format
import Testing

/// Looking up one id or hash in a page gives what decoding the whole page gives.
struct IdentifierLookupTests {
    private let identifiers = ["a", "", "ü-длинный", String(repeating: "x", count: 300), "a b"]

    @Test func oneIdentifierOfAPage() throws {
        let page = IdentifierPage.encode(identifiers)
        for (row, identifier) in identifiers.enumerated() {
            #expect(try IdentifierPage.decode(page, row: row, rowCount: 5) == identifier)
        }
        #expect(try IdentifierPage.hashes(page, rowCount: 5) == identifiers.map { xxh3(Array($0.utf8)) })
    }

    @Test func rowsOfSeveralPagesGathered() throws {
        let page = IdentifierPage.encode(identifiers)
        let other = IdentifierPage.encode(["é", "b"])
        var gatherer = IdentifierGatherer()
        try gatherer.append(page, rowCount: 5, rows: [1, 2, 4])
        try gatherer.append(other, rowCount: 2, rows: [0])
        gatherer.append("z")
        let expected = ["", "ü-длинный", "a b", "é", "z"]
        #expect(gatherer.page == IdentifierPage.encode(expected))
        #expect(gatherer.hashes == expected.map { IdentifierIndexEntry.hash(of: $0) })
    }

    /// The text as a whole is UTF-8, but an id begins within a character.
    @Test func aCharacterCutByTwoIdentifiers() throws {
        var page = IdentifierPage.encode(["é", "b"])
        page[4] = 1
        #expect(throws: FormatError.notUTF8(part: .identifierPage, offset: 13)) {
            try IdentifierPage.hashes(page, rowCount: 2)
        }
        #expect(throws: FormatError.self) { try IdentifierPage.decode(page, rowCount: 2) }
        var gatherer = IdentifierGatherer()
        #expect(throws: FormatError.self) { try gatherer.append(page, rowCount: 2, rows: [1]) }
    }

    @Test func damagedPagesOfIdentifiers() throws {
        let page = IdentifierPage.encode(identifiers)
        var descending = page
        descending[8] = 200
        #expect(throws: FormatError.offsetsNotAscending(part: .identifierPage, row: 3)) {
            try IdentifierPage.decode(descending, row: 2, rowCount: 5)
        }
        #expect(throws: FormatError.self) { try IdentifierPage.hashes(descending, rowCount: 5) }
        var broken = page
        broken[26] = 0xFF
        #expect(throws: FormatError.self) { try IdentifierPage.decode(broken, row: 2, rowCount: 5) }
        #expect(throws: FormatError.self) { try IdentifierPage.hashes(broken, rowCount: 5) }
        for count in 0..<page.count {
            #expect(throws: FormatError.self) { try IdentifierPage.decode(Array(page[..<count]), row: 4, rowCount: 5) }
            #expect(throws: FormatError.self) { try IdentifierPage.hashes(Array(page[..<count]), rowCount: 5) }
        }
        #expect(throws: FormatError.self) {
            try IdentifierPage.hashes(IdentifierPage.encode([String(repeating: "y", count: 4097)]), rowCount: 1)
        }
    }

    @Test func hashesOfAnIndexPage() throws {
        var entries: [IdentifierIndexEntry] = []
        for place in 0..<200 {
            entries.append(IdentifierIndexEntry(hash: UInt64(place / 3 * 7), row: (place * 71) % 200))
        }
        entries.sort()
        let page = IdentifierIndexPage.encode(entries[...])
        for hash in UInt64(0)...480 {
            let found = try IdentifierIndexPage.rows(of: hash, in: page, entryCount: 200, segmentRowCount: 200)
            #expect(found.rows == entries.filter { $0.hash == hash }.map(\.row))
            #expect(found.lastHash == 462)
        }
        #expect(throws: FormatError.self) {
            try IdentifierIndexPage.rows(of: 0, in: page, entryCount: 199, segmentRowCount: 200)
        }
        #expect(throws: FormatError.self) {
            try IdentifierIndexPage.rows(of: 0, in: page, entryCount: 200, segmentRowCount: 60)
        }
    }
}
