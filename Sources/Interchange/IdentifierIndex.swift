import Checksum

/// Finds the row of an id. Ids are compared by their UTF-8 bytes: "é" composed and decomposed are two ids.
///
/// Open addressing over XXH3-64, seeded per process so that no file can be made to collide; 16 to 32 bytes per id. Building is
/// linear and finding constant, in expectation.
struct IdentifierIndex {
    private let identifiers: [String]
    /// Upper half: the hash's upper half, lower half: row + 1; 0 is free. A header of 10^8 bytes holds fewer than 2^32 ids.
    private var slots: [UInt64]

    /// Two rows with the same id.
    struct Duplicate: Error {
        let firstRow: Int
        let secondRow: Int
    }

    init(_ identifiers: [String]) throws(Duplicate) {
        precondition(identifiers.count < 1 << 31)
        var capacity = 16
        while capacity < 2 * identifiers.count { capacity *= 2 }
        self.identifiers = identifiers
        self.slots = [UInt64](repeating: 0, count: capacity)
        for row in identifiers.indices {
            let hash = Self.hash(identifiers[row])
            let (slot, found) = find(identifiers[row], hash: hash)
            if let found { throw Duplicate(firstRow: found, secondRow: row) }
            slots[slot] = (hash & 0xFFFF_FFFF_0000_0000) | UInt64(row + 1)
        }
    }

    /// The row of that id.
    func row(of identifier: String) -> Int? {
        find(identifier, hash: Self.hash(identifier)).row
    }

    private static let seed = UInt64.random(in: .min ... .max)

    private static func hash(_ identifier: String) -> UInt64 {
        xxh3(identifier.utf8Span.span.bytes, seed: seed)
    }

    /// The slot that holds the id, or the free one where it belongs.
    private func find(_ identifier: String, hash: UInt64) -> (slot: Int, row: Int?) {
        let mask = slots.count - 1
        var slot = Int(truncatingIfNeeded: hash) & mask
        while slots[slot] != 0 {
            if slots[slot] >> 32 == hash >> 32 {
                let row = Int(slots[slot] & 0xFFFF_FFFF) - 1
                if identifiers[row].utf8.elementsEqual(identifier.utf8) { return (slot, row) }
            }
            slot = (slot + 1) & mask
        }
        return (slot, nil)
    }
}
