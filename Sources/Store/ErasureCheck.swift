import Files
import Format
import Schema

/// Where an id that should be gone was found.
public struct ErasureFinding: Hashable, Sendable {
    /// The id.
    public let identifier: String
    /// The file.
    public let path: String
    /// The place in the file, in words.
    public let place: String
}

/// What a search for erased ids found.
public struct ErasureReport: Sendable {
    /// Each id and file once, files in the order of their names.
    public let findings: [ErasureFinding]
    /// Ids too short to be told from chance among arbitrary bytes: they were compared with every stored id only.
    public let shortIdentifierCount: Int
    /// Files searched.
    public let fileCount: Int
    /// Bytes searched.
    public let byteCount: Int

    /// Whether none of the ids occurs anywhere.
    public var isErased: Bool { findings.isEmpty }
}

/// A search for ids in every file under a store's directory, whether the catalog names it or not.
///
/// Segments: every id page, decoded, is compared id by id (deleted rows included), and metadata and provenance are searched after
/// decompression. All other bytes of all files, the catalog's free pages included, are searched as they are; there an
/// id counts when it is not part of a longer word. Memory: the ids, a page, and 8 MiB.
public struct ErasureCheck: Sendable {
    private let identifiers: [[UInt8]]
    private let byHash: [UInt64: [Int]]
    private let searcher: ByteSearcher

    /// Ids of fewer bytes are not looked for among arbitrary bytes.
    public static let searchedByteMinimum = ByteSearcher.prefixByteCount

    /// A search for these ids.
    public init(_ identifiers: [String]) {
        self.identifiers = identifiers.map { Array($0.utf8) }
        var byHash: [UInt64: [Int]] = [:]
        for (index, identifier) in identifiers.enumerated() {
            byHash[IdentifierIndexEntry.hash(of: identifier), default: []].append(index)
        }
        self.byHash = byHash
        searcher = ByteSearcher(self.identifiers)
    }

    /// Searches the files under `path`. `progress` gets the bytes done since the last call and may throw to stop.
    public func run(at path: String, progress: (Int) throws -> Void = { _ in }) throws -> ErasureReport {
        var findings: [ErasureFinding] = []
        var byteCount = 0
        let files = try Self.files(under: StoreDirectory.trimmed(path))
        for file in files {
            var found: [Int: String] = [:]
            byteCount += try search(file, found: &found, progress: progress)
            findings += found.sorted { $0.key < $1.key }.map {
                ErasureFinding(
                    identifier: String(decoding: identifiers[$0.key], as: UTF8.self), path: file, place: $0.value)
            }
        }
        return ErasureReport(
            findings: findings, shortIdentifierCount: identifiers.count { $0.count < Self.searchedByteMinimum },
            fileCount: files.count, byteCount: byteCount)
    }

    private static func files(under path: String) throws(StoreError) -> [String] {
        var files: [String] = []
        for name in try wrapping({ () throws(FileError) in try fileNames(inDirectory: path) }) {
            let child = path + "/" + name
            let status = try wrapping { () throws(FileError) in try fileStatus(child) }
            switch status?.kind {
            case .directory: files += try Self.files(under: child)
            case .regular: files.append(child)
            default: break
            }
        }
        return files
    }

    private func search(_ path: String, found: inout [Int: String], progress: (Int) throws -> Void) throws -> Int {
        let file = try wrapping { () throws(FileError) in try ReadableFile(path: path) }
        // Ranges of the file whose contents have been compared exactly.
        var known: [Range<Int>] = []
        if path.hasSuffix(".segment"), let reader = try? SegmentReader(file: file, expecting: nil) {
            known = searchPages(reader, found: &found)
        }
        known.append(file.byteCount..<file.byteCount)
        var start = 0
        for range in known.sorted(by: { $0.lowerBound < $1.lowerBound }) {
            while start < range.lowerBound {
                let end = min(range.lowerBound, start + (8 << 20))
                // Some bytes of both neighbours: an id may straddle the cut, and its surroundings matter.
                let from = max(0, start - 1)
                let to = min(range.lowerBound, end + searcher.longestByteCount + 1)
                let bytes = try wrapping { () throws(FileError) in try file.read(at: from, count: to - from) }
                searcher.search(bytes) { index, offset in
                    if found[index] == nil { found[index] = "byte \(from + offset)" }
                }
                try progress(end - start)
                start = end
            }
            try progress(range.count)
            start = max(start, range.upperBound)
        }
        return file.byteCount
    }

