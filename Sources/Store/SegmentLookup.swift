import Format

/// An id to look for, with its hash.
public struct IdentifierCandidate: Hashable, Sendable, Comparable {
    /// `IdentifierIndexEntry.hash(of: identifier)`.
    public let hash: UInt64
    /// The id.
    public let identifier: String

    /// A candidate with its hash computed.
    public init(_ identifier: String) {
        self.identifier = identifier
        hash = IdentifierIndexEntry.hash(of: identifier)
    }

    /// By hash, ties by UTF-8 bytes.
    public static func < (a: Self, b: Self) -> Bool {
        a.hash != b.hash
            ? a.hash < b.hash : a.identifier.utf8.lexicographicallyPrecedes(b.identifier.utf8)
    }
}

/// A candidate that a segment has.
public struct IdentifierMatch: Hashable, Sendable {
    /// The candidate's place in the array given.
    public let candidate: Int
    /// The row in the segment.
    public let row: Int

    /// A match of these parts.
    public init(candidate: Int, row: Int) {
        self.candidate = candidate
        self.row = row
    }
}

extension SegmentReader {
    /// The row of an id, nil if no row has it. Reads about one page of the index and, on a hit, one of ids.
    public func row(ofIdentifier identifier: String) throws(StoreError) -> Int? {
        let hash = IdentifierIndexEntry.hash(of: identifier)
        for row in try rows(ofHash: hash) where try self.identifier(ofRow: row).utf8.elementsEqual(identifier.utf8) {
            return row
        }
        return nil
    }

    /// The rows whose ids have this hash.
    ///
    /// Hashes are uniform: the page guessed from the hash's size is nearly always the right one or its neighbour.
    private func rows(ofHash hash: UInt64) throws(StoreError) -> [Int] {
        func search(_ block: Int) throws(StoreError) -> (rows: [Int], lastHash: UInt64) {
            let entryCount = rows(ofBlock: block).count
            let rowCount = rowCount
            return try read(column: footer.layout.identifierIndexColumn, block: block) { (bytes) throws(FormatError) in
                try IdentifierIndexPage.rows(of: hash, in: bytes, entryCount: entryCount, segmentRowCount: rowCount)
            }
        }
        // The first page whose last hash is not below the hash, from a guess, then on while the hash may go on in the next.
        var block = min(blockCount - 1, Int(hash.multipliedFullWidth(by: UInt64(rowCount)).high) / rowsPerBlock)
        var page = try search(block)
        while page.lastHash >= hash, block > 0 {
            let previous = try search(block - 1)
            guard previous.lastHash >= hash else { break }
            block -= 1
            page = previous
        }
        while page.lastHash < hash, block + 1 < blockCount {
            block += 1
            page = try search(block)
        }
        var found = page.rows
        while page.lastHash == hash, block + 1 < blockCount {
            block += 1
            page = try search(block)
            found += page.rows
        }
        return found
    }

    /// Which of the sorted candidates this segment has, in their order.
    ///
    /// Merges candidates and index: reads the index once, and the ids of blocks that hold a row of the same hash.
    public func findIdentifiers(_ candidates: [IdentifierCandidate]) throws(StoreError) -> [IdentifierMatch] {
        precondition(zip(candidates, candidates.dropFirst()).allSatisfy { $0.hash <= $1.hash }, "candidates are sorted")
        if candidates.count < blockCount {
            var matches: [IdentifierMatch] = []
            for (index, candidate) in candidates.enumerated() {
                guard let row = try row(ofIdentifier: candidate.identifier) else { continue }
                matches.append(IdentifierMatch(candidate: index, row: row))
            }
            return matches
        }
        var possible: [IdentifierMatch] = []
        var first = 0
        for block in 0..<blockCount {
            for entry in try readIndex(block: block) {
                while first < candidates.count, candidates[first].hash < entry.hash { first += 1 }
                var index = first
                while index < candidates.count, candidates[index].hash == entry.hash {
                    possible.append(IdentifierMatch(candidate: index, row: entry.row))
                    index += 1
                }
            }
            if first == candidates.count { break }
        }
        return try confirmed(possible, candidates)
    }

    /// Those matches whose ids are equal, not only their hashes.
    private func confirmed(
        _ possible: [IdentifierMatch], _ candidates: [IdentifierCandidate]
    ) throws(StoreError) -> [IdentifierMatch] {
        var matches: [IdentifierMatch] = []
        var loadedBlock = -1
        var identifiers: [String] = []
        for match in possible.sorted(by: { $0.row < $1.row }) {
            let block = block(ofRow: match.row)
            if block != loadedBlock {
                identifiers = try readIdentifiers(block: block)
                loadedBlock = block
            }
            let identifier = identifiers[match.row - rows(ofBlock: block).lowerBound]
            if identifier.utf8.elementsEqual(candidates[match.candidate].identifier.utf8) { matches.append(match) }
        }
        return matches.sorted { $0.candidate < $1.candidate }
    }

    /// The id of a row.
    public func identifier(ofRow row: Int) throws(StoreError) -> String {
        let block = block(ofRow: row)
        let rows = rows(ofBlock: block)
        return try read(column: footer.layout.identifierColumn, block: block) { (bytes) throws(FormatError) in
            try IdentifierPage.decode(bytes, row: row - rows.lowerBound, rowCount: rows.count)
        }
    }

    /// The run of the identifier index that block `block` holds.
    func readIndex(block: Int) throws(StoreError) -> [IdentifierIndexEntry] {
        let entryCount = rows(ofBlock: block).count
        let rowCount = rowCount
        return try read(column: footer.layout.identifierIndexColumn, block: block) { (bytes) throws(FormatError) in
            try IdentifierIndexPage.decode(bytes, entryCount: entryCount, segmentRowCount: rowCount)
        }
    }
}
