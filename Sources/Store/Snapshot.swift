public import Checksum
import Files
public import Schema

/// A reader's fixed view of one generation of a store.
///
/// Takes no lock and keeps no transaction open: the catalog's records are copied, the segments are immutable files.
/// Safe to use from any number of threads.
public final class Snapshot: Sendable {
    /// The store's path.
    public let path: String
    /// Which store it is.
    public let identity: StoreIdentity
    let contents: CatalogContents
    let segmentSet: SegmentSet
    /// The name it was opened by; nil for the newest generation.
    public let name: String?

    init(
        directory: StoreDirectory, contents: CatalogContents, name: String? = nil,
        pinnedFiles: [UInt64: ReadableFile] = [:]
    ) {
        path = directory.path
        identity = contents.state.storeIdentity
        self.contents = contents
        self.name = name
        segmentSet = SegmentSet(
            directory: directory, schema: contents.schema, segments: contents.segments, pinnedFiles: pinnedFiles)
    }

    /// The newest generation of the store at `path`, or the generation that has been given `name`.
    ///
    /// Reads and checks the whole catalog and opens every segment file, O(segments); footers are read when they are used. The
    /// open files keep answering when a compaction removes their names. Throws `.storeMissing`, `.notADirectory`,
    /// `.notAStore`, `.storeVersion`, `.identityDamaged`, `.catalog`, `.catalogDamaged` or `.snapshotUnknown`.
    public static func open(at path: String, named name: String? = nil) throws(StoreError) -> Snapshot {
        raiseOpenFileLimit()
        let (directory, identity) = try StoreDirectory.open(path)
        let catalog = try Catalog.open(at: directory.catalogPath)
        var contents = try catalog.load(expecting: identity)
        while true {
            let view = try name.map { (name) throws(StoreError) in try contents.named(name) } ?? contents
            let pinned = SegmentSet.pin(view.segments, in: directory)
            if !pinned.isComplete {
                // Between the two steps a compaction may have replaced the files: then the catalog has moved on. Where it has
                // not, a file is lost or files are too many to be open, and reading it will say so.
                let newer = try catalog.load(expecting: identity)
                if newer.state.generation != contents.state.generation {
                    contents = newer
                    continue
                }
            }
            return Snapshot(directory: directory, contents: view, name: name, pinnedFiles: pinned.files)
        }
    }

    /// Counts commits; a later generation has a higher number.
    public var generation: UInt64 { contents.state.generation }
    /// The layers and the encoding of every row.
    public var schema: StoreSchema { contents.schema }
    /// In the order in which they were added.
    public var segments: [SegmentInfo] { contents.segments }
    /// Live rows.
    public var rowCount: Int { contents.rowCount - contents.deletedCount }
    /// Rows that are deleted but still in the files.
    public var deletedRowCount: Int { contents.deletedCount }
    /// The number that the next row without an id would get.
    public var nextRowNumber: UInt64 { contents.state.nextRowNumber }
    /// All fitted curvatures, in the order of their digests.
    public var curvatures: [CurvatureRecord] { contents.curvatures }
    /// The one that queries use unless told otherwise.
    public var activeCurvature: Digest? { contents.state.activeCurvature }
    /// The batch files taken in, oldest first.
    public var ingests: [IngestRecord] {
        contents.ingests.values.sorted {
            ($0.firstRowNumber, $0.fileDigest) < ($1.firstRowNumber, $1.fileDigest)
        }
    }

    /// Equal exactly if the same rows are live in the same order (up to collisions of a 128-bit hash).
    ///
    /// A compaction that changes no value keeps it.
    public var rowDigest: Digest { contents.rowDigest }

    /// The named snapshots of the store, by name.
    public var namedSnapshots: [SnapshotRecord] { contents.snapshots.values.sorted { $0.name < $1.name } }

    /// What the store remembers of a batch file, nil if it never took it in.
    public func ingestRecord(ofFile digest: Digest) -> IngestRecord? { contents.ingests[digest] }

    /// The reader of a segment by its position in `segments`; opened once and then kept.
    public func segmentReader(_ index: Int) throws(StoreError) -> SegmentReader { try segmentSet.reader(index) }

    // MARK: - Rows

    /// Whether a row is not deleted.
    public func isLive(segment index: Int, row: Int) -> Bool {
        contents.tombstones[segments[index].number]?.isDeleted(row) != true
    }

    /// Live rows of a segment.
    public func liveRowCount(segment index: Int) -> Int {
        segments[index].rowCount - (contents.tombstones[segments[index].number]?.deletedCount ?? 0)
    }

    /// One flag for each of the segment's rows in `rows`, nil when all of them are live.
    public func liveMask(segment index: Int, rows: Range<Int>) -> [Bool]? {
        guard let tombstones = contents.tombstones[segments[index].number] else { return nil }
        let mask = rows.map { !tombstones.isDeleted($0) }
        return mask.contains(false) ? mask : nil
    }

    /// Where the live row of an id is, nil if there is none. O(segments) look-ups.
    public func locate(identifier: String) throws(StoreError) -> RowLocation? {
        for (index, _) in segments.enumerated().reversed() {
            guard let row = try segmentReader(index).row(ofIdentifier: identifier) else { continue }
            if isLive(segment: index, row: row) { return RowLocation(segment: index, row: row) }
        }
        return nil
    }

    /// Where the live rows of many ids are, by their place in `identifiers`; ids that no live row has are left out.
    public func locate(identifiers: [String]) throws(StoreError) -> [Int: RowLocation] {
        try segmentSet.locate(identifiers, tombstones: contents.tombstones)
    }

    // MARK: - Curvature

    /// The record of a curvature; throws `.curvatureUnknown`.
    public func curvature(_ digest: Digest) throws(StoreError) -> CurvatureRecord {
        guard let record = curvatures.first(where: { $0.digest == digest }) else { throw .curvatureUnknown(digest) }
        return record
    }

    /// The eigenpairs of a curvature, every page verified. Memory: all of it.
    public func readCurvature(_ digest: Digest) throws(StoreError) -> [CurvatureGroupData] {
        try CurvatureFile(
            path: segmentSet.directory.curvaturePath(digest), record: try curvature(digest), schema: schema
        )
        .readGroups()
    }

    var directory: StoreDirectory { segmentSet.directory }
}
