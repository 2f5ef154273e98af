import Schema
import Scoring
import Store
import Synchronization

/// Reads ids and metadata of single rows, keeping the blocks it has decoded.
///
/// Shared by workers: they compare ids only when scores tie exactly.
final class ExampleReader: Sendable {
    private let rows: LiveRows
    private let identifierBlocks = Mutex<[Int: [String]]>([:])
    private let metadataBlocks = Mutex<[Int: [MetadataRecord?]]>([:])

    init(_ rows: LiveRows) {
        self.rows = rows
    }

    /// The id of the row at an ordinal.
    func identifier(ordinal: Int) throws -> String {
        let index = rows.blockIndex(ofOrdinal: ordinal)
        let identifiers = try identifierBlocks.withLock { blocks in
            if let known = blocks[index] { return known }
            let read = try rows.readIdentifiers(block: index)
            blocks[index] = read
            return read
        }
        return identifiers[ordinal - rows.blocks[index].firstOrdinal]
    }

    /// The user metadata of the row at an ordinal.
    func metadata(ordinal: Int) throws -> MetadataRecord? {
        let index = rows.blockIndex(ofOrdinal: ordinal)
        let records = try metadataBlocks.withLock { blocks in
            if let known = blocks[index] { return known }
            let read = try rows.readMetadata(block: index)
            blocks[index] = read
            return read
        }
        return records[ordinal - rows.blocks[index].firstOrdinal]
    }

    /// A ranked list with ids and metadata.
    func resolve(_ entries: [TopK.Entry]) throws -> [RankedExample] {
        try entries.enumerated().map { position, entry in
            RankedExample(
                rank: position + 1, identifier: try identifier(ordinal: entry.ordinal), score: entry.score,
                metadata: try metadata(ordinal: entry.ordinal))
        }
    }
}
