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
    /// Files held open from the start, by segment number: they can be read even after a compaction has removed their names.
    private let pinnedFiles: [UInt64: ReadableFile]

    /// `readers` that are open already, by segment number, are taken over where they fit.
    init(
        directory: StoreDirectory, schema: StoreSchema, segments: [SegmentInfo],
        readers: [UInt64: SegmentReader] = [:], pinnedFiles: [UInt64: ReadableFile] = [:]
    ) {
        self.pinnedFiles = pinnedFiles
        self.directory = directory
        self.schema = schema
        self.segments = segments
        positions = Dictionary(uniqueKeysWithValues: segments.enumerated().map { ($1.number, $0) })
        self.readers = Mutex(readers)
    }

    /// The readers opened so far.
    var openReaders: [UInt64: SegmentReader] { readers.withLock { $0 } }

    func reader(_ position: Int) throws(StoreError) -> SegmentReader {
        let number = segments[position].number
        if let reader = readers.withLock({ $0[number] }) { return reader }
        // Outside the lock, so that several are opened at once; who comes second takes the first one's.
        let new = try newReader(position)
        return readers.withLock { readers in
            if let reader = readers[number] { return reader }
            readers[number] = new
            return new
        }
    }

    /// A reader that nobody else has: it reads the footer anew.
    func newReader(_ position: Int) throws(StoreError) -> SegmentReader {
        let segment = segments[position]
        let path = directory.segmentPath(segment.number)
        let reader: SegmentReader
        if let file = pinnedFiles[segment.number] {
            reader = try SegmentReader(file: file, expecting: segment.identity)
        } else {
            do throws(StoreError) {
                reader = try SegmentReader(path: path, expecting: segment.identity)
            } catch .file(.missing(_)) {
                throw .fileOfCatalogMissing(path: path)
            }
        }
        guard reader.schema == schema else { throw .schemaDiffers(path: path) }
        return reader
    }

    /// The open file of a segment if it was pinned.
    func pinnedFile(_ position: Int) -> ReadableFile? { pinnedFiles[segments[position].number] }

    /// Opens every segment's file; those that are missing or cannot be opened are left out, and `isComplete` tells.
    static func pin(
        _ segments: [SegmentInfo], in directory: StoreDirectory
    ) -> (files: [UInt64: ReadableFile], isComplete: Bool) {
        var files: [UInt64: ReadableFile] = [:]
        for segment in segments {
            files[segment.number] = try? ReadableFile(path: directory.segmentPath(segment.number))
        }
        return (files, files.count == segments.count)
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