    /// Compares every id and searches every text of a segment; gives the ranges of the id pages that are whole.
    private func searchPages(_ reader: SegmentReader, found: inout [Int: String]) -> [Range<Int>] {
        var ranges: [Range<Int>] = []
        let file = reader.file
        for (number, entry) in file.footer.pages.enumerated() {
            let column = file.footer.columns[Int(entry.column)]
            let kind = SegmentColumnKind(rawValue: column.kind)
            guard kind == .identifiers || kind == .field, let payload = try? file.readPage(number) else { continue }
            let place = "\(file.location(of: number))"
            if kind == .field {
                searcher.search(payload) { index, _ in if found[index] == nil { found[index] = place } }
                continue
            }
            guard let names = try? IdentifierPage.decode(payload, rowCount: Int(entry.rowCount)) else { continue }
            for name in names {
                for index in byHash[IdentifierIndexEntry.hash(of: name)] ?? []
                where name.utf8.elementsEqual(identifiers[index]) {
                    found[index] = place
                }
            }
            ranges.append(Int(entry.offset)..<Int(entry.end))
        }
        return ranges
    }
}

/// Finds many byte strings at once.
struct ByteSearcher: Sendable {
    /// Strings that are shorter are not looked for: chance would find them.
    static let prefixByteCount = 6
    private let strings: [[UInt8]]
    private let byPrefix: [UInt64: [Int]]
    /// Which pairs of bytes a string begins with.
    private let firstPairs: [Bool]
    let longestByteCount: Int

    init(_ strings: [[UInt8]]) {
        self.strings = strings
        var byPrefix: [UInt64: [Int]] = [:]
        var firstPairs = [Bool](repeating: false, count: 1 << 16)
        for (index, string) in strings.enumerated() where string.count >= Self.prefixByteCount {
            byPrefix[Self.prefix(string, 0), default: []].append(index)
            firstPairs[Int(string[0]) | Int(string[1]) << 8] = true
        }
        self.byPrefix = byPrefix
        self.firstPairs = firstPairs
        longestByteCount = strings.map(\.count).max() ?? 0
    }

    private static func prefix(_ bytes: [UInt8], _ offset: Int) -> UInt64 {
        (0..<prefixByteCount).reduce(0) { $0 << 8 | UInt64(bytes[offset + $1]) }
    }

    /// Tells of every string in `bytes` that is no part of a longer word of ASCII letters and digits.
    func search(_ bytes: [UInt8], _ found: (_ index: Int, _ offset: Int) -> Void) {
        guard !byPrefix.isEmpty, bytes.count >= Self.prefixByteCount else { return }
        let last = bytes.count - Self.prefixByteCount
        var candidates: [Int] = []
        bytes.withUnsafeBufferPointer { buffer in
            firstPairs.withUnsafeBufferPointer { pairs in
                for offset in 0...last where unsafe pairs[Int(buffer[offset]) | Int(buffer[offset + 1]) << 8] {
                    candidates.append(offset)
                }
            }
        }
        for offset in candidates {
            for index in byPrefix[Self.prefix(bytes, offset)] ?? [] {
                let end = offset + strings[index].count
                guard end <= bytes.count, bytes[offset..<end].elementsEqual(strings[index]) else { continue }
                let isBounded =
                    (offset == 0 || !Self.isWordByte(bytes[offset - 1]))
                    && (end == bytes.count || !Self.isWordByte(bytes[end]))
                if isBounded { found(index, offset) }
            }
        }
    }

    private static func isWordByte(_ byte: UInt8) -> Bool {
        (0x30...0x39).contains(byte) || (0x41...0x5A).contains(byte) || (0x61...0x7A).contains(byte)
    }
}
