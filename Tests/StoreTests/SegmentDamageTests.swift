import Checksum
import Files
import Format
import Foundation
import Schema
import Store
import Testing

/// Everything that can be read from a segment, to compare what damage does to answers.
private struct Answers: Equatable {
    var numbers: [[Float]] = []
    var identifiers: [String] = []
    var metadata: [MetadataRecord?] = []
    var norms: [[Float]] = []
    var rows: [Int?] = []

    init(_ reader: SegmentReader) throws(StoreError) {
        for layer in reader.schema.layers.indices {
            let tile = try reader.readTile(block: 0, layer: layer)
            numbers += [tile.left, tile.right, tile.dense]
        }
        identifiers = try reader.readIdentifiers(block: 0)
        metadata = try reader.readMetadata(block: 0)
        norms = try reader.readNorms(block: 0) + reader.readResidualNorms(block: 0)
        for identifier in ["example-0", "example-2", "nobody"] {
            rows.append(try reader.row(ofIdentifier: identifier))
        }
    }
}

/// A file that is overwritten in place, byte by byte.
private struct Scratch {
    let handle: FileHandle

    init(_ path: String) throws {
        handle = try #require(FileHandle(forUpdatingAtPath: path))
    }

    func write(_ byte: UInt8, at offset: Int) throws {
        try handle.seek(toOffset: UInt64(offset))
        try handle.write(contentsOf: Data([byte]))
    }
}

struct SegmentDamageTests {
    let directory: ScratchDirectory
    let path: String
    let identity: SegmentIdentity
    let original: [UInt8]

    init() throws {
        directory = try ScratchDirectory()
        let schema = StoreSchema(
            layers: [
                LayerSchema(name: "a", inputDimension: 3, outputDimension: 2, form: .factors(rank: 1)),
                LayerSchema(name: "b", inputDimension: 2, outputDimension: 2, form: .dense),
            ], encoding: .f16)
        let metadata = (0..<33).map { MetadataRecord(fields: [("t", .string("the same text \($0 % 3)"))]) }
        let block = randomBlock(schema, rows: 0..<33, seed: 4, metadata: metadata)
        (path, identity) = try writeSegment(schema, [block], in: directory)
        original = try bytes(at: path)
    }

    @Test func everyFlippedByteIsFoundByVerifying() throws {
        let scratch = try Scratch(path)
        #expect(SegmentReader.damages(path: path, expecting: identity) == [])
        var undetected: [Int] = []
        for offset in original.indices {
            // One bit, in turn each of the eight, and the whole byte.
            for (mask, known) in [(1 << UInt8(offset % 8), identity), (0xFF, nil)] as [(UInt8, SegmentIdentity?)] {
                try scratch.write(original[offset] ^ mask, at: offset)
                if SegmentReader.damages(path: path, expecting: known).isEmpty { undetected.append(offset) }
            }
            try scratch.write(original[offset], at: offset)
        }
        #expect(undetected == [])
        #expect(SegmentReader.damages(path: path, expecting: identity) == [])
    }

    @Test func answersUnderDamageAreRightOrErrors() throws {
        let scratch = try Scratch(path)
        let truth = try Answers(try SegmentReader(path: path, expecting: identity))
        var errorCount = 0
        for offset in original.indices {
            try scratch.write(original[offset] ^ 1 << UInt8((offset + 3) % 8), at: offset)
            do throws(StoreError) {
                let answers = try Answers(try SegmentReader(path: path, expecting: identity))
                if answers != truth { Issue.record("byte \(offset) gives wrong answers") }
            } catch {
                errorCount += 1
                if !error.description.hasPrefix(path) { Issue.record("error without a path: \(error)") }
            }
            try scratch.write(original[offset], at: offset)
        }
        // Only flips of the header and of padding can go unnoticed by a reader that knows the identity.
        #expect(errorCount > original.count - 4096 - 64 * 12)
    }

    @Test func everyTruncationIsFound() throws {
        for count in original.indices {
            let cut = try directory.write(Array(original[..<count]))
            #expect(throws: StoreError.self) { try SegmentReader(path: cut) }
            #expect(throws: StoreError.self) { try SegmentReader(path: cut, expecting: identity) }
            try removeFile(cut)
        }
    }

    @Test func whateverIsAppendedIsFound() throws {
        let ends: [[UInt8]] = [
            [0], [UInt8](repeating: 0, count: 64), [UInt8](repeating: 0, count: 4096), Array(original.suffix(64)),
            original,
        ]
        for end in ends {
            let longer = try directory.write(original + end)
            #expect(throws: StoreError.self) { try SegmentReader(path: longer, expecting: identity) }
            #expect(throws: StoreError.self) { try SegmentReader(path: longer) }
        }
    }

    @Test func swappedPagesAreFound() throws {
        let reader = try PagedFileReader(path: path, magic: .segment)
        // Norms and residual norms have the same length.
        let pages = reader.footer.pages
        let norms = try #require(pages.firstIndex { reader.footer.columns[Int($0.column)].kind == 4 })
        let (a, b) = (pages[norms], pages[norms + 1])
        var swapped = original
        let length = Int(min(a.storedLength, b.storedLength))
        for index in 0..<length { swapped.swapAt(Int(a.offset) + index, Int(b.offset) + index) }
        #expect(swapped != original)
        let damages = SegmentReader.damages(path: try directory.write(swapped), expecting: identity)
        #expect(damages.count == 2)
        for damage in damages {
            guard case .pageChecksum = damage else {
                Issue.record("not a checksum: \(damage)")
                continue
            }
        }
        // Equal bytes in another page's place are damage too: the checksum knows its column and block.
        #expect(
            xxh3([1, 2, 3], seed: PageEntry.seed(column: 4, block: 0))
                != xxh3([1, 2, 3], seed: PageEntry.seed(column: 5, block: 0)))
    }

    @Test func anotherSegmentInItsPlaceIsFound() throws {
        let schema = mixedSchema(.f16)
        let (other, _) = try writeSegment(schema, [randomBlock(schema, rows: 0..<33, seed: 5)], in: directory)
        #expect(throws: StoreError.self) { try SegmentReader(path: other, expecting: identity) }
        #expect(throws: StoreError.file(.missing(path: "/nowhere/x"))) { try SegmentReader(path: "/nowhere/x") }
        #expect(throws: StoreError.file(.notRegularFile(path: directory.path))) {
            try SegmentReader(path: directory.path)
        }
        let text = try directory.write(Array("just text".utf8))
        #expect(
            throws: StoreError.format(
                path: text, .wrongMagic(part: .header, expected: "LORIFSEG", found: Array("just tex".utf8)))
        ) { try SegmentReader(path: text) }
    }

    @Test func damagesAreAllNamed() throws {
        var broken = original
        broken[100] ^= 1
        let reader = try PagedFileReader(path: path, magic: .segment)
        let pages = reader.footer.pages
        broken[Int(pages[0].offset)] ^= 1
        broken[Int(pages[2].offset)] ^= 1
        let damages = SegmentReader.damages(path: try directory.write(broken), expecting: identity)
        #expect(damages.count == 3)
        #expect(damages[1].description.contains("left factors of layer 0, component 0"))
        var byteCount = 0
        let whole = try SegmentReader(path: path)
        let none = whole.damages {
            byteCount += $0
            return true
        }
        #expect(none == [] && byteCount == original.count)
        // Stopped at once, nothing is said of what was not read.
        let unread = try SegmentReader(path: directory.write(broken), expecting: identity).damages { _ in false }
        #expect(unread.count <= 1)
    }
}
