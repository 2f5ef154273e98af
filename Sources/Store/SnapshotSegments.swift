import Files
import Format
import Schema
import Synchronization

/// Where a row is: the position of its segment in the snapshot's list, and the row in that segment.
public struct RowLocation: Hashable, Sendable {
    /// Index into `Snapshot.segments`.
    public let segment: Int
    /// 0 is the segment's first row.
    public let row: Int
}

/// The segments of one generation with their readers, opened when they are first needed and then kept.
final class SegmentSet: Sendable {
    let directory: StoreDirectory
    let schema: StoreSchema
    let segments: [SegmentInfo]
    /// Positions of segments by their number.
    let positions: [UInt64: Int]
    private let readers: Mutex<[UInt64: SegmentReader]>

    /// `readers` that are open already, by segment number, are taken over where they fit.
    init(
        directory: StoreDirectory, schema: StoreSchema, segments: [SegmentInfo], readers: [UInt64: SegmentReader] = [:]
    ) {
        self.directory = directory
        self.schema = schema
        self.segments = segments
        positions = Dictionary(uniqueKeysWithValues: segments.enumerated().map { ($1.number, $0) })
        self.readers = Mutex(readers)
    }

    /// The readers opened so far.
    var openReaders: [UInt64: SegmentReader] { readers.withLock { $0 } }

    func reader(_ position: Int) throws(StoreError) -> SegmentReader {
        let segment = segments[position]
        return try readers.withLock { (readers) throws(StoreError) -> SegmentReader in
            if let reader = readers[segment.number] { return reader }
            let reader = try SegmentSet.openReader(directory.segmentPath(segment.number), segment, schema: schema)
            readers[segment.number] = reader
            return reader
        }
    }

    static func openReader(
        _ path: String, _ segment: SegmentInfo, schema: StoreSchema
    ) throws(StoreError) -> SegmentReader {
        let reader: SegmentReader
        do {
            reader = try SegmentReader(path: path, expecting: segment.identity)
        } catch .file(.missing(_)) {
            throw .fileOfCatalogMissing(path: path)
        }
        guard reader.schema == schema else { throw .schemaDiffers(path: path) }
        return reader
    }

    /// Where each identifier is, by its place in `identifiers`; deleted rows do not count.
    func locate(
        _ identifiers: [String], tombstones: [UInt64: Tombstones]
    ) throws(StoreError) -> [Int: RowLocation] {
        guard !identifiers.isEmpty else { return [:] }
        let candidates = identifiers.map(IdentifierCandidate.init)
        let order = candidates.indices.sorted { candidates[$0] < candidates[$1] }
        let sorted = order.map { candidates[$0] }
        var locations: [Int: RowLocation] = [:]
        for (position, segment) in segments.enumerated() {
            for match in try reader(position).findIdentifiers(sorted) {
                if tombstones[segment.number]?.isDeleted(match.row) == true { continue }
                locations[order[match.candidate]] = RowLocation(segment: position, row: match.row)
            }
        }
        return locations
    }
}
